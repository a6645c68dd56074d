"""What every input looks like to the rest of semkey: a sequence of time-stamped frames, loaded one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.errors import DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.images.reading import PNG_SIGNATURE, read_depth, read_image


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame of a sequence.

    Attributes:
        index: position in the sequence, from 0.
        timestamp: seconds; absolute where the data set has a clock, else from the start of the sequence.
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 metres along the optical axis, 0 where unknown; None where the input has no depth.
        T_world_cam: (4, 4) float64 ground-truth pose, camera to world, metres; None where it is not known.
    """

    index: int
    timestamp: float
    image: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None
    T_world_cam: NDArray[np.float64] | None = None


class FrameSequence(ABC):
    """A finite sequence of frames in order of time. ``sequence[i]`` and iteration load a frame when it is asked for.

    Attributes:
        name: a short name for reports, mostly the folder's name.
        format: ``tum``, ``7scenes``, ``video`` or ``folder``.
        camera: the pinhole camera of all images, or None where it is not known.
        has_depth: whether the frames carry depth.
        timestamps: (N,) float64 seconds, strictly increasing.
        ground_truth: N poses T_world_cam (4, 4) float64, None for a frame without one; known without loading images.
    """

    def __init__(
        self,
        *,
        name: str,
        format: str,
        camera: PinholeCamera | None,
        has_depth: bool,
        timestamps: NDArray[np.float64],
        ground_truth: Sequence[NDArray[np.float64] | None],
    ) -> None:
        self.name = name
        self.format = format
        self.camera = camera
        self.has_depth = has_depth
        self.timestamps = timestamps
        self.ground_truth = tuple(ground_truth)

    @property
    def has_ground_truth(self) -> bool:
        """Whether at least one frame has a ground-truth pose."""
        return any(pose is not None for pose in self.ground_truth)

    def __len__(self) -> int:
        return len(self.timestamps)

    def __getitem__(self, index: int) -> Frame:
        """Load frame ``index``; negative indices count from the end.

        Raises:
            IndexError: there is no such frame.
            InputError: a file of the frame cannot be read as an image.
            DatasetError: the image or the depth has another size than the sequence, or a video ends early.
        """
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"frame {index} of a sequence of {len(self)}")
        return self._load(position)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(len(self)):
            yield self._load(index)

    @abstractmethod
    def _load(self, index: int) -> Frame:
        """The frame at ``index`` in [0, N)."""


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
