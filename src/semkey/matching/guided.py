"""Matching guided by predicted positions: only pairs near the prediction are candidates."""

from __future__ import annotations

import numpy as np
import torch

from semkey.errors import InputError
from semkey.matching.mutual import Matches, match_allowed
from semkey.model.features import Features


def match_guided(
    features0: Features,
    features1: Features,
    predicted: torch.Tensor | np.ndarray,
    radius_px: float,
    *,
    min_similarity: float | None = None,
    ratio: float | None = None,
) -> Matches:
    """Mutual nearest neighbours among the pairs whose keypoint in image 1 lies near its predicted position.

    "Nearest" is meant within the allowed pairs in both directions, so a look-alike elsewhere in the image neither
    wins nor blocks a match. The second neighbour of the ratio test is the second best inside the circle too; a
    circle that holds a single keypoint passes the test.

    Args:
        features0: N0 features of image 0 (or of map points).
        features1: N1 features of image 1.
        predicted: (N0, 2) pixels ``x y`` in image 1 where each feature of image 0 is expected; a row with NaN or
            infinity (a point behind the camera, say) gets no match.
        radius_px: largest distance in pixels from the prediction, > 0, inclusive.
        min_similarity: smallest cosine similarity of a match; ``None`` keeps all.
        ratio: Lowe's ratio test as in :func:`semkey.matching.match`; ``None`` for no test.

    Returns:
        The matches, as from :func:`semkey.matching.match`.

    Raises:
        InputError: ``predicted`` has another shape, the radius is not positive, or as in ``match``.
    """
    device = features0.keypoints.device
    centers = torch.as_tensor(predicted, device=device).float()
    if centers.shape != (len(features0), 2):
        raise InputError(f"predicted positions have shape {tuple(centers.shape)}, expected ({len(features0)}, 2)")
    if not radius_px > 0:
        raise InputError(f"radius_px must be positive, got {radius_px}")
    x1, y1 = features1.keypoints.unbind(dim=1)

    def allowed(start: int, stop: int) -> torch.Tensor:
        # Plain differences: the expansion |a|^2 - 2ab + |b|^2 loses a pixel's fraction to cancellation in float32.
        dx = centers[start:stop, :1] - x1
        dy = centers[start:stop, 1:] - y1
        return dx * dx + dy * dy <= radius_px * radius_px  # False for NaN

    return match_allowed(features0, features1, allowed=allowed, min_similarity=min_similarity, ratio=ratio)
