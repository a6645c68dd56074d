"""Cameras of pictures that are shown turned: photos by their EXIF orientation, videos by their rotation.

Calibrations are of the pixels as a camera stores them, whichever way it was held; pictures are delivered upright. So a
camera is turned along, unless its size, or its principal point, says that it is one of the upright pictures already.
"""

from __future__ import annotations

from collections.abc import Sequence

from semkey.datasets.cameras.calibration import CameraArgument
from semkey.datasets.cameras.lens import Calibration, Lens
from semkey.geometry.camera import PinholeCamera
from semkey.images.orientation import UPRIGHT, in_words, is_sideways, shown_size, turn_directions, turn_points

Size = tuple[int, int]


def turned_argument(
    argument: CameraArgument | None, orientation: int, stored: Size
) -> tuple[CameraArgument | None, str | None]:
    """The camera of the pictures as they are shown, and a sentence of what was done; None for upright ones.

    Args:
        argument: a camera of the pictures as stored or as shown; where that cannot be told, of the stored ones.
        orientation: how the stored pictures are turned, 1 to 8.
        stored: (width, height) of the stored pictures.
    """
    if orientation == UPRIGHT:
        return argument, None
    pictures = f"the pictures are {in_words(orientation)} to be upright"
    if argument is None:
        return None, pictures
    if not is_of_stored(argument, orientation, stored):
        return argument, f"{pictures}; the camera is taken for the upright ones"
    return _turned(argument, orientation, stored), f"{pictures}, and the camera, taken for the stored ones, with them"


def is_of_stored(argument: CameraArgument, orientation: int, stored: Size) -> bool:
    """Whether a camera is that of the pictures as stored, by its size, else by the place of its principal point."""
    if not is_sideways(orientation) or stored[0] == stored[1]:
        return True
    if isinstance(argument, Calibration):
        return argument.left.size == stored
    if isinstance(argument, PinholeCamera):
        return (argument.width, argument.height) == stored
    return len(argument) != 4 or _offset(argument, stored) <= _offset(argument, shown_size(stored, orientation))


def turned_camera(camera: PinholeCamera, orientation: int) -> PinholeCamera:
    """The camera of a picture as shown, of that of the picture as stored."""
    size = (camera.width, camera.height)
    lens = turned_lens(
        Lens(model="pinhole", intrinsics=(camera.fx, camera.fy, camera.cx, camera.cy), size=size), orientation
    )
    return lens.pinhole


def turned_lens(lens: Lens, orientation: int) -> Lens:
    """The lens behind which the upright picture would have been taken.

    Radial distortion is the same all round; the tangential one (Brown 1966) points along ``(p2, p1)``, which turns.
    """
    fx, fy, cx, cy = lens.intrinsics
    (cx, cy), size = turn_points((cx, cy), lens.size, orientation).tolist(), shown_size(lens.size, orientation)
    focal = (fy, fx) if is_sideways(orientation) else (fx, fy)
    distortion = lens.distortion
    if lens.model == "radial-tangential":
        k1, k2, p1, p2, *rest = distortion
        p2, p1 = turn_directions((p2, p1), orientation).tolist()
        distortion = (k1, k2, p1, p2, *rest)
    return Lens(model=lens.model, intrinsics=(*focal, cx, cy), distortion=distortion, size=size)


def _turned(argument: CameraArgument, orientation: int, stored: Size) -> CameraArgument:
    if isinstance(argument, Calibration):
        return Calibration(left=turned_lens(argument.left, orientation)) if argument.left.size == stored else argument
    if isinstance(argument, PinholeCamera):
        fits = (argument.width, argument.height) == stored
        return turned_camera(argument, orientation) if fits else argument
    if len(argument) != 4:
        return argument
    fx, fy, cx, cy = (float(value) for value in argument)
    lens = turned_lens(Lens(model="pinhole", intrinsics=(fx, fy, cx, cy), size=stored), orientation)
    return lens.intrinsics


def _offset(parameters: Sequence[float], size: Size) -> float:
    """How far the principal point lies from the middle, as a share of the sides."""
    return max(abs(float(parameters[k + 2]) - (size[k] - 1) / 2) / size[k] for k in (0, 1))
