"""What a detector is worth on held-out pairs: descriptors on true points, matching, repeatability, reliability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.losses.reliability import match_success
from semkey.losses.warping import project_points
from semkey.matching import Matches, match
from semkey.metrics.reliability import auroc, calibration
from semkey.model.config import ExtractionConfig
from semkey.model.dense import DenseMaps
from semkey.model.features import Features
from semkey.model.heads import score_from_log_probability
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.backbone_feed import BackboneFeed
from semkey.training.config import ValidationConfig
from semkey.training.data.pair import Pair

MATCH_PX = 3.0
_BINS = 10


@dataclass(frozen=True, kw_only=True)
class SampleMatches:
    """The matches of one validation pair, to be drawn.

    Attributes:
        images: two (H, W, 3) uint8, as the network saw them.
        features: of both.
        matches: mutual nearest neighbours.
        right: (M,) bool: within 3 px of the truth.
    """

    images: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    features: tuple[Features, Features]
    matches: Matches
    right: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Means over validation pairs that show scenes.

    Attributes:
        figures: ``descriptor_accuracy`` (share of true points whose nearest neighbour among the pair's points lies
            within 3 px of the truth, mean of both directions), ``matching_score`` (right matches over keypoints of view
            0 that view 1 shows), ``precision`` (of matches of those), ``matches`` (right ones per pair),
            ``repeatability`` (of view 0's keypoints, within 3 px), ``error_px`` (mean distance of right matches),
            ``reliability_auroc`` and ``reliability_ece`` of predicting that a keypoint's match is right. NaN where
            there was nothing to measure.
        calibration: per bin of predicted reliability the mean prediction, the share of right matches, and the count.
        samples: the first pairs with their matches.
    """

    figures: dict[str, float]
    calibration: list[tuple[float, float, int]] = field(default_factory=list)
    samples: list[SampleMatches] = field(default_factory=list)


@torch.inference_mode()
def validate(
    model: SemanticKeypointDetector,
    pairs: Sequence[Pair],
    config: ValidationConfig,
    *,
    bfloat16: bool = False,
    pictures: int = 0,
    feed: BackboneFeed | None = None,
) -> Validation:
    """Measure a detector on pairs.

    Args:
        model: in evaluation mode.
        pairs: not collated; those of drawn shapes are left out.
        config: number of keypoints.
        bfloat16: compute convolutions in bfloat16.
        pictures: how many pairs' matches to return.
        feed: features of the model's backbone; None where it has none.
    """
    device = model.device
    rows: list[dict[str, float]] = []
    labels: list[NDArray[Any]] = []
    predictions: list[NDArray[Any]] = []
    samples: list[SampleMatches] = []
    for cpu_pair in pairs:
        if not bool(cpu_pair["is_scene"]):
            continue
        pair = {name: value.to(device) for name, value in cpu_pair.items()}
        images = torch.stack([pair["image0"], pair["image1"]])
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            # validation sees the same pairs every time
            semantic = None if feed is None else feed(torch.stack([pair["color0"], pair["color1"]]), [True, True])
            maps = model(images.contiguous(memory_format=torch.channels_last), semantic=semantic)
        maps = maps.map(torch.Tensor.float)
        views = [_extract(model, maps.image(i), pair[f"valid{i}"], config.keypoints) for i in range(2)]
        projected, seen = project_points(views[0].keypoints, pair["H10"], pair["warp10"])
        right = match_success(views[0].descriptors, views[1].descriptors, projected, views[1].keypoints) & seen
        rows.append({"descriptor_accuracy": _descriptor_accuracy(model, maps, pair)} | _measure(views, projected, seen))
        labels.append(right[seen].cpu().numpy())
        predictions.append(views[0].reliability[seen].cpu().numpy())
        if len(samples) < pictures:
            samples.append(_sample(pair, views, projected, seen))
    figures = {name: _mean([row[name] for row in rows]) for name in rows[0]} if rows else {}
    if not rows:
        return Validation(figures=figures)
    all_labels, all_predictions = np.concatenate(labels), np.concatenate(predictions)
    curve = calibration(all_labels, all_predictions, bins=_BINS)
    figures["reliability_auroc"] = auroc(all_labels, all_predictions)
    figures["reliability_ece"] = curve.expected_error
    bins = zip(curve.predicted.tolist(), curve.observed.tolist(), curve.counts.tolist(), strict=True)
    return Validation(figures=figures, calibration=[row for row in bins if row[2] > 0], samples=samples)


def _extract(model: SemanticKeypointDetector, maps: DenseMaps, valid: torch.Tensor, keypoints: int) -> Features:
    scores = score_from_log_probability(maps.log_probability[0, 0])
    peaks = model.detect(scores, ExtractionConfig(max_keypoints=keypoints))
    refined = model.refine(maps.detail, peaks)
    kept = valid[peaks.pixels[:, 1], peaks.pixels[:, 0]]
    limit = torch.tensor([scores.shape[1] - 1.0, scores.shape[0] - 1.0], device=refined.device)
    points = torch.minimum(refined[kept].clamp(min=0.0), limit)
    return Features(
        keypoints=points,
        scores=peaks.scores[kept],
        reliability=torch.sigmoid(model.predict_reliability(maps, points, peaks.select(kept))),
        descriptors=model.describe(maps, points[None])[0],
        global_descriptor=torch.zeros(0, device=points.device),
        image_size=(scores.shape[1], scores.shape[0]),
    )


def _descriptor_accuracy(model: SemanticKeypointDetector, maps: DenseMaps, pair: Pair) -> float:
    points = torch.stack([pair["points0"], pair["points1"]])
    own, other = model.describe(maps, points)
    similarity = own @ other.T
    found = []
    for view, nearest in ((points[1], similarity.argmax(dim=1)), (points[0], similarity.argmax(dim=0))):
        found.append(((view[nearest] - view).norm(dim=1) <= MATCH_PX).float().mean())
    return float((found[0] + found[1]) / 2)


def _measure(views: list[Features], projected: torch.Tensor, seen: torch.Tensor) -> dict[str, float]:
    """Matching and repeatability of one pair; NaN where view 1 shows no keypoint of view 0."""
    count = int(seen.sum())
    names = ("matching_score", "precision", "matches", "repeatability", "error_px")
    if count == 0 or len(views[1]) == 0:
        return {name: float("nan") if count == 0 or name == "error_px" else 0.0 for name in names}
    indices = match(views[0], views[1]).indices
    indices = indices[seen[indices[:, 0]]]
    gaps = (projected[indices[:, 0]] - views[1].keypoints[indices[:, 1]]).norm(dim=1)
    right = gaps <= MATCH_PX
    nearest = torch.cdist(projected[seen], views[1].keypoints).min(dim=1).values
    return {
        "matching_score": float(right.sum()) / count,
        "precision": float(right.float().mean()) if len(right) else 0.0,
        "matches": float(right.sum()),
        "repeatability": float((nearest <= MATCH_PX).float().mean()),
        "error_px": float(gaps[right].mean()) if bool(right.any()) else float("nan"),
    }


def _sample(pair: Pair, views: list[Features], projected: torch.Tensor, seen: torch.Tensor) -> SampleMatches:
    matches = match(views[0], views[1])
    first, second = matches.indices[:, 0], matches.indices[:, 1]
    right = ((projected[first] - views[1].keypoints[second]).norm(dim=1) <= MATCH_PX) & seen[first]
    return SampleMatches(
        images=(_picture(pair["image0"]), _picture(pair["image1"])),
        features=(views[0].to("cpu"), views[1].to("cpu")),
        matches=Matches(indices=matches.indices.cpu(), scores=matches.scores.cpu()),
        right=right.cpu().numpy(),
    )


def _picture(image: torch.Tensor) -> NDArray[np.uint8]:
    """A normalised view as (H, W, 3) uint8: mean grey, two and a half standard deviations to black and white."""
    levels = (image[0].cpu() * 51.0 + 127.5).clamp(0, 255).round().to(torch.uint8).numpy()
    return np.repeat(levels[:, :, None], 3, axis=2)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
