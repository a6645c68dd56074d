"""Batches of a matcher's training: which pairs and keypoints a step sees depends on the seed and the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.training.matcher.config import MatcherTrainConfig
from semkey.training.matcher.pairs import IGNORED, UNMATCHED, Arrays

_STRONGEST_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class MatcherBatch:
    """Pairs with equally many keypoints.

    Attributes:
        keypoints: (B, K, 2) float32 pixels, of both views.
        descriptors: (B, K, D) float32 of unit norm, of both views.
        partners: (B, K) int64, of both views: index in the other one, -1 unmatchable, -2 undecided.
    """

    keypoints: tuple[torch.Tensor, torch.Tensor]
    descriptors: tuple[torch.Tensor, torch.Tensor]
    partners: tuple[torch.Tensor, torch.Tensor]


def draw_batch(pairs: Arrays, step: int, config: MatcherTrainConfig) -> MatcherBatch:
    """The batch of a step: each pair's views in either order, some beside a view of another pair."""
    rng = np.random.default_rng([config.seed, 7, step])
    rows = [_draw_pair(pairs, rng, config) for _ in range(config.batch_pairs)]
    return _stack(rows)


def whole_pair(pairs: Arrays, index: int, config: MatcherTrainConfig) -> MatcherBatch:
    """One pair with its strongest keypoints, as validation sees it."""
    rng = np.random.default_rng([config.seed, 8, index])
    chosen = [np.arange(min(config.keypoints, int(pairs["counts"][index, view]))) for view in (0, 1)]
    return _stack([_select(pairs, (index, index), (0, 1), chosen, rng, config)])


def _draw_pair(pairs: Arrays, rng: np.random.Generator, config: MatcherTrainConfig) -> dict[str, list[NDArray[Any]]]:
    total = len(pairs["counts"])
    first = int(rng.integers(total))
    second = int(rng.integers(total)) if rng.random() < config.unrelated else first
    views = (0, 1) if rng.random() < 0.5 else (1, 0)
    strongest = rng.random() < _STRONGEST_SHARE
    chosen = []
    for index, view in zip((first, second), views, strict=True):
        there = int(pairs["counts"][index, view])
        order = np.arange(there) if strongest else rng.permutation(there)
        chosen.append(rng.permutation(order[: config.keypoints]))
    return _select(pairs, (first, second), views, chosen, rng, config)


def _select(
    pairs: Arrays,
    indices: tuple[int, int],
    views: tuple[int, int],
    chosen: list[NDArray[Any]],
    rng: np.random.Generator,
    config: MatcherTrainConfig,
) -> dict[str, list[NDArray[Any]]]:
    """Chosen keypoints of two views with their partners among those of the other; the rest is filled up.

    What fills up lies anywhere and has a random descriptor: such points must stay unmatched, as wrong detections must.
    """
    found: dict[str, list[NDArray[Any]]] = {"keypoints": [], "descriptors": [], "partners": []}
    for index, view, rows, others in zip(indices, views, chosen, chosen[::-1], strict=True):
        missing = config.keypoints - len(rows)
        width = pairs["descriptors0"].shape[2]
        noise = rng.standard_normal((missing, width)).astype(np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        anywhere = rng.uniform(0, [config.data.width - 1, config.data.height - 1], (missing, 2)).astype(np.float32)
        descriptors = pairs[f"descriptors{view}"][index, rows].astype(np.float32)
        found["keypoints"].append(np.concatenate([pairs[f"keypoints{view}"][index, rows], anywhere]))
        found["descriptors"].append(np.concatenate([descriptors, noise]))
        place = np.full(config.cached_keypoints + 2, UNMATCHED, np.int64)  # the last two are -2 and -1
        place[others] = np.arange(len(others))
        place[IGNORED] = IGNORED
        related = indices[0] == indices[1]
        partners = place[pairs[f"partners{view}"][index, rows]] if related else np.full(len(rows), UNMATCHED, np.int64)
        found["partners"].append(np.concatenate([partners, np.full(missing, UNMATCHED, np.int64)]))
    return found


def _stack(rows: list[dict[str, list[NDArray[Any]]]]) -> MatcherBatch:
    def both(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        view0, view1 = (torch.from_numpy(np.stack([row[name][view] for row in rows])) for view in (0, 1))
        return view0, view1

    return MatcherBatch(keypoints=both("keypoints"), descriptors=both("descriptors"), partners=both("partners"))
