"""A bag as a sequence of frames: images, depth or a second camera by their stamps, camera_info, and IMU rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.bags.messages import camera_of, decode_depth, decode_image, header_seconds, imu_row
from semkey.datasets.bags.reader import BagReader, Place, TopicCursor
from semkey.datasets.bags.topics import TopicRoles, find_topics, parse_topics
from semkey.datasets.cameras.calibration import CameraArgument, optics_for
from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.cameras.optics import Optics
from semkey.datasets.cameras.ros import ros_pair
from semkey.datasets.readers.listing import log_faults, rows_by_time, time_gaps
from semkey.datasets.sequence import Frame, FrameSequence, ImuSamples, SequenceFault
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.trajectories import associate_by_time

# Registered depth is stamped with its image; drivers that stamp each stream on its own are at most half a frame apart.
_MAX_PAIR_DIFFERENCE_S = 0.02


@dataclass(kw_only=True)
class _Stream:
    """The messages of one topic: when they were captured, and where they lie."""

    captured: list[float] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def seconds(self) -> list[float]:
        """Times of capture; of recording where the driver has left the headers empty."""
        if all(stamp > 0 for stamp in self.captured) and len(set(self.captured)) > len(self.captured) // 2:
            return self.captured
        return [place.time_ns / 1e9 for place in self.places]


class BagSequence(FrameSequence):
    """The frames of a bag; ``imu`` has its inertial measurements.

    On opening, the bag is read through once for the stamps of the messages; images are decoded when asked for.

    Args:
        path: a file ``.bag``, ``.mcap`` or ``.db3``, or the folder of a bag.
        camera: see :func:`semkey.datasets.open_sequence`; instead of the bag's camera_info.
        topics: topics by role that are not to be found by type (:data:`semkey.datasets.bags.topics.ROLES`), or their
            text ``rgb=/a,depth=/b``.
        strict: raise for a timestamp given twice, instead of reporting it.

    Raises:
        DatasetError: the bag is damaged, holds no images, or leaves open which topics are meant; or the clocks of
            images and depth differ.
        ConfigError: rosbags is not installed, ``topics`` is malformed, or the camera does not fit.
    """

    def __init__(
        self,
        path: Path,
        camera: CameraArgument | None = None,
        *,
        topics: Mapping[str, str] | str | None = None,
        strict: bool = False,
    ) -> None:
        given = parse_topics(topics) if isinstance(topics, str) else dict(topics or {})
        self._path = path
        with BagReader(path) as reader:
            self.topics: TopicRoles = find_topics(reader, given)
            head = reader.first(self.topics.rgb)
            first = decode_image(head, f"{path} {self.topics.rgb}")
            self._image_size = (first.shape[1], first.shape[0])
            self._optics, faults = self._find_optics(reader, camera)
            streams, imu = self._index(reader)
        rows, second = self._frames(streams, faults, strict)
        stamps = np.array([stamp for stamp, *_ in rows], dtype=np.float64)
        faults += time_gaps(str(path), stamps)
        log_faults(faults)
        self._numbers = [(image, other) for _, image, other in rows]
        self._image = TopicCursor(path, self.topics.rgb, streams[self.topics.rgb].places)
        self._second = None if second is None else TopicCursor(path, second, streams[second].places)
        is_stereo = second is not None and second == self.topics.right
        super().__init__(
            name=path.resolve().stem,
            format="bag",
            camera=self._optics.camera,
            has_depth=second is not None and not is_stereo,
            baseline=self._optics.baseline if is_stereo else None,
            timestamps=stamps,
            ground_truth=[None] * len(rows),
            faults=faults,
        )
        self.imu = imu

    def _find_optics(self, reader: BagReader, camera: CameraArgument | None) -> tuple[Optics, list[SequenceFault]]:
        roles, faults = self.topics, []
        if camera is None and roles.info is not None:
            where = f"{self._path} {roles.info}"
            camera = self._calibration(reader, roles, where)
        elif camera is None:
            message = f"{self._path}: no camera_info beside {roles.rgb}; pass --camera or --topics info=TOPIC"
            faults.append(SequenceFault(kind="missing", message=message))
        is_stereo = roles.right is not None and isinstance(camera, Calibration) and camera.right is not None
        if roles.right is not None and not is_stereo:
            message = f"{self._path}: no calibration of both cameras, so {roles.right} is left out"
            faults.append(SequenceFault(kind="unpaired", message=message))
        return optics_for(camera, self._image_size, stereo=is_stereo), faults

    def _calibration(self, reader: BagReader, roles: TopicRoles, where: str) -> Calibration:
        assert roles.info is not None
        left = camera_of(reader.first(roles.info), where)
        rectified = any(part.startswith("image_rect") for part in roles.rgb.split("/"))
        try:
            if roles.right is not None and roles.right_info is not None:
                right = camera_of(reader.first(roles.right_info), f"{self._path} {roles.right_info}")
                return ros_pair(left, right, rectified=rectified)
            return Calibration(left=left.lens(rectified=rectified))
        except ConfigError as error:
            raise DatasetError(f"{where}: {error}") from None

    def _index(self, reader: BagReader) -> tuple[dict[str, _Stream], ImuSamples | None]:
        roles = self.topics
        wanted = [name for name in (roles.rgb, roles.depth, roles.right, roles.imu) if name is not None]
        streams = {name: _Stream() for name in wanted}
        rows: list[tuple[float, ...]] = []
        for topic, time_ns, message in reader.messages(wanted):
            stream = streams[topic]
            same = bool(stream.places) and stream.places[-1].time_ns == time_ns
            stream.places.append(Place(time_ns=time_ns, ordinal=stream.places[-1].ordinal + 1 if same else 0))
            stream.captured.append(header_seconds(message))
            if topic == roles.imu:
                rows.append(imu_row(message))
        if roles.imu is None:
            return streams, None
        values = np.array(rows, dtype=np.float64).reshape(-1, 6)
        stamps = np.array(streams[roles.imu].seconds(), dtype=np.float64)
        return streams, ImuSamples(timestamps=stamps, gyro=values[:, :3], accel=values[:, 3:])

    def _frames(
        self, streams: Mapping[str, _Stream], faults: list[SequenceFault], strict: bool
    ) -> tuple[list[tuple[float, int, int | None]], str | None]:
        """(seconds, number of the image, number of the second message), and the second topic."""
        roles = self.topics

        def in_order(topic: str) -> list[tuple[float, int]]:
            seconds = streams[topic].seconds()
            listed = [(stamp, number + 1, number) for number, stamp in enumerate(seconds)]
            rows, found = rows_by_time(listed, Path(f"{self._path}{topic}"), strict=strict)
            faults.extend(found)
            return rows

        images = in_order(roles.rgb)
        second = roles.depth or (roles.right if self._optics.baseline is not None else None)
        if second is None:
            return [(stamp, number, None) for stamp, number in images], None
        others = in_order(second)
        pairs = associate_by_time(
            [stamp for stamp, _ in images], [stamp for stamp, _ in others], max_difference_s=_MAX_PAIR_DIFFERENCE_S
        )
        if len(pairs) == 0:
            raise DatasetError(
                f"{self._path}: no message of {roles.rgb} has one of {second} within {_MAX_PAIR_DIFFERENCE_S} s "
                f"(they begin at {images[0][0]:.3f} and {others[0][0]:.3f} s); do their clocks differ?"
            )
        if len(pairs) < len(images):
            message = f"{self._path}: {len(images) - len(pairs)} of {len(images)} images have no message of {second}"
            faults.append(SequenceFault(kind="unpaired", message=f"{message} and are left out"))
        return [(images[i][0], images[i][1], others[j][1]) for i, j in pairs.tolist()], second

    def _delivered_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._optics.delivered_mask(mask)

    def _load(self, index: int) -> Frame:
        optics, (image_number, second_number) = self._optics, self._numbers[index]
        where = f"{self._path} {self.topics.rgb} message {image_number}"
        image = decode_image(self._image.read(image_number), where)
        self._check_size(image, where)
        depth = right = None
        if second_number is not None and self._second is not None and (self.has_depth or self.baseline is not None):
            message = self._second.read(second_number)
            where = f"{self._path} {self.topics.depth or self.topics.right} message {second_number}"
            if self.has_depth:
                depth = decode_depth(message, where)
                self._check_size(depth, where)
            else:
                right = decode_image(message, where)
                self._check_size(right, where)
        return Frame(
            index=index,
            timestamp=float(self.timestamps[index]),
            image=image if optics.left is None else optics.left(image),
            depth=depth if depth is None or optics.depth is None else optics.depth(depth),
            right=right if right is None or optics.right is None else optics.right(right),
        )

    def _check_size(self, image: NDArray[np.uint8] | NDArray[np.float32], where: str) -> None:
        size = (image.shape[1], image.shape[0])
        if size != self._image_size:
            expected = "{}x{}".format(*self._image_size)
            raise DatasetError(f"{where}: is {size[0]}x{size[1]}, the images are {expected}")


def open_bag(
    path: Path,
    camera: CameraArgument | None = None,
    *,
    topics: Mapping[str, str] | str | None = None,
    strict: bool = False,
) -> BagSequence:
    """Open a bag: see :class:`BagSequence`."""
    return BagSequence(path, camera, topics=topics, strict=strict)
