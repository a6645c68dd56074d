"""A plain folder of images, in natural order of their names (img2 before img10); no depth, no poses."""

from __future__ import annotations

import re
from pathlib import Path

from semkey.datasets.calibration import CAMERA_FILE, CameraArgument, camera_for, read_camera_file
from semkey.datasets.file_sequence import FileSequence, FrameFiles, image_size
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


def open_folder(path: Path, camera: CameraArgument | None = None) -> FileSequence:
    """Open a folder of images of one size; the camera is the argument, else ``camera.txt`` there, else None.

    Raises:
        DatasetError: there are no images, or one is empty (0 bytes).
    """
    images = list_images(path)
    if not images:
        raise DatasetError(f"{path}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
    size = image_size(images[0])
    if camera is None and (path / CAMERA_FILE).exists():
        camera = read_camera_file(path / CAMERA_FILE)
    return FileSequence(
        name=path.resolve().name,
        format="folder",
        camera=None if camera is None else camera_for(camera, size),
        frames=[FrameFiles(timestamp=index / FRAMES_PER_SECOND, image=image) for index, image in enumerate(images)],
        depth_units_per_metre=1.0,
        image_size=size,
    )
