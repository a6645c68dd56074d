"""Intel RealSense depth cameras through librealsense (``pip install 'semkey[realsense]'``): colour and depth.

Depth is aligned to the colour image by the SDK, in metres by the device's own unit. A recording of the SDK (``.bag``,
``.db3`` of the RealSense Viewer) is played in place of a device: ``realsense:recording.db3``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.lens import Lens
from semkey.datasets.live.camera import LiveImages
from semkey.errors import ConfigError, DatasetError

# Longest wait for images: a device needs about a second to start.
_PATIENCE_MS = 5000
# What the SDK records: ROS 1 bags before 2.57, ROS 2 ones since.
_RECORDINGS = (".bag", ".db3")
# The index of whichever stream there is of a kind.
_ANY = -1
# Pixels across which the SDK is asked for rays, and the largest error of a lens that is fitted to them, pixels.
_RAYS_ACROSS = 17
_MOST_RESIDUAL_PX = 0.05


class RealSense:
    """A :class:`semkey.datasets.live.camera.LiveCamera` over librealsense.

    Args:
        device: serial number, the path of a recording of the SDK, or empty for any camera that is connected.

    Raises:
        ConfigError: the SDK is not installed.
        DatasetError: no such device, or it has no colour or no depth.
    """

    kind = "realsense"
    has_depth = True

    def __init__(self, device: str = "") -> None:
        try:
            self._sdk: Any = importlib.import_module("pyrealsense2")
        except ImportError:
            raise ConfigError("realsense: needs Intel's SDK: pip install 'semkey[realsense]'") from None
        sdk = self._sdk
        self.name = f"realsense-{Path(device).stem}" if device else "realsense"
        self._pipeline, config = sdk.pipeline(), sdk.config()
        is_file = Path(device).suffix.lower() in _RECORDINGS
        if is_file and not Path(device).is_file():
            raise DatasetError(f"{device}: no such recording")
        if not is_file:
            _require_connected(sdk, device)
        try:
            if is_file:
                config.enable_device_from_file(device, False)
            elif device:
                config.enable_device(device)
            # Sizes and rates are the device's own choice: a USB 2 cable allows others than a USB 3 one.
            config.enable_stream(sdk.stream.depth, _ANY, 0, 0, sdk.format.z16, 0)
            config.enable_stream(sdk.stream.color, _ANY, 0, 0, sdk.format.rgb8, 0)
            profile = self._pipeline.start(config)
        except RuntimeError as error:
            raise DatasetError(f"{self.name}: cannot be started with colour and depth ({_first_line(error)})") from None
        self._is_open = True
        if is_file:  # a run that is slower than the recording must not lose frames
            profile.get_device().as_playback().set_real_time(False)
        self._align = sdk.align(sdk.stream.color)
        self._metres = float(profile.get_device().first_depth_sensor().get_depth_scale())
        intrinsics = profile.get_stream(sdk.stream.color).as_video_stream_profile().get_intrinsics()
        self.size = (int(intrinsics.width), int(intrinsics.height))
        try:
            self.lens: Lens | None = lens_of(sdk, intrinsics)
        except ConfigError as error:
            self.close()
            raise DatasetError(f"{self.name}: {error}") from None

    def grab(self) -> LiveImages | None:
        """The next pair of colour and depth, None when the device was unplugged or closed, or a recording ends."""
        while self._is_open:
            try:
                found, frames = self._pipeline.try_wait_for_frames(_PATIENCE_MS)
                if not found:
                    return None
                aligned = self._align.process(frames)
            except RuntimeError:
                return None
            color, depth = aligned.get_color_frame(), aligned.get_depth_frame()
            if not color or not depth:
                continue  # one of the two was dropped on the cable
            return LiveImages(
                timestamp=color.get_timestamp() / 1000,
                # Copies: the SDK has a few buffers only, and waits for those that are still held.
                image=np.array(color.get_data(), dtype=np.uint8),
                depth=np.asarray(depth.get_data()).astype(np.float32) * np.float32(self._metres),
            )
        return None

    def close(self) -> None:
        """Stop the device; there are no more images then."""
        if self._is_open:
            self._is_open = False
            self._pipeline.stop()


def _require_connected(sdk: Any, device: str) -> None:
    connected = [str(one.get_info(sdk.camera_info.serial_number)) for one in sdk.context().query_devices()]
    if not connected:
        raise DatasetError("realsense: no camera is connected, or this user may not open it (udev rules)")
    if device and device not in connected:
        raise DatasetError(f"realsense: no camera {device}; connected: {', '.join(sorted(connected))}")


def lens_of(sdk: Any, intrinsics: Any) -> Lens:
    """The lens of a stream, by the rays that the SDK itself gives its pixels.

    librealsense has models that OpenCV does not, and applies some in other directions than their names say. So the
    coefficients of OpenCV's model are fitted to the SDK's rays (it is linear in them), and have to reproduce them.

    Raises:
        ConfigError: no lens of ours has these rays within 0.05 px.
    """
    numbers = (intrinsics.fx, intrinsics.fy, intrinsics.ppx, intrinsics.ppy)
    focal_and_centre = (float(numbers[0]), float(numbers[1]), float(numbers[2]), float(numbers[3]))
    size = (int(intrinsics.width), int(intrinsics.height))
    x, y = np.meshgrid(np.linspace(0, size[0] - 1, _RAYS_ACROSS), np.linspace(0, size[1] - 1, _RAYS_ACROSS))
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    rays = np.array([sdk.rs2_deproject_pixel_to_point(intrinsics, [u, v], 1.0) for u, v in pixels])
    fisheye = tuple(float(value) for value in list(intrinsics.coeffs)[:4])
    for lens in (
        Lens(model="pinhole", intrinsics=focal_and_centre, size=size),
        Lens(
            model="radial-tangential",
            intrinsics=focal_and_centre,
            distortion=_fitted(rays, pixels, focal_and_centre),
            size=size,
        ),
        Lens(model="fisheye", intrinsics=focal_and_centre, distortion=fisheye, size=size),
    ):
        if np.abs(lens.project(rays) - pixels).max() < _MOST_RESIDUAL_PX:
            return lens
    raise ConfigError(f"its lens ({intrinsics.model}) is none that semkey has; calibrate it and give --camera FILE")


def _fitted(
    rays: NDArray[np.float64], pixels: NDArray[np.float64], intrinsics: tuple[float, float, float, float]
) -> tuple[float, ...]:
    """k1 k2 p1 p2 k3 by least squares from rays (N, 3) and their pixels (N, 2)."""
    fx, fy, cx, cy = intrinsics
    x, y = rays[:, 0] / rays[:, 2], rays[:, 1] / rays[:, 2]
    square = x * x + y * y
    rows = [
        np.stack([a * square, a * square**2, first, second, a * square**3], axis=1)
        for a, first, second in ((x, 2 * x * y, square + 2 * x * x), (y, square + 2 * y * y, 2 * x * y))
    ]
    shifts = np.concatenate([(pixels[:, 0] - cx) / fx - x, (pixels[:, 1] - cy) / fy - y])
    return tuple(float(value) for value in np.linalg.lstsq(np.concatenate(rows), shifts, rcond=None)[0])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
