"""Matches by a dual softmax: a pair counts that is much more alike than all others of both its keypoints."""

from __future__ import annotations

import torch

from semkey.errors import InputError
from semkey.matching.mutual import Matches, check_pair
from semkey.model.features import Features

TEMPERATURE = 20.0
"""What a cosine is multiplied by before the softmax (DeDoDe, Edstedt et al. 2024, uses the same)."""
THRESHOLD = 0.01
"""Smallest confidence of a match, as in DeDoDe."""


def match_dual_softmax(
    features0: Features, features1: Features, *, temperature: float = TEMPERATURE, threshold: float = THRESHOLD
) -> Matches:
    """Pairs that are the best of their row and column by ``softmax over rows x softmax over columns``.

    Args:
        features0: N0 features of image 0.
        features1: N1 features of image 1, of the same kind.
        temperature: > 0, what a cosine is multiplied by.
        threshold: smallest confidence, in [0, 1].

    Returns:
        Matches with that confidence as their scores; none if either image has no features.

    Raises:
        InputError: features of different kinds or devices, or an option out of range.
    """
    check_pair(features0, features1)
    if not temperature > 0 or not 0 <= threshold <= 1:
        raise InputError(f"temperature must be positive and threshold in [0, 1], got {temperature} and {threshold}")
    device = features0.descriptors.device
    if not len(features0) or not len(features1):
        none = torch.zeros((0, 2), dtype=torch.int64, device=device)
        return Matches(indices=none, scores=torch.zeros(0, device=device))
    similarity = temperature * (features0.descriptors.float() @ features1.descriptors.float().T)
    confidence = similarity.softmax(dim=1) * similarity.softmax(dim=0)
    best0, nearest0 = confidence.max(dim=1)
    nearest1 = confidence.argmax(dim=0)
    rows = torch.arange(len(features0), device=device)
    keep = (nearest1[nearest0] == rows) & (best0 >= threshold)
    return Matches(indices=torch.stack([rows[keep], nearest0[keep]], dim=1), scores=best0[keep].clamp(0, 1))
