"""Covariances of keypoints from the structure tensor, and from features that bring their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semkey.matching.keypoint_noise import (
    KeypointNoise,
    covariances_of_tensors,
    isotropic_covariances,
    keypoint_covariances,
)

NOISE = KeypointNoise(across=0.2, faint=2.0, largest=3.0)


def tensor(large: float, small: float, angle_deg: float) -> np.ndarray:
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    axes = np.array([[c, -s], [s, c]])
    return axes @ np.diag([large, small]) @ axes.T


def test_a_keypoint_on_an_edge_is_long_along_it(rng: np.random.Generator) -> None:
    large = rng.uniform(50, 500, 40)
    small = large * rng.uniform(0.01, 1.0, 40)
    tensors = np.stack([tensor(*row) for row in zip(large, small, rng.uniform(0, 360, 40), strict=True)])
    covariances = covariances_of_tensors(tensors, NOISE)
    _, vectors = np.linalg.eigh(tensors)
    in_axes = vectors.transpose(0, 2, 1) @ covariances @ vectors
    across = NOISE.across**2 * (large + NOISE.faint**2) / large
    along = NOISE.across**2 * (large + NOISE.faint**2) / small
    np.testing.assert_allclose(in_axes[:, 1, 1], across, rtol=1e-6)
    np.testing.assert_allclose(in_axes[:, 0, 0], np.minimum(along, NOISE.largest**2), rtol=1e-6)
    np.testing.assert_allclose(in_axes[:, 0, 1], 0, atol=1e-8)


def test_nothing_to_see_is_no_more_than_the_largest() -> None:
    for large, small in ((0.0, 0.0), (1e-9, 0.0), (200.0, 0.0)):
        covariance = covariances_of_tensors(tensor(large, small, 40.0)[None], NOISE)[0]
        values = np.linalg.eigvalsh(covariance)
        assert values[1] == pytest.approx(NOISE.largest**2, rel=1e-6)
        assert values[0] > 0


def test_an_image_of_twice_the_size_has_twice_the_noise() -> None:
    tensors = tensor(120.0, 4.0, 10.0)[None]
    np.testing.assert_allclose(
        covariances_of_tensors(tensors, NOISE.scaled(2.0)), 4 * covariances_of_tensors(tensors, NOISE)
    )


def test_covariances_of_the_features_win() -> None:
    own = torch.eye(2).repeat(3, 1, 1) * 0.25
    image = np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8)
    features: Any = SimpleNamespace(keypoints=torch.rand(3, 2) * 50, covariances=own)
    np.testing.assert_array_equal(keypoint_covariances(features, image), own.numpy())
    features.covariances = None
    assert (np.linalg.eigvalsh(keypoint_covariances(features, image)) > 0).all()
    np.testing.assert_array_equal(isotropic_covariances(2, 3.0), [9 * np.eye(2)] * 2)
