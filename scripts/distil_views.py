"""Crops of photos with what a detector says of them on average, and the views that another one learns from.

For ``distil_detector.py``, which says what they are for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semkey.images.reading import read_image
from semkey.model.checkpoint import load_checkpoint
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.data.augment import relight
from semkey.training.data.config import LightConfig
from semkey.training.data.pair import normalize
from semkey.training.data.shapes import draw_shapes

Map = NDArray[np.float32]
Gray = NDArray[np.uint8]

KEPT = 280
"""Side of the crops that are kept, pixels."""
TEACHER_VIEW = 288
PHASES = 8
SIDE = 256
"""Side of the views that are learned from: any phase of the grid fits into a crop."""
NEGATIVES = 0.08
WARPED_SHARE = 0.4
"""Weight of the map over warps; the one over shifts, whose peaks no interpolation widens, has the rest."""
SHAPE_SIGMA = 0.6
"""Of the map of a drawn corner, pixels: the logarithm of a Gaussian is the quadratic that places are read by."""
SHAPE_MASS = 0.8
VIDEO = LightConfig(
    gamma=0.4,
    contrast=(0.25, 1.1),
    blur=0.4,
    blur_px=(0.5, 2.2),
    motion_blur=0.3,
    motion_px=(2.0, 9.0),
    noise_level=0.02,
    jpeg=0.3,
    jpeg_quality=(60, 95),
)
"""What a moving camera does to a picture; the teacher sees the same."""


def make_crops(teacher: Path, photos: Path, cache: Path, count: int, seed: int, *, video: bool) -> None:
    """Write ``gray.npy`` (N, 280, 280) uint8 and ``shifted.npy``, ``warped.npy`` (N, 280, 280) float16."""
    model = load_checkpoint(teacher).optimize()
    files = sorted(path for path in photos.iterdir() if path.is_file())
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(files))
    cache.mkdir(parents=True, exist_ok=True)
    shape = (count, KEPT, KEPT)
    gray = np.lib.format.open_memmap(cache / "gray.npy", "w+", np.uint8, shape)
    maps = {n: np.lib.format.open_memmap(cache / f"{n}.npy", "w+", np.float16, shape) for n in ("shifted", "warped")}
    inner = slice(PHASES, PHASES + KEPT)
    for index in range(count):
        crop = random_crop(rng, read_image(files[order[index % len(files)]]), (0.7, 2.4) if video else (0.5, 1.1))
        if video:
            crop = relight(rng, crop, VIDEO)
        shifted = over_shifts(model, crop)[inner, inner]
        warped, seen = over_warps(rng, model, crop)
        gray[index], maps["shifted"][index] = crop[inner, inner], shifted
        maps["warped"][index] = np.where(seen[inner, inner] >= 4, warped[inner, inner], shifted)
        if (index + 1) % 100 == 0:
            print(f"{index + 1} of {count} crops", flush=True)


def make_shapes(cache: Path, count: int, seed: int) -> None:
    """Write a cache of drawn pictures whose corners and centres are known; both maps are Gaussians about them."""
    rng = np.random.default_rng(seed)
    cache.mkdir(parents=True, exist_ok=True)
    gray = np.lib.format.open_memmap(cache / "gray.npy", "w+", np.uint8, (count, KEPT, KEPT))
    maps = [
        np.lib.format.open_memmap(cache / f"{name}.npy", "w+", np.float16, gray.shape) for name in ("shifted", "warped")
    ]
    for index in range(count):
        gray[index], keypoints = draw_shapes(rng, KEPT, KEPT)
        for goal in maps:
            goal[index] = map_of_points(keypoints)


def map_of_points(points: NDArray[np.float64], side: int = KEPT) -> Map:
    """Probabilities (side, side) of keypoints at points (N, 2) x y between pixels."""
    found, steps = np.zeros((side, side), np.float32), np.arange(-2, 3)
    for x, y in points:
        column, row = round(x), round(y)
        if not (2 <= column < side - 2 and 2 <= row < side - 2):
            continue
        across, down = (
            np.exp(-((steps + pixel - place) ** 2) / (2 * SHAPE_SIGMA**2)) for pixel, place in ((column, x), (row, y))
        )
        around = np.outer(down, across)
        part = found[row - 2 : row + 3, column - 2 : column + 3]
        np.maximum(part, SHAPE_MASS * around / around.sum(), out=part)
    return found


def random_crop(rng: np.random.Generator, image: NDArray[np.uint8], scales: tuple[float, float]) -> Gray:
    """A crop (296, 296) in grey of a photo, mirrored or not, at one of ``scales``, turned by up to 20 degrees."""
    side = TEACHER_VIEW + PHASES
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    gray = np.asarray(cv2.transform(image, rng.dirichlet([6.0, 6.0, 6.0]).astype(np.float32)[None]), np.uint8)
    height, width = gray.shape[:2]
    fill = (side + 2) / min(height, width)
    scale = float(np.exp(rng.uniform(*(np.log(max(fill, limit)) for limit in scales))))
    angle = rng.uniform(-20, 20) if rng.random() < 0.3 else 0.0
    reach = side / 2 / scale
    centre = (rng.uniform(reach, width - reach), rng.uniform(reach, height - reach))
    matrix = cv2.getRotationMatrix2D(centre, angle, scale)
    matrix[:, 2] += side / 2 - np.array(centre)
    if scale < 0.95:
        gray = cv2.GaussianBlur(gray, (0, 0), 0.5 * math.sqrt(1.0 / scale**2 - 1.0))
    moved = cv2.warpAffine(gray, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


@torch.inference_mode()
def probabilities(model: SemanticKeypointDetector, view: Gray) -> Map:
    """(H, W) of a view whose sides are multiples of 32."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(normalize(view)[None].bfloat16()).log_probability[0, 0].float().exp().numpy()


def over_shifts(model: SemanticKeypointDetector, crop: Gray) -> Map:
    """Mean probabilities of a crop over 8 shifts, right where all of them reach: away from the edge by 8 pixels."""
    total = np.zeros(crop.shape, np.float32)
    for number in range(PHASES):
        x, y = number, 3 * number % PHASES
        part = (slice(y, y + TEACHER_VIEW), slice(x, x + TEACHER_VIEW))
        total[part] += probabilities(model, np.ascontiguousarray(crop[part])) / PHASES
    return total


def over_warps(rng: np.random.Generator, model: SemanticKeypointDetector, crop: Gray) -> tuple[Map, Map]:
    """Mean probabilities of a crop over 8 rotations and scales, and how many of them saw each pixel."""
    side = crop.shape[0]
    total, count = np.zeros(crop.shape, np.float32), np.zeros(crop.shape, np.float32)
    inside = np.zeros((TEACHER_VIEW, TEACHER_VIEW), np.float32)
    inside[6:-6, 6:-6] = 1.0
    back = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for _ in range(PHASES):
        scale = float(np.exp(rng.uniform(-0.25, 0.3)))
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-25, 25), scale)
        matrix[:, 2] += rng.uniform(0, PHASES, 2) + (TEACHER_VIEW - side) / 2 - PHASES / 2
        size = (TEACHER_VIEW, TEACHER_VIEW)
        view = cv2.warpAffine(crop, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        found = probabilities(model, np.asarray(view, np.uint8))
        # a pixel of the crop is scale^2 pixels of the view
        total += cv2.warpAffine(found, matrix, (side, side), flags=back) * scale**2
        count += cv2.warpAffine(inside, matrix, (side, side), flags=back)
    return total / np.maximum(count, 1e-6), count


class Views(torch.utils.data.IterableDataset):
    """Endless batches: ``image`` (B, 1, 256, 256) normalised, ``target`` (B, 256, 256) probabilities.

    Views 2 k and 2 k + 1 are cut from one picture, under the same light, with their upper left pixels at ``corner``
    (B, 2), y x.
    """

    def __init__(self, caches: Sequence[Path], batch: int, seed: tuple[int, ...]) -> None:
        self.caches, self.batch, self.seed = caches, batch, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        cv2.setNumThreads(1)
        names = ("gray", "shifted", "warped")
        sources = [[np.load(cache / f"{name}.npy", mmap_mode="r") for name in names] for cache in self.caches]
        rng, light = np.random.default_rng(self.seed), LightConfig()
        while True:
            images, targets, corners = [], [], []
            for _ in range(self.batch // 2):
                crops, shifted, warped = sources[int(rng.integers(len(sources)))]
                index = int(rng.integers(len(crops)))
                target = (1 - WARPED_SHARE) * shifted[index].astype(np.float32)
                target += WARPED_SHARE * warped[index].astype(np.float32)
                image, target = _turned(rng, np.array(crops[index]), target)
                chance = rng.random()
                if chance < NEGATIVES:
                    image, target = negative(rng, image), np.zeros_like(target)
                elif chance < 0.6:
                    image = relight(rng, image, light)
                for y, x in rng.integers(0, KEPT - SIDE + 1, (2, 2)):
                    part = (slice(y, y + SIDE), slice(x, x + SIDE))
                    images.append(normalize(np.ascontiguousarray(image[part])))
                    targets.append(torch.from_numpy(np.ascontiguousarray(target[part])))
                    corners.append((int(y), int(x)))
            yield {"image": torch.stack(images), "target": torch.stack(targets), "corner": torch.tensor(corners)}


def _turned(rng: np.random.Generator, image: Gray, target: Map) -> tuple[Gray, Map]:
    """Both turned by quarters, mirrored, the image inverted, now and then."""
    quarters = int(rng.integers(4)) if rng.random() < 0.3 else 0
    image, target = np.rot90(image, quarters), np.rot90(target, quarters)
    if rng.random() < 0.5:
        image, target = image[:, ::-1], target[:, ::-1]
    if rng.random() < 0.1:
        image = 255 - image
    return np.ascontiguousarray(image), np.ascontiguousarray(target)


def negative(rng: np.random.Generator, image: Gray) -> Gray:
    """A view without anything: one grey, a smooth gradient, or the image far out of focus; with noise of any level."""
    height, width = image.shape
    kind = rng.random()
    if kind < 0.4:
        view = np.full((height, width), rng.uniform(0, 255), np.float32)
    elif kind < 0.7:
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        across, down, curve = *rng.uniform(-80, 80, 2), rng.uniform(-60, 60)
        form = rng.integers(3)
        if form == 2:  # a cone, whose tip is all that it has
            bent = np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1))
        else:
            bent = x * x + y * y if form else x * y
        view = 128 + across * x + down * y + curve * bent
    elif rng.random() < 0.5:
        view = cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(7, 16))
    else:  # a lens out of focus: every point becomes a disc
        radius = int(rng.integers(10, 22))
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        disc = (x * x + y * y <= radius * radius).astype(np.float32)
        view = cv2.filter2D(image.astype(np.float32), -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT_101)
    level = rng.choice([0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]) * rng.uniform(0.5, 1.0)
    noise = rng.normal(size=(height, width)).astype(np.float32)
    if rng.random() < 0.3:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.4, 1.2)), np.float32)
        noise = noise / noise.std()
    return np.clip(np.rint(view + level * noise), 0, 255).astype(np.uint8)
