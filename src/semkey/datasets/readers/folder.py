"""A plain folder of images, in natural order of their names (img2 before img10); no depth, no poses.

Photos are turned upright as the EXIF orientation of the first one says, all alike, since one camera took them.

A folder with the subfolders ``left`` and ``right`` holds pairs of equal names (``left/7.png`` and ``right/7.jpg``,
``left/a_left.png`` and ``right/a_right.png``), or of equal numbers in their names, or of the nearest ones where these
are stamps; with a calibration of both cameras it is a stereo sequence, else the left images alone are used. Pairs are
taken as they are stored.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

from semkey.datasets.cameras.calibration import CAMERA_FILE, CameraArgument, optics_for, read_camera_file
from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.cameras.turning import turned_argument
from semkey.datasets.pairing import pair_images
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.listing import as_given, image_size
from semkey.datasets.sequence import SequenceFault
from semkey.errors import DatasetError, InputError
from semkey.images.orientation import UPRIGHT, shown_size
from semkey.images.reading import read_exif

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

# What cameras and programs write and cannot be read, or not everywhere: it is not passed over in silence.
_OTHER_PICTURES = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
)

logger = logging.getLogger(__name__)

# Images without a clock are taken as a 30 Hz video.
FRAMES_PER_SECOND = 30.0


def list_images(path: Path) -> list[Path]:
    """The image files directly in a folder, hidden ones left out, in natural order of their names."""
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    return sorted((file for file in files if not file.name.startswith(".")), key=lambda file: natural_key(file.name))


def require_images(folder: Path) -> list[Path]:
    """The image files right in a folder, in natural order of their names; others are logged as left out.

    Raises:
        DatasetError: it holds none.
    """
    images = list_images(folder)
    if not images:
        raise DatasetError(no_images(folder))
    _say_others(folder)
    return images


def list_images_below(folder: Path) -> list[Path]:
    """The image files in a folder and in folders in it, hidden ones left out, in natural order of their names.

    Pictures of other kinds are logged as left out.

    Raises:
        DatasetError: no such folder, or it holds no images.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: {'is a file, give the folder' if folder.exists() else 'no such folder'}")
    found = {
        path.relative_to(folder): path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    }
    names = [name for name in found if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise DatasetError(no_images(folder, below=True))
    _say_others(folder, below=True)
    return [found[name] for name in sorted(names, key=lambda name: (natural_key(name.as_posix()), name.as_posix()))]


def other_pictures(folder: Path, *, below: bool = False) -> str | None:
    """How many pictures of a folder (and ``below``) are of kinds that are left out; None where there are none.

    Hidden ones, and those of hidden folders, are nobody's photos.
    """
    names = (file.relative_to(folder) for file in (folder.rglob("*") if below else folder.iterdir()))
    kinds = (name.suffix.lower() for name in names if not any(part.startswith(".") for part in name.parts))
    counts = Counter(kind for kind in kinds if kind in _OTHER_PICTURES)
    if not counts:
        return None
    return f"{', '.join(f'{n} {kind}' for kind, n in counts.most_common())} left out: convert them to JPEG or PNG"


def _say_others(folder: Path, *, below: bool = False) -> None:
    others = other_pictures(folder, below=below)
    if others is not None:
        logger.warning("%s: %s", folder, others)


def no_images(folder: Path, *, below: bool = False) -> str:
    """The one line about a folder (and ``below``) without images."""
    others = other_pictures(folder, below=below)
    return f"{folder}: no images in this folder ({others or ', '.join(sorted(IMAGE_SUFFIXES))})"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key by which numbers inside names compare as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part.lower()) for part in parts)


def open_folder(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open a folder of images of one size; the camera is the argument, else ``camera.txt`` there, else None.

    Args:
        path: the folder.
        camera: see :func:`semkey.datasets.open_sequence`.
        strict: raise for an empty file (0 bytes) instead of reporting it.

    Raises:
        DatasetError: there are no images, no image in ``left`` has one in ``right``, or (``strict``) one is empty.
    """
    lefts, rights = list_images(path), []
    faults: list[SequenceFault] = []
    seconds: list[float] | None = None
    if not lefts and (path / "left").is_dir():
        lefts = list_images(path / "left")
        if isinstance(camera, Calibration) and camera.right is not None and (path / "right").is_dir():
            pairing = pair_images(path, lefts, list_images(path / "right"))
            lefts, rights, faults, seconds = pairing.lefts, pairing.rights, pairing.faults, pairing.seconds
    if not lefts:
        raise DatasetError(no_images(path))
    size = image_size(lefts)
    if camera is None and (path / CAMERA_FILE).exists():
        camera = read_camera_file(path / CAMERA_FILE)
    orientation = UPRIGHT if rights else _orientation(lefts, faults)
    camera, note = turned_argument(camera, orientation, size)
    notes = [f"{path}: {said}" for said in (note, other_pictures(lefts[0].parent)) if said is not None]
    size = shown_size(size, orientation)
    frames = [
        FrameFiles(
            timestamp=index / FRAMES_PER_SECOND if seconds is None else seconds[index],
            image=left,
            right=rights[index] if rights else None,
        )
        for index, left in enumerate(lefts)
    ]
    return FileSequence(
        name=as_given(path).name,
        format="folder",
        frames=frames,
        image_size=size,
        optics=optics_for(camera, size, stereo=bool(rights)),
        faults=faults,
        notes=notes,
        orientation=orientation,
        strict=strict,
    )


def _orientation(images: list[Path], faults: list[SequenceFault]) -> int:
    """How the pictures are turned: as the first one says, since turning some otherwise would turn the camera."""
    codes: list[int] = []
    for image in images:
        try:
            codes.append(read_exif(image).orientation)
        except InputError:
            codes.append(codes[0] if codes else UPRIGHT)
    others = sum(code != codes[0] for code in codes)
    if others:
        message = f"{images[0].parent}: {others} of {len(images)} pictures are to be turned otherwise than the first"
        faults.append(SequenceFault(kind="turned", message=f"{message}; all are turned as it is"))
    return codes[0]
