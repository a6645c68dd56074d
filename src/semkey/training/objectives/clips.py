"""Losses over clips: frames of one recording that nothing else is known of.

A batch may hold pairs of other sources as well; these have ``clip`` -1 and do not count here, but for
``reward_inliers``, which counts all pairs of a known ``scene``. View 0 is the first frame
of a clip, view 1 its last, and ``frames`` those between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from semkey.losses.policy import Draw, draw_keypoints, policy_loss
from semkey.losses.rewards import agreement, mutual_matches, track_reward
from semkey.losses.temporal import temporal_descriptor_loss, temporal_score_loss
from semkey.model.config import ExtractionConfig
from semkey.model.dense import DenseMaps
from semkey.model.dkd import peaks_at
from semkey.model.heads import score_from_log_probability
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.objectives.detected import Batch, Sides
from semkey.training.stage_config import CLIP_LOSSES, ObjectiveOptions


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    """Keypoints drawn from one image, refined (N, 2), with descriptors (N, D); neither has gradients."""

    draw: Draw
    points: torch.Tensor
    descriptors: torch.Tensor


def clip_rows(batch: Batch) -> list[int]:
    """Which pairs of a batch are clips."""
    return torch.nonzero(batch["clip"] >= 0)[:, 0].tolist() if "clip" in batch else []


def middle_images(batch: Batch, rows: list[int]) -> torch.Tensor | None:
    """(C * (T - 2), 1, H, W) the frames between the first and the last of the C clips in ``rows``; None without any."""
    if not rows or batch["frames"].shape[1] == 0:
        return None
    return batch["frames"][rows].flatten(0, 1)


def clip_losses(
    model: SemanticKeypointDetector,
    sides: Sides,
    middle: DenseMaps | None,
    batch: Batch,
    wanted: set[str],
    options: ObjectiveOptions,
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Those of :data:`CLIP_LOSSES` that are wanted, each 0 where a batch has nothing for it, and the mean rewards.

    Args:
        model: the detector.
        sides: maps of view 0 and of view 1 of B pairs.
        middle: maps of :func:`middle_images`.
        batch: the pairs.
        wanted: names of losses; others are ignored.
        options: details.
    """
    rows = clip_rows(batch)
    zero = sides[0].log_probability.sum() * 0.0
    losses = {name: zero for name in CLIP_LOSSES if name in wanted}
    figures: dict[str, float] = {}
    known = torch.nonzero(batch["scene"] >= 0)[:, 0].tolist() if "scene" in batch else []
    if "reward_inliers" in losses and known:
        losses["reward_inliers"], figures["reward"] = _reward_inliers(model, sides, known, batch, options)
    if not rows or not wanted & set(CLIP_LOSSES[1:]):
        return losses, figures
    clips = [_frames(sides, middle, number, row, batch) for number, row in enumerate(rows)]
    if "reward_tracks" in losses:
        parts = [
            _reward_tracks(model, clip, batch["valid0"][row], options) for clip, row in zip(clips, rows, strict=True)
        ]
        losses["reward_tracks"] = torch.stack([loss for loss, _ in parts]).mean()
        figures["track"] = float(np.mean([reward for _, reward in parts]))
    if "temporal_scores" in losses:
        found = [
            temporal_score_loss(torch.cat([maps.log_probability[:, 0] for maps in clip]), batch["tracks"][row])
            for clip, row in zip(clips, rows, strict=True)
        ]
        losses["temporal_scores"] = torch.stack(found).mean()
    if "temporal_descriptors" in losses:
        found = []
        for clip, row in zip(clips, rows, strict=True):
            tracks = batch["tracks"][row].transpose(0, 1)  # (T, P, 2)
            described = [model.describe(maps, points[None])[0] for maps, points in zip(clip, tracks, strict=True)]
            found.append(temporal_descriptor_loss(torch.stack(described, dim=1)))
        losses["temporal_descriptors"] = torch.stack(found).mean()
    return losses, figures


def _frames(sides: Sides, middle: DenseMaps | None, number: int, row: int, batch: Batch) -> list[DenseMaps]:
    """Maps of all frames of a clip in order, each a batch of one."""
    count = batch["frames"].shape[1]
    between = [] if middle is None else [middle.image(number * count + i) for i in range(count)]
    return [sides[0].image(row), *between, sides[1].image(row)]


def _reward_inliers(
    model: SemanticKeypointDetector, sides: Sides, rows: list[int], batch: Batch, options: ObjectiveOptions
) -> tuple[torch.Tensor, float]:
    """RIPE's reward: inliers of the fundamental matrix of two frames of a clip, minus those with a foreign image."""
    size = _size(sides[0])
    first = {row: _draw(model, sides[0].image(row), batch["valid0"][row]) for row in rows}
    second = {row: _draw(model, sides[1].image(row), batch["valid1"][row]) for row in rows}
    draws, rewards, means = [], [], []
    scenes = batch["scene"].tolist()
    for row in rows:
        reward0, reward1 = pair_rewards(first[row], second[row], size, options.reward_px)
        means.append(float(torch.cat([reward0, reward1]).mean()) if len(reward0) + len(reward1) else 0.0)
        foreign = next((other for other in range(len(scenes)) if scenes[other] != scenes[row]), None)
        if foreign is not None and options.foreign_penalty > 0:
            other = _draw(model, sides[1].image(foreign), batch["valid1"][foreign])
            wrong, _ = pair_rewards(first[row], other, size, options.reward_px, believe=True)
            reward0 = reward0 - options.foreign_penalty * wrong
        draws += [first[row].draw, second[row].draw]
        rewards += [reward0, reward1]
    return policy_loss(draws, rewards), float(np.mean(means))


def pair_rewards(
    first: _Drawn, second: _Drawn, size: tuple[int, int], max_error_px: float, *, believe: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """1 for each keypoint of two images whose match agrees with their fundamental matrix, else 0: (N0,) and (N1,)."""
    own, other = mutual_matches(first.descriptors, second.descriptors)
    errors = agreement(
        _array(first.points[own]), _array(second.points[other]), size, max_error_px=max_error_px, believe=believe
    )
    right = torch.from_numpy(np.isfinite(errors)).to(own.device)
    rewards = [first.points.new_zeros(len(side.points)) for side in (first, second)]
    rewards[0][own[right]] = 1.0
    rewards[1][other[right]] = 1.0
    return rewards[0], rewards[1]


def _reward_tracks(
    model: SemanticKeypointDetector, clip: list[DenseMaps], valid: torch.Tensor, options: ObjectiveOptions
) -> tuple[torch.Tensor, float]:
    """Keypoints drawn from the first frame, by how long and how exactly those of the other frames go on with them."""
    drawn = _draw(model, clip[0], valid)
    size = _size(clip[0])
    errors = []
    for maps in clip[1:]:
        points, descriptors = _detect(model, maps, options)
        own, other = mutual_matches(drawn.descriptors, descriptors)
        row = np.full(len(drawn.points), np.inf)
        row[own.cpu().numpy()] = agreement(
            _array(drawn.points[own]), _array(points[other]), size, max_error_px=options.reward_px
        )
        errors.append(row)
    reward = torch.from_numpy(track_reward(np.stack(errors), options.reward_px)).to(drawn.points)
    return policy_loss([drawn.draw], [reward]), float(reward.mean()) if len(reward) else 0.0


def _draw(model: SemanticKeypointDetector, maps: DenseMaps, valid: torch.Tensor) -> _Drawn:
    extraction = model.extraction
    margin = max(extraction.window // 2, min(extraction.border, min(valid.shape) // 16))
    draw = draw_keypoints(maps.log_probability[0, 0], valid, margin=margin)
    with torch.no_grad():
        scores = score_from_log_probability(maps.log_probability[0, 0])
        peaks = peaks_at(scores, draw.pixels.float(), extraction.window)
        points = model.refine(maps.detail, peaks)
        return _Drawn(draw=draw, points=points, descriptors=model.describe(maps, points[None])[0])


@torch.no_grad()
def _detect(
    model: SemanticKeypointDetector, maps: DenseMaps, options: ObjectiveOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    extraction = ExtractionConfig(max_keypoints=options.max_keypoints)
    peaks = model.detect(score_from_log_probability(maps.log_probability[0, 0]), extraction)
    points = model.refine(maps.detail, peaks)
    return points, model.describe(maps, points[None])[0]


def _size(maps: DenseMaps) -> tuple[int, int]:
    height, width = maps.log_probability.shape[-2:]
    return width, height


def _array(points: torch.Tensor) -> np.ndarray:
    return points.detach().cpu().double().numpy()
