"""What a step of training minimises: the losses of a batch of pairs by name, and figures to watch.

| name | what | source |
|---|---|---|
| ``match_dual_softmax`` | true matches under a softmax over rows and columns | XFeat, eq. 6 |
| ``match_triplet`` | hardest negative of row and column | HardNet, eq. 1-2 |
| ``match_nre`` | sparse neural reprojection error, both directions | ALIKED, III-D |
| ``relations`` | similarities between points as the teacher's descriptors have them | |
| ``heat`` | cross-entropy of target keypoints, as places or "none", per pixel or 8x8 cell | SuperPoint, eq. 2 |
| ``position`` | sub-pixel place of strong targets, L1 | |
| ``reprojection`` | distance of keypoints of both views that show the same point, L1 | ALIKE, III-D |
| ``anchor`` | distance of keypoints to their targets, L1: without it all may drift the same way | |
| ``repeatability`` | cosine between windows of both views' score maps | R2D2, eq. 1 |
| ``dispersity`` | spread of the scores around keypoints | ALIKE, III-D |
| ``success`` | probability of keypoints: found again within ``same_px``, and matched right? | DISK, DaD |
| ``peakiness`` | one minus (maximum - mean) of windows | R2D2, eq. 2 |
| ``coverage`` | expected share of empty 32x32 cells | |
| ``imitate_scores`` | cross-entropy per pixel or cell with the guide's probabilities | |
| ``imitate_descriptors`` | one minus the cosine of own and the guide's descriptors | |
| ``reliability_bce`` | will the match be right? cross-entropy on detached features | |
| ``reliability_ap`` | R2D2's AP loss, descriptors detached | R2D2, eq. 6 |
| ``reward_inliers`` | policy gradient: inliers of the fundamental matrix of two images of a scene | RIPE |
| ``reward_tracks`` | policy gradient: how long and how exactly keypoints are tracked through a clip | TraqPoint |
| ``temporal_scores`` | relative change of the probabilities of tracked points over a clip | |
| ``temporal_descriptors`` | one minus the length of the mean descriptor of tracked points | |
| ``covariance_nll`` | likelihood of the distance of right matches under the covariances of both keypoints | |
| ``place`` | InfoNCE between the views' place descriptors, on detached features | |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from semkey.losses.description import dual_softmax_loss, place_loss, triplet_loss
from semkey.losses.detection import cell_cross_entropy, pixel_cross_entropy, render_targets, subpixel_loss
from semkey.losses.nre import sparse_nre_loss
from semkey.losses.peaks import coverage_loss, peakiness_loss
from semkey.losses.repeatability import cosine_repeatability_loss
from semkey.losses.warping import dense_warp
from semkey.model.dense import DenseMaps
from semkey.model.dkd import read_windows
from semkey.model.heads import score_from_log_probability
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.objectives.clips import clip_losses
from semkey.training.objectives.detected import Batch, Sides, detected_losses, exact_places
from semkey.training.objectives.imitation import Guide
from semkey.training.stage_config import CLIP_LOSSES, DETECTED_LOSSES, MATCHING_LOSSES, ObjectiveOptions

_WINDOW = 5


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """Losses by name (scalars with gradients, not weighted) and figures by name (numbers)."""

    losses: dict[str, torch.Tensor]
    figures: dict[str, float] = field(default_factory=dict)

    def weighted(self, weights: Mapping[str, float]) -> dict[str, torch.Tensor]:
        """Each loss times its weight."""
        return {name: weights[name] * value for name, value in self.losses.items()}


def compute(
    model: SemanticKeypointDetector,
    maps: DenseMaps,
    batch: Batch,
    weights: Mapping[str, float],
    options: ObjectiveOptions | None = None,
    guide: tuple[Guide, DenseMaps] | None = None,
    middle: DenseMaps | None = None,
) -> Objectives:
    """Losses of a batch of B pairs.

    A loss is computed if its weight is above 0; one that the batch has nothing for (no targets, no keypoints, drawn
    shapes alone for descriptors) is 0. Pairs without any target, such as rendered rooms, do not count for ``heat``:
    that a place is no target there says nothing.

    Args:
        model: the detector.
        maps: float32 maps of 2B images: view 0 of each pair, then view 1.
        batch: collated pairs, see :mod:`semkey.training.data.pair`.
        weights: by name of the loss.
        options: details; None takes the defaults.
        guide: what is imitated, and its maps of the same images.
        middle: float32 maps of :func:`semkey.training.objectives.clips.middle_images`; needed for losses over clips.

    Returns:
        The losses, and the figures ``reward`` (mean over drawn keypoints, in [0, 1]) and ``track`` (mean share of a
        clip that they were tracked, less their error) of losses over clips; and, where losses over detected keypoints
        are among them, ``repeat`` (share of view 0's co-visible keypoints that view 1 has within ``match_px``),
        ``precision`` (of mutual matches) and ``matches`` (right ones per pair).
    """
    options = options or ObjectiveOptions()
    wanted = {name for name, weight in weights.items() if weight > 0}
    half = len(batch["image0"])
    sides = (maps.map(lambda m: m[:half]), maps.map(lambda m: m[half:]))
    losses: dict[str, torch.Tensor] = {}
    figures: dict[str, float] = {}
    if wanted & set(MATCHING_LOSSES):
        losses |= _matching_losses(model, maps, batch, wanted, options)
    if wanted & {"heat", "position"}:
        losses |= _target_losses(model, sides, batch, wanted, options)
    if wanted & {"repeatability", "peakiness", "coverage"}:
        losses |= _map_losses(sides, batch, wanted, options)
    if wanted & set(DETECTED_LOSSES):
        detected, figures = detected_losses(model, sides, batch, wanted, options)
        losses |= detected
    if wanted & set(CLIP_LOSSES):
        found, rewards = clip_losses(model, sides, middle, batch, wanted, options)
        losses |= found
        figures = figures | rewards
    if guide is not None:
        losses |= guide[0].losses(model, maps, guide[1], batch, wanted)
    if "place" in wanted:
        places = model.place(maps.coarse)
        losses["place"] = place_loss(places[:half], places[half:])
    return Objectives(losses={name: losses[name] for name in weights if name in losses}, figures=figures)


def _matching_losses(
    model: SemanticKeypointDetector, maps: DenseMaps, batch: Batch, wanted: set[str], options: ObjectiveOptions
) -> dict[str, torch.Tensor]:
    """Losses of descriptors at the corresponding points of scenes; drawn shapes repeat and do not count."""
    points0, points1 = batch["points0"], batch["points1"]
    half = len(points0)
    jittered = points1 + options.jitter_px * torch.randn(points1.shape, dtype=points1.dtype).to(points1.device)
    descriptors = model.describe(maps, torch.cat([points0, jittered]))
    own, other = descriptors[:half], descriptors[half:]
    is_scene = batch["is_scene"]

    def mean(per_point: torch.Tensor) -> torch.Tensor:
        return (per_point.mean(dim=1) * is_scene).sum() / is_scene.sum().clamp(min=1.0)

    losses: dict[str, torch.Tensor] = {}
    if "match_dual_softmax" in wanted:
        losses["match_dual_softmax"] = mean(
            dual_softmax_loss(
                own,
                other,
                points1,
                temperature=options.softmax_temperature,
                exclusion_px=options.exclusion_px,
            )
        )
    if "match_triplet" in wanted:
        losses["match_triplet"] = mean(
            triplet_loss(own, other, points0, points1, margin=options.triplet_margin, exclusion_px=options.exclusion_px)
        )
    if "match_nre" in wanted:
        target = torch.arange(points0.shape[1], device=points0.device).expand(half, -1)
        both = [
            sparse_nre_loss(first, second, target, temperature=options.nre_temperature)
            for first, second in ((own, other), (other, own))
        ]
        losses["match_nre"] = mean((both[0] + both[1]) / 2)
    if "relations" in wanted:
        losses["relations"] = _relation_loss(own, batch, options.relation_temperature)
    return losses


def _relation_loss(descriptors: torch.Tensor, batch: Batch, temperature: float) -> torch.Tensor:
    """Cross-entropy between the softmax of the teacher's similarities of points of view 0 and of one's own.

    Every point is compared with all others of its pair that have a teacher's descriptor, not with itself.
    """
    if "teacher" not in batch:
        return descriptors.sum() * 0.0
    teacher = batch["teacher"]
    known = teacher.abs().sum(dim=-1) > 0
    hidden = ~(known[:, :, None] & known[:, None, :])
    hidden = hidden | torch.eye(known.shape[1], dtype=torch.bool, device=known.device)
    wanted, own = (
        (d @ d.transpose(1, 2) / temperature).masked_fill(hidden, -1e4) for d in (teacher.float(), descriptors)
    )
    gap = (wanted.softmax(dim=2) * (wanted.log_softmax(dim=2) - own.log_softmax(dim=2))).sum(dim=2)
    used = known & (known.sum(dim=1, keepdim=True) > 1)
    return (gap * used).sum() / used.sum().clamp(min=1)


def _target_losses(
    model: SemanticKeypointDetector, sides: Sides, batch: Batch, wanted: set[str], options: ObjectiveOptions
) -> dict[str, torch.Tensor]:
    """Cross-entropy and sub-pixel loss of both views against the targets."""
    cross_entropy = pixel_cross_entropy if model.config.detector == "pixels" else cell_cross_entropy
    heat, position = [], []
    for index, side in enumerate(sides):
        targets, valid = batch[f"targets{index}"], batch[f"valid{index}"]
        log_probability = side.log_probability[:, 0]
        if "heat" in wanted:
            size = (log_probability.shape[1], log_probability.shape[2])
            rendered = torch.stack([render_targets(*_targets(row), size) for row in targets])
            has_targets = (targets[..., 2] > 0).any(dim=1)
            heat.append(cross_entropy(log_probability, rendered, valid & has_targets[:, None, None]))
        if "position" in wanted:
            windows, shifts = [], []
            for row, target in enumerate(targets):
                points = exact_places(target, batch["is_scene"][row], options)
                pixels = points.round().long()
                windows.append(read_windows(score_from_log_probability(log_probability[row]), pixels, _WINDOW))
                shifts.append(points - pixels)
            position.append(subpixel_loss(torch.cat(windows), torch.cat(shifts)))
    losses = {"heat": heat, "position": position}
    return {name: (parts[0] + parts[1]) / 2 for name, parts in losses.items() if parts}


def _targets(row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (N, 2) and strengths (N,) of one view's targets without the padding."""
    used = row[row[:, 2] > 0]
    return used[:, :2], used[:, 2]


def _map_losses(sides: Sides, batch: Batch, wanted: set[str], options: ObjectiveOptions) -> dict[str, torch.Tensor]:
    """Losses of whole maps. They see probabilities: scores are logarithmic, and hardly differ from pixel to pixel."""
    maps = [side.log_probability[:, 0].exp() for side in sides]
    losses: dict[str, torch.Tensor] = {}
    if "repeatability" in wanted:
        warp = dense_warp(batch["H10"], batch["warp10"])
        losses["repeatability"] = cosine_repeatability_loss(
            maps[0], maps[1], warp, valid0=batch["valid0"], window=options.window
        )
    if "peakiness" in wanted:
        parts = [peakiness_loss(m, valid=batch[f"valid{i}"], window=options.window) for i, m in enumerate(maps)]
        losses["peakiness"] = (parts[0] + parts[1]) / 2
    if "coverage" in wanted:
        parts = [coverage_loss(m, valid=batch[f"valid{i}"]) for i, m in enumerate(maps)]
        losses["coverage"] = (parts[0] + parts[1]) / 2
    return losses
