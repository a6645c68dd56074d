"""Matches of pairs of views with their patches and how far they are off: made once, kept in chunks, read again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from semkey.errors import DatasetError
from semkey.extractors import Detector
from semkey.files import atomic_write_bytes
from semkey.matching.alignment.learned import cut_patches
from semkey.matching.alignment.network import mean_descriptors
from semkey.matching.mutual import match_mutual
from semkey.training.data.opening import cache_folder, open_data
from semkey.training.data.pair import Pair
from semkey.training.data.photos import Progress, Split
from semkey.training.matcher.pairs import as_image, project, read_chunk
from semkey.training.refiner.config import RefinerTrainConfig

CHUNK_PAIRS = 50
_FORMAT = "refiner-patches-1"
# Neighbouring pixels that a warp takes farther apart than this lie on different things.
_CONNECTED_PX = 4.0

Arrays = dict[str, NDArray[Any]]


def prepare_patches(
    config: RefinerTrainConfig, detector: Detector, split: Split, progress: Progress | None = None
) -> Arrays:
    """All matches of one side of the split; what is not in the cache is made first, chunk by chunk.

    Returns:
        By name, for M matches: ``patches0``, ``patches1`` (M, 11, 11) float16, ``descriptors`` (M, D) float16,
        ``deformations`` (M, 2, 2) float32 from the patches to view 1, ``misses`` (M, 2) float32, from the keypoint in
        view 1 to the true place, pixels of view 1.

    Raises:
        ConfigError, DatasetError: as :func:`semkey.training.data.opening.open_data`, and where no match is right.
    """
    count = config.pairs if split == "train" else config.validation_pairs
    folder = cache_folder(config.data) / "refiner" / _key(config, detector, split)
    source = None
    chunks: list[Arrays] = []
    for first in range(0, count, CHUNK_PAIRS):
        last = min(first + CHUNK_PAIRS, count)
        path = folder / f"{first:07d}-{last:07d}.safetensors"
        chunk = read_chunk(path)
        if chunk is None:
            source = source or open_data(config.data, split=split, seed=config.seed, progress=progress)
            rows = [row for index in range(first, last) if (row := pair_patches(source[index], detector, config))]
            chunk = _joined(rows)
            if chunk:
                atomic_write_bytes(path, save(chunk))
        if chunk:
            chunks.append(chunk)
        if progress is not None:
            progress(last, count, f"patches of pairs ({split})")
    if not chunks:
        raise DatasetError(f"no match of '{config.features}' is right in {count} pairs ({split}): use easier views")
    return _joined(chunks)


def pair_patches(pair: Pair, detector: Detector, config: RefinerTrainConfig) -> Arrays:
    """The right matches of a pair of views, as :func:`prepare_patches` stacks them; empty where there are none."""
    images = [as_image(pair[f"image{view}"]) for view in (0, 1)]
    features = [detector.extract(image) for image in images]
    matches = match_mutual(*features).indices.cpu()
    points0, points1 = (
        one.keypoints.cpu().double().numpy()[matches[:, view].numpy()] for view, one in enumerate(features)
    )
    miss = project(pair, points0.astype(np.float32)) - points1
    right = np.nan_to_num(np.linalg.norm(miss, axis=1), nan=np.inf) < config.positive_px
    right &= _connected(pair, points0)
    if not right.any():
        return {}
    grey0, grey1 = ((image[0].numpy() * 255).round().astype(np.uint8) for image in images)
    cut = cut_patches(grey0, grey1, points0, points1)  # of all matches: deformations are seen among all of them
    descriptors = [one.descriptors.cpu()[matches[:, view]] for view, one in enumerate(features)]
    return {
        "patches0": cut.patches0[right].astype(np.float16),
        "patches1": cut.patches1[right].astype(np.float16),
        "descriptors": mean_descriptors(*descriptors).numpy()[right].astype(np.float16),
        "deformations": cut.deformations[right].astype(np.float32),
        "misses": miss[right].astype(np.float32),
    }


def _connected(pair: Pair, points0: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Keypoints (M, 2) of view 0 whose place in view 1 is read within one surface, not across the edge of a thing."""
    if bool(torch.isfinite(pair["H10"]).all()):
        return np.ones(len(points0), bool)
    warp = pair["warp10"].numpy()
    height, width = warp.shape[:2]
    x, y = np.clip(np.floor(points0).astype(int), 0, [width - 2, height - 2]).T
    corners = np.stack([warp[y, x], warp[y, x + 1], warp[y + 1, x], warp[y + 1, x + 1]])
    return np.asarray((np.ptp(corners, axis=0) < _CONNECTED_PX).all(axis=1))


def _joined(rows: list[Arrays]) -> Arrays:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _key(config: RefinerTrainConfig, detector: Detector, split: Split) -> str:
    """Hash of everything that patches depend on."""
    said = {
        "format": _FORMAT,
        "split": split,
        "seed": config.seed,
        "data": {**config.data.to_mapping(), "cache": None},
        "positive_px": config.positive_px,
        "features": detector.settings,
        "keypoints": config.keypoints,
    }
    return hashlib.blake2b(json.dumps(said, sort_keys=True, default=str).encode(), digest_size=10).hexdigest()
