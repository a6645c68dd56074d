"""What ``semkey slam`` does besides tracking: maps loaded and saved, runs resumed, viewers and recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semkey.cli.inputs import SensorChoice
from semkey.cli.options import option
from semkey.settings import Settings, require_within

if TYPE_CHECKING:
    from semkey.datasets import FrameSequence, Sensor
    from semkey.extractors import Extractor
    from semkey.slam import SlamConfig, SlamListener, SlamMap, SlamResult
    from semkey.slam.output.colors import LandmarkColors
    from semkey.slam.output.lost_pictures import LostFramePictures

AUTOSAVE_FILE = "autosave.semkey"


@dataclass(frozen=True, kw_only=True)
class RunOptions(Settings):
    """Which frames of the input are tracked, and with what.

    Attributes:
        every: use every n-th frame.
        max_frames: stop after so many used frames.
        sensor: what to track with (default: the best that the input has); mono has no absolute scale.
        realtime: play the input by its timestamps; frames that would come too late are dropped.
    """

    every: int = 1
    max_frames: int | None = None
    sensor: SensorChoice | None = None
    realtime: bool = option(False, "--realtime")

    def __post_init__(self) -> None:
        require_within(self, "[1, inf)", "every")
        if self.max_frames is not None:
            require_within(self, "[1, inf)", "max_frames")


@dataclass(frozen=True, kw_only=True)
class SessionOptions(Settings):
    """What a run writes, and what it goes on from.

    Attributes:
        out: where the results go; made if missing.
        save_map: write the map, for semkey localize and --load-map (room.semkey).
        load_map: continue this map: the camera is found in it first.
        localize_only: only find the frames in the map of --load-map, which stays as it is.
        resume: go on where a crashed or interrupted run stopped, from DIR's automatic save.
        autosave: save the run so far every so often; 0 for never.
        viewer: show the run live in Rerun (needs the extra ``viewer``).
        record: write a Rerun recording (.rrd), also without a screen.
        ply: write the landmarks as a coloured point cloud.
    """

    out: Path = option(MISSING, "--out", "-o", metavar="DIR")
    save_map: Path | None = option(None, metavar="FILE")
    load_map: Path | None = option(None, metavar="FILE")
    localize_only: bool = option(False, "--localize-only")
    resume: bool = option(False, "--resume")
    autosave: float = option(30.0, metavar="SECONDS")
    viewer: bool = option(False, "--viewer")
    record: Path | None = option(None, metavar="FILE")
    ply: Path | None = option(None, metavar="FILE")

    def __post_init__(self) -> None:
        require_within(self, "[0, inf)", "autosave")

    @property
    def autosave_path(self) -> Path:
        """Where the run so far is saved."""
        return self.out / AUTOSAVE_FILE

    def check(self) -> None:
        """Tell before the work what cannot be done.

        Raises:
            InputError: a file to write is a folder or read-only, or there is nothing to resume.
            ConfigError: options that exclude each other.
        """
        from semkey.errors import ConfigError, InputError
        from semkey.files import check_output_file

        for path in (self.save_map, self.record, self.ply):
            if path is not None:
                check_output_file(path)
        if self.resume and self.load_map is not None:
            raise ConfigError("--resume and --load-map exclude each other: an automatic save has the whole map")
        if self.localize_only and self.load_map is None:
            raise ConfigError("--localize-only needs a map to find the frames in: give --load-map FILE")
        if self.localize_only and (self.save_map is not None or self.ply is not None):
            raise ConfigError("--localize-only leaves the map as it is: nothing is there for --save-map and --ply")
        if self.resume and not self.autosave_path.is_file():
            raise InputError(f"{self.autosave_path}: no automatic save to resume from; run without --resume")


@dataclass(kw_only=True)
class PreparedSession:
    """What a run gets, and what is left to do behind it.

    Attributes:
        options: as given.
        every: the run uses every n-th frame.
        feature_settings: of the extractor.
        slam_map: a map to continue, or None.
        resume: an earlier part of the run, or None.
        listeners: hear what happens.
        colors: colours of the landmarks.
        lost_pictures: of frames where tracking was lost.
    """

    options: SessionOptions
    every: int
    feature_settings: dict[str, Any]
    slam_map: SlamMap | None
    resume: SlamResult | None
    colors: LandmarkColors
    lost_pictures: LostFramePictures
    listeners: Sequence[SlamListener] = field(default_factory=tuple)

    @property
    def last_frame(self) -> int:
        """Index of the last frame of the earlier part; -1 without one."""
        return -1 if self.resume is None or not self.resume.frames else self.resume.frames[-1].index

    def finish(self, result: SlamResult) -> list[str]:
        """Write map and point cloud behind the report; a run that came to its end needs its automatic save no more.

        Returns:
            Lines that say what was written.

        Raises:
            InputError: a file cannot be written, or there is no map.
        """
        options, lines = self.options, list[str]()
        colors = None
        if result.slam_map is not None and result.slam_map.keyframes:
            colors = self.colors.colors(len(result.slam_map.landmarks))
        if options.save_map is not None:
            from semkey.slam.output.session import Session, save_session

            session = Session(result=result, feature_settings=self.feature_settings, every=self.every, colors=colors)
            save_session(options.save_map, session)
            lines.append(f"map written to {options.save_map}")
        if options.ply is not None and result.slam_map is not None:
            from semkey.slam.output.ply import write_ply

            count = write_ply(options.ply, result.slam_map, colors)
            lines.append(f"{count} points written to {options.ply}")
        if options.record is not None and not any(getattr(one, "has_failed", False) for one in self.listeners):
            lines.append(f"recording written to {options.record}")
        if not result.interrupted:
            options.autosave_path.unlink(missing_ok=True)
        return lines


def prepare_session(
    options: SessionOptions,
    sequence: FrameSequence,
    extractor: Extractor,
    config: SlamConfig,
    *,
    every: int,
    sensor: Sensor,
) -> PreparedSession:
    """Load what is to be continued, and set up who watches the run.

    Raises:
        InputError: a map cannot be read, or a recording not be written.
        ConfigError: a map does not belong to this input, these features or settings, or the viewer cannot be shown.
    """
    from semkey.slam.output.colors import LandmarkColors
    from semkey.slam.output.lost_pictures import LostFramePictures
    from semkey.slam.output.session import Autosave, check_continuable, check_features, check_resumable, load_session

    settings = dict(getattr(extractor, "settings", {}))
    loaded, slam_map, resume = None, None, None
    if options.resume:
        loaded = load_session(options.autosave_path)
        check_features(loaded, options.autosave_path, extractor.name, settings)
        check_resumable(loaded, options.autosave_path, sequence, config, every=every, sensor=sensor)
        resume = loaded.result
    elif options.load_map is not None:
        loaded = load_session(options.load_map)
        check_features(loaded, options.load_map, extractor.name, settings)
        check_continuable(loaded, options.load_map, sequence, sensor=sensor)
        slam_map = loaded.slam_map
    colors = LandmarkColors(None if loaded is None else loaded.colors)
    lost_pictures = LostFramePictures()
    listeners: list[SlamListener] = [colors, lost_pictures]
    if options.viewer or options.record is not None:
        from semkey.slam.output.optional import OptionalListener
        from semkey.slam.output.viewer import RerunListener

        known = None if loaded is None else loaded.colors
        rerun = RerunListener(record=options.record, live=options.viewer, colors=known)
        what = "the viewer" if options.record is None else f"the recording {options.record}"
        listeners.append(OptionalListener(rerun, what))
    if options.autosave > 0 and not options.localize_only:
        listeners.append(
            Autosave(
                options.autosave_path,
                seconds=options.autosave,
                feature_settings=settings,
                every=every,
                colors=colors,
            )
        )
    return PreparedSession(
        options=options,
        every=every,
        feature_settings=settings,
        slam_map=slam_map,
        resume=resume,
        colors=colors,
        lost_pictures=lost_pictures,
        listeners=listeners,
    )
