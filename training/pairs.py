"""Training pairs: two randomly warped and relit views of a photo with the exact homography between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from shapes import draw_shapes
from torch.utils.data import Dataset, Sampler

from semkey.errors import InputError
from semkey.images.reading import read_image


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Ranges of the random views.

    Attributes:
        width: of both views, pixels.
        height: of both views, pixels.
        scale: relative scale of the views is drawn log-uniformly from [1 / scale, scale].
        rotation_deg: relative rotation is drawn from a triangular distribution within +- this.
        perspective: largest corner displacement as a share of the view's size.
        points: corresponding points per pair.
        shapes: share of pairs that show synthetic shapes with exact corners instead of a photo.
    """

    width: int = 320
    height: int = 256
    scale: float = 2.0
    rotation_deg: float = 60.0
    perspective: float = 0.25
    points: int = 384
    shapes: float = 0.12


def _translation(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def random_view(
    rng: np.random.Generator, source: tuple[float, float], config: PairConfig, scale: float, angle_deg: float
) -> np.ndarray:
    """Homography from source pixels to view pixels: the source point ``source`` lands near the view's centre."""
    width, height = config.width, config.height
    angle = np.deg2rad(angle_deg)
    similarity = scale * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 0]])
    similarity[2, 2] = 1.0
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    shift = rng.uniform(-1, 1, (4, 2)) * np.array([width, height]) * config.perspective * rng.uniform(0, 1)
    tilt = cv2.getPerspectiveTransform(corners, (corners + shift).astype(np.float32))
    return tilt @ _translation(width / 2, height / 2) @ similarity @ _translation(-source[0], -source[1])


def warp(photo: np.ndarray, H: np.ndarray, config: PairConfig, scale: float, border: int) -> np.ndarray:
    """Warp a grey photo; a strong reduction first blurs, so that the view does not alias."""
    if scale < 0.8:
        sigma = 0.5 * np.sqrt(max(1.0 / scale**2 - 1.0, 0.0))
        photo = cv2.GaussianBlur(photo, (0, 0), sigma)
    return cv2.warpPerspective(photo, H, (config.width, config.height), flags=cv2.INTER_LINEAR, borderMode=border)


def relight(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Strong photometric change of a grey uint8 view: shadow, exposure, gamma, blur, noise, JPEG."""
    height, width = image.shape
    view = image.astype(np.float32) / 255.0
    if rng.random() < 0.3:
        polygon = (rng.uniform(-0.2, 1.2, (rng.integers(3, 6), 2)) * [width, height]).astype(np.int32)
        mask = cv2.fillConvexPoly(np.zeros((height, width), np.float32), cv2.convexHull(polygon), 1.0)
        mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 12.0))
        view *= 1.0 + mask * rng.uniform(-0.6, 0.8)
    if rng.random() < 0.3:
        x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32))
        view *= 1.0 + rng.uniform(-0.5, 0.5) * x + rng.uniform(-0.5, 0.5) * y
    view = np.clip(view, 0, 1) ** np.exp(rng.uniform(-0.7, 0.7))
    contrast, level = rng.uniform(0.4, 1.3), rng.uniform(-0.2, 0.2)
    view = (view - 0.5) * contrast + 0.5 + level
    chance = rng.random()
    if chance < 0.2:
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.5, 1.8))
    elif chance < 0.35:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        center = (length - 1) / 2
        shift = np.array([np.cos(angle), np.sin(angle)]) * center
        first, second = np.rint(center - shift).astype(int), np.rint(center + shift).astype(int)
        cv2.line(kernel, first.tolist(), second.tolist(), 1.0)
        view = cv2.filter2D(view, -1, kernel / kernel.sum())
    if rng.random() < 0.6:
        view = view + rng.normal(0, rng.uniform(0.003, 0.05), view.shape).astype(np.float32)
    view = (np.clip(view, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, code = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])
        return np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
    return view


def normalize(image: np.ndarray) -> torch.Tensor:
    """(H, W) uint8 -> (1, H, W) float32 with zero mean and unit variance, as ``semkey.model.preprocess.prepare``."""
    tensor = torch.from_numpy(image).float() / 255.0
    return ((tensor - tensor.mean()) / tensor.std(correction=0).clamp(min=0.02))[None]


def transform(H: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) through a homography."""
    mapped = np.c_[points, np.ones(len(points))] @ H.T
    return mapped[:, :2] / mapped[:, 2:]


def thin(points: np.ndarray, scores: np.ndarray, distance: float) -> np.ndarray:
    """Indices of points, strongest first, such that no two share a cell of ``distance`` pixels (NMS on targets)."""
    order = np.argsort(-scores, kind="stable")
    cells = np.floor(points[order] / distance).astype(np.int64)
    _, first = np.unique(cells[:, 0] * 100003 + cells[:, 1], return_index=True)
    return order[np.sort(first)]


class PhotoPairs(Dataset):
    """Endless pairs from a folder of photos, with target keypoints of a teacher.

    Pair ``index`` depends on the seed and the index alone, so training that resumes sees what it would have seen.

    Each is a dictionary: ``image0``, ``image1`` (1, H, W) normalised; ``H01`` (3, 3) view 0 -> view 1; ``is_photo``
    1 or 0; ``points0``, ``points1`` (P, 2) corresponding pixels inside both views; ``targets0``, ``targets1``
    (1000, 3) x y strength of the target keypoints (strength 0: padding); ``valid0``, ``valid1`` (H, W) where the photo
    covers the view.
    """

    max_targets = 1000
    attempts = 100

    def __init__(self, photos: Path, teacher: Path, config: PairConfig, seed: int) -> None:
        self.files = sorted(p for p in photos.iterdir() if p.suffix.lower() in {".webp", ".jpg", ".jpeg", ".png"})
        if not self.files:
            raise InputError(f"{photos} holds no photos: give a folder with .jpg, .png or .webp files")
        for file in self.files:
            if not (teacher / f"{file.stem}.npz").is_file():
                raise InputError(f"{teacher} has no targets for {file.name}: run training/extract_teacher.py first")
        self.teacher, self.config, self.seed = teacher, config, seed

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index])
        for _ in range(self.attempts):
            pair = self.make_pair(rng, self.files[rng.integers(len(self.files))])
            if pair is not None:
                return pair
        raise InputError(f"no usable pair in {self.attempts} photos of {self.files[0].parent}: are they too small?")

    def make_pair(self, rng: np.random.Generator, file: Path) -> dict[str, torch.Tensor] | None:
        """One pair of a photo, or None where the views share too little."""
        config = self.config
        is_photo = rng.random() >= config.shapes
        if not is_photo:
            photo, keypoints = draw_shapes(rng)
            scores = np.ones(len(keypoints), np.float32)
        else:
            mix = rng.dirichlet([6.0, 6.0, 6.0]).astype(np.float32)
            photo = np.asarray(cv2.transform(read_image(file), mix[None]))
            with np.load(self.teacher / f"{file.stem}.npz") as stored:
                keypoints, scores = stored["keypoints"].astype(np.float64), stored["scores"]
        height, width = photo.shape[:2]
        flip = rng.random() < 0.5
        if flip:
            photo = photo[:, ::-1].copy()
            keypoints[:, 0] = width - 1 - keypoints[:, 0]

        fill = max(config.width / width, config.height / height)
        relative = np.exp(rng.uniform(-np.log(config.scale), np.log(config.scale)))
        scale0 = fill * np.exp(rng.uniform(0.0, 0.5)) / np.sqrt(relative)
        scale1 = scale0 * relative
        quarter_turns = int(rng.integers(1, 4)) if rng.random() < 0.1 else 0
        base = rng.triangular(-30, 0, 30) + 90.0 * quarter_turns
        turn = rng.triangular(-config.rotation_deg, 0, config.rotation_deg)
        center0 = rng.uniform(0.25, 0.75, 2) * [width, height]
        reach = 0.3 * min(config.width, config.height) / max(scale0, scale1)
        center1 = center0 + rng.uniform(-reach, reach, 2)
        H0 = random_view(rng, tuple(center0), config, scale0, base)
        H1 = random_view(rng, tuple(center1), config, scale1, base + turn)
        H01 = H1 @ np.linalg.inv(H0)

        border = cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_CONSTANT
        view0, view1 = warp(photo, H0, config, scale0, border), warp(photo, H1, config, scale1, border)
        valid = np.ones((height, width), np.uint8)
        valid0 = warp(valid, H0, config, 1.0, cv2.BORDER_CONSTANT) > 0
        valid1 = warp(valid, H1, config, 1.0, cv2.BORDER_CONSTANT) > 0

        targets = []
        for H in (H0, H1):
            mapped = transform(H, keypoints)
            inside = ((mapped > 2) & (mapped < [config.width - 3, config.height - 3])).all(axis=1)
            mapped, strength = mapped[inside], np.sqrt(scores[inside])
            keep = thin(mapped, strength, 4.0)[: self.max_targets]
            padded = np.zeros((self.max_targets, 3), np.float32)
            padded[: len(keep)] = np.c_[mapped[keep], strength[keep]]
            targets.append(padded)

        points0 = self._points(rng, targets[0], H01, valid0, valid1)
        if points0 is None:
            return None
        return {
            "image0": normalize(relight(rng, view0)),
            "image1": normalize(relight(rng, view1)),
            "H01": torch.from_numpy(H01),
            "is_photo": torch.tensor(float(is_photo)),
            "points0": torch.from_numpy(points0).float(),
            "points1": torch.from_numpy(transform(H01, points0)).float(),
            "targets0": torch.from_numpy(targets[0]),
            "targets1": torch.from_numpy(targets[1]),
            "valid0": torch.from_numpy(valid0),
            "valid1": torch.from_numpy(valid1),
        }

    def _points(
        self, rng: np.random.Generator, targets: np.ndarray, H01: np.ndarray, valid0: np.ndarray, valid1: np.ndarray
    ) -> np.ndarray | None:
        """Points of view 0 that view 1 sees: target keypoints first, random places to fill up."""
        config = self.config
        size = np.array([config.width, config.height])
        own = targets[targets[:, 2] > 0, :2].astype(np.float64)
        own = own[rng.permutation(len(own))[: int(0.75 * config.points)]]
        candidates = np.concatenate([own, rng.uniform(2, size - 3, (4 * config.points, 2))])
        mapped = transform(H01, candidates)
        good = ((mapped > 2) & (mapped < size - 3)).all(axis=1)
        candidates, mapped = candidates[good], mapped[good]
        a, b = np.round(candidates).astype(int), np.round(mapped).astype(int)
        candidates = candidates[valid0[a[:, 1], a[:, 0]] & valid1[b[:, 1], b[:, 0]]]
        return candidates[: config.points] if len(candidates) >= config.points else None


class Counter(Sampler[int]):
    """Indices start, start + step, start + 2 step, ... without end."""

    def __init__(self, start: int, step: int) -> None:
        self.start, self.step = start, step

    def __iter__(self) -> Iterator[int]:
        return count(self.start, self.step)
