"""Covariances of poses carried over, against samples."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.errors import InputError
from semkey.geometry.pose_covariance import adjoint, relative_covariance, ros_covariance
from semkey.geometry.transforms import compose, inverse, se3_exp, se3_log, so3_log

POSE = se3_exp([0.4, -0.2, 0.1, 0.3, -0.5, 0.2])
OTHER = se3_exp([0.1, 0.5, -0.3, -0.2, 0.1, 0.4])
ROOT = 1e-3 * np.random.default_rng(1).normal(size=(6, 6))


def test_the_adjoint_carries_tangent_vectors_over() -> None:
    xi = np.array([0.1, -0.2, 0.3, 0.2, 0.1, -0.3])
    np.testing.assert_allclose(POSE @ se3_exp(xi), se3_exp(adjoint(POSE) @ xi) @ POSE, atol=1e-12)


def test_ros_wants_position_and_rotation_about_the_worlds_axes(rng: np.random.Generator) -> None:
    samples = [compose(POSE, se3_exp(xi)) for xi in rng.normal(size=(8000, 6)) @ ROOT.T]
    position = [pose[:3, 3] - POSE[:3, 3] for pose in samples]
    rotation = [so3_log(pose[:3, :3] @ POSE[:3, :3].T) for pose in samples]
    expected = ros_covariance(ROOT @ ROOT.T, POSE)
    np.testing.assert_allclose(np.cov(np.hstack([position, rotation]).T), expected, atol=0.08 * expected.max())
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        ros_covariance(np.eye(3), POSE)


def test_a_relative_pose_has_both_errors(rng: np.random.Generator) -> None:
    first, second = ROOT @ ROOT.T, 0.5 * (ROOT.T @ ROOT)
    true = compose(inverse(POSE), OTHER)
    other_root = np.linalg.cholesky(second)
    errors = []
    for xi0, xi1 in zip(rng.normal(size=(6000, 6)) @ ROOT.T, rng.normal(size=(6000, 6)) @ other_root.T, strict=True):
        relative = compose(inverse(compose(POSE, se3_exp(xi0))), OTHER, se3_exp(xi1))
        errors.append(se3_log(compose(inverse(true), relative)))
    expected = relative_covariance(first, second, true)
    np.testing.assert_allclose(np.cov(np.array(errors).T), expected, atol=0.08 * np.abs(expected).max())
