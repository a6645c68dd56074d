"""A plain folder of images, in natural order of their names (img2 before img10); no depth, no poses.

A folder with the subfolders ``left`` and ``right`` holds pairs, in the order of their names; with a calibration of both
cameras it is a stereo sequence, else the left images alone are used.
"""

from __future__ import annotations

import re
from pathlib import Path

from semkey.datasets.cameras.calibration import CAMERA_FILE, CameraArgument, optics_for, read_camera_file
from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.listing import image_size
from semkey.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

# Images without a clock are taken as a 30 Hz video.
FRAMES_PER_SECOND = 30.0


def list_images(path: Path) -> list[Path]:
    """The image files directly in a folder, hidden ones left out, in natural order of their names."""
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    return sorted((file for file in files if not file.name.startswith(".")), key=lambda file: natural_key(file.name))


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
        DatasetError: there are no images, ``left`` and ``right`` hold different numbers of them, or (``strict``) one is
            empty.
    """
    lefts, rights = list_images(path), []
    if not lefts and (path / "left").is_dir():
        lefts = list_images(path / "left")
        if isinstance(camera, Calibration) and camera.right is not None and (path / "right").is_dir():
            rights = list_images(path / "right")
            if len(lefts) != len(rights):
                raise DatasetError(f"{path}: {len(lefts)} images in left, {len(rights)} in right; they must be pairs")
    if not lefts:
        raise DatasetError(f"{path}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
    size = image_size(lefts)
    if camera is None and (path / CAMERA_FILE).exists():
        camera = read_camera_file(path / CAMERA_FILE)
    frames = [
        FrameFiles(timestamp=index / FRAMES_PER_SECOND, image=left, right=rights[index] if rights else None)
        for index, left in enumerate(lefts)
    ]
    return FileSequence(
        name=path.resolve().name,
        format="folder",
        frames=frames,
        image_size=size,
        optics=optics_for(camera, size, stereo=bool(rights)),
        strict=strict,
    )
