"""What a step of training minimises: the losses of a batch of pairs by name, and figures to watch.

| name | what | source |
|---|---|---|
| ``match_dual_softmax`` | true matches under a softmax over rows and columns | XFeat, eq. 6 |
| ``match_triplet`` | hardest negative of row and column | HardNet, eq. 1-2 |
| ``match_nre`` | sparse neural reprojection error, both directions | ALIKED, III-D |
| ``relations`` | similarities between points as the teacher's descriptors have them | |
| ``heat`` | cross-entropy per 8x8 cell of target keypoints, as places or "none" | SuperPoint, eq. 2 |
| ``position`` | sub-pixel place of strong targets, L1 | |
| ``reprojection`` | distance of keypoints of both views that show the same point, L1 | ALIKE, III-D |
| ``anchor`` | distance of keypoints to their targets, L1: without it all may drift the same way | |
| ``repeatability`` | cosine between windows of both views' score maps | R2D2, eq. 1 |
| ``dispersity`` | spread of the scores around keypoints | ALIKE, III-D |
| ``peakiness`` | one minus (maximum - mean) of windows | R2D2, eq. 2 |
| ``coverage`` | expected share of empty 32x32 cells | |
| ``reliability_bce`` | will the match be right? cross-entropy on detached features | |
| ``reliability_ap`` | R2D2's AP loss, descriptors detached | R2D2, eq. 6 |
| ``place`` | InfoNCE between the views' place descriptors, on detached features | |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from semkey.losses.description import dual_softmax_loss, place_loss, triplet_loss
from semkey.losses.detection import cell_cross_entropy, render_targets, subpixel_loss
from semkey.losses.nre import sparse_nre_loss
from semkey.losses.peaks import coverage_loss, dispersity_loss, peakiness_loss
from semkey.losses.reliability import (
    average_precision,
    match_success,
    position_labels,
    reliability_ap_loss,
    reliability_bce_loss,
)
from semkey.losses.repeatability import cosine_repeatability_loss, mutual_nearest
from semkey.losses.warping import dense_warp, project_points
from semkey.model.config import ExtractionConfig
from semkey.model.dkd import Peaks, read_windows
from semkey.model.heads import score_from_log_probability
from semkey.model.semantic_detector import DenseMaps, SemanticKeypointDetector
from semkey.training.stage_config import DETECTED_LOSSES, MATCHING_LOSSES, RELIABILITY_LOSSES, ObjectiveOptions

Batch = Mapping[str, torch.Tensor]
Sides = tuple[DenseMaps, DenseMaps]

_WINDOW = 5
_FEWEST_KEYPOINTS = 8


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

    Returns:
        The losses, and, where losses over detected keypoints are among them, the figures ``repeat`` (share of view 0's
        co-visible keypoints that view 1 has within ``match_px``), ``precision`` (of mutual matches) and ``matches``
        (right ones per pair).
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
        losses |= _target_losses(sides, batch, wanted, options)
    if wanted & {"repeatability", "peakiness", "coverage"}:
        losses |= _map_losses(sides, batch, wanted, options)
    if wanted & set(DETECTED_LOSSES):
        detected, figures = _detected_losses(model, sides, batch, wanted, options)
        losses |= detected
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


def _target_losses(sides: Sides, batch: Batch, wanted: set[str], options: ObjectiveOptions) -> dict[str, torch.Tensor]:
    """Cross-entropy and sub-pixel loss of both views against the targets."""
    heat, position = [], []
    for index, side in enumerate(sides):
        targets, valid = batch[f"targets{index}"], batch[f"valid{index}"]
        log_probability = side.log_probability[:, 0]
        if "heat" in wanted:
            size = (log_probability.shape[1], log_probability.shape[2])
            rendered = torch.stack([render_targets(*_targets(row), size) for row in targets])
            has_targets = (targets[..., 2] > 0).any(dim=1)
            heat.append(cell_cross_entropy(log_probability, rendered, valid & has_targets[:, None, None]))
        if "position" in wanted:
            windows, shifts = [], []
            for row, target in enumerate(targets):
                points = _strong(target, options)
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


def _strong(row: torch.Tensor, options: ObjectiveOptions) -> torch.Tensor:
    """Positions (N, 2) of the targets that are sure enough to learn sub-pixel positions from."""
    return row[row[:, 2] > options.strong, :2]


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


@dataclass(frozen=True, kw_only=True)
class _Detections:
    """Keypoints of one view: those on valid pixels, refined (N, 2), with their peaks' rows that were kept."""

    maps: DenseMaps
    keypoints: torch.Tensor
    peaks: Peaks
    kept: torch.Tensor


def _detect(
    model: SemanticKeypointDetector, maps: DenseMaps, valid: torch.Tensor, options: ObjectiveOptions
) -> _Detections:
    extraction = ExtractionConfig(max_keypoints=options.max_keypoints)
    peaks = model.detect(score_from_log_probability(maps.log_probability[0, 0]), extraction)
    kept = valid[peaks.pixels[:, 1], peaks.pixels[:, 0]]
    return _Detections(maps=maps, keypoints=model.refine(maps.detail, peaks)[kept], peaks=peaks, kept=kept)


def _detected_losses(
    model: SemanticKeypointDetector, sides: Sides, batch: Batch, wanted: set[str], options: ObjectiveOptions
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Losses over detected keypoints, each the mean over what the batch has for it, and the figures."""
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in DETECTED_LOSSES if name in wanted}
    rows: list[tuple[float, float, float]] = []
    for row in range(len(batch["image0"])):
        views = [_detect(model, side.image(row), batch[f"valid{i}"][row], options) for i, side in enumerate(sides)]
        for index, view in enumerate(views):
            if "anchor" in wanted:
                gaps = view.keypoints[:, None] - _strong(batch[f"targets{index}"][row], options)
                near = gaps.detach().norm(dim=-1) < options.anchor_px
                if bool(near.any()):
                    parts["anchor"].append(gaps[near].abs().sum(dim=1).mean())
            if "dispersity" in wanted and bool(view.kept.any()):
                scores = view.peaks.windows[view.kept]
                parts["dispersity"].append(dispersity_loss(scores, view.peaks.scores[view.kept]))
        if min(len(view.keypoints) for view in views) < _FEWEST_KEYPOINTS:
            continue
        projected, seen = project_points(views[0].keypoints, batch["H10"][row], batch["warp10"][row])
        if "reprojection" in wanted:
            index0, index1 = mutual_nearest(projected[seen], views[1].keypoints, options.same_px)
            if len(index0) > 0:
                gaps = projected[seen][index0] - views[1].keypoints[index1]
                parts["reprojection"].append(gaps.abs().sum(dim=1).mean())
        if bool(batch["is_scene"][row]) and bool(seen.any()):
            rows.append(_reliability_losses(model, views, projected.detach(), seen, parts, options))
    zero = sides[0].log_probability.sum() * 0.0
    losses = {name: torch.stack(part).mean() if part else zero for name, part in parts.items()}
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else []
    return losses, dict(zip(("repeat", "precision", "matches"), means, strict=False))


def _reliability_losses(
    model: SemanticKeypointDetector,
    views: list[_Detections],
    projected: torch.Tensor,
    seen: torch.Tensor,
    parts: dict[str, list[torch.Tensor]],
    options: ObjectiveOptions,
) -> tuple[float, float, float]:
    """Add one pair's reliability losses to ``parts``; returns its repeatability, precision and right matches."""
    keypoints = [view.keypoints.detach() for view in views]
    with torch.no_grad():
        own, other = (model.describe(v.maps, k[None])[0] for v, k in zip(views, keypoints, strict=True))
        right = match_success(own, other, projected, keypoints[1], max_distance=options.match_px) & seen
        similarity = own @ other.T
        best = similarity.argmax(dim=1)
        matches = int((similarity.argmax(dim=0)[best] == torch.arange(len(best), device=best.device)).sum())
        distance = torch.cdist(projected[seen], keypoints[1]).min(dim=1).values
    if any(name in parts for name in RELIABILITY_LOSSES):
        logits = model.reliability(views[0].maps.grid, keypoints[0][None])[0]
        if "reliability_bce" in parts:
            parts["reliability_bce"].append(reliability_bce_loss(logits[seen], right[seen]))
        if "reliability_ap" in parts:
            labels, valid = position_labels(
                projected[seen], keypoints[1], positive_px=options.match_px, negative_px=options.exclusion_px
            )
            precision = average_precision(similarity[seen], labels, valid=valid)
            parts["reliability_ap"].append(reliability_ap_loss(precision, torch.sigmoid(logits[seen])).mean())
    repeat = float((distance < options.match_px).float().mean())
    return repeat, float(right.sum()) / max(matches, 1), float(right.sum())
