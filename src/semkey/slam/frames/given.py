"""A frame as somebody's own loop hands it over: whatever is wrong with it is one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.datasets import Frame
from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.images.masks import check_mask
from semkey.images.orientation import UPRIGHT
from semkey.images.reading import read_image
from semkey.slam.frames.sensing import CameraSensor

# No camera sees farther away in metres; what does is in millimetres.
_FARTHEST_M = 655.0


def given_frame(
    index: int,
    timestamp: float,
    image: Any,
    depth: Any,
    right: Any,
    mask: Any = None,
    *,
    camera: PinholeCamera,
    sensor: CameraSensor,
    after: float,
) -> Frame:
    """Check the images of one frame.

    Args:
        index: number of the frame.
        timestamp: seconds.
        image: path, or (H, W, 3) RGB or (H, W) grey uint8.
        depth: (H, W) metres, floats; None where there is none.
        right: like ``image``; None where there is none.
        mask: (H, W) uint8 or bool, 0 for pixels to ignore; None where all count.
        camera: whose size the images must have.
        sensor: what of this it needs.
        after: time of the frame before, seconds.

    Raises:
        InputError: something is missing, superfluous, or has another type, size or unit.
    """
    try:
        time = float(timestamp)
    except (TypeError, ValueError):
        raise InputError(f"the timestamp is {timestamp!r}, expected seconds") from None
    if not 0 <= time < np.inf:
        raise InputError(f"the timestamp is {time}, expected seconds, not negative")
    if not time > after:
        raise InputError(f"the timestamp {time:.6f} s is not after that of the last frame, {after:.6f} s")
    for what, value, needed in (("depth", depth, sensor.needs_depth), ("right image", right, sensor.needs_right)):
        if needed and value is None:
            raise InputError(f"the frame has no {what}, which the sensor '{sensor.name}' needs")
        if value is not None and not needed:
            raise InputError(f"the frame has a {what}, which the sensor '{sensor.name}' does not use: leave it out")
    return Frame(
        index=index,
        timestamp=time,
        image=_image(image, "image", camera),
        depth=None if depth is None else _depth(depth, camera),
        right=None if right is None else _image(right, "right image", camera),
        mask=None if mask is None else check_mask(mask, (camera.width, camera.height)).astype(np.uint8),
    )


def _image(image: Any, what: str, camera: PinholeCamera) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        image = read_image(image, orientation=UPRIGHT)  # the camera is that of the stored pixels
    if not isinstance(image, np.ndarray):
        raise InputError(f"the {what} is a {type(image).__name__}: pass a uint8 array (H, W, 3) RGB, or a path")
    if image.ndim == 4:
        raise InputError(f"the {what} has shape {image.shape}: pass one image at a time, (H, W, 3) RGB")
    if image.ndim == 3 and image.shape[2] == 4:
        raise InputError(f"the {what} has shape {image.shape}: pass RGB without the fourth channel, image[..., :3]")
    if image.dtype != np.uint8:
        raise InputError(f"the {what} has dtype {image.dtype}: pass uint8 in 0..255")
    _check_size(image, what, camera, dimensions=(2, 3))
    if image.ndim == 3 and image.shape[2] not in (1, 3):
        raise InputError(f"the {what} has shape {image.shape}: pass (H, W, 3) RGB or (H, W)")
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return image


def _depth(depth: Any, camera: PinholeCamera) -> NDArray[np.float32]:
    array = np.asarray(depth)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"the depth has dtype {array.dtype}: pass metres as floats, such as depth / 1000.0 for a sensor in "
            "millimetres, or depth / 5000.0 for images of TUM"
        )
    _check_size(array, "depth", camera, dimensions=(2,))
    sample = array[::8, ::8]  # all of them would take milliseconds
    known = sample[np.isfinite(sample) & (sample > 0)]
    if len(known) and float(np.median(known)) > _FARTHEST_M:
        raise InputError(f"half of the depth is beyond {_FARTHEST_M:.0f}: pass metres, not millimetres")
    return array.astype(np.float32, copy=False)


def _check_size(array: NDArray[Any], what: str, camera: PinholeCamera, *, dimensions: tuple[int, ...]) -> None:
    expected = (camera.height, camera.width)
    if array.ndim not in dimensions or array.shape[:2] != expected:
        raise InputError(
            f"the {what} has shape {array.shape}, the camera's images are {camera.width}x{camera.height}: expected "
            f"{expected}" + (" or with three channels" if 3 in dimensions else "")
        )
