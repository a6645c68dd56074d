"""The sequences that ``semkey eval slam`` runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semkey.datasets import FrameSequence, Sensor, open_sequence, parse_camera
from semkey.errors import ConfigError

# The folder of one of KITTI's sequences is a number.
_NUMBERED_FORMATS = ("kitti",)


@dataclass(frozen=True, kw_only=True, eq=False)
class SlamSet:
    """A sequence to run on.

    Attributes:
        name: unique among the sets.
        path: what :func:`semkey.datasets.open_sequence` opens.
        format: as there.
        camera: ``fx,fy,cx,cy`` in pixels, None for the data set's own.
        every: use every n-th frame.
        sequence: what was opened there.
    """

    name: str
    path: Path
    sequence: FrameSequence
    format: str = "auto"
    camera: str | None = None
    every: int = 1

    def frames(self, max_frames: int | None = None) -> int:
        """How many frames a run uses."""
        return len(range(0, len(self.sequence), self.every)[:max_frames])

    def has_depth(self, sensor: Sensor | None = None) -> bool:
        """Whether a run with this sensor, None for the best there is, uses depth images."""
        return (sensor or self.sequence.sensor) == "rgbd" and self.sequence.sensor == "rgbd"

    @property
    def path_length(self) -> float:
        """Length of the true path in metres; 0 where it is not known."""
        positions = [pose[:3, 3] for pose in self.sequence.ground_truth if pose is not None]
        return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()) if len(positions) > 1 else 0.0

    def describe(self, *, max_frames: int | None = None, sensor: Sensor | None = None) -> str:
        """Format, sensor, number and size of the frames, and length of the path, in words."""
        sequence, camera = self.sequence, self.sequence.camera
        size = "" if camera is None else f" of {camera.width}x{camera.height}"
        truth = f", path of {self.path_length:.1f} m" if sequence.has_ground_truth else ", no ground truth"
        return f"{sequence.format}, {sensor or sequence.sensor}, {self.frames(max_frames)} frames{size}{truth}"


def slam_sets(
    paths: Sequence[Path | str],
    *,
    every: int = 1,
    format: str = "auto",
    camera: str | None = None,
    names: Sequence[str] | None = None,
) -> list[SlamSet]:
    """Sequences by path; ``PATH@N`` uses every N-th frame of that one.

    Args:
        paths: what :func:`semkey.datasets.open_sequence` opens.
        every: use every n-th frame of those without ``@N``.
        format: of all of them.
        camera: of all of them, ``fx,fy,cx,cy`` in pixels; None for the data sets' own.
        names: what they are called; None for the names of the sequences.

    Raises:
        ConfigError: ``every`` is not positive, or a sequence has no camera.
        DatasetError: one cannot be opened.
    """
    sets: list[SlamSet] = []
    for number, given in enumerate(paths):
        path, step = _split_step(str(given), every)
        if step < 1:
            raise ConfigError(f"{given}: every must be positive, got {step}")
        sequence = open_sequence(path, format=format, camera=None if camera is None else parse_camera(camera))
        if sequence.camera is None:
            raise ConfigError(f"{path}: the camera is not known; pass --camera fx,fy,cx,cy")
        name = _name(sequence) if names is None else names[number]
        name = name if step == 1 else f"{name}, every {step}"
        sets.append(SlamSet(name=name, path=path, sequence=sequence, format=format, camera=camera, every=step))
    return sets


def _name(sequence: FrameSequence) -> str:
    return f"{sequence.format}/{sequence.name}" if sequence.format in _NUMBERED_FORMATS else sequence.name


def _split_step(given: str, every: int) -> tuple[Path, int]:
    head, at, step = given.rpartition("@")
    if at and step.isdecimal() and not Path(given).exists():
        return Path(head), int(step)
    return Path(given), every
