"""Folders of Stray Scanner (iPhone, iPad): a video, smaller depth maps with confidence, poses and an IMU.

``rgb.mp4``, ``odometry.csv`` (camera to world, looking along z with y down), ``depth/N.png`` (millimetres),
``confidence/N.png`` (0, 1, 2), ``camera_matrix.csv`` (of the video's images), ``imu.csv``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, optics_for, read_camera_file
from semkey.datasets.readers.listing import log_faults, time_gaps
from semkey.datasets.readers.small_depth import enlarged
from semkey.datasets.readers.video import VideoSequence
from semkey.datasets.sequence import Frame, FrameSequence, ImuSamples, SequenceFault
from semkey.errors import DatasetError, InputError
from semkey.geometry.transforms import make_transform, rotation_from_quaternion_xyzw
from semkey.images.reading import read_depth, read_image
from semkey.textfiles import finite_number, numbered_rows

_MILLIMETRES = 1000.0
# The lowest confidence is given at edges and beyond the sensor's reach.
_LEAST_CONFIDENCE = 1


def is_stray(path: Path) -> bool:
    """Whether this is a folder of Stray Scanner."""
    return all((path / name).is_file() for name in ("rgb.mp4", "odometry.csv", "camera_matrix.csv"))


class StraySequence(FrameSequence):
    """A folder of Stray Scanner; ``imu`` has its inertial measurements.

    Args:
        path: the folder.
        camera: see :func:`semkey.datasets.open_sequence`.

    Raises:
        DatasetError: a file is missing or has a broken row.
    """

    def __init__(self, path: Path, camera: CameraArgument | None = None) -> None:
        self._path = path
        self._video = VideoSequence(path / "rgb.mp4")
        first = self._video[0].image
        self._image_size = (first.shape[1], first.shape[0])
        if camera is None:
            camera = read_camera_file(path / "camera_matrix.csv")
        self._optics = optics_for(camera, self._image_size)
        rows = _odometry(path / "odometry.csv")
        count = min(len(rows), len(self._video))
        faults: list[SequenceFault] = []
        if len(rows) != len(self._video):
            message = f"{path}: {len(rows)} poses, but {len(self._video)} frames in rgb.mp4; the first {count} are used"
            faults.append(SequenceFault(kind="unpaired", message=message))
        stamps = np.array([stamp for stamp, _ in rows[:count]], dtype=np.float64)
        if (np.diff(stamps) <= 0).any():
            raise DatasetError(f"{path / 'odometry.csv'}: time does not increase")
        faults += time_gaps(path.name, stamps)
        log_faults(faults)
        super().__init__(
            name=path.resolve().name,
            format="stray",
            camera=self._optics.camera,
            has_depth=(path / "depth").is_dir(),
            timestamps=stamps,
            ground_truth=[pose for _, pose in rows[:count]],
            faults=faults,
        )
        self.imu: ImuSamples | None = _stray_imu(path / "imu.csv")

    def _delivered_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._optics.delivered_mask(mask)

    def _load(self, index: int) -> Frame:
        optics = self._optics
        image = self._video[index].image
        depth = self._depth(index) if self.has_depth else None
        return Frame(
            index=index,
            timestamp=float(self.timestamps[index]),
            image=image if optics.left is None else optics.left(image),
            depth=depth if depth is None or optics.depth is None else optics.depth(depth),
            T_world_cam=self.ground_truth[index],
        )

    def _depth(self, index: int) -> NDArray[np.float32]:
        depth = read_depth(self._path / f"depth/{index:06d}.png", _MILLIMETRES)
        confidence = self._path / f"confidence/{index:06d}.png"
        if confidence.is_file():
            sure = read_image(confidence)[:, :, 0]
            if sure.shape != depth.shape:
                raise DatasetError(f"{confidence}: has another size than its depth map")
            depth[sure < _LEAST_CONFIDENCE] = 0.0
        return enlarged(depth, self._image_size)


def open_stray(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> StraySequence:
    """Open a folder of Stray Scanner: see :class:`StraySequence`."""
    del strict
    return StraySequence(path, camera)


def _odometry(path: Path) -> list[tuple[float, NDArray[np.float64]]]:
    """(seconds, T_world_cam) of each frame."""
    rows = []
    for line, columns in numbered_rows(path):
        if columns[0] == "timestamp":
            continue
        if len(columns) < 9:
            raise DatasetError(f"{path}:{line}: expected 9 columns (timestamp frame x y z qx qy qz qw)")
        stamp, _, *values = (finite_number(text, path, line) for text in columns[:9])
        try:
            rows.append((stamp, make_transform(rotation_from_quaternion_xyzw(values[3:]), values[:3])))
        except InputError as error:
            raise DatasetError(f"{path}:{line}: {error}") from None
    if not rows:
        raise DatasetError(f"{path}: lists no poses")
    return rows


def _stray_imu(path: Path) -> ImuSamples | None:
    if not path.is_file():
        return None
    rows = [
        [finite_number(text, path, line) for text in columns[:7]]
        for line, columns in numbered_rows(path)
        if columns[0] != "timestamp"
    ]
    if not rows or any(len(row) != 7 for row in rows):
        raise DatasetError(f"{path}: expected 7 columns (timestamp, acceleration, angular velocity)")
    values = np.array(rows, dtype=np.float64)
    return ImuSamples(timestamps=values[:, 0], accel=values[:, 1:4], gyro=values[:, 4:7])
