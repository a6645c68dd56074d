"""Losses over keypoints that are detected in both views of a pair, and figures of how they match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from semkey.losses.covariance import displacement_nll, moved_covariance
from semkey.losses.detection import success_loss
from semkey.losses.peaks import dispersity_loss
from semkey.losses.reliability import average_precision, position_labels, reliability_ap_loss, reliability_bce_loss
from semkey.losses.repeatability import mutual_nearest
from semkey.losses.warping import project_points
from semkey.model.config import ExtractionConfig
from semkey.model.dense import DenseMaps
from semkey.model.dkd import Peaks
from semkey.model.heads import probability_from_score, score_from_log_probability
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.stage_config import DETECTED_LOSSES, RELIABILITY_LOSSES, ObjectiveOptions

Batch = Mapping[str, torch.Tensor]
Sides = tuple[DenseMaps, DenseMaps]
Parts = dict[str, list[torch.Tensor]]

_FEWEST_KEYPOINTS = 8


@dataclass(frozen=True, kw_only=True)
class _Detections:
    """Keypoints of one view: those on valid pixels, refined (N, 2), with their peaks' rows that were kept."""

    maps: DenseMaps
    keypoints: torch.Tensor
    peaks: Peaks
    kept: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of the keypoints of view 0; nothing here has gradients.

    Attributes:
        seen: (N,) bool, whether view 1 sees the place.
        projected: (N, 2) where they lie in view 1.
        nearest: (N,) distance to the nearest keypoint of view 1, pixels.
        similarity: (N, M) of descriptors.
        missed: (N,) distance of the mutual match from the true place, pixels; infinite without one.
    """

    seen: torch.Tensor
    projected: torch.Tensor
    nearest: torch.Tensor
    similarity: torch.Tensor
    missed: torch.Tensor


def exact_places(row: torch.Tensor, is_scene: torch.Tensor, options: ObjectiveOptions) -> torch.Tensor:
    """Positions (N, 2) of those of a view's targets (M, 3) that sub-pixel positions are learned from."""
    if options.exact_positions and bool(is_scene):
        return row[:0, :2]
    return row[row[:, 2] > options.strong, :2]


def detected_losses(
    model: SemanticKeypointDetector, sides: Sides, batch: Batch, wanted: set[str], options: ObjectiveOptions
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Losses over detected keypoints, each the mean over what the batch has for it, and the figures.

    Args:
        model: the detector.
        sides: maps of view 0 and of view 1 of B pairs.
        batch: the pairs.
        wanted: names of losses; those that are not over detected keypoints are ignored.
        options: details.

    Returns:
        The losses by name, and the means over pairs of scenes of ``repeat``, ``precision`` and ``matches``, see
        :func:`semkey.training.objectives.losses.compute`.
    """
    parts: Parts = {name: [] for name in DETECTED_LOSSES if name in wanted}
    rows: list[tuple[float, float, float]] = []
    for row in range(len(batch["image0"])):
        views = [_detect(model, side.image(row), batch[f"valid{i}"][row], options) for i, side in enumerate(sides)]
        is_scene = batch["is_scene"][row]
        for index, view in enumerate(views):
            _single_view_losses(view, exact_places(batch[f"targets{index}"][row], is_scene, options), parts, options)
        if min(len(view.keypoints) for view in views) < _FEWEST_KEYPOINTS:
            continue
        projected, seen = project_points(views[0].keypoints, batch["H10"][row], batch["warp10"][row])
        if "reprojection" in parts:
            index0, index1 = mutual_nearest(projected[seen], views[1].keypoints, options.same_px)
            if len(index0) > 0:
                gaps = projected[seen][index0] - views[1].keypoints[index1]
                parts["reprojection"].append(gaps.abs().sum(dim=1).mean())
        if not bool(seen.any()):
            continue
        outcome = _outcome(model, views, projected.detach(), seen)
        if "success" in parts:
            distance = outcome.missed if bool(is_scene) else outcome.nearest  # shapes look alike: found is enough
            windows = views[0].peaks.windows[views[0].kept][seen]
            success = distance[seen] < options.same_px
            if options.graded_success:
                success = (1.0 - distance[seen] / options.same_px).clamp(min=0.0)
            parts["success"].append(success_loss(probability_from_score(windows), success))
        if bool(is_scene):
            _reliability_losses(model, views, outcome, batch, row, parts, options)
            rows.append(_figures(outcome, options))
    zero = sides[0].log_probability.sum() * 0.0
    losses = {name: torch.stack(part).mean() if part else zero for name, part in parts.items()}
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else []
    return losses, dict(zip(("repeat", "precision", "matches"), means, strict=False))


def _detect(
    model: SemanticKeypointDetector, maps: DenseMaps, valid: torch.Tensor, options: ObjectiveOptions
) -> _Detections:
    extraction = ExtractionConfig(max_keypoints=options.max_keypoints)
    peaks = model.detect(score_from_log_probability(maps.log_probability[0, 0]), extraction)
    kept = valid[peaks.pixels[:, 1], peaks.pixels[:, 0]]
    return _Detections(maps=maps, keypoints=model.refine(maps.detail, peaks)[kept], peaks=peaks, kept=kept)


def _single_view_losses(view: _Detections, places: torch.Tensor, parts: Parts, options: ObjectiveOptions) -> None:
    """``anchor`` and ``dispersity`` of one view."""
    if "anchor" in parts:
        gaps = view.keypoints[:, None] - places
        near = gaps.detach().norm(dim=-1) < options.anchor_px
        if bool(near.any()):
            parts["anchor"].append(gaps[near].abs().sum(dim=1).mean())
    if "dispersity" in parts and bool(view.kept.any()):
        scores = view.peaks.windows[view.kept]
        parts["dispersity"].append(dispersity_loss(scores, view.peaks.scores[view.kept]))


@torch.no_grad()
def _outcome(
    model: SemanticKeypointDetector, views: list[_Detections], projected: torch.Tensor, seen: torch.Tensor
) -> _Outcome:
    own, other = (model.describe(view.maps, view.keypoints[None])[0] for view in views)
    similarity = own @ other.T
    best = similarity.argmax(dim=1)
    mutual = similarity.argmax(dim=0)[best] == torch.arange(len(best), device=best.device)
    distance = torch.cdist(projected, views[1].keypoints)
    missed = distance.gather(1, best[:, None])[:, 0].masked_fill(~mutual, torch.inf)
    return _Outcome(
        seen=seen, projected=projected, nearest=distance.min(dim=1).values, similarity=similarity, missed=missed
    )


def _reliability_losses(
    model: SemanticKeypointDetector,
    views: list[_Detections],
    outcome: _Outcome,
    batch: Batch,
    row: int,
    parts: Mapping[str, list[torch.Tensor]],
    options: ObjectiveOptions,
) -> None:
    """Add what judges keypoints of one pair to ``parts``; gradients reach the heads alone, but for experiments."""
    H10, warp10 = batch["H10"][row], batch["warp10"][row]
    if not any(name in parts for name in RELIABILITY_LOSSES):
        return
    seen = outcome.seen
    logits, covariances = _judged(model, views[0], options)
    if "reliability_bce" in parts:
        right = outcome.missed < options.match_px
        parts["reliability_bce"].append(reliability_bce_loss(logits[seen], right[seen]))
    if "reliability_ap" in parts:
        labels, valid = position_labels(
            outcome.projected[seen],
            views[1].keypoints.detach(),
            positive_px=options.match_px,
            negative_px=options.exclusion_px,
        )
        precision = average_precision(outcome.similarity[seen], labels, valid=valid)
        parts["reliability_ap"].append(reliability_ap_loss(precision, torch.sigmoid(logits[seen])).mean())
    if "covariance_nll" in parts and covariances is not None:
        right = seen & (outcome.missed < options.match_px)
        jacobian, known = _jacobians(views[0].keypoints.detach()[right], H10, warp10)
        rows = torch.nonzero(right)[:, 0][known]
        matched = outcome.similarity.argmax(dim=1)[rows]
        gaps = outcome.projected[rows] - views[1].keypoints.detach()[matched]
        other = _judged(model, views[1], options)[1]
        assert other is not None
        total = moved_covariance(covariances[rows], jacobian[known]) + other[matched]
        if len(rows) > 0:
            parts["covariance_nll"].append(displacement_nll(gaps, total))


def _judged(
    model: SemanticKeypointDetector, view: _Detections, options: ObjectiveOptions
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Reliability before the sigmoid, and covariances, of a view's keypoints."""
    peaks = view.peaks.select(view.kept)
    return model.judge(view.maps, view.keypoints, peaks, attached=options.attached_judges)


def _jacobians(points: torch.Tensor, H10: torch.Tensor, warp10: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 2, 2) of the map from view 0 to view 1 at points (N, 2), by differences over a pixel; where it is known."""
    columns, known = [], torch.ones(len(points), dtype=torch.bool, device=points.device)
    for step in (points.new_tensor([0.5, 0.0]), points.new_tensor([0.0, 0.5])):
        ends = [project_points(points + sign * step, H10, warp10) for sign in (1.0, -1.0)]
        columns.append(ends[0][0] - ends[1][0])
        known = known & ends[0][1] & ends[1][1]
    return torch.stack(columns, dim=-1), known


def _figures(outcome: _Outcome, options: ObjectiveOptions) -> tuple[float, float, float]:
    """Repeatability, precision and number of right matches of one pair."""
    right = float(((outcome.missed < options.match_px) & outcome.seen).sum())
    matches = int(outcome.missed.isfinite().sum())
    repeat = float((outcome.nearest[outcome.seen] < options.match_px).float().mean())
    return repeat, right / max(matches, 1), right
