"""Loss of covariances: are displacements of matched keypoints as large, and as directed, as predicted?"""

from __future__ import annotations

import torch


def squared_normalised_error(displacement: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """``d^T S^-1 d``; of right covariances its mean is 2 and its distribution chi-square of two degrees of freedom.

    Args:
        displacement: (..., 2) pixels.
        covariance: (..., 2, 2) px^2, symmetric and positive definite.

    Returns:
        (...,).
    """
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    x, y = displacement[..., 0], displacement[..., 1]
    return (yy * x * x - 2.0 * xy * x * y + xx * y * y) / (xx * yy - xy * xy)


def displacement_nll(displacement: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of displacements under Gaussians, without its constant.

    Args:
        displacement: (N, 2) pixels between a keypoint's true place in the other view and the keypoint matched to it.
        covariance: (N, 2, 2) px^2 of that difference: of both keypoints, the first moved into the second's view.

    Returns:
        Scalar mean; 0 for an empty set.
    """
    if len(displacement) == 0:
        return covariance.sum()
    determinant = covariance[..., 0, 0] * covariance[..., 1, 1] - covariance[..., 0, 1] ** 2
    return 0.5 * (squared_normalised_error(displacement, covariance) + determinant.log()).mean()


def moved_covariance(covariance: torch.Tensor, jacobian: torch.Tensor) -> torch.Tensor:
    """``J S J^T``: what a covariance (N, 2, 2) becomes under a map with Jacobian (N, 2, 2)."""
    return jacobian @ covariance @ jacobian.transpose(-1, -2)
