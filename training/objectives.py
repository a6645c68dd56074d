"""What a step of training minimises: the losses of one batch of pairs, and figures to watch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from semkey.losses.description import dual_softmax_loss, place_loss
from semkey.losses.detection import cell_cross_entropy, render_targets, subpixel_loss
from semkey.model.config import ExtractionConfig
from semkey.model.dkd import read_windows
from semkey.model.heads import score_from_log_probability
from semkey.model.semantic_detector import DenseMaps, SemanticKeypointDetector

Batch = dict[str, torch.Tensor]

JOINT = {
    "heat": 1.0,
    "position": 0.1,
    "match": 0.5,
    "place": 0.1,
    "reprojection": 1.0,
    "anchor": 0.5,
    "reliability": 0.5,
}
# Where the descriptor's gradients dominate the stem, keypoints stay a pixel or two off; this stage sharpens them.
LOCALISE = {**JOINT, "heat": 4.0, "position": 0.5, "match": 0.2, "anchor": 2.0}
STAGES = {"joint": JOINT, "localise": LOCALISE}
EXTRACTION = ExtractionConfig(max_keypoints=384)
STRONG = 0.3  # strength of targets that sub-pixel positions are learned from
ANCHOR_PX = 1.5  # a keypoint belongs to a target within this distance
MATCH_PX = 3.0  # a match is right when it lies within this distance of the true position


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """Losses by name (scalars with gradients) and figures by name (numbers)."""

    losses: dict[str, torch.Tensor]
    figures: dict[str, float]

    def total(self, weights: dict[str, float]) -> torch.Tensor:
        """The weighted sum that is minimised."""
        return torch.stack([weights[name] * value for name, value in self.losses.items()]).sum()


def warp_points(H: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Points (N, 2) through a homography (3, 3) float64."""
    mapped = torch.cat([points, torch.ones_like(points[:, :1])], dim=1).double() @ H.T
    return (mapped[:, :2] / mapped[:, 2:]).float()


def compute(model: SemanticKeypointDetector, maps: DenseMaps, batch: Batch, *, with_detected: bool) -> Objectives:
    """Losses of a batch.

    Args:
        model: the detector.
        maps: float32 maps of both views: the first half of the batch is view 0, the second view 1.
        batch: as :class:`pairs.PhotoPairs` yields, collated.
        with_detected: also compute the losses over detected keypoints (slower).
    """
    half = len(batch["image0"])
    sides = (maps.map(lambda m: m[:half]), maps.map(lambda m: m[half:]))
    heat, position = [], []
    for index, side in enumerate(sides):
        losses = detection_losses(side, batch[f"targets{index}"], batch[f"valid{index}"])
        heat.append(losses[0])
        position.append(losses[1])
    # keypoints are never detected exactly: descriptors must match from half a pixel away as well
    jittered = batch["points1"] + 0.5 * torch.randn_like(batch["points1"])
    descriptors = model.describe(maps, torch.cat([batch["points0"], jittered]))
    match = dual_softmax_loss(descriptors[:half], descriptors[half:], batch["points1"]).mean(dim=1)
    is_photo = batch["is_photo"]  # descriptors cannot tell one corner of a checkerboard from another
    places = model.place(maps.coarse)
    losses = {
        "heat": (heat[0] + heat[1]) / 2,
        "position": (position[0] + position[1]) / 2,
        "match": (match * is_photo).sum() / is_photo.sum().clamp(min=1.0),
        "place": place_loss(places[:half], places[half:]),
    }
    figures: dict[str, float] = {}
    if with_detected:
        detected, figures = detected_losses(model, sides, batch)
        losses |= detected
    return Objectives(losses=losses, figures=figures)


def detection_losses(maps: DenseMaps, targets: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy and sub-pixel loss of one view; targets (B, T, 3) x y strength, valid (B, H, W)."""
    log_probability = maps.log_probability[:, 0]
    size = (log_probability.shape[1], log_probability.shape[2])
    heat = torch.stack([render_targets(row[:, :2], row[:, 2], size) for row in targets])
    windows, shifts = [], []
    for row, target in enumerate(targets):
        points = _strong(target)
        pixels = points.round().long()
        windows.append(read_windows(score_from_log_probability(log_probability[row]), pixels, 5))
        shifts.append(points - pixels)
    return cell_cross_entropy(log_probability, heat, valid), subpixel_loss(torch.cat(windows), torch.cat(shifts))


def detected_losses(
    model: SemanticKeypointDetector, sides: tuple[DenseMaps, DenseMaps], batch: Batch
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Losses over detected keypoints.

    Returns:
        ``reprojection``, the mean distance between refined keypoints of both views that show the same point (L1,
        pixels); ``anchor``, that between refined keypoints and targets, without which all could drift the same way;
        ``reliability``, of predicting the success of mutual matches. And mean repeatability, matching precision and
        right matches per pair.
    """
    reprojection, anchor, reliability = [], [], []
    figures = {"repeat": 0.0, "precision": 0.0, "matches": 0.0}
    count = len(batch["H01"])
    photos = max(float(batch["is_photo"].sum()), 1.0)
    for row in range(count):
        is_photo = bool(batch["is_photo"][row])
        images, keypoints, kept = [], [], []
        for index, side in enumerate(sides):
            image = side.image(row)
            peaks = model.detect(score_from_log_probability(image.log_probability[0, 0]), EXTRACTION)
            inside = batch[f"valid{index}"][row][peaks.pixels[:, 1], peaks.pixels[:, 0]]
            images.append(image)
            kept.append(peaks.select(inside))
            keypoints.append(model.refine(image.detail, peaks)[inside])
            gaps = keypoints[-1][:, None] - _strong(batch[f"targets{index}"][row])
            near = gaps.detach().norm(dim=-1) < ANCHOR_PX
            anchor.append(gaps[near].abs().sum(dim=1).mean() if bool(near.any()) else gaps.sum() * 0.0)
        if min(len(keypoints[0]), len(keypoints[1])) < 8:
            continue
        own = torch.arange(len(keypoints[0]))
        projected = warp_points(batch["H01"][row], keypoints[0])
        distance = torch.cdist(projected.detach(), keypoints[1].detach())
        nearest_distance, nearest = distance.min(dim=1)
        same = (distance.argmin(dim=0)[nearest] == own) & (nearest_distance < 2.0)
        if bool(same.any()):
            reprojection.append((projected[same] - keypoints[1][nearest[same]]).abs().sum(dim=1).mean())
        with torch.no_grad():
            described = [model.describe(image, k[None])[0] for image, k in zip(images, keypoints, strict=True)]
            similarity = described[0] @ described[1].T
            best = similarity.argmax(dim=1)
            is_match = similarity.argmax(dim=0)[best] == own
            right = is_match & (distance[own, best] < MATCH_PX)
            size = torch.tensor(images[1].log_probability.shape[-2:]).flip(0)
            seen = ((projected > 2) & (projected < size - 3)).all(dim=1)
        if not is_photo or not bool(seen.any()):
            continue
        logits = model.rate(images[0], keypoints[0], kept[0])
        reliability.append(F.binary_cross_entropy_with_logits(logits[seen], right[seen].float()))
        figures["repeat"] += float((nearest_distance[seen] < MATCH_PX).float().mean()) / photos
        figures["precision"] += float(right.sum() / is_match.sum().clamp(min=1)) / photos
        figures["matches"] += float(right.sum()) / photos
    zero = sides[0].log_probability.sum() * 0.0
    losses = {"reprojection": reprojection, "anchor": anchor, "reliability": reliability}
    return {name: torch.stack(part).mean() if part else zero for name, part in losses.items()}, figures


def _strong(targets: torch.Tensor) -> torch.Tensor:
    """Positions (M, 2) of the targets (T, 3) that are sure enough to learn sub-pixel positions from."""
    return targets[targets[:, 2] > STRONG, :2]
