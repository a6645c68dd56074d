"""Teach a detector by pixels what a detector by cells says on average over shifts and warps of a picture.

    python scripts/distil_detector.py crops TEACHER.safetensors PHOTOS CACHE [--count 3000]
    python scripts/distil_detector.py train TRUNK.safetensors OUT.safetensors CACHE ... [--steps 1800]

``crops`` cuts crops from photos and keeps them with two maps each: the teacher's probabilities averaged over 8 shifts
of the crop, and over 8 rotations by up to 25 degrees and scales from 0.78 to 1.35. A corner stays where it is in all of
them; an edge, whose place in a cell decided where along it a keypoint appeared, is spread out.

``train`` gives the network of TRUNK a detector by pixels and trains its detail stem and detector alone to give these
maps, at any phase of its grid, under other light, blur and noise; one in twenty views is blank, smoothly lit, out of
focus or pure noise and has no keypoints. Everything that descriptors come from stays as it is. It writes OUT every 500
steps with a state beside it (OUT.state), from which the same command goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semkey.images.reading import read_image
from semkey.losses.detection import pixel_cross_entropy
from semkey.model.checkpoint import load_checkpoint, save_checkpoint
from semkey.model.config import ModelConfig
from semkey.model.layers import cells_to_image
from semkey.model.pixels import window_log_probability
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.model.stem import GRID_STRIDE, DetailStem
from semkey.training.data.augment import relight
from semkey.training.data.config import LightConfig
from semkey.training.data.pair import normalize
from semkey.training.objectives.optimisation import MovingAverage

Map = NDArray[np.float32]
Gray = NDArray[np.uint8]

KEPT = 280
"""Side of the crops that are kept, pixels."""
TEACHER_VIEW = 288
PHASES = 8
SIDE = 256
"""Side of the views that are learned from: any phase of the grid fits into a crop."""
NEGATIVES = 0.05
WARPED_SHARE = 0.4
"""Weight of the map over warps; the one over shifts, whose peaks no interpolation widens, has the rest."""
SAVE_EVERY = 500
FOLLOWING = 0.03
"""Weight of the squared difference to the averaged detail stem, at first."""
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


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    crops = commands.add_parser("crops")
    crops.add_argument("teacher", type=Path)
    crops.add_argument("photos", type=Path)
    crops.add_argument("cache", type=Path)
    crops.add_argument("--count", type=int, default=3000)
    crops.add_argument("--seed", type=int, default=1)
    crops.add_argument("--video", action="store_true", help="as a moving camera sees: enlarged, blurred, noisy, dull")
    learn = commands.add_parser("train")
    learn.add_argument("trunk", type=Path)
    learn.add_argument("out", type=Path)
    learn.add_argument("caches", type=Path, nargs="+", metavar="CACHE", help="folders of crops, each drawn as often")
    learn.add_argument("--init", type=Path, help="detector by pixels whose weights to start from")
    learn.add_argument("--model", default="{}", help='shapes of the detector, JSON, e.g. {"pixel_channels": 4}')
    learn.add_argument("--steps", type=int, default=1800)
    learn.add_argument("--batch", type=int, default=8)
    learn.add_argument("--rate", type=float, default=4e-3)
    learn.add_argument("--seed", type=int, default=0)
    judge = commands.add_parser("divergence")
    judge.add_argument("detector", type=Path)
    judge.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "crops":
        make_crops(args.teacher, args.photos, args.cache, args.count, args.seed, video=args.video)
    elif args.command == "divergence":
        model = load_checkpoint(args.detector).optimize()
        for cache in args.caches:
            print(f"{cache.name}: {divergence(model, cache):.4f}")
    else:
        torch.manual_seed(args.seed)
        model = load_checkpoint(args.init) if args.init else with_pixels(args.trunk, json.loads(args.model))
        cells = load_checkpoint(args.trunk).optimize().detail
        if not isinstance(cells, DetailStem):
            raise SystemExit(f"{args.trunk}: needs a detector by cells")
        train(model, cells, args.caches, args.out, steps=args.steps, batch=args.batch, rate=args.rate, seed=args.seed)


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
    """Endless batches: ``image`` (B, 1, 256, 256) normalised and ``target`` (B, 256, 256) probabilities."""

    def __init__(self, caches: Sequence[Path], batch: int, seed: tuple[int, ...]) -> None:
        self.caches, self.batch, self.seed = caches, batch, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        cv2.setNumThreads(1)
        names = ("gray", "shifted", "warped")
        sources = [[np.load(cache / f"{name}.npy", mmap_mode="r") for name in names] for cache in self.caches]
        rng, light = np.random.default_rng(self.seed), LightConfig()
        while True:
            images, targets = [], []
            for _ in range(self.batch):
                crops, shifted, warped = sources[int(rng.integers(len(sources)))]
                index, (y, x) = int(rng.integers(len(crops))), rng.integers(0, KEPT - SIDE + 1, 2)
                part = (index, slice(y, y + SIDE), slice(x, x + SIDE))
                target = (1 - WARPED_SHARE) * shifted[part].astype(np.float32)
                target += WARPED_SHARE * warped[part].astype(np.float32)
                image, target = _turned(rng, np.array(crops[part]), target)
                chance = rng.random()
                if chance < NEGATIVES:
                    image, target = negative(rng, image), np.zeros_like(target)
                elif chance < 0.6:
                    image = relight(rng, image, light)
                images.append(normalize(image))
                targets.append(torch.from_numpy(target))
            yield {"image": torch.stack(images), "target": torch.stack(targets)}


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
        view = 128 + across * x + down * y + curve * (x * x + y * y if rng.random() < 0.5 else x * y)
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


def with_pixels(trunk: Path, shapes: dict) -> SemanticKeypointDetector:
    """The network of a checkpoint with a new detector by pixels; all else is copied."""
    source = load_checkpoint(trunk)
    config = replace(source.config, detector="pixels", covariance=False)
    model = SemanticKeypointDetector(ModelConfig.from_mapping({**config.to_mapping(), **shapes}))
    known, own = source.state_dict(), model.state_dict()
    for name, value in own.items():
        if name in known and known[name].shape == value.shape:
            value.copy_(known[name])
    return model


def train(
    model: SemanticKeypointDetector,
    cells: DetailStem,
    caches: Sequence[Path],
    out: Path,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> None:
    """Fit the detail stem and the detector; the rest computes as it does in extraction."""
    trunk = copy.deepcopy(model).optimize()
    model.eval().requires_grad_(False)
    assert model.smoothing is not None
    for part in (model.detail, model.detector, model.smoothing):
        part.train().requires_grad_(True)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # what comes from the detector by cells is good already
    groups = [
        {"params": [*model.detail.parameters()], "share": 1.0},
        {"params": [*model.detector.parameters(), *model.smoothing.parameters()], "share": 0.25},
    ]
    optimizer = torch.optim.AdamW(groups, rate, weight_decay=1e-4)
    average = MovingAverage(model, 0.998)
    state_file, first = out.with_name(out.name + ".state"), 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        average.model.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    views = iter(torch.utils.data.DataLoader(Views(caches, batch, (seed, first)), batch_size=None, num_workers=1))
    started, losses = time.monotonic(), []
    for step in range(first, steps):
        sample = next(views)
        for group in optimizer.param_groups:
            group["lr"] = (
                group["share"]
                * rate
                * min(1.0, (step + 1) / 200)
                * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))
            )
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                stem = trunk.stem(sample["image"].bfloat16())
                grid, _ = trunk.pyramid(stem, trunk.context(stem))
            evidence = model.detail(sample["image"]).float()
            found = window_log_probability(model.smoothing(model.detector.logits(grid)) + evidence)[:, 0]
        valid = torch.zeros_like(sample["target"], dtype=torch.bool)
        valid[:, PHASES:-PHASES, PHASES:-PHASES] = True
        loss = pixel_cross_entropy(found, sample["target"], valid)
        difference = loss.detach() - entropy(sample["target"], valid)
        follow = FOLLOWING * max(0.0, 1.0 - step / (0.5 * steps))
        if follow > 0.0:
            wanted = over_phases(cells, sample["image"])
            loss = loss + follow * ((evidence - wanted)[:, 0][valid] ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 5.0)
        optimizer.step()
        average.update(model, step)
        losses.append(float(difference))
        if (step + 1) % 50 == 0:
            passed = time.monotonic() - started
            print(f"step {step + 1}: divergence {np.mean(losses[-50:]):.4f}, {passed:.0f} s", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save_checkpoint(average.model, out)
            parts = {"model": model.state_dict(), "average": average.model.state_dict()}
            torch.save({**parts, "optimizer": optimizer.state_dict(), "step": step + 1}, state_file)


@torch.no_grad()
def over_phases(cells: DetailStem, images: torch.Tensor) -> torch.Tensor:
    """What a detail stem says of every pixel (B, 1, H, W), averaged over all places of its cells."""
    total = torch.zeros(images.shape)
    places = [(x, y) for x in range(cells.stride) for y in range(cells.stride)]
    for x, y in places:
        with torch.autocast("cpu", torch.bfloat16):
            logits = cells(torch.roll(images, (-y, -x), (2, 3)).bfloat16())[1]
        total += torch.roll(cells_to_image(logits.float(), GRID_STRIDE), (y, x), (2, 3)) / len(places)
    return total


@torch.inference_mode()
def divergence(model: SemanticKeypointDetector, cache: Path) -> float:
    """Mean divergence of a detector, of either kind, from the targets of all crops of a cache, as they are."""
    crops, shifted, warped = (np.load(cache / f"{name}.npy", mmap_mode="r") for name in ("gray", "shifted", "warped"))
    side, found = KEPT // 32 * 32, []
    valid = torch.zeros(1, side, side, dtype=torch.bool)
    valid[:, 2 * PHASES : -2 * PHASES, 2 * PHASES : -2 * PHASES] = True
    for index, crop in enumerate(crops):
        part = (slice((index % 8) * 3, (index % 8) * 3 + side), slice((index % 8), (index % 8) + side))
        target = (1 - WARPED_SHARE) * shifted[index][part].astype(np.float32)
        target += WARPED_SHARE * warped[index][part].astype(np.float32)
        goal = torch.from_numpy(target)[None]
        with torch.autocast("cpu", torch.bfloat16):
            maps = model(normalize(np.ascontiguousarray(crop[part]))[None].bfloat16()).log_probability[:, 0].float()
        found.append(float(pixel_cross_entropy(maps, goal, valid)) - entropy(goal, valid))
    return float(np.mean(found))


def entropy(target: torch.Tensor, valid: torch.Tensor) -> float:
    """What the loss of a perfect imitation would be."""
    return float(pixel_cross_entropy(target.clamp(1e-9, 1.0).log(), target, valid))


if __name__ == "__main__":
    main()
