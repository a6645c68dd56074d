"""Opening an input whose kind is given or found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from semkey.datasets.calibration import CameraArgument
from semkey.datasets.folder import IMAGE_SUFFIXES, list_images, open_folder
from semkey.datasets.sequence import FrameSequence
from semkey.datasets.seven_scenes import open_seven_scenes
from semkey.datasets.tum import open_tum
from semkey.datasets.video import VIDEO_SUFFIXES, open_video
from semkey.errors import ConfigError, DatasetError

_OPENERS: dict[str, Callable[[Path, CameraArgument | None], FrameSequence]] = {
    "tum": open_tum,
    "7scenes": open_seven_scenes,
    "video": open_video,
    "folder": open_folder,
}

#: What ``format`` may be.
FORMATS = ("auto", *_OPENERS)

_TUM_FILES = ("rgb.txt", "depth.txt", "groundtruth.txt")


def open_sequence(path: str | Path, *, format: str = "auto", camera: CameraArgument | None = None) -> FrameSequence:
    """Open a sequence of frames. What it lists is checked at once; images are read when they are asked for.

    Args:
        path: a TUM RGB-D folder, a 7-Scenes sequence folder, a video file or a folder of images.
        format: ``auto``, ``tum``, ``7scenes``, ``video`` or ``folder``.
        camera: the camera of the images, as :class:`PinholeCamera` or ``fx, fy, cx, cy`` in pixels; None takes what
            the data set says (always there for ``tum`` and ``7scenes``, None for a video).

    Raises:
        DatasetError: the input is missing, is no such sequence, or has a broken list or a missing file.
        ConfigError: an unknown format, or camera parameters that do not fit the images.
        InputError: the first image cannot be read.
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
        return _OPENERS[chosen](path, camera)
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
    if next(path.glob("frame-*.color.*"), None) is not None:
        return "7scenes"
    if list_images(path):
        return "folder"
    inside = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
    if any(name.startswith("seq-") for name in inside):
        first = next(name for name in inside if name.startswith("seq-"))
        raise DatasetError(f"{path}: holds several sequences; give one of them, such as {path / first}")
    if "rgb" in inside:
        raise DatasetError(f"{path / 'rgb.txt'}: file is missing (a TUM RGB-D folder lists its images there)")
    raise DatasetError(f"{path}: no TUM RGB-D lists, no 7-Scenes frames and no images in this folder")
