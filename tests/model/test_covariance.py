"""Covariances of keypoints: their head, their loss, and where they end up in features."""

from __future__ import annotations

import math

import pytest
import torch

from semkey.errors import ConfigError, InputError
from semkey.losses.covariance import displacement_nll, moved_covariance, squared_normalised_error
from semkey.model.config import ModelConfig
from semkey.model.covariance import LARGEST_PX, SMALLEST_PX, CovarianceHead, covariance_of_factors
from semkey.model.features import Features


def test_normalised_error_of_a_hand_computed_case() -> None:
    covariance = torch.tensor([[4.0, 0.0], [0.0, 0.25]])
    errors = squared_normalised_error(torch.tensor([[2.0, 0.0], [0.0, 1.0], [2.0, 1.0]]), covariance)
    torch.testing.assert_close(errors, torch.tensor([1.0, 4.0, 5.0]))


def test_normalised_errors_of_true_covariances_average_to_two() -> None:
    torch.manual_seed(0)
    factor = torch.tensor([[1.5, 0.0], [0.7, 0.2]])
    drawn = torch.randn(20000, 2) @ factor.T
    errors = squared_normalised_error(drawn, factor @ factor.T)
    assert float(errors.mean()) == pytest.approx(2.0, abs=0.05)
    assert float((errors < -2 * math.log(0.5)).float().mean()) == pytest.approx(0.5, abs=0.02)


def test_likelihood_is_greatest_at_the_true_covariance() -> None:
    torch.manual_seed(1)
    true = torch.tensor([[2.0, 0.9], [0.9, 0.5]])
    drawn = torch.randn(5000, 2) @ torch.linalg.cholesky(true).T

    def loss(covariance: torch.Tensor) -> float:
        return float(displacement_nll(drawn, covariance.expand(5000, 2, 2)))

    best = loss(true)
    turned = torch.tensor([[2.0, -0.9], [-0.9, 0.5]])
    for other in (2 * true, 0.5 * true, torch.eye(2), turned):
        assert loss(other) > best + 0.02
    assert float(displacement_nll(drawn[:0], torch.zeros(0, 2, 2))) == 0.0


def test_gradients_of_the_likelihood() -> None:
    torch.manual_seed(2)
    displacement = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d, f: displacement_nll(d, covariance_of_factors(f)), (displacement, factors))


def test_a_covariance_moves_with_the_map() -> None:
    quarter_turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    moved = moved_covariance(torch.tensor([[[4.0, 0.0], [0.0, 1.0]]]), 2.0 * quarter_turn)
    torch.testing.assert_close(moved, torch.tensor([[[4.0, 0.0], [0.0, 16.0]]]))


def test_any_output_is_a_covariance_of_sensible_size() -> None:
    values = torch.tensor([-1e4, -3.0, 0.0, 3.0, 1e4])
    covariances = covariance_of_factors(torch.cartesian_prod(values, values, values))
    eigenvalues = torch.linalg.eigvalsh(covariances.double())
    assert float(eigenvalues.min()) >= 0.9 * SMALLEST_PX**2
    assert float(eigenvalues.max()) <= 3.1 * LARGEST_PX**2
    torch.testing.assert_close(covariances, covariances.transpose(-1, -2))


def test_an_untrained_head_says_the_same_of_every_keypoint() -> None:
    head = CovarianceHead(10)
    found = head(torch.randn(5, 10)).detach()
    torch.testing.assert_close(found, (0.49 + SMALLEST_PX**2) * torch.eye(2).expand(5, 2, 2))


def test_covariance_needs_the_inputs_of_reliability() -> None:
    with pytest.raises(ConfigError, match="covariance"):
        ModelConfig(reliability="grid", covariance=True)
    assert not ModelConfig.from_stored({}).covariance


def test_features_carry_covariances_along() -> None:
    def features(covariances: torch.Tensor | None) -> Features:
        return Features(
            keypoints=torch.zeros(3, 2),
            scores=torch.zeros(3),
            reliability=torch.zeros(3),
            descriptors=torch.zeros(3, 8),
            global_descriptor=torch.zeros(0),
            image_size=(8, 8),
            covariances=covariances,
        )

    assert features(None).select(torch.tensor([0, 2])).covariances is None
    each = torch.arange(12.0).reshape(3, 2, 2)
    chosen = features(each).select(torch.tensor([2, 0])).to("cpu").covariances
    assert chosen is not None
    torch.testing.assert_close(chosen, each[[2, 0]])
    with pytest.raises(InputError, match="covariances"):
        features(torch.zeros(2, 2, 2))
