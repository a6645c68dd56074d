"""Luxonis OAK depth cameras through depthai 3 (``pip install 'semkey[oak]'``): colour and stereo depth.

The device undistorts the colour image and aligns depth to it; both come with one stamp, of the device's clock.
"""

from __future__ import annotations

import importlib
import logging
from datetime import timedelta
from typing import Any

import numpy as np

from semkey.datasets.cameras.lens import Lens
from semkey.datasets.live.camera import LiveImages
from semkey.errors import ConfigError, DatasetError

log = logging.getLogger(__name__)

SIZE = (640, 400)
"""Width and height of the images, pixels: the size at which the device computes depth."""
RATE_HZ = 30.0
# Longest wait for images: a device that has just got its firmware needs seconds.
_PATIENCE = timedelta(seconds=10)
_METRES = 0.001  # depth is 16-bit millimetres, 0 unknown


class Oak:
    """A :class:`semkey.datasets.live.camera.LiveCamera` over depthai.

    Args:
        device: its id, name or address, or empty for any that is connected.

    Raises:
        ConfigError: depthai 3 is not installed.
        DatasetError: no such device, or it has no stereo pair or colour camera.
    """

    kind = "oak"
    has_depth = True

    def __init__(self, device: str = "") -> None:
        try:
            sdk: Any = importlib.import_module("depthai")
        except ImportError:
            raise ConfigError("oak: needs the SDK of Luxonis: pip install 'semkey[oak]'") from None
        if not hasattr(sdk.node, "Camera") or not hasattr(sdk.node.Camera, "requestOutput"):
            raise ConfigError("oak: needs depthai 3: pip install --upgrade 'semkey[oak]'")
        self.name = f"oak-{device}" if device else "oak"
        try:
            opened = sdk.Device(sdk.DeviceInfo(device)) if device else sdk.Device()
        except RuntimeError as error:
            which = f"no camera {device}" if device else "no camera is connected"
            reason = str(error).partition("\n")[0]
            raise DatasetError(f"oak: {which}, or this user may not open it (udev rules): {reason}") from None
        try:
            self._pipeline, self._queue = _started(sdk, opened)
            first = self._wait()
        except RuntimeError as error:
            opened.close()
            reason = str(error).partition("\n")[0]
            raise DatasetError(f"{self.name}: cannot give colour with stereo depth ({reason})") from None
        self._is_open = True
        if first is None:
            self.close()
            raise DatasetError(f"{self.name}: gives no image within {_PATIENCE.total_seconds():.0f} s")
        self._first: LiveImages | None = self._images(first)
        height, width = self._first.image.shape[:2]
        self.size = (width, height)
        self.lens: Lens | None = _lens(first["rgb"], self.size)

    def grab(self) -> LiveImages | None:
        """The next pair of colour and depth, None when the device was unplugged or closed."""
        if self._first is not None:
            images, self._first = self._first, None
            return images
        if not self._is_open:
            return None
        try:
            group = self._wait()
        except RuntimeError:  # the connection broke
            return None
        return None if group is None else self._images(group)

    def close(self) -> None:
        """Stop the device; there are no more images then."""
        if self._is_open:
            self._is_open = False
            self._first = None
            self._pipeline.stop()

    def _wait(self) -> Any:
        return self._queue.get(_PATIENCE)

    @staticmethod
    def _images(group: Any) -> LiveImages:
        color, depth = group["rgb"], group["depth"]
        return LiveImages(
            timestamp=color.getTimestampDevice().total_seconds(),
            image=np.ascontiguousarray(color.getCvFrame()[:, :, ::-1]),  # OpenCV's order, BGR
            depth=np.asarray(depth.getFrame()).astype(np.float32) * np.float32(_METRES),
        )


def _started(sdk: Any, device: Any) -> tuple[Any, Any]:
    """A running pipeline and the queue of its pairs."""
    pipeline = sdk.Pipeline(device)
    sockets = sdk.CameraBoardSocket
    color = pipeline.create(sdk.node.Camera).build(sockets.CAM_A)
    stereo, sync = pipeline.create(sdk.node.StereoDepth), pipeline.create(sdk.node.Sync)
    image = color.requestOutput(size=SIZE, fps=RATE_HZ, enableUndistortion=True)
    for socket, side in ((sockets.CAM_B, stereo.left), (sockets.CAM_C, stereo.right)):
        pipeline.create(sdk.node.Camera).build(socket).requestOutput(size=SIZE, fps=RATE_HZ).link(side)
    stereo.setLeftRightCheck(True)  # leaves out what one of the two cameras does not see
    stereo.setSubpixel(True)
    sync.setSyncThreshold(timedelta(seconds=0.5 / RATE_HZ))
    image.link(sync.inputs["rgb"])
    if device.getPlatform() == sdk.Platform.RVC4:  # its stereo has no alignment of its own
        align = pipeline.create(sdk.node.ImageAlign)
        stereo.depth.link(align.input)
        image.link(align.inputAlignTo)
        align.outputAligned.link(sync.inputs["depth"])
    else:
        image.link(stereo.inputAlignTo)
        stereo.depth.link(sync.inputs["depth"])
    # One pair at most waits: what is read should be what the camera sees now.
    queue = sync.out.createOutputQueue(maxSize=1, blocking=False)
    pipeline.start()
    return pipeline, queue


def _lens(frame: Any, size: tuple[int, int]) -> Lens | None:
    """The pinhole of a frame that the device undistorted, by the frame's own description."""
    matrix = np.asarray(frame.getTransformation().getIntrinsicMatrix(), dtype=np.float64)
    if matrix.shape != (3, 3) or not matrix[0, 0] > 0 or not matrix[1, 1] > 0:
        log.warning("oak: the device has no calibration; give --camera")
        return None
    fx, fy, cx, cy = (float(value) for value in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
    return Lens(model="pinhole", intrinsics=(fx, fy, cx, cy), size=size)
