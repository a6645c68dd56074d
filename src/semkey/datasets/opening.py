"""Opening an input whose kind is given or found out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from semkey.datasets.calibration import CameraArgument
from semkey.datasets.euroc import is_euroc, open_euroc
from semkey.datasets.folder import IMAGE_SUFFIXES, list_images, open_folder
from semkey.datasets.kitti import is_kitti, open_kitti
from semkey.datasets.sequence import FrameSequence
from semkey.datasets.seven_scenes import open_seven_scenes
from semkey.datasets.tum import open_tum
from semkey.datasets.video import VIDEO_SUFFIXES, open_video
from semkey.errors import ConfigError, DatasetError


class _Opener(Protocol):
    def __call__(self, path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FrameSequence: ...


_OPENERS: dict[str, _Opener] = {
    "tum": open_tum,
    "euroc": open_euroc,
    "kitti": open_kitti,
    "7scenes": open_seven_scenes,
    "video": open_video,
    "folder": open_folder,
}

#: What ``format`` may be.
FORMATS = ("auto", *_OPENERS)

_TUM_FILES = ("rgb.txt", "depth.txt", "groundtruth.txt")


def open_sequence(
    path: str | Path, *, format: str = "auto", camera: CameraArgument | None = None, strict: bool = False
) -> FrameSequence:
    """Open a sequence of frames. What it lists is checked at once; images are read when they are asked for.

    Args:
        path: the folder of a sequence in one of the layouts, a video file or a folder of images.
        format: one of :data:`FORMATS`; ``auto`` looks at what is there.
        camera: the camera of the images, as :class:`PinholeCamera` or ``fx, fy, cx, cy`` in pixels, or a
            :class:`Calibration` by which images are undistorted and pairs rectified; None takes what the data set
            says (there for every data set, None for videos and plain folders).
        strict: raise for a listed file that is missing or empty and for a timestamp that is given twice. Without it,
            such a frame is a :class:`BrokenFrame` or left out, and told in ``faults`` of the sequence and in a warning.

    Raises:
        DatasetError: the input is missing, is no such sequence, or has a broken list; with ``strict`` a missing file.
        ConfigError: an unknown format, or camera parameters that do not fit the images.
        InputError: no image can be read.
    """
    path = Path(path)
    if format not in FORMATS:
        raise ConfigError(f"format '{format}' is unknown; choose one of {', '.join(FORMATS)}")
    try:
        if not path.exists():
            raise DatasetError(f"{path}: no such file or folder")
        chosen = _detect_format(path) if format == "auto" else format
        if path.is_dir() == (chosen == "video"):
            raise DatasetError(f"{path}: format '{chosen}' needs a {'file' if chosen == 'video' else 'folder'}")
        return _OPENERS[chosen](path, camera, strict=strict)
    except OSError as error:
        raise DatasetError(f"{error.filename or path}: cannot be read ({error.strerror})") from None


def _detect_format(path: Path) -> str:
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            raise DatasetError(f"{path}: is a single image; give a video, or the folder of a sequence")
        if suffix in VIDEO_SUFFIXES:
            return "video"
        raise DatasetError(f"{path}: unknown kind of file '{suffix}'; pass --format video if it is a video")
    if any((path / name).exists() for name in _TUM_FILES):
        return "tum"
    if is_euroc(path):
        return "euroc"
    if is_kitti(path):
        return "kitti"
    if next(path.glob("frame-*.color.*"), None) is not None:
        return "7scenes"
    if list_images(path) or (path / "left").is_dir():
        return "folder"
    inside = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
    if any(name.startswith("seq-") for name in inside):
        first = next(name for name in inside if name.startswith("seq-"))
        raise DatasetError(f"{path}: holds several sequences; give one of them, such as {path / first}")
    if "rgb" in inside:
        raise DatasetError(f"{path / 'rgb.txt'}: file is missing (a TUM RGB-D folder lists its images there)")
    raise DatasetError(f"{path}: no TUM RGB-D lists, no 7-Scenes frames and no images in this folder")
