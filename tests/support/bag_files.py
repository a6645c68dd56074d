"""Bags written with rosbags, as a robot would have recorded them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

STAMP_0 = 1_700_000_000.0


@dataclass(kw_only=True)
class Bag:
    """Messages to be written: (topic, type, seconds of recording, message)."""

    ros1: bool = False
    messages: list[tuple[str, str, float, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_HUMBLE)
        self.types = self.store.types

    def add(self, topic: str, kind: str, seconds: float, **fields: Any) -> None:
        kind = f"sensor_msgs/msg/{kind}" if "/" not in kind else kind
        self.messages.append((topic, kind, seconds, self.types[kind](**fields)))

    def header(self, seconds: float, frame: str = "camera") -> Any:
        nanoseconds = round(seconds * 1e9)
        stamp = self.types["builtin_interfaces/msg/Time"](sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        extra = {"seq": 0} if self.ros1 else {}
        return self.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame, **extra)

    def image(
        self, topic: str, seconds: float, pixels: np.ndarray, encoding: str, *, frame: str = "camera",
        recorded: float | None = None, pad: int = 0,
    ) -> None:  # fmt: skip
        rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
        rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
        self.add(
            topic, "Image", seconds if recorded is None else recorded, header=self.header(seconds, frame),
            height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
            is_bigendian=int(pixels.dtype.byteorder == ">"), step=rows.shape[1], data=rows.reshape(-1),
        )  # fmt: skip

    def compressed(self, topic: str, seconds: float, data: bytes, text: str, *, frame: str = "camera") -> None:
        self.add(topic, "CompressedImage", seconds, header=self.header(seconds, frame), format=text,
                 data=np.frombuffer(data, np.uint8))  # fmt: skip

    def info(
        self, topic: str, seconds: float, size: tuple[int, int], camera: Iterable[float], *, D: Iterable[float] = (),
        model: str = "plumb_bob", tx: float = 0.0, R: np.ndarray | None = None, binning: int = 0,
    ) -> None:  # fmt: skip
        fx, fy, cx, cy = camera
        K = np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], dtype=np.float64)
        P = np.array([fx, 0, cx, tx, 0, fy, cy, 0, 0, 0, 1, 0], dtype=np.float64)
        names = ("D", "K", "R", "P") if self.ros1 else ("d", "k", "r", "p")
        values = (np.array([*D], dtype=np.float64), K, (np.eye(3) if R is None else R).reshape(-1), P)
        roi = self.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self.add(topic, "CameraInfo", seconds, header=self.header(seconds), width=size[0], height=size[1],
                 distortion_model=model, binning_x=binning, binning_y=binning, roi=roi,
                 **dict(zip(names, values, strict=True)))  # fmt: skip

    def imu(self, topic: str, seconds: float, gyro: Iterable[float], accel: Iterable[float]) -> None:
        vector = self.types["geometry_msgs/msg/Vector3"]
        turn = self.types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
        zero = np.zeros(9)
        g, a = (dict(zip("xyz", map(float, values), strict=True)) for values in (gyro, accel))
        self.add(topic, "Imu", seconds, header=self.header(seconds), orientation=turn, orientation_covariance=zero,
                 angular_velocity=vector(**g), angular_velocity_covariance=zero, linear_acceleration=vector(**a),
                 linear_acceleration_covariance=zero)  # fmt: skip

    def text(self, topic: str, seconds: float, data: str) -> None:
        self.add(topic, "std_msgs/msg/String", seconds, data=data)

    def write(self, path: Path, storage: str = "mcap") -> Path:
        """The bag at ``path``: a folder for ROS 2, a file for ROS 1."""
        from rosbags.rosbag1 import Writer as Writer1
        from rosbags.rosbag2 import StoragePlugin
        from rosbags.rosbag2 import Writer as Writer2

        writer = Writer1(path) if self.ros1 else Writer2(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        serialize = self.store.serialize_ros1 if self.ros1 else self.store.serialize_cdr
        with writer:
            connections: dict[str, Any] = {}
            for topic, kind, seconds, message in sorted(self.messages, key=lambda entry: entry[2]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=self.store)
                writer.write(connections[topic], round(seconds * 1e9), serialize(message, kind))
        return path


def png(pixels: np.ndarray) -> bytes:
    """RGB or one channel as PNG."""
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode(".png", stored)[1].tobytes()
