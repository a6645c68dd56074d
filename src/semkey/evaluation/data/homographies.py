"""Photos seen again through random homographies and photometric changes: pairs with exact truth from any folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.readers.folder import require_images
from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.data.image_sources import (
    file_source,
    resized_source,
    resizing_homography,
    source_size,
)
from semkey.evaluation.data.pairs import HomographyTruth, ImagePair, ImageSource, PairSet
from semkey.images.orientation import UPRIGHT
from semkey.images.reading import read_image
from semkey.settings import Settings

# Each view-1 pixel is the mean of samples this many times denser per axis, or denser where the view shrinks the photo.
_MIN_OVERSAMPLING = 2
_MAX_OVERSAMPLING = 4
_MAX_DRAWS = 1000
_SMALLEST_SIDE_PX = 64
_DISPLAY_GAMMA = 2.2


@dataclass(frozen=True, kw_only=True)
class HomographyConfig(Settings):
    """How much the second view differs; every range is drawn from uniformly (scale and exposure in the logarithm).

    Attributes:
        max_side: longer side of both views in pixels; larger photos are shrunk, smaller ones stay as they are.
        tilt_deg: largest angle of the plane to the image plane.
        rotation_deg: largest angle about the optical axis, either way.
        scale: smallest and largest zoom of view 1.
        shift: largest shift, as a share of the sides.
        min_overlap: least share of each view that the other one sees; draws with less are repeated.
        exposure_stops: largest change of exposure, either way; what is too bright is clipped.
        gamma: range of the exponent of the tone curve.
        shadow: largest darkening of a soft shadow's edge across half of the views, in [0, 1).
        blur_px: largest sigma of a Gaussian blur.
        noise: largest sigma of Gaussian noise, on a scale of [0, 1].
        jpeg_quality: range of the JPEG quality; 100 leaves JPEG compression out.
    """

    max_side: int = 640
    tilt_deg: float = 50.0
    rotation_deg: float = 30.0
    scale: tuple[float, float] = (0.6, 1.4)
    shift: float = 0.1
    min_overlap: float = 0.4
    exposure_stops: float = 1.0
    gamma: tuple[float, float] = (0.7, 1.4)
    shadow: float = 0.5
    blur_px: float = 1.2
    noise: float = 0.03
    jpeg_quality: tuple[int, int] = (40, 100)

    def __post_init__(self) -> None:
        if self.max_side < _SMALLEST_SIDE_PX:
            raise ConfigError(f"max_side must be {_SMALLEST_SIDE_PX} pixels or more, got {self.max_side}")
        if not 0 <= self.tilt_deg <= 75:
            raise ConfigError(f"tilt_deg must be in [0, 75], got {self.tilt_deg}")
        if not 0 <= self.min_overlap <= 0.8:
            raise ConfigError(f"min_overlap must be in [0, 0.8], got {self.min_overlap}")
        for name, (low, high) in {"scale": self.scale, "gamma": self.gamma, "jpeg_quality": self.jpeg_quality}.items():
            if not 0 < low <= high:
                raise ConfigError(f"{name} must be two positive numbers in order, got {low}, {high}")
        if self.jpeg_quality[1] > 100:
            raise ConfigError(f"jpeg_quality must be at most 100, got {self.jpeg_quality[1]}")
        if not 0 <= self.shadow < 1:
            raise ConfigError(f"shadow must be in [0, 1), got {self.shadow}")
        for name in ("rotation_deg", "shift", "exposure_stops", "blur_px", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")


def random_homography_set(
    folder: str | Path, *, count: int, seed: int = 0, config: HomographyConfig | None = None
) -> PairSet:
    """Pairs of a photo and a view of it through a random homography, with photometric changes.

    View 0 is the photo itself, shrunk to ``max_side`` if it is larger and never enlarged. View 1 has the same size and
    is sampled once, from the photo at full resolution: a zoom into a large photo shows real detail. Each of its pixels
    is the mean of 2x2 or more bilinear samples (denser where the view shrinks the photo), so that neither aliasing nor
    interpolation moves a feature; sample positions are rounded to 1/32 px of the photo. Beyond the photo's borders
    view 1 shows its mirror image, which the truth treats as outside image 0. The homography is that of a plane before
    a pinhole camera of focal length 1.2 times the longer side: tilted, turned, zoomed and shifted. View 1 alone gets
    the photometric changes of :func:`change_photometry`.

    Pair ``i`` depends on the folder's file names, ``seed`` and ``i`` alone, not on ``count``; photos are used in turn
    in a shuffled order.

    Args:
        folder: photos (files directly in it).
        count: how many pairs, >= 1.
        seed: >= 0.
        config: default :class:`HomographyConfig`.

    Returns:
        One set, named like the folder.

    Raises:
        DatasetError: there are no photos, or one is too small (a side under 64 pixels).
        ConfigError: ``count`` or ``seed`` is out of range, or no draw has the least overlap.
        InputError: a photo's size cannot be read.
    """
    config = HomographyConfig() if config is None else config
    root = Path(folder)
    if count < 1 or seed < 0:
        raise ConfigError(f"count must be 1 or more and seed 0 or more, got {count} and {seed}")
    if not root.is_dir():
        raise DatasetError(f"{root}: {'is a file, give the folder' if root.exists() else 'no such folder'}")
    photos = require_images(root)
    order = np.random.default_rng(seed).permutation(len(photos))
    pairs = [_make_pair(photos[order[index % len(photos)]], index, seed, config) for index in range(count)]
    options = ", ".join(f"{name} {value}" for name, value in asdict(config).items())
    return PairSet(
        name=root.resolve().name,
        pairs=pairs,
        description=f"{count} random homographies on {len(photos)} photos, seed {seed}; {options}",
    )


def random_homography(rng: np.random.Generator, size: tuple[int, int], config: HomographyConfig) -> NDArray[np.float64]:
    """Draw ``H10`` (3, 3) float64 between two views of ``size`` (width, height), with the least overlap both ways.

    Raises:
        ConfigError: in 1000 draws none had it.
    """
    for _ in range(_MAX_DRAWS):
        H10 = _draw_homography(rng, size, config)
        if min(_visible_share(H10, size), _visible_share(np.linalg.inv(H10), size)) >= config.min_overlap:
            return H10
    raise ConfigError(f"no homography with an overlap of {config.min_overlap:g} found: allow less tilt, zoom or shift")


def warp_photo(photo: NDArray[np.uint8], H: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """View a photo through a homography, without aliasing.

    Args:
        photo: (h, w, 3) uint8.
        H: (3, 3), maps pixels of the photo to pixels of the view.
        size: (width, height) of the view.

    Returns:
        (height, width, 3) uint8; the photo's mirror image beyond its borders.
    """
    width, height = size
    factor = int(np.clip(np.ceil(_largest_shrinking(H, size)), _MIN_OVERSAMPLING, _MAX_OVERSAMPLING))
    fine = (width * factor, height * factor)
    H_fine = resizing_homography(size, fine) @ H
    warped = cv2.warpPerspective(photo, H_fine, fine, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    # By a whole factor, so that INTER_AREA is the plain mean of factor x factor samples.
    return np.asarray(cv2.resize(warped, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def change_photometry(view: NDArray[np.uint8], rng: np.random.Generator, config: HomographyConfig) -> NDArray[np.uint8]:
    """Shadow, blur, exposure with clipping, tone curve, noise and JPEG, in this order, on a view (H, W, 3) uint8."""
    height, width = view.shape[:2]
    # A display's curve undone: proportional to light.
    light = ((np.arange(256) / 255.0) ** _DISPLAY_GAMMA).astype(np.float32)[view]
    if rng.random() < 0.5:
        light *= _shadow(rng, (width, height), config.shadow)[:, :, None]
    sigma = rng.uniform(0.0, config.blur_px)
    if sigma > 0.2:  # a narrower kernel has no weight beyond its centre
        light = cv2.GaussianBlur(light, (0, 0), sigma)
    light *= np.float32(2.0 ** rng.uniform(-config.exposure_stops, config.exposure_stops))
    exponent = np.exp(rng.uniform(*np.log(config.gamma))) / _DISPLAY_GAMMA
    tone = np.clip(light, 0.0, 1.0) ** np.float32(exponent)
    tone += np.float32(rng.uniform(0.0, config.noise)) * rng.standard_normal(tone.shape, dtype=np.float32)
    pixels = np.asarray(np.clip(np.rint(tone * 255.0), 0, 255), dtype=np.uint8)
    quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
    return pixels if quality >= 100 else _compress(pixels, quality)


def _compress(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None  # just encoded
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _make_pair(photo: Path, index: int, seed: int, config: HomographyConfig) -> ImagePair:
    original = file_source(photo, photo.name)
    full_size = source_size(original)
    if min(full_size) < _SMALLEST_SIDE_PX:
        raise DatasetError(
            f"{photo}: {full_size[0]}x{full_size[1]} is too small, {_SMALLEST_SIDE_PX} pixels are needed"
        )
    view0 = resized_source(original, config.max_side) if max(full_size) > config.max_side else original
    size = source_size(view0)
    rng = np.random.default_rng([seed, index])
    H10 = random_homography(rng, size, config)
    photometry_seed = int(rng.integers(2**63))

    def read() -> NDArray[np.uint8]:
        view = warp_photo(read_image(photo, orientation=UPRIGHT), H10 @ resizing_homography(full_size, size), size)
        return change_photometry(view, np.random.default_rng(photometry_seed), config)

    name = f"{index:04d} {photo.stem}"
    return ImagePair(
        name=name,
        image0=view0,
        image1=ImageSource(key=f"{name} warped", read=read, size=size),
        truth=HomographyTruth(H10=H10),
    )


def _draw_homography(rng: np.random.Generator, size: tuple[int, int], config: HomographyConfig) -> NDArray[np.float64]:
    """The plane z = 1 of view 0's normalised coordinates, turned about its centre, before the same camera."""
    width, height = size
    focal = 1.2 * max(size)
    K = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    # The plane's normal is tilted towards a random direction, then all is turned about the optical axis.
    direction, turn = rng.uniform(0.0, 2 * np.pi), np.radians(rng.uniform(-config.rotation_deg, config.rotation_deg))
    tilt = np.radians(rng.uniform(0.0, config.tilt_deg))
    rotation = _about_z(turn + direction) @ _about_x(tilt) @ _about_z(-direction)
    zoom = np.exp(rng.uniform(*np.log(config.scale)))
    shift = rng.uniform(-config.shift, config.shift, 2) * size / focal
    # A point (x, y, 1) of the plane is at r1 x + r2 y + (0, 0, 1 / zoom) before the camera.
    plane = np.column_stack([rotation[:, 0], rotation[:, 1], [shift[0] / zoom, shift[1] / zoom, 1.0 / zoom]])
    H10 = K @ plane @ np.linalg.inv(K)
    return H10 / H10[2, 2]


def _about_x(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _about_z(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _visible_share(H10: NDArray[np.floating], size: tuple[int, int]) -> float:
    _, visible = HomographyTruth(H10=H10.astype(np.float64)).project(_grid(size), size)
    return float(visible.mean())


def _largest_shrinking(H: NDArray[np.float64], size: tuple[int, int]) -> float:
    """How many photo pixels a pixel of the view spans at most, over the view."""
    inverse = HomographyTruth(H10=np.linalg.inv(H).astype(np.float64))
    points = _grid(size)
    everywhere = (1 << 30, 1 << 30)
    centre, _ = inverse.project(points, everywhere)
    steps = [np.linalg.norm(inverse.project(points + step, everywhere)[0] - centre, axis=1) for step in np.eye(2)]
    return float(np.nanmax(steps))


def _grid(size: tuple[int, int], steps: int = 24) -> NDArray[np.float64]:
    x, y = np.linspace(0, size[0] - 1, steps), np.linspace(0, size[1] - 1, steps)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _shadow(rng: np.random.Generator, size: tuple[int, int], strength: float) -> NDArray[np.float32]:
    """Factor (H, W) of the light: darker on one side of a random soft edge."""
    width, height = size
    angle, softness = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.02, 0.2) * max(size)
    point = rng.uniform(0.2, 0.8, 2) * size
    x, y = np.arange(width) - point[0], np.arange(height)[:, None] - point[1]
    distance = np.cos(angle) * x + np.sin(angle) * y
    dark = 0.5 + 0.5 * np.tanh(distance / softness)
    return np.asarray(1.0 - rng.uniform(0.0, strength) * dark, dtype=np.float32)
