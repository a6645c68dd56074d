"""Nearest neighbours among what a backbone finds alike: OmniGlue's idea (Jiang et al. 2024) without its network."""

from __future__ import annotations

import torch

from semkey.errors import InputError
from semkey.matching.mutual import Matches, match_allowed
from semkey.model.features import Features

KEPT_SHARE = 0.5
"""Each keypoint may be matched to this share of the other image's, those most alike by the backbone (as OmniGlue)."""


def match_semantic(
    features0: Features,
    features1: Features,
    *,
    kept_share: float = KEPT_SHARE,
    min_similarity: float | None = None,
    ratio: float | None = None,
) -> Matches:
    """Mutual nearest neighbours among the pairs that a backbone finds alike.

    Args:
        features0: N0 features of image 0, with ``semantics``.
        features1: N1 features of image 1, of the same kind and guide.
        kept_share: of image 1's keypoints that each of image 0 may be matched to, in (0, 1].
        min_similarity: see :func:`semkey.match`.
        ratio: likewise.

    Raises:
        InputError: features without semantics or of different guides, or as :func:`semkey.match`.
    """
    semantics0, semantics1 = features0.semantics, features1.semantics
    if semantics0 is None or semantics1 is None:
        raise InputError("features have no semantics: extract both images with semkey.load(..., guide=...)")
    if semantics0.shape[1] != semantics1.shape[1]:
        widths = f"{semantics0.shape[1]} and {semantics1.shape[1]}"
        raise InputError(f"semantics of widths {widths} are of different guides: extract both images with the same")
    if not 0 < kept_share <= 1:
        raise InputError(f"kept_share lies in (0, 1], got {kept_share}")
    count = max(1, round(kept_share * len(features1)))

    def allowed(start: int, stop: int) -> torch.Tensor:
        alike = semantics0[start:stop] @ semantics1.T
        return alike >= alike.topk(count, dim=1).values[:, -1:]

    return match_allowed(features0, features1, allowed=allowed, min_similarity=min_similarity, ratio=ratio)


def match_by_guide(
    features0: Features, features1: Features, *, min_similarity: float | None = None, ratio: float | None = None
) -> Matches:
    """:func:`match_semantic` where both images have semantics (points of a map have none), else nearest neighbours."""
    if features0.semantics is None or features1.semantics is None:
        return match_allowed(features0, features1, allowed=None, min_similarity=min_similarity, ratio=ratio)
    return match_semantic(features0, features1, min_similarity=min_similarity, ratio=ratio)
