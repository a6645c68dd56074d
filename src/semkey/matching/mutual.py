"""Mutual nearest neighbour matching of unit-norm descriptors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.model.features import Features

MAX_BLOCK_SIMILARITIES = 2**24
"""Similarities held at once (64 MB); larger problems go through in blocks of rows with the same result."""

AllowedPairs = Callable[[int, int], torch.Tensor]
"""``allowed(start, stop)`` -> (stop - start, N1) bool: which keypoints of image 1 each row may be matched to."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Matches:
    """Pairs of keypoints of two images, in the order of the first image's keypoints; no keypoint occurs twice.

    Attributes:
        indices: (M, 2) int64, index into the keypoints of image 0 and of image 1.
        scores: (M,) float32 in [0, 1]: of nearest neighbours the cosine of their descriptors (negative ones are clipped
            to 0), of other matchers their confidence.
        features0: of image 0, where images were given to :func:`semkey.match`; else None.
        features1: of image 1.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> left, right, _ = data.stereo_motorcycle()
        >>> matches = semkey.match(left, right, detector="nano")
        >>> matches.features0.keypoints[matches.indices[:, 0]].shape == (len(matches), 2)
        True
        >>> matches.numpy()[0].shape == (len(matches), 2)
        True
    """

    indices: torch.Tensor
    scores: torch.Tensor
    features0: Features | None = None
    features1: Features | None = None

    def __post_init__(self) -> None:
        count = self.indices.shape[0]
        if self.indices.shape != (count, 2) or self.scores.shape != (count,):
            shapes = f"{tuple(self.indices.shape)} and {tuple(self.scores.shape)}"
            raise InputError(f"match indices and scores have shapes {shapes}, expected (M, 2) and (M,)")

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __repr__(self) -> str:
        return f"Matches({len(self)} pairs)"

    def numpy(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Indices and scores as arrays, copies on the CPU."""
        return self.indices.detach().cpu().numpy().copy(), self.scores.detach().cpu().numpy().copy()


def match_mutual(
    features0: Features, features1: Features, *, min_similarity: float | None = None, ratio: float | None = None
) -> Matches:
    """Mutual nearest neighbours; see :func:`semkey.match` for arguments, result and errors."""
    return match_allowed(features0, features1, allowed=None, min_similarity=min_similarity, ratio=ratio)


def match_allowed(
    features0: Features,
    features1: Features,
    *,
    allowed: AllowedPairs | None,
    min_similarity: float | None,
    ratio: float | None,
) -> Matches:
    """Mutual nearest neighbours among allowed pairs only; the common core of matching and guided matching."""
    check_pair(features0, features1)
    check_thresholds(min_similarity, ratio)
    descriptors0, descriptors1 = features0.descriptors.float(), features1.descriptors.float()
    count0, count1 = len(features0), len(features1)
    device = descriptors0.device
    if count0 == 0 or count1 == 0:
        return Matches(
            indices=torch.zeros((0, 2), dtype=torch.int64, device=device), scores=torch.zeros(0, device=device)
        )

    best0 = torch.empty(count0, device=device)
    second0 = torch.full((count0,), -torch.inf, device=device)
    nearest0 = torch.empty(count0, dtype=torch.int64, device=device)
    best1 = torch.full((count1,), -torch.inf, device=device)
    nearest1 = torch.full((count1,), -1, dtype=torch.int64, device=device)
    rows = max(1, MAX_BLOCK_SIMILARITIES // count1)
    for start in range(0, count0, rows):
        stop = min(start + rows, count0)
        similarity = descriptors0[start:stop] @ descriptors1.T
        if allowed is not None:
            similarity.masked_fill_(~allowed(start, stop), -torch.inf)
        best0[start:stop], nearest0[start:stop] = similarity.max(dim=1)
        if ratio is not None and count1 > 1:
            second0[start:stop] = similarity.topk(2, dim=1).values[:, 1]
        block_best1, block_nearest1 = similarity.max(dim=0)
        better = block_best1 > best1  # strictly, so that the lowest row wins a tie as it does without blocks
        best1 = torch.where(better, block_best1, best1)
        nearest1 = torch.where(better, block_nearest1 + start, nearest1)

    index0 = torch.arange(count0, device=device)
    keep = (nearest1[nearest0] == index0) & torch.isfinite(best0)
    if min_similarity is not None:
        keep &= best0 >= min_similarity
    if ratio is not None:
        # Squared distance of unit vectors: 2 - 2 cos. A row without a second candidate passes.
        keep &= (2 - 2 * best0).clamp(min=0) < ratio**2 * (2 - 2 * second0)
    indices = torch.stack([index0[keep], nearest0[keep]], dim=1)
    return Matches(indices=indices, scores=best0[keep].clamp(0, 1))


def check_pair(features0: Features, features1: Features) -> None:
    """Raise an InputError unless two sets of features can be compared."""
    for features in (features0, features1):
        if not isinstance(features, Features):
            raise InputError(f"cannot match {type(features).__name__}: pass what detector.extract gives")
    names = {features0.method, features1.method} - {""}
    if len(names) == 2:
        raise InputError(
            f"features of '{features0.method}' and '{features1.method}' cannot be matched: extract both images with "
            "the same"
        )
    descriptors0, descriptors1 = features0.descriptors, features1.descriptors
    if descriptors0.shape[1] != descriptors1.shape[1]:
        widths = f"{descriptors0.shape[1]} and {descriptors1.shape[1]}"
        raise InputError(
            f"descriptors of widths {widths} cannot be matched: extract both images with the same features"
        )
    if descriptors0.device != descriptors1.device:
        raise InputError(
            f"features lie on {descriptors0.device} and {descriptors1.device}: move one with features.to(device)"
        )


def check_finite(features0: Features, features1: Features) -> None:
    """Raise an InputError where keypoints or descriptors hold NaN or infinity, which would match nothing in silence."""
    for number, features in enumerate((features0, features1)):
        for name in ("keypoints", "descriptors"):
            if not bool(torch.isfinite(getattr(features, name)).all()):
                raise InputError(f"{name} of image {number} hold NaN or infinite values: extract it again")


def check_thresholds(min_similarity: float | None, ratio: float | None) -> None:
    """Raise an InputError for a threshold out of its range."""
    if min_similarity is not None and not -1 <= min_similarity <= 1:
        raise InputError(f"min_similarity is a cosine in [-1, 1], got {min_similarity}")
    if ratio is not None and not 0 < ratio <= 1:
        raise InputError(f"ratio lies in (0, 1], got {ratio}")
