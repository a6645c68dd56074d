"""Features of pairs of views and which of them belong together: made once, kept in chunks, read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from semkey.extractors import Detector
from semkey.files import atomic_write_bytes
from semkey.training.data.opening import cache_folder, open_data
from semkey.training.data.pair import Pair
from semkey.training.data.photos import Progress, Split
from semkey.training.matcher.config import MatcherTrainConfig, TruthConfig

CHUNK_PAIRS = 100
IGNORED, UNMATCHED = -2, -1
_FORMAT = "matcher-pairs-1"

Arrays = dict[str, NDArray[Any]]


def prepare_pairs(
    config: MatcherTrainConfig, detector: Detector, split: Split, progress: Progress | None = None
) -> Arrays:
    """All pairs of one side of the split, stacked; what is not in the cache is made first, chunk by chunk.

    Returns:
        By name, with P pairs and K = ``cached_keypoints`` places: ``keypoints0``, ``keypoints1`` (P, K, 2) float32
        pixels, ``descriptors0``, ``descriptors1`` (P, K, D) float16, ``counts`` (P, 2) int32 of keypoints that are
        there, ``partners0``, ``partners1`` (P, K) int16: the keypoint of the other view, or -1 unmatchable, or -2
        undecided.

    Raises:
        ConfigError, DatasetError: as :func:`semkey.training.data.opening.open_data`.
    """
    count = config.pairs if split == "train" else config.validation_pairs
    folder = cache_folder(config.data) / "matcher" / _key(config, detector, split)
    source = None
    chunks: list[Arrays] = []
    for first in range(0, count, CHUNK_PAIRS):
        path = folder / f"{first:07d}.safetensors"
        chunk = read_chunk(path)
        if chunk is None:
            source = source or open_data(config.data, split=split, seed=config.seed, progress=progress)
            chunk = _make(source.__getitem__, range(first, first + CHUNK_PAIRS), config, detector)
            atomic_write_bytes(path, save(chunk))
        chunks.append(chunk)
        if progress is not None:
            progress(min(first + CHUNK_PAIRS, count), count, f"features of pairs ({split})")
    return {name: np.concatenate([chunk[name] for chunk in chunks])[:count] for name in chunks[0]}


def partners(
    projected0: NDArray[np.floating], keypoints1: NDArray[np.floating], truth: TruthConfig
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Which keypoints of two views belong together.

    Args:
        projected0: (N0, 2) where the keypoints of view 0 lie in view 1, NaN: not seen there.
        keypoints1: (N1, 2) of view 1.
        truth: distances.

    Returns:
        For the keypoints (N0,) of view 0 and (N1,) of view 1 the index in the other view, -1 where there is none, -2
        where that is not decided.
    """
    result0 = np.full(len(projected0), UNMATCHED, np.int16)
    result1 = np.full(len(keypoints1), UNMATCHED, np.int16)
    if not len(projected0) or not len(keypoints1):
        return result0, result1
    distances = np.linalg.norm(projected0[:, None] - keypoints1[None], axis=2)
    distances = np.where(np.isfinite(distances), distances, np.inf)
    nearest0, nearest1 = distances.argmin(axis=1), distances.argmin(axis=0)
    closest0, closest1 = distances.min(axis=1), distances.min(axis=0)
    result0[closest0 <= truth.negative_px] = IGNORED
    result1[closest1 <= truth.negative_px] = IGNORED
    rows = np.arange(len(projected0))
    good = (nearest1[nearest0] == rows) & (closest0 < truth.positive_px)
    result0[good] = nearest0[good]
    result1[nearest0[good]] = rows[good]
    return result0, result1


def project(pair: Pair, keypoints0: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where keypoints (N, 2) of view 0 lie in view 1, pixels; NaN where they are not seen."""
    height, width = pair["warp10"].shape[:2]
    H10 = pair["H10"].numpy()
    if np.isfinite(H10).all():
        mapped = np.concatenate([keypoints0, np.ones((len(keypoints0), 1))], axis=1) @ H10.T
        with np.errstate(divide="ignore", invalid="ignore"):
            points = np.where(mapped[:, 2:] > 0, mapped[:, :2] / mapped[:, 2:], np.nan)
    else:
        warp = pair["warp10"].numpy().astype(np.float64)
        low = np.clip(np.floor(keypoints0).astype(int), 0, [width - 2, height - 2])
        fx, fy = np.clip(keypoints0 - low, 0.0, 1.0).T[:, :, None]
        x, y = low.T
        upper = (1 - fx) * warp[y, x] + fx * warp[y, x + 1]
        lower = (1 - fx) * warp[y + 1, x] + fx * warp[y + 1, x + 1]
        points = (1 - fy) * upper + fy * lower
    points[~((points >= 0) & (points <= [width - 1, height - 1])).all(axis=1)] = np.nan
    return points


def _make(pair_of: Callable[[int], Pair], indices: range, config: MatcherTrainConfig, detector: Detector) -> Arrays:
    rows: list[Arrays] = []
    for index in indices:
        pair = pair_of(index)
        features = [detector.extract(as_image(pair[f"image{view}"])) for view in (0, 1)]
        points = [one.keypoints.cpu().numpy() for one in features]
        found = partners(project(pair, points[0]), points[1], config.truth)
        row: Arrays = {"counts": np.array([len(one) for one in points], np.int32)}
        for view in (0, 1):
            count = config.cached_keypoints
            row[f"keypoints{view}"] = _padded(points[view].astype(np.float32), count)
            row[f"descriptors{view}"] = _padded(features[view].descriptors.cpu().numpy().astype(np.float16), count)
            row[f"partners{view}"] = _padded(found[view], count)
        rows.append(row)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def as_image(normalised: torch.Tensor) -> torch.Tensor:
    """A float image in [0, 1] that the network sees as the given one: it normalises by mean and variance itself."""
    low, high = normalised.min(), normalised.max()
    return ((normalised - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def _padded(values: NDArray[Any], count: int) -> NDArray[Any]:
    result = np.zeros((count, *values.shape[1:]), values.dtype)
    result[: len(values)] = values
    return result


def read_chunk(path: Path) -> Arrays | None:
    """A chunk, None where it is missing or damaged."""
    try:
        return load_file(path) if path.is_file() else None
    except (SafetensorError, OSError):
        return None


def _key(config: MatcherTrainConfig, detector: Detector, split: Split) -> str:
    """Hash of everything that pairs depend on."""
    data = {**config.data.to_mapping(), "cache": None}
    said = {
        "format": _FORMAT,
        "split": split,
        "seed": config.seed,
        "data": data,
        "truth": config.truth.to_mapping(),
        "features": detector.settings,
        "keypoints": config.cached_keypoints,
    }
    return hashlib.blake2b(json.dumps(said, sort_keys=True, default=str).encode(), digest_size=10).hexdigest()
