"""Opening an input whose kind is given or found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from semkey.datasets.bags.bag_sequence import open_bag
from semkey.datasets.bags.reader import BAG_SUFFIXES, is_bag
from semkey.datasets.cameras.calibration import CameraArgument, parse_camera, read_camera
from semkey.datasets.live.camera import KINDS, LiveCamera, LiveSequence, live_source
from semkey.datasets.readers.colmap import is_colmap, open_colmap
from semkey.datasets.readers.euroc import is_euroc, open_euroc
from semkey.datasets.readers.folder import IMAGE_SUFFIXES, list_images, no_images, open_folder
from semkey.datasets.readers.icl_nuim import is_icl_nuim, open_icl_nuim
from semkey.datasets.readers.kitti import is_kitti, open_kitti
from semkey.datasets.readers.listing import log_faults
from semkey.datasets.readers.nerfstudio import is_nerfstudio, open_nerfstudio
from semkey.datasets.readers.record3d import is_record3d, open_record3d
from semkey.datasets.readers.scannet import is_scannet, open_scannet
from semkey.datasets.readers.seven_scenes import open_seven_scenes
from semkey.datasets.readers.stray import is_stray, open_stray
from semkey.datasets.readers.tartanair import is_tartanair, open_tartanair
from semkey.datasets.readers.tum import open_tum
from semkey.datasets.readers.video import VIDEO_SUFFIXES, open_video
from semkey.datasets.sequence import FrameSequence
from semkey.errors import ConfigError, DatasetError, check_type


class _Opener(Protocol):
    def __call__(self, path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FrameSequence: ...


_OPENERS: dict[str, _Opener] = {
    "tum": open_tum,
    "euroc": open_euroc,
    "kitti": open_kitti,
    "7scenes": open_seven_scenes,
    "scannet": open_scannet,
    "tartanair": open_tartanair,
    "icl-nuim": open_icl_nuim,
    "nerfstudio": open_nerfstudio,
    "colmap": open_colmap,
    "record3d": open_record3d,
    "stray": open_stray,
    "bag": open_bag,
    "video": open_video,
    "folder": open_folder,
}

#: What ``format`` may be.
FORMATS = ("auto", *_OPENERS, *KINDS)

_TUM_FILES = ("rgb.txt", "depth.txt", "groundtruth.txt")

_FILES_OF_FOLDERS = {
    ".r3d": "is a packed recording of Record3D; unpack it (unzip) and give the folder",
    ".json": "give the folder of a transforms.json, not the file",
}

# In the order in which they are tried: files of one layout can lie in a folder of another.
_IS_FORMAT: dict[str, Callable[[Path], bool]] = {
    "tum": lambda path: any((path / name).exists() for name in _TUM_FILES),
    "euroc": is_euroc,
    "kitti": is_kitti,
    "7scenes": lambda path: next(path.glob("frame-*.color.*"), None) is not None,
    "scannet": is_scannet,
    "tartanair": is_tartanair,
    "icl-nuim": is_icl_nuim,
    "stray": is_stray,
    "record3d": is_record3d,
    "nerfstudio": is_nerfstudio,
    "colmap": is_colmap,
    "bag": is_bag,
    "folder": lambda path: bool(list_images(path)) or (path / "left").is_dir(),
}


def open_sequence(
    path: str | Path,
    *,
    format: str = "auto",
    camera: CameraArgument | str | Path | None = None,
    topics: Mapping[str, str] | str | None = None,
    depth_scale: float | None = None,
    strict: bool = False,
) -> FrameSequence:
    """Open a sequence of frames. What it lists is checked at once; images are read when they are asked for.

    Args:
        path: the folder of a sequence in one of the layouts, a ROS bag, a video file, a folder of images, or a running
            camera: a webcam by its number (``0`` or ``webcam:0``), ``realsense:SERIAL`` or ``oak:ID``, of which the
            device may be left out.
        format: one of :data:`FORMATS`; ``auto`` looks at what is there.
        camera: the camera of the images, as :class:`PinholeCamera` or ``fx, fy, cx, cy`` in pixels (four numbers, or
            the text ``525,525,319.5,239.5``), or a :class:`Calibration` by which images are undistorted and pairs
            rectified, or the path of a calibration file (:func:`semkey.datasets.read_calibration`); None takes what the
            data set says (there for every data set, None for videos, plain folders and webcams).
        topics: of a bag, which topic is what (:data:`semkey.datasets.bags.topics.ROLES`): a mapping, or the text
            ``rgb=/camera/color/image_raw,depth=none``. What is not given is found by type.
        depth_scale: stored units per metre of depth images, where it is not what the layout says: 1000 for millimetres.
        strict: raise for a listed file that is missing or empty and for a timestamp that is given twice. Without it,
            such a frame is a :class:`BrokenFrame` or left out, and told in ``faults`` of the sequence and in a warning.

    Raises:
        DatasetError: the input is missing, is no such sequence, or has a broken list; with ``strict`` a missing file.
        ConfigError: an unknown format, camera parameters that do not fit the images, or a depth scale where there is
            nothing to scale.
        InputError: no image can be read, or ``path`` is none.

    Example:
        >>> import semkey
        >>> sequence = semkey.open_sequence("room")
        >>> sequence
        FrameSequence(room: 8 frames, tum, rgbd)
        >>> sequence[0]
        Frame(0 at 0.000 s: 320x240 image, depth, T_world_cam)
    """
    check_type(path, (str, Path), "the sequence", "pass the path of a folder, a video or a bag, or webcam:0")
    path = Path(path)
    if isinstance(camera, str):
        camera = parse_camera(camera)
    elif isinstance(camera, Path):
        camera = read_camera(camera)
    if format not in FORMATS:
        raise ConfigError(f"format '{format}' is unknown; choose one of {', '.join(FORMATS)}")
    source = live_source(path)
    if format in KINDS or (format == "auto" and source is not None and not path.exists()):
        if source is None or format not in ("auto", source[0]):
            example = "0 or webcam:0" if format == "webcam" else f"{format}: or {format}:DEVICE"
            raise DatasetError(f"{path}: format '{format}' needs a camera, such as {example}")
        if topics is not None or depth_scale is not None:
            raise ConfigError(f"{path}: topics and depth scales are of recordings; this is a running camera")
        return LiveSequence(_open_camera(*source), camera)
    try:
        if not path.exists():
            raise DatasetError(f"{path}: no such file or folder")
        chosen = _detect_format(path) if format == "auto" else format
        is_bag = chosen == "bag"
        if not is_bag and topics is not None:
            raise ConfigError(f"{path}: topics are of bags; this is of format '{chosen}'")
        if not is_bag and path.is_dir() == (chosen == "video"):
            raise DatasetError(f"{path}: format '{chosen}' needs a {'file' if chosen == 'video' else 'folder'}")
        sequence = (
            open_bag(path, camera, topics=topics, strict=strict)
            if is_bag
            else _OPENERS[chosen](path, camera, strict=strict)
        )
        sequence = sequence if depth_scale is None else sequence.with_depth_scale(depth_scale)
        log_faults([fault for fault in sequence.faults if fault.kind == "depth"])
        return sequence
    except OSError as error:
        raise DatasetError(f"{error.filename or path}: cannot be read ({error.strerror})") from None


def _open_camera(kind: str, device: str) -> LiveCamera:
    if kind == "realsense":
        from semkey.datasets.live.realsense import RealSense

        return RealSense(device)
    if kind == "oak":
        from semkey.datasets.live.oak import Oak

        return Oak(device)
    from semkey.datasets.live.webcam import Webcam

    return Webcam(int(device))


def _detect_format(path: Path) -> str:
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            raise DatasetError(f"{path}: is a single image; give a video, or the folder of a sequence")
        if suffix in VIDEO_SUFFIXES:
            return "video"
        if suffix in BAG_SUFFIXES:
            return "bag"
        if suffix in _FILES_OF_FOLDERS:
            raise DatasetError(f"{path}: {_FILES_OF_FOLDERS[suffix]}")
        raise DatasetError(f"{path}: unknown kind of file '{suffix}'; pass --format video if it is a video")
    found = _folder_format(path)
    if found is not None:
        return found
    inside = sorted(folder for folder in path.iterdir() if folder.is_dir())
    sequence = next((folder for folder in inside if _folder_format(folder) not in (None, "folder")), None)
    if sequence is not None:
        raise DatasetError(f"{path}: holds sequences; give one of them, such as {sequence}")
    if (path / "rgb").is_dir():
        raise DatasetError(f"{path / 'rgb.txt'}: file is missing (a TUM RGB-D folder lists its images there)")
    layouts = ", ".join(name for name in _IS_FORMAT if name != "folder")
    raise DatasetError(f"{no_images(path)}, nor a sequence of a known layout ({layouts})")


def _folder_format(path: Path) -> str | None:
    return next((name for name, fits in _IS_FORMAT.items() if fits(path)), None)
