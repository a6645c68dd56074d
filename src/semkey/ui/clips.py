"""What the page shows of a clip: the way of the camera, and the points that it saw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semkey.datasets import FrameSequence, open_sequence, parse_camera
from semkey.errors import ConfigError, InputError, SemkeyError
from semkey.extractors import Detector
from semkey.slam import FrameRecord, SlamInterrupted, SlamResult, run_slam
from semkey.slam.output.colors import LandmarkColors
from semkey.slam.output.report import trajectory_picture
from semkey.slam.output.report_html import map_view
from semkey.ui.config import PageConfig
from semkey.ui.uploads import check_pixels, said_of


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipView:
    """What is shown.

    Attributes:
        html: landmarks and the way of the camera, to be turned with the mouse; empty where there is no map.
        picture: PNG of the trajectory.
        text: the numbers, a line each.
    """

    html: str
    picture: bytes
    text: str


def track_clip(
    path: Path,
    detector: Detector,
    config: PageConfig,
    *,
    camera: str,
    view_degrees: float,
    progress: Callable[[int, int], None],
) -> ClipView:
    """Track a single camera through a clip.

    Args:
        path: a video.
        detector: features of each frame.
        config: limits.
        camera: ``fx,fy,cx,cy`` in pixels; empty guesses from ``view_degrees``.
        view_degrees: how much of the width the camera sees, where it is not known.
        progress: called with frames done and all; a KeyboardInterrupt from it ends the run with what there is.

    Raises:
        InputError: no video, or longer or larger than the page takes.
        ConfigError: ``camera`` is none.
    """
    try:
        sequence, note = _open(path, config, camera.strip(), view_degrees)
        every = max(1, math.ceil(len(sequence) / config.max_frames))
        used = len(range(0, len(sequence), every))
        colors, done = LandmarkColors(), [0]

        def advance(_: FrameRecord) -> None:
            done[0] += 1
            progress(done[0], used)

        try:
            result = run_slam(sequence, detector, every=every, listeners=[colors], progress=advance)
        except SlamInterrupted as interruption:
            result = interruption.result
    except SemkeyError as error:
        raise InputError(said_of(error, path)) from None
    return _view(result, colors, [*note, *([f"every {every}. frame is tracked"] if every > 1 else [])])


def _open(path: Path, config: PageConfig, camera: str, view_degrees: float) -> tuple[FrameSequence, list[str]]:
    """The clip with its camera, and what was taken for granted."""
    plain = open_sequence(path, format="video")
    seconds = float(plain.timestamps[-1] - plain.timestamps[0])
    if seconds > config.max_seconds:
        raise InputError(
            f"{path.name} is {seconds:.0f} s long, more than the {config.max_seconds:g} s that this page takes "
            "(--max-seconds; semkey slam takes any length)"
        )
    height, width = plain[0].image.shape[:2]
    check_pixels(path.name, (width, height), config)
    if camera:
        # Numbers only: a name would have a file of this machine read.
        if camera.count(",") != 3:
            raise ConfigError(f"camera '{camera}': expected fx,fy,cx,cy in pixels, such as 525,525,319.5,239.5")
        return open_sequence(path, format="video", camera=parse_camera(camera)), []
    if not 10 <= view_degrees <= 150:
        raise InputError(f"a camera sees 10 to 150 degrees, got {view_degrees:g}")
    focal = width / 2 / math.tan(math.radians(view_degrees) / 2)
    guessed = (focal, focal, (width - 1) / 2, (height - 1) / 2)
    note = (
        f"camera not given: focal length {focal:.0f} px taken for {view_degrees:g} degrees of view; shapes may be bent"
    )
    return open_sequence(path, format="video", camera=guessed), [note]


def _view(result: SlamResult, colors: LandmarkColors, notes: list[str]) -> ClipView:
    slam_map = result.slam_map
    has_map = slam_map is not None and bool(slam_map.keyframes)
    lines = [f"{result.tracked} of {len(result.frames)} frames tracked{', stopped' if result.interrupted else ''}"]
    if slam_map is not None and has_map:
        lines.append(f"{len(slam_map.keyframes)} keyframes, {len(slam_map.landmarks.ids)} landmarks")
        lines.append("lengths are in units of the map: one camera alone has no metres")
    if result.shortfall is not None:
        lines.append(result.shortfall)
    shades = colors.colors(len(slam_map.landmarks)) if slam_map is not None and has_map else None
    return ClipView(html=map_view(result, shades), picture=trajectory_picture(result), text="\n".join([*lines, *notes]))
