"""Mutual nearest neighbour matching of unit-norm descriptors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike

if TYPE_CHECKING:
    from semkey.extractors import Extractor
    from semkey.extractors.detector import MaskLike

MAX_BLOCK_SIMILARITIES = 2**24
"""Similarities held at once (64 MB); larger problems go through in blocks of rows with the same result."""

AllowedPairs = Callable[[int, int], torch.Tensor]
"""``allowed(start, stop)`` -> (stop - start, N1) bool: which keypoints of image 1 each row may be matched to."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Matches:
    """Pairs of keypoints of two images, in the order of the first image's keypoints; no keypoint occurs twice.

    Attributes:
        indices: (M, 2) int64, index into the keypoints of image 0 and of image 1.
        scores: (M,) float32 in [0, 1], cosine similarity of the two descriptors (negative ones are clipped to 0).
        features0: of image 0, where images were given to :func:`match`; else None.
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


def match(
    features0: Features | ImageLike,
    features1: Features | ImageLike,
    *,
    detector: Extractor | str | Path = "compact",
    masks: tuple[MaskLike | None, MaskLike | None] | None = None,
    min_similarity: float | None = None,
    ratio: float | None = None,
) -> Matches:
    """Match two images or their features: pairs that are each other's nearest neighbour in cosine similarity.

    Deterministic; of equally similar candidates the stronger keypoint (the lower index) wins.

    Args:
        features0: N0 features of image 0, or the image itself: a path or pixels, as ``detector.extract`` takes them.
        features1: N1 features of image 1, of the same kind on the same device; or the image.
        detector: extracts from images, or its name; features need none.
        masks: of the two images, (H, W) uint8 or bool or None each; keypoints on pixels of 0 are not matched.
        min_similarity: smallest cosine similarity of a match, in [-1, 1]; ``None`` keeps all.
        ratio: Lowe's ratio test in (0, 1] (Lowe 2004, section 7.1): the nearest descriptor must be closer than
            ``ratio`` times the second nearest, in Euclidean distance from image 0 to image 1; ``None`` for no test.

    Returns:
        At most min(N0, N1) matches; none if either image has no features. With their features, if images were given.

    Raises:
        InputError: an image or mask cannot be used, features of different kinds or devices, or an option out of range.
        ConfigError: unknown detector.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> left, right, _ = data.stereo_motorcycle()
        >>> detector = semkey.load("nano", max_keypoints=512)
        >>> features0, features1 = detector.extract(left), detector.extract(right)
        >>> len(semkey.match(features0, features1)) > 200
        True
        >>> len(semkey.match(left, right, detector=detector, ratio=0.8)) > 100
        True
    """
    if isinstance(features0, Features) and isinstance(features1, Features) and masks is None:
        return match_allowed(features0, features1, allowed=None, min_similarity=min_similarity, ratio=ratio)
    if masks is not None and len(masks) != 2:
        raise InputError(f"masks are two, one for each image (or None), got {len(masks)}")
    if not (isinstance(features0, Features) and isinstance(features1, Features)):
        from semkey.extractors import as_detector

        detector = as_detector(detector)
    mask0, mask1 = masks or (None, None)
    ours0, ours1 = _features_of(features0, detector, mask0), _features_of(features1, detector, mask1)
    found = match_allowed(ours0, ours1, allowed=None, min_similarity=min_similarity, ratio=ratio)
    return Matches(indices=found.indices, scores=found.scores, features0=ours0, features1=ours1)


def _features_of(given: Features | ImageLike, detector: Extractor | str | Path, mask: MaskLike | None) -> Features:
    if not isinstance(given, Features):
        from semkey.extractors.points import extract_masked

        assert not isinstance(detector, str | Path)
        return extract_masked(detector, given, mask)
    if mask is not None:
        raise InputError("masks are of images: give detector.extract(image, mask) the mask of features")
    return given


def match_allowed(
    features0: Features,
    features1: Features,
    *,
    allowed: AllowedPairs | None,
    min_similarity: float | None,
    ratio: float | None,
) -> Matches:
    """Mutual nearest neighbours among allowed pairs only; the common core of :func:`match` and guided matching."""
    _check(features0, features1, min_similarity, ratio)
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


def _check(features0: Features, features1: Features, min_similarity: float | None, ratio: float | None) -> None:
    descriptors0, descriptors1 = features0.descriptors, features1.descriptors
    for features in (features0, features1):
        if not isinstance(features, Features):
            raise InputError(f"cannot match {type(features).__name__}: pass what detector.extract gives")
    names = {features0.method, features1.method} - {""}
    if len(names) == 2:
        raise InputError(
            f"features of '{features0.method}' and '{features1.method}' cannot be matched: extract both images with "
            "the same"
        )
    if descriptors0.shape[1] != descriptors1.shape[1]:
        widths = f"{descriptors0.shape[1]} and {descriptors1.shape[1]}"
        raise InputError(
            f"descriptors of widths {widths} cannot be matched: extract both images with the same features"
        )
    if descriptors0.device != descriptors1.device:
        raise InputError(
            f"features lie on {descriptors0.device} and {descriptors1.device}: move one with features.to(device)"
        )
    if min_similarity is not None and not -1 <= min_similarity <= 1:
        raise InputError(f"min_similarity is a cosine in [-1, 1], got {min_similarity}")
    if ratio is not None and not 0 < ratio <= 1:
        raise InputError(f"ratio lies in (0, 1], got {ratio}")
