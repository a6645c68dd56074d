"""What every input looks like to the rest of semkey: a sequence of time-stamped frames, loaded one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError, DatasetError, InputError, SemkeyError
from semkey.geometry.camera import PinholeCamera
from semkey.images.masks import MaskSource, check_mask

#: What a sequence can be tracked with: depth images, rectified pairs, or single images only.
Sensor = Literal["rgbd", "stereo", "mono"]

FaultKind = Literal["missing", "duplicate", "out-of-order", "unpaired", "gap", "depth", "turned"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Frame:
    """One frame of a sequence.

    Attributes:
        index: position in the sequence, from 0.
        timestamp: seconds; absolute where the data set has a clock, else from the start of the sequence.
        image: (H, W, 3) uint8 RGB, without lens distortion; of the left camera where there are two.
        depth: (H, W) float32 metres along the optical axis, 0 where unknown; None where the input has no depth.
        right: (H, W, 3) uint8 RGB of the right camera, rectified: a point has the same row in both images, and
            column ``x - fx * baseline / z`` in this one. None where the input is not stereo.
        T_world_cam: (4, 4) float64 ground-truth pose, camera to world, metres; None where it is not known.
        mask: (H, W) uint8, 0 where the image is to be left out; None where all of it counts.

    Example:
        >>> import semkey
        >>> frame = semkey.open_sequence("room")[2]
        >>> frame.image.shape, frame.depth.shape, frame.T_world_cam.shape
        ((240, 320, 3), (240, 320), (4, 4))
    """

    index: int
    timestamp: float
    image: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None
    right: NDArray[np.uint8] | None = None
    T_world_cam: NDArray[np.float64] | None = None
    mask: NDArray[np.uint8] | None = None

    def __repr__(self) -> str:
        there = [name for name in ("depth", "right", "T_world_cam", "mask") if getattr(self, name) is not None]
        height, width = self.image.shape[:2]
        return f"Frame({self.index} at {self.timestamp:.3f} s: {', '.join([f'{width}x{height} image', *there])})"


@dataclass(frozen=True, kw_only=True, eq=False)
class BrokenFrame:
    """A frame that is listed but cannot be loaded: a missing, truncated or damaged image, depth or right image.

    Attributes:
        index: position in the sequence, from 0.
        timestamp: seconds, as in :class:`Frame`.
        error: what is wrong; its text is one line that names the file.
        T_world_cam: (4, 4) ground-truth pose, as in :class:`Frame`.
    """

    index: int
    timestamp: float
    error: SemkeyError
    T_world_cam: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class SequenceFault:
    """Something that was wrong with the listing of a sequence and did not prevent it from being opened.

    Attributes:
        kind: ``missing`` (a listed file is not there or empty: that frame is broken), ``duplicate`` (a timestamp
            occurs twice: the later row is left out), ``out-of-order`` (rows were sorted by time, or a frame that lies
            in the past was left out), ``unpaired`` (an image without depth or right image is left out), ``gap`` (time
            jumps between two frames), ``depth`` (its unit is probably another one), ``turned``
            (the EXIF orientation of some images differs from that of the others).
        message: one line that names the file, and the line where it applies.
    """

    kind: FaultKind
    message: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ImuSamples:
    """Inertial measurements that came with a sequence. semkey keeps them; tracking does not use them.

    Attributes:
        timestamps: (M,) float64 seconds, on the clock of the frames.
        gyro: (M, 3) float64 angular velocity in the axes of the IMU, rad/s.
        accel: (M, 3) float64 acceleration, gravity included, in the axes of the IMU, m/s^2.
    """

    timestamps: NDArray[np.float64]
    gyro: NDArray[np.float64]
    accel: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.timestamps)


class EndOfSequence(DatasetError):  # noqa: N818 (that a camera ends is no error, as StopIteration)
    """A live source has ended (the webcam was unplugged); only live sequences raise it."""


class FrameSequence(ABC):
    """A finite sequence of frames in order of time. ``sequence[i]`` and iteration load a frame when it is asked for.

    ``sequence[i]`` raises for a frame that cannot be loaded; :meth:`read` and :meth:`frames` hand it over as a
    :class:`BrokenFrame`, for callers that go on without it.

    Attributes:
        name: a short name for reports, mostly the folder's name.
        format: one of :data:`semkey.datasets.FORMATS`, without ``auto``.
        camera: the pinhole camera of all images as delivered (undistorted, rectified), or None where it is not known.
        has_depth: whether the frames carry depth.
        baseline: metres between the two rectified cameras, positive, if the frames carry right images; else None.
        timestamps: (N,) float64 seconds, strictly increasing.
        ground_truth: N poses T_world_cam (4, 4) float64, None for a frame without one; known without loading images.
        faults: what was wrong with the listing.
        notes: what was taken for granted about the input and changes the result, a line each: pictures that are
            turned upright, stamps in another unit than seconds, how 16 bits become 8.
        is_live: whether frames come from a running camera: they can be read in order only, ``len`` is an upper bound,
            a timestamp is NaN until its frame was read, and :meth:`read` raises :class:`EndOfSequence` at the end.
        imu: inertial measurements of the input, None where it has none.

    Example:
        >>> import semkey
        >>> sequence = semkey.open_sequence("room")
        >>> len(sequence), sequence.has_depth, sequence.camera.width
        (8, True, 320)
        >>> [frame.index for frame in sequence.limited_to("mono").frames(every=3)]
        [0, 3, 6]
    """

    is_live: bool = False
    imu: ImuSamples | None = None
    _masks: MaskSource | None = None

    def __init__(
        self,
        *,
        name: str,
        format: str,
        camera: PinholeCamera | None,
        has_depth: bool,
        timestamps: NDArray[np.float64],
        ground_truth: Sequence[NDArray[np.float64] | None],
        baseline: float | None = None,
        faults: Sequence[SequenceFault] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.format = format
        self.camera = camera
        self.has_depth = has_depth
        self.baseline = baseline
        self.timestamps = timestamps
        self.ground_truth: tuple[NDArray[np.float64] | None, ...] = tuple(ground_truth)
        self.faults: tuple[SequenceFault, ...] = tuple(faults)
        self.notes: tuple[str, ...] = tuple(notes)

    @property
    def has_ground_truth(self) -> bool:
        """Whether at least one frame has a ground-truth pose."""
        return any(pose is not None for pose in self.ground_truth)

    @property
    def sensor(self) -> Sensor:
        """The best that the frames can be tracked with: depth before stereo before single images."""
        if self.has_depth:
            return "rgbd"
        return "mono" if self.baseline is None else "stereo"

    def limited_to(self, sensor: Sensor) -> Self:
        """This sequence without the images that ``sensor`` does not use, which then are not read from disk either.

        Raises:
            DatasetError: the frames do not carry what ``sensor`` needs.
        """
        offered = {"rgbd": self.has_depth, "stereo": self.baseline is not None, "mono": True}
        if not offered[sensor]:
            there = " and ".join(name for name, is_there in offered.items() if is_there)
            what = "depth" if sensor == "rgbd" else "calibrated right images"
            raise DatasetError(f"{self.name}: has no {what}; format {self.format} can be tracked as {there} here")
        limited = copy(self)
        limited.has_depth = sensor == "rgbd"
        if sensor != "rgbd":
            limited.faults = tuple(fault for fault in self.faults if fault.kind != "depth")
        limited.baseline = self.baseline if sensor == "stereo" else None
        return limited

    def with_depth_scale(self, units_per_metre: float) -> Self:
        """This sequence with depth of another unit than its layout says.

        Args:
            units_per_metre: stored units per metre of its depth images, > 0: 1000 for millimetres.

        Raises:
            ConfigError: there are no depth images, or their format says what they hold, or the number is not positive.
        """
        del units_per_metre
        what = "has depth in metres" if self.has_depth else "has no depth images"
        raise ConfigError(f"{self.name}: {what}; there is no depth scale to set")

    def with_masks(self, masks: MaskSource | str | Path) -> Self:
        """This sequence with a mask for every frame: what is left out of its (left) image.

        Masks are of images as they are stored; where these are undistorted, masks are as well.

        Args:
            masks: an image for all frames, or a folder with one for each by the image's name (frames of a video have
                their number in six digits, from 0: ``000012.png``).

        Raises:
            InputError: there is no mask for a frame, or none for all frames of a running camera; the first mask has
                another size than the camera's images. Later ones are read, and checked, with their frames.
        """
        source = masks if isinstance(masks, MaskSource) else MaskSource(masks)
        if self.is_live and not source.is_one:
            raise InputError(f"{source.path}: a running camera has one mask, not a folder")
        files = [source.file(self.image_name(index)) for index in range(1 if source.is_one else len(self))]
        masked = copy(self)
        masked._masks = source
        if self.camera is not None:
            masked._mask(0, (self.camera.width, self.camera.height), files[0])
        return masked

    def image_name(self, index: int) -> str:
        """File name of a frame's (left) image; its number in six digits where it has no file."""
        return f"{index:06d}"

    def _mask(self, index: int, size: tuple[int, int], file: Path | None = None) -> NDArray[np.uint8]:
        """The mask of a frame of (width, height) as delivered, 0 or 255."""
        assert self._masks is not None
        name = self.image_name(index)
        delivered = self._delivered_mask(self._masks.mask(name))
        usable = check_mask(delivered, size, name=str(file or self._masks.file(name)))
        return np.where(usable, np.uint8(255), np.uint8(0))

    def _delivered_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask of the stored image as one of the delivered image."""
        return mask

    def __len__(self) -> int:
        return len(self.timestamps)

    def __repr__(self) -> str:
        return f"FrameSequence({self.name}: {len(self)} frames, {self.format}, {self.sensor})"

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
        frame = self._load(position)
        if self._masks is None:
            return frame
        height, width = frame.image.shape[:2]
        return replace(frame, mask=self._mask(position, (width, height)))

    def __iter__(self) -> Iterator[Frame]:
        for index in range(len(self)):
            yield self[index]

    def read(self, index: int) -> Frame | BrokenFrame:
        """Load frame ``index`` like ``self[index]``, but hand over what cannot be loaded as a :class:`BrokenFrame`.

        Raises:
            IndexError: there is no such frame.
            EndOfSequence: a live source has ended.
        """
        try:
            return self[index]
        except EndOfSequence:
            raise
        except (InputError, DatasetError) as error:
            position = index + len(self) if index < 0 else index
            return BrokenFrame(
                index=position,
                timestamp=float(self.timestamps[position]),
                error=error,
                T_world_cam=self.ground_truth[position] if self.ground_truth else None,
            )

    def frames(self, *, every: int = 1, max_frames: int | None = None) -> Iterator[Frame | BrokenFrame]:
        """Every ``every``-th frame from the first on, at most ``max_frames`` of them; ends where a live source ends."""
        for index in range(0, len(self), every)[:max_frames]:
            try:
                yield self.read(index)
            except EndOfSequence:
                return

    @abstractmethod
    def _load(self, index: int) -> Frame:
        """The frame at ``index`` in [0, N)."""
