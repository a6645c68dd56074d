"""ROS messages as arrays: images in all common encodings, depth maps, camera_info and IMU rows."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.ros import RosCamera
from semkey.errors import DatasetError

#: Encodings of raw depth images, and their units per metre.
DEPTH_UNITS = {"16UC1": 1000.0, "mono16": 1000.0, "32FC1": 1.0}

# Number type, channels, how OpenCV makes RGB of it (None: it is RGB), and the encodings that are so.
_KINDS_OF_RAW: tuple[tuple[str, int, int | None, str], ...] = (
    ("u1", 3, None, "rgb8"),
    ("u2", 3, None, "rgb16"),
    ("u1", 3, cv2.COLOR_BGR2RGB, "bgr8 8UC3"),
    ("u2", 3, cv2.COLOR_BGR2RGB, "bgr16"),
    ("u1", 4, cv2.COLOR_RGBA2RGB, "rgba8"),
    ("u1", 4, cv2.COLOR_BGRA2RGB, "bgra8 8UC4"),
    ("u1", 1, cv2.COLOR_GRAY2RGB, "mono8 8UC1"),
    ("u2", 1, cv2.COLOR_GRAY2RGB, "mono16"),
    ("u1", 2, cv2.COLOR_YUV2RGB_UYVY, "yuv422 uyvy"),
    ("u1", 2, cv2.COLOR_YUV2RGB_YUY2, "yuv422_yuy2 yuyv"),
    # OpenCV names a mosaic by its second row and column.
    ("u1", 1, cv2.COLOR_BayerBG2RGB, "bayer_rggb8"),
    ("u1", 1, cv2.COLOR_BayerRG2RGB, "bayer_bggr8"),
    ("u1", 1, cv2.COLOR_BayerGR2RGB, "bayer_gbrg8"),
    ("u1", 1, cv2.COLOR_BayerGB2RGB, "bayer_grbg8"),
)
_RAW: dict[str, tuple[str, int, int | None]] = {name: kind[:3] for kind in _KINDS_OF_RAW for name in kind[3].split()}
# compressed_depth_image_transport: a header of one integer and two floats stands before the PNG.
_DEPTH_HEADER = struct.Struct("<iff")


def encoding_of(message: Any) -> str:
    """The encoding of a raw image, or the format of a compressed one."""
    return str(message.format if hasattr(message, "format") else message.encoding)


def is_depth(message: Any) -> bool:
    """Whether an image message says that it holds depth (``mono16`` may be either and counts as an image)."""
    encoding = encoding_of(message)
    return encoding in ("16UC1", "32FC1") or "compressedDepth" in encoding or encoding.startswith("16UC1")


def decode_image(message: Any, where: str) -> NDArray[np.uint8]:
    """An image message as (H, W, 3) uint8 RGB.

    Raises:
        DatasetError: an encoding that is no picture, too few bytes, or compressed data that are damaged.
    """
    if hasattr(message, "format"):
        pixels = _decompress(np.asarray(message.data), cv2.IMREAD_COLOR, where)
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    encoding = str(message.encoding)
    if encoding not in _RAW:
        raise DatasetError(f"{where}: encoding '{encoding}' is no picture; known are {', '.join(_RAW)}")
    kind, channels, conversion = _RAW[encoding]
    pixels = _rows(message, kind, channels, where)
    if kind == "u2":
        pixels = (pixels >> 8).astype(np.uint8)
    return np.ascontiguousarray(pixels if conversion is None else cv2.cvtColor(pixels, conversion), dtype=np.uint8)


def decode_depth(message: Any, where: str) -> NDArray[np.float32]:
    """A depth message as (H, W) float32 metres, 0 where unknown.

    Raw ``16UC1`` and ``mono16`` are millimetres, ``32FC1`` is metres (REP 118); ``compressedDepth`` is either, as PNG.

    Raises:
        DatasetError: another encoding, too few bytes, or compressed data that are damaged.
    """
    if hasattr(message, "format"):
        return _decode_compressed_depth(message, where)
    encoding = str(message.encoding)
    if encoding not in DEPTH_UNITS:
        raise DatasetError(f"{where}: encoding '{encoding}' is no depth; known are {', '.join(DEPTH_UNITS)}")
    stored = _rows(message, "f4" if encoding == "32FC1" else "u2", 1, where)
    return _metres(stored, DEPTH_UNITS[encoding])


def camera_of(message: Any, where: str) -> RosCamera:
    """The camera of a ``CameraInfo`` message (fields are in lower case in ROS 2).

    Raises:
        DatasetError: the image was binned or cropped: then K is not that of the images.
    """

    def values(name: str) -> NDArray[np.float64]:
        return np.asarray(getattr(message, name, getattr(message, name.lower(), ())), dtype=np.float64)

    size = (int(message.width), int(message.height))
    binned = max(int(message.binning_x), int(message.binning_y)) > 1
    roi = message.roi
    if binned or (int(roi.width) and (int(roi.width), int(roi.height)) != size):
        raise DatasetError(f"{where}: the images are binned or cropped; pass --camera for the images as they are")
    R = values("R").reshape(3, 3)
    return RosCamera(
        size=size,
        model=str(message.distortion_model),
        D=tuple(values("D").tolist()),
        K=values("K").reshape(3, 3),
        R=R if R.any() else np.eye(3),
        P=values("P").reshape(3, 4),
    )


def imu_row(message: Any) -> tuple[float, ...]:
    """Angular velocity (rad/s) and linear acceleration (m/s^2) of an ``Imu`` message: six numbers."""
    gyro, accel = message.angular_velocity, message.linear_acceleration
    return (gyro.x, gyro.y, gyro.z, accel.x, accel.y, accel.z)


def header_seconds(message: Any) -> float:
    """When the message was captured, by its header; 0.0 where the driver left it empty."""
    stamp = message.header.stamp
    return int(stamp.sec) + int(stamp.nanosec) / 1e9


def _rows(message: Any, kind: str, channels: int, where: str) -> NDArray[Any]:
    """Pixels (H, W) or (H, W, C) in native byte order, without what fills the rows up."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    number = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    row = width * channels * number.itemsize
    data = np.asarray(message.data, dtype=np.uint8)
    if min(height, width) < 1 or step < row or data.size < step * height:
        raise DatasetError(
            f"{where}: {data.size} bytes are no {width}x{height} image of encoding {message.encoding} (step {step})"
        )
    stored = np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :row]).view(number)
    pixels = stored.astype(number.newbyteorder("="), copy=False)
    return pixels if channels == 1 else pixels.reshape(height, width, channels)


def _decompress(data: NDArray[np.uint8], flags: int, where: str) -> NDArray[Any]:
    try:
        pixels = cv2.imdecode(np.asarray(data, dtype=np.uint8), flags) if len(data) else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise DatasetError(f"{where}: the compressed image cannot be decoded ({len(data)} bytes)")
    return pixels


def _decode_compressed_depth(message: Any, where: str) -> NDArray[np.float32]:
    text = str(message.format)
    data = np.asarray(message.data, dtype=np.uint8)
    if "rvl" in text.lower():
        raise DatasetError(f"{where}: format '{text}': RVL is not supported; convert the topic to png")
    if "compressedDepth" not in text:  # a plain PNG of 16 bits
        stored = _decompress(data, cv2.IMREAD_UNCHANGED, where)
        if stored.dtype != np.uint16 or stored.ndim != 2:
            raise DatasetError(f"{where}: format '{text}' holds no 16-bit depth")
        return _metres(stored, DEPTH_UNITS["16UC1"])
    if len(data) <= _DEPTH_HEADER.size:
        raise DatasetError(f"{where}: the compressed depth has {len(data)} bytes only")
    _, quant_a, quant_b = _DEPTH_HEADER.unpack(data[: _DEPTH_HEADER.size].tobytes())
    stored = _decompress(data[_DEPTH_HEADER.size :], cv2.IMREAD_UNCHANGED, where)
    if text.startswith("32FC1"):
        # Inverse depth in steps: metres are a / (stored - b); 0 is unknown.
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = np.where(stored > 0, quant_a / (stored.astype(np.float64) - quant_b), 0.0)
        return _metres(metres.astype(np.float32), 1.0)
    return _metres(stored, DEPTH_UNITS["16UC1"])


def _metres(stored: NDArray[Any], units: float) -> NDArray[np.float32]:
    depth = stored.astype(np.float32) * np.float32(1.0 / units)
    invalid = ~np.isfinite(depth) | (depth < 0)
    if stored.dtype == np.uint16:
        invalid |= stored == np.iinfo(np.uint16).max
    depth[invalid] = 0.0
    return depth
