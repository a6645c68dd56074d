"""Saving a map with the run that made it, loading it, and saving it again and again while a run lasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semkey import __version__
from semkey.datasets import FrameSequence, Sensor
from semkey.errors import ConfigError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.schema import check_type
from semkey.slam.config import SlamConfig
from semkey.slam.events import FrameEvent, SlamListener
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.output.colors import LandmarkColors
from semkey.slam.output.line_arrays import LINE_SPECS, line_arrays, restore_lines
from semkey.slam.output.map_arrays import SPECS, frame_arrays, map_arrays, restore_frames, restore_map
from semkey.slam.output.map_file import MapFile, encode_map_file, read_map_file, write_encoded, write_map_file
from semkey.slam.records import LoopRecord
from semkey.slam.result import SlamResult
from semkey.untrusted import one_line

logger = logging.getLogger(__name__)

_RUN: Mapping[str, Any] = {
    "sequence": str,
    "format": str,
    "every": int,
    "methods": Sequence[str],
    "sensor": Literal["rgbd", "stereo", "mono"],
    "dropped": int,
    "problems": Sequence[str],
    "seconds": float,
    "stage_seconds": Mapping[str, float],
    "stage_samples": Mapping[str, Sequence[float]],
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """A map and the run that made it.

    Attributes:
        result: the run; its ``slam_map`` is the map.
        feature_settings: everything that the descriptors depend on, as the extractor states it; JSON types.
        every: the run used every n-th frame.
        colors: (L, 3) uint8 RGB of the landmark rows, for pictures; None where no image was looked at.
    """

    result: SlamResult
    feature_settings: Mapping[str, Any] = field(default_factory=dict)
    every: int = 1
    colors: NDArray[np.uint8] | None = None

    @property
    def slam_map(self) -> SlamMap:
        """The map.

        Raises:
            InputError: there is none, since no frame of the run was tracked.
        """
        slam_map = self.result.slam_map
        if slam_map is None or not slam_map.keyframes:
            raise InputError(f"{self.result.sequence_name}: no frame was tracked, so there is no map")
        return slam_map


def session_content(session: Session) -> MapFile:
    """What goes into the file, as copies: the map may go on changing.

    Raises:
        InputError: there is no map.
    """
    result, slam_map = session.result, session.slam_map
    methods = sorted({record.method for record in result.frames})
    arrays = map_arrays(slam_map) | frame_arrays(result.frames, result.ground_truth, methods)
    if session.colors is not None:
        arrays["landmarks/color"] = session.colors[: len(slam_map.landmarks)].copy()
    lines = line_arrays(slam_map)
    counters = slam_map.counters
    if slam_map.lines is not None:
        counters["lines_made"] = slam_map.lines.made
    header = {
        "created_by": f"semkey {__version__}",
        "camera": asdict(result.camera),
        "config": result.config.to_mapping(),
        "pixel_sigma": slam_map.pixel_sigma,
        "features": {"name": result.features, "settings": dict(session.feature_settings)},
        "counters": counters,
        "run": {
            "sequence": result.sequence_name,
            "format": result.sequence_format,
            "every": session.every,
            "methods": methods,
            "sensor": result.sensor,
            "dropped": result.dropped,
            "problems": list(result.problems),
            "seconds": result.seconds,
            "stage_seconds": dict(result.stage_seconds),
            "stage_samples": {name: list(samples) for name, samples in result.stage_samples.items()},
            "loops": [asdict(loop) for loop in result.loops],
        },
    }
    return MapFile(header=header, arrays=arrays | lines, version=2 if lines else 1)


def save_session(path: str | Path, session: Session) -> None:
    """Write a map file, atomically.

    Raises:
        InputError: there is no map, or the file cannot be written; one that was there stays as it was.
    """
    write_map_file(path, session_content(session))


def load_session(path: str | Path) -> Session:
    """Read a map file.

    Raises:
        InputError: missing, no map, of a newer version, damaged, or contradicting itself.
    """
    path = Path(path)
    content = read_map_file(path, {**SPECS, **LINE_SPECS})
    header = content.header
    try:
        camera = PinholeCamera(**header["camera"])
        config = SlamConfig.from_mapping(header["config"])
        run, features = header["run"], header["features"]
        _check_header(run, features, header["counters"])
        counters, pixel_sigma = header["counters"], float(header["pixel_sigma"])
        slam_map = restore_map(path, content.arrays, counters, camera, config.map, pixel_sigma)
        restore_lines(path, content.arrays, slam_map, config.lines, made=int(counters.get("lines_made", 0)))
        frames, ground_truth = restore_frames(content.arrays, run["methods"])
        result = SlamResult(
            sequence_name=run["sequence"],
            sequence_format=run["format"],
            features=features["name"],
            camera=camera,
            config=config,
            sensor=run["sensor"],
            dropped=int(run["dropped"]),
            problems=list(run["problems"]),
            frames=frames,
            ground_truth=ground_truth,
            stage_seconds=dict(run["stage_seconds"]),
            stage_samples={name: list(samples) for name, samples in run["stage_samples"].items()},
            seconds=float(run["seconds"]),
            slam_map=slam_map,
            loops=[LoopRecord(**loop) for loop in run["loops"]],
        )
        return Session(
            result=result,
            feature_settings=features["settings"],
            every=int(run["every"]),
            colors=content.arrays.get("landmarks/color"),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, ConfigError) as error:
        raise InputError(f"{path}: the map's header cannot be used ({one_line(str(error))})") from None


def _check_header(run: Any, features: Any, counters: Any) -> None:
    """Refuse values of other types than :func:`session_content` writes; TypeError, as what they would lead to."""
    try:
        for name, kind in _RUN.items():
            check_type(run[name], kind, f"run.{name}")
        check_type(features["name"], str, "features.name")
        check_type(features["settings"], Mapping[str, Any], "features.settings")
        check_type(counters, Mapping[str, int], "counters")
    except InputError as error:
        raise TypeError(str(error)) from None


def check_features(session: Session, path: str | Path, name: str, settings: Mapping[str, Any]) -> None:
    """Refuse features whose descriptors cannot be compared with those of a map.

    Raises:
        ConfigError: another method, weights with other descriptors, or other global descriptors.
    """
    from semkey.model.presets import have_same_descriptors

    stored = session.result.features
    for key, usual in (("places", None), ("place", "trained")):
        if session.feature_settings.get(key, usual) != settings.get(key, usual):
            raise ConfigError(f"{path}: the map was made with other global descriptors: give --features {stored}")
    old, new = session.feature_settings.get("weights_sha256"), settings.get("weights_sha256")
    if old is not None and old == new:
        # The same file may be called by another name.
        return
    if stored != name:
        raise ConfigError(f"{path}: the map was made with --features {stored}, not {name}")
    if not have_same_descriptors(old, new):
        raise ConfigError(f"{path}: the map was made with other weights of {name}, with SHA-256 {old}, not {new}")


def check_resumable(
    session: Session,
    path: str | Path,
    sequence: FrameSequence,
    config: SlamConfig,
    *,
    every: int,
    sensor: Sensor | None = None,
) -> None:
    """Refuse to resume a run with another input or other settings than it was started with.

    Args:
        session: from the automatic save.
        path: of its file, for messages.
        sequence: the present input.
        config: the present settings.
        every: the present use of every n-th frame.
        sensor: what is tracked with at present; None for the best that the input has.

    Raises:
        ConfigError: something differs; the message says what.
    """
    old = session.result
    pairs = {
        "input": (old.sequence_name, sequence.name),
        "format": (old.sequence_format, sequence.format),
        "--every": (session.every, every),
        "sensor": (old.sensor, sensor or sequence.sensor),
        "camera": (old.camera, sequence.camera),
    }
    for what, (before, now) in pairs.items():
        if before != now:
            raise ConfigError(f"{path}: the run to resume had {what} {before}, not {now}; call it as before")
    stored, present = old.config.to_mapping(), config.to_mapping()
    changed = sorted(key for key in present if stored.get(key) != present[key])
    if changed:
        raise ConfigError(f"{path}: the run to resume had other settings ({', '.join(changed)}); call it as before")


def check_continuable(
    session: Session, path: str | Path, sequence: FrameSequence, *, sensor: Sensor | None = None
) -> None:
    """Refuse to continue a map with images of another camera, or a map of unknown scale with depth in metres.

    Args:
        session: with the map.
        path: of its file, for messages.
        sequence: the present input.
        sensor: what it is tracked with; None for the best that it has.

    Raises:
        ConfigError: the cameras differ, or the map was made without depth and the input is used with depth.
    """
    chosen = sensor or sequence.sensor
    if session.result.sensor == "mono" and chosen != "mono":
        raise ConfigError(
            f"{path}: the map was made by a single camera and is not in metres: continue it with --sensor mono, "
            f"not {chosen}"
        )
    if session.result.camera != sequence.camera:
        raise ConfigError(
            f"{path}: the map was made with {session.result.camera}, the input has {sequence.camera}; a map is "
            "continued with the camera that it was made with"
        )


class Autosave(SlamListener):
    """Saves the map and the frames so far into one file, again and again, so that a crash costs little.

    The arrays are copied in the thread of the run and written in another. A save that fails (a full disk) is logged,
    the file of the save before stays, and the run goes on.

    Args:
        path: the file; the last save of a run is made when it is interrupted or fails.
        seconds: wall time between saves.
        keyframes: save after so many new keyframes as well; None to go by time alone.
        feature_settings: see :class:`Session`.
        every: see :class:`Session`.
        colors: where the colours of landmarks are collected; None saves none.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        seconds: float = 30.0,
        keyframes: int | None = None,
        feature_settings: Mapping[str, Any] | None = None,
        every: int = 1,
        colors: LandmarkColors | None = None,
    ) -> None:
        if not seconds > 0 or (keyframes is not None and keyframes < 1):
            raise ConfigError(f"an automatic save needs a positive interval, got {seconds} s and {keyframes} keyframes")
        self.path: Path = Path(path)
        self._seconds, self._keyframes = seconds, keyframes
        self._feature_settings = dict(feature_settings or {})
        self._every = every
        self._colors = colors
        self._result: SlamResult | None = None
        self._started = self._saved = time.monotonic()
        self._seconds_before = 0.0
        self._new_keyframes = 0
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="semkey-autosave")
        self._pending: Future[None] | None = None

    def on_start(self, result: SlamResult, slam_map: SlamMap) -> None:
        """See :class:`SlamListener`."""
        self._result = result
        self._seconds_before = result.seconds
        self._started = self._saved = time.monotonic()

    def on_frame(self, event: FrameEvent) -> None:
        """See :class:`SlamListener`."""
        self._new_keyframes += event.record.is_keyframe
        due = time.monotonic() - self._saved >= self._seconds
        due |= self._keyframes is not None and self._new_keyframes >= self._keyframes
        # A disk that is slower than the interval must not pile up copies of the map.
        if due and (self._pending is None or self._pending.done()):
            self._save()

    def on_end(self, result: SlamResult, slam_map: SlamMap) -> None:
        """See :class:`SlamListener`."""
        if self._pending is not None:
            self._pending.result()
        self._save()
        self._writer.shutdown(wait=True)

    def _save(self) -> None:
        result = self._result
        self._saved = time.monotonic()
        self._new_keyframes = 0
        if result is None or result.slam_map is None or not result.slam_map.keyframes:
            return
        colors = None if self._colors is None else self._colors.colors(len(result.slam_map.landmarks))
        session = Session(result=result, feature_settings=self._feature_settings, every=self._every, colors=colors)
        content = session_content(session)
        run = dict(content.header["run"]) | {"seconds": self._seconds_before + time.monotonic() - self._started}
        content = replace(content, header=dict(content.header) | {"run": run})
        self._pending = self._writer.submit(self._write, content)

    def _write(self, content: MapFile) -> None:
        try:
            write_encoded(self.path, encode_map_file(content))
        except InputError as error:
            logger.warning("automatic save failed, the run goes on: %s", error)
