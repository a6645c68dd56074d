"""Where the images of pairs come from: files, and what is resized or turned on reading, the truth with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.lens import Lens
from semkey.datasets.readers.listing import require_file
from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.data.pairs import HomographyTruth, ImagePair, ImageSource, PairSet, PoseTruth
from semkey.geometry.camera import PinholeCamera
from semkey.images.headers import Size, stored_size
from semkey.images.orientation import UPRIGHT
from semkey.images.reading import read_image

Resize = int | Size
"""An image's size in an evaluation: its longest side in pixels (the aspect is kept), or (width, height)."""


def file_source(path: Path, key: str, listed_in: str = "") -> ImageSource:
    """An image file; that it exists is seen now, the pixels are decoded when asked for.

    Args:
        path: any image that :func:`semkey.images.reading.read_image` reads.
        key: see :class:`ImageSource`.
        listed_in: ``file:line`` that names the image, for the message.

    Raises:
        DatasetError: the file is missing or empty.
        InputError: its size is not in its header and it cannot be decoded.
    """
    require_file(path, listed_in)
    size = stored_size(path)

    def read() -> NDArray[np.uint8]:
        image = read_image(path, orientation=UPRIGHT)  # homographies and poses are of stored pixels
        if (image.shape[1], image.shape[0]) != size:
            raise DatasetError(f"{path}: header says {_text(size)}, decoded to {_text(image.shape[1::-1])}")
        return image

    return ImageSource(key=key, read=read, size=size)


def parse_resize(text: str) -> Resize:
    """``1600`` (longest side) or ``640x480`` (width x height), as given on a command line.

    Raises:
        ConfigError: it is neither, or a side is under 16 pixels.
    """
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides) or min(map(int, sides)) < 16:
        raise ConfigError(f"resize '{text}': give the longest side (1600) or WIDTHxHEIGHT (640x480), 16 or more")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def resized_size(size: Size, resize: Resize) -> Size:
    """The (width, height) that an image of ``size`` gets; a smaller image is enlarged, as papers do."""
    if isinstance(resize, tuple):
        return resize
    scale = resize / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized_source(source: ImageSource, resize: Resize) -> ImageSource:
    """The source with its image resized: by the mean over areas where it shrinks, bilinearly where it grows.

    Both keep the half-pixel convention: a point x moves to ``(x + 0.5) * new / old - 0.5``.
    """
    old = source_size(source)
    new = resized_size(old, resize)
    if new == old:
        return source
    shrinks = new[0] <= old[0] and new[1] <= old[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR

    def read() -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(source.read(), new, interpolation=method), dtype=np.uint8)

    return ImageSource(key=source.key, read=read, size=new)


def resized_set(pair_set: PairSet, resize: Resize) -> PairSet:
    """The set with all images resized and the truth changed accordingly; the description says so."""
    if not isinstance(resize, tuple) and resize < 1:
        raise ConfigError(f"resize must be positive, got {resize}")
    words = _text(resize) if isinstance(resize, tuple) else f"a longest side of {resize}"
    return replace(
        pair_set,
        pairs=[_resized_pair(pair, resize) for pair in pair_set.pairs],
        description=f"{pair_set.description}; images resized to {words}",
    )


def turned_source(source: ImageSource, quarter_turns: int) -> ImageSource:
    """The source with its image turned by ``quarter_turns`` x 90 degrees counter-clockwise (``numpy.rot90``)."""
    if quarter_turns % 4 == 0:
        return source
    width, height = source_size(source)

    def read() -> NDArray[np.uint8]:
        return np.ascontiguousarray(np.rot90(source.read(), quarter_turns))

    size = (height, width) if quarter_turns % 2 else (width, height)
    return ImageSource(key=f"{source.key} turned {90 * (quarter_turns % 4)}", read=read, size=size)


def turned_camera(camera: PinholeCamera, quarter_turns: int) -> tuple[PinholeCamera, NDArray[np.float64]]:
    """The camera of an image turned as :func:`turned_source` does, and ``T_turned_cam`` (4, 4).

    A quarter turn moves pixel (x, y) to (y, width - 1 - x), so camera axes (x, y, z) become (y, -x, z).
    """
    T_turned_cam = np.eye(4)
    quarter = np.array([[0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    for _ in range(quarter_turns % 4):
        camera = PinholeCamera(
            fx=camera.fy,
            fy=camera.fx,
            cx=camera.cy,
            cy=camera.width - 1 - camera.cx,
            width=camera.height,
            height=camera.width,
        )
        T_turned_cam = quarter @ T_turned_cam
    return camera, T_turned_cam


def source_size(source: ImageSource) -> Size:
    """(width, height) of a source, by reading it if need be."""
    if source.size is not None:
        return source.size
    height, width = source.read().shape[:2]
    return width, height


def resizing_homography(old: Size, new: Size) -> NDArray[np.float64]:
    """(3, 3): where the pixels of an image of size ``old`` are after resizing to ``new`` (half-pixel convention)."""
    sx, sy = new[0] / old[0], new[1] / old[1]
    return np.array([[sx, 0.0, 0.5 * sx - 0.5], [0.0, sy, 0.5 * sy - 0.5], [0.0, 0.0, 1.0]])


def _resized_pair(pair: ImagePair, resize: Resize) -> ImagePair:
    old0, old1 = source_size(pair.image0), source_size(pair.image1)
    new0, new1 = resized_size(old0, resize), resized_size(old1, resize)
    truth = pair.truth
    if isinstance(truth, HomographyTruth):
        scaling0, scaling1 = resizing_homography(old0, new0), resizing_homography(old1, new1)
        truth = replace(truth, H10=scaling1 @ truth.H10 @ np.linalg.inv(scaling0))
    else:
        truth = PoseTruth(
            T_cam1_cam0=truth.T_cam1_cam0,
            camera0=truth.camera0.resized(*new0),
            camera1=truth.camera1.resized(*new1),
            read_depth0=_resized_depth(truth.read_depth0, new0),
            read_depth1=_resized_depth(truth.read_depth1, new1),
            depth_tolerance=truth.depth_tolerance,
            lens0=_resized_lens(truth.lens0, new0),
            lens1=_resized_lens(truth.lens1, new1),
        )
    return replace(
        pair, image0=resized_source(pair.image0, resize), image1=resized_source(pair.image1, resize), truth=truth
    )


def _resized_lens(lens: Lens | None, size: Size) -> Lens | None:
    """Distortion coefficients are of normalised coordinates and stay."""
    if lens is None:
        return None
    camera = lens.pinhole.resized(*size)
    return replace(lens, intrinsics=(camera.fx, camera.fy, camera.cx, camera.cy), size=size)


def _resized_depth(
    read_depth: Callable[[], NDArray[np.float32]] | None, size: Size
) -> Callable[[], NDArray[np.float32]] | None:
    if read_depth is None:
        return None

    def read() -> NDArray[np.float32]:
        # The nearest stored value: a mean over a depth edge or a hole is no depth.
        resized = cv2.resize(read_depth(), size, interpolation=cv2.INTER_NEAREST_EXACT)
        return np.asarray(resized, dtype=np.float32)

    return read


def _text(size: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in size)
