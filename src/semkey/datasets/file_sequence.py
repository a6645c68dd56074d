"""Sequences whose frames are files: images, with or without depth maps and right images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.sequence import Frame, FrameSequence
from semkey.errors import DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.images.reading import PNG_SIGNATURE, read_depth, read_image


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameFiles:
    """Where one frame lies on disk: see :class:`Frame` for the meaning and units of the fields."""

    timestamp: float
    image: Path
    depth: Path | None = None
    T_world_cam: NDArray[np.float64] | None = None


class FileSequence(FrameSequence):
    """A sequence whose frames are image files, with or without 16-bit depth files of the same size.

    On opening, every file is checked for existence and PNG depth for its size; images are read when asked for.

    Args:
        name: see :class:`FrameSequence`.
        format: see :class:`FrameSequence`.
        camera: see :class:`FrameSequence`; its size must be that of the images.
        frames: at least one, in order of time; depth for all of them or for none.
        depth_units_per_metre: raw depth value of one metre.
        image_size: (width, height) of all images.

    Raises:
        DatasetError: a file is missing or empty, or depth has another size than the images.
    """

    def __init__(
        self,
        *,
        name: str,
        format: str,
        camera: PinholeCamera | None,
        frames: Sequence[FrameFiles],
        depth_units_per_metre: float,
        image_size: tuple[int, int],
    ) -> None:
        self._frames = tuple(frames)
        self._depth_units_per_metre = depth_units_per_metre
        self._image_size = image_size
        super().__init__(
            name=name,
            format=format,
            camera=camera,
            has_depth=frames[0].depth is not None,
            timestamps=np.array([frame.timestamp for frame in frames], dtype=np.float64),
            ground_truth=[frame.T_world_cam for frame in frames],
        )
        for frame in self._frames:
            require_file(frame.image)
            if frame.depth is not None:
                require_file(frame.depth)
                self._check_depth_size(frame.depth, _png_size(frame.depth))

    def _load(self, index: int) -> Frame:
        files = self._frames[index]
        image = read_image(files.image)
        height, width = image.shape[:2]
        if (width, height) != self._image_size:
            expected = "{}x{}".format(*self._image_size)
            raise DatasetError(f"{files.image}: image is {width}x{height}, the sequence is {expected}")
        return Frame(
            index=index,
            timestamp=files.timestamp,
            image=image,
            depth=None if files.depth is None else self._load_depth(files.depth),
            T_world_cam=files.T_world_cam,
        )

    def _load_depth(self, path: Path) -> NDArray[np.float32]:
        depth = read_depth(path, self._depth_units_per_metre)
        self._check_depth_size(path, (depth.shape[1], depth.shape[0]))
        return depth

    def _check_depth_size(self, path: Path, size: tuple[int, int] | None) -> None:
        if size is not None and size != self._image_size:
            expected = "{}x{}".format(*self._image_size)
            raise DatasetError(
                f"{path}: depth is {size[0]}x{size[1]} but the images are {expected}; register depth to the images"
            )


def require_file(path: Path, listed_in: str = "") -> None:
    """Check that ``path`` is a file with something in it; ``listed_in`` (``file:line``) says where it is asked for.

    Raises:
        DatasetError: it is missing, a folder or empty.
    """
    origin = f" (listed in {listed_in})" if listed_in else ""
    if not path.is_file():
        raise DatasetError(f"{path}: file is missing{origin}")
    if path.stat().st_size == 0:
        raise DatasetError(f"{path}: file is empty (0 bytes){origin}")


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file, by reading it.

    Raises:
        DatasetError: the file is missing or empty.
        InputError: it is not an image.
    """
    require_file(path)
    height, width = read_image(path).shape[:2]
    return width, height


def _png_size(path: Path) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG file, None for another format: 24 bytes instead of a decode."""
    with path.open("rb") as file:
        header = file.read(24)
    if len(header) < 24 or not header.startswith(PNG_SIGNATURE):
        return None
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
