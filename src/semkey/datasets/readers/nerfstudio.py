"""A folder with nerfstudio's ``transforms.json``: images, poses with OpenGL axes, and depth where all frames have it.

Poses have the scale that the reconstruction chose. Depth (``depth_file_path``) is 16-bit PNG in millimetres.
"""

from __future__ import annotations

from pathlib import Path

from semkey.datasets.cameras.calibration import CameraArgument
from semkey.datasets.cameras.formats.nerfstudio import TRANSFORMS_FILE, nerfstudio_lens, opengl_pose, read_transforms
from semkey.datasets.readers.file_sequence import FileSequence
from semkey.datasets.readers.listing import image_size
from semkey.datasets.readers.posed_files import PosedImage, posed_sequence

_DEPTH_UNITS_PER_METRE = 1000.0


def is_nerfstudio(path: Path) -> bool:
    """Whether there is a ``transforms.json`` in this folder."""
    return (path / TRANSFORMS_FILE).is_file()


def open_nerfstudio(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open the frames of a ``transforms.json``.

    Args:
        path: its folder.
        camera: see :func:`semkey.datasets.open_sequence`.
        strict: raise for a missing image instead of reporting it.

    Raises:
        DatasetError: the file is missing or no such JSON, or a camera or a pose in it is not as it should be.
    """
    return posed_sequence(
        nerfstudio_images(path),
        path=path,
        format="nerfstudio",
        camera=camera,
        strict=strict,
        depth=_DEPTH_UNITS_PER_METRE,
    )


def nerfstudio_images(path: Path) -> list[PosedImage]:
    """The images of the ``transforms.json`` in a folder, each with its own camera.

    Raises:
        DatasetError: see :func:`open_nerfstudio`.
    """
    file = path / TRANSFORMS_FILE
    stored = read_transforms(file)
    frames = stored["frames"]
    files = [_image_file(path / frame["file_path"]) for frame in frames]
    size = image_size(files)
    images = []
    for number, (frame, image) in enumerate(zip(frames, files, strict=True)):
        where = f"{file}, frame {number}"
        depth = frame.get("depth_file_path")
        images.append(
            PosedImage(
                name=frame["file_path"],
                file=image,
                # An image that says nothing of its size has that of the first; another size is found when it is read.
                lens=nerfstudio_lens({"w": size[0], "h": size[1], **stored, **frame}, None, where),
                T_world_cam=opengl_pose(frame.get("transform_matrix"), where),
                depth=path / depth if isinstance(depth, str) else None,
            )
        )
    return images


def _image_file(file: Path) -> Path:
    """NeRF's synthetic scenes name their images without ``.png``."""
    return file if file.suffix or file.exists() else file.with_name(f"{file.name}.png")
