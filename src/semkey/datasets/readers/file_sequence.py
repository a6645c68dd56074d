"""Sequences whose frames are files: images, with or without depth maps and right images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.optics import Optics
from semkey.datasets.plausibility import find_tone, implausible_depth
from semkey.datasets.readers.listing import log_faults, log_notes, require_file, time_gaps
from semkey.datasets.sequence import Frame, FrameSequence, SequenceFault
from semkey.errors import ConfigError, DatasetError
from semkey.images.orientation import UPRIGHT
from semkey.images.reading import PNG_SIGNATURE, read_depth, read_image

#: Reads a depth file as (H, W) float32 metres, 0 where unknown.
DepthReader = Callable[[Path], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameFiles:
    """Where one frame lies on disk.

    Attributes:
        timestamp: seconds.
        image: image file, of the left camera where there are two.
        depth: depth file, or None.
        right: image file of the right camera, or None.
        T_world_cam: (4, 4) float64 ground truth of the stored (left) image, before rectification; or None.
    """

    timestamp: float
    image: Path
    depth: Path | None = None
    right: Path | None = None
    T_world_cam: NDArray[np.float64] | None = None


class FileSequence(FrameSequence):
    """A sequence whose frames are image files, with or without depth files and right images.

    On opening, every file is checked for existence and PNG depth for its size; images are read when asked for.

    Args:
        name: see :class:`FrameSequence`.
        format: see :class:`FrameSequence`.
        frames: at least one, in order of time; depth for all of them or for none, and so right images.
        image_size: (width, height) of all stored images.
        optics: how stored images are delivered, and their camera.
        depth: how depth is stored: raw units per metre of 16-bit images (floats are metres), or a function that
            reads a file.
        depth_size: (width, height) of stored depth maps; None for that of the images.
        faults: what was found wrong with the listing so far.
        notes: what was taken for granted so far.
        orientation: how all stored images are turned to be upright; the optics are of the upright ones.
        strict: raise for a missing file instead of reporting it.

    Raises:
        DatasetError: with ``strict``, a file is missing or empty or depth has another size; without, the first depth
            map has another size.
        ConfigError: the optics turn the camera, and there is depth, which cannot be turned with it.
    """

    def __init__(
        self,
        *,
        name: str,
        format: str,
        frames: Sequence[FrameFiles],
        image_size: tuple[int, int],
        optics: Optics,
        depth: float | DepthReader = 1.0,
        depth_size: tuple[int, int] | None = None,
        faults: Sequence[SequenceFault] = (),
        notes: Sequence[str] = (),
        orientation: int = UPRIGHT,
        strict: bool = False,
    ) -> None:
        self._frames = tuple(frames)
        self._image_size = image_size
        self._depth_size = depth_size or image_size
        self._optics = optics
        self._orientation = orientation
        self._scale_is_known = not isinstance(depth, float | int)
        self._read_depth: DepthReader = partial(read_depth, scale=depth) if isinstance(depth, float | int) else depth
        self._tone = find_tone([frame.image for frame in frames])
        if not self._tone.is_whole:
            notes = [*notes, f"{name}: 16-bit values {self._tone.low} to {self._tone.high} become black to white"]
        has_depth = frames[0].depth is not None
        if has_depth and not np.array_equal(optics.T_stored_cam, np.eye(4)):
            raise ConfigError(f"{name}: depth maps cannot be rectified; give a calibration without the section 'right'")
        found = [*faults, *self._check_files(strict)]
        timestamps = np.array([frame.timestamp for frame in frames], dtype=np.float64)
        found += time_gaps(name, timestamps)
        log_faults(found)
        log_notes(notes)
        super().__init__(
            name=name,
            format=format,
            camera=optics.camera,
            has_depth=has_depth,
            baseline=optics.baseline if frames[0].right is not None else None,
            timestamps=timestamps,
            ground_truth=[
                None if frame.T_world_cam is None else frame.T_world_cam @ optics.T_stored_cam for frame in frames
            ],
            faults=found,
            notes=notes,
        )
        self._check_depth_scale()

    def with_depth_scale(self, units_per_metre: float) -> Self:
        """See :class:`FrameSequence`."""
        if not self.has_depth or self._scale_is_known:
            return super().with_depth_scale(units_per_metre)
        if not (np.isfinite(units_per_metre) and units_per_metre > 0):
            raise ConfigError(f"depth scale must be a positive number of units per metre, got {units_per_metre}")
        scaled = copy(self)
        scaled._read_depth = partial(read_depth, scale=units_per_metre, scale_of_floats=units_per_metre)
        scaled.faults = tuple(fault for fault in self.faults if fault.kind != "depth")
        scaled._check_depth_scale()
        return scaled

    def _check_depth_scale(self) -> None:
        files = [frame.depth for frame in self._frames if frame.depth is not None]
        strange = implausible_depth(files, self._read_depth, self.name) if self.has_depth else None
        if strange is not None:
            self.faults = (*self.faults, SequenceFault(kind="depth", message=strange))

    def _check_files(self, strict: bool) -> list[SequenceFault]:
        faults: list[SequenceFault] = []
        depth_checked = False
        for frame in self._frames:
            try:
                for file in (frame.image, frame.depth, frame.right):
                    if file is not None:
                        require_file(file)
            except DatasetError as error:
                if strict:
                    raise
                faults.append(SequenceFault(kind="missing", message=str(error)))
                continue
            if frame.depth is not None and (strict or not depth_checked):
                self._check_depth_size(frame.depth, _png_size(frame.depth))
                depth_checked = True
        return faults

    def image_name(self, index: int) -> str:
        """See :class:`FrameSequence`."""
        return self._frames[index].image.name

    def _delivered_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._optics.delivered_mask(mask)

    def _load(self, index: int) -> Frame:
        files = self._frames[index]
        optics = self._optics
        image = self._load_image(files.image)
        depth = None if files.depth is None or not self.has_depth else self._load_depth(files.depth)
        right = None if files.right is None or self.baseline is None else self._load_image(files.right)
        return Frame(
            index=index,
            timestamp=files.timestamp,
            image=image if optics.left is None else optics.left(image),
            depth=depth if depth is None or optics.depth is None else optics.depth(depth),
            right=right if right is None or optics.right is None else optics.right(right),
            T_world_cam=self.ground_truth[index],
        )

    def _load_image(self, path: Path) -> NDArray[np.uint8]:
        require_file(path)
        image = read_image(path, orientation=self._orientation, tone=self._tone)
        height, width = image.shape[:2]
        if (width, height) != self._image_size:
            expected = "{}x{}".format(*self._image_size)
            raise DatasetError(f"{path}: image is {width}x{height}, the sequence is {expected}")
        return image

    def _load_depth(self, path: Path) -> NDArray[np.float32]:
        require_file(path)
        depth = self._read_depth(path)
        self._check_depth_size(path, (depth.shape[1], depth.shape[0]))
        return depth

    def _check_depth_size(self, path: Path, size: tuple[int, int] | None) -> None:
        if size is None or size == self._depth_size:
            return
        expected = "{}x{}".format(*self._depth_size)
        what = f"{path}: depth is {size[0]}x{size[1]}"
        if self._depth_size == self._image_size:
            raise DatasetError(f"{what} but the images are {expected}; register depth to the images")
        raise DatasetError(f"{what}, the sequence is {expected}")


def _png_size(path: Path) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG file, None for another format: 24 bytes instead of a decode."""
    with path.open("rb") as file:
        header = file.read(24)
    if len(header) < 24 or not header.startswith(PNG_SIGNATURE):
        return None
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
