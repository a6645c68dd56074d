"""The detector by pixels: probabilities in sliding windows, and what follows a picture that is moved."""

from __future__ import annotations

import math

import pytest
import torch

from semkey.losses.detection import pixel_cross_entropy
from semkey.model.config import ModelConfig
from semkey.model.heads import PeakOffsetHead
from semkey.model.pixels import LARGEST_LOGIT, PixelDetector, PixelStem, window_log_probability, window_sum
from semkey.model.semantic_detector import SemanticKeypointDetector


def test_window_sum_of_ones_is_the_window_inside_the_map() -> None:
    total = window_sum(torch.ones(2, 1, 12, 15))
    assert float(total[0, 0, 6, 7]) == 49.0
    assert float(total[1, 0, 0, 0]) == 16.0
    assert float(total[0, 0, 0, 7]) == 28.0


def test_sums_with_and_without_gradients_agree() -> None:
    values = torch.rand(3, 1, 20, 33)
    torch.testing.assert_close(window_sum(values), window_sum(values.clone().requires_grad_()).detach())


def test_a_lone_pixel_competes_with_nothing_but_silence() -> None:
    logits = torch.full((1, 1, 21, 21), -30.0)
    logits[0, 0, 10, 10] = 2.0
    found = window_log_probability(logits).exp()
    assert float(found[0, 0, 10, 10]) == pytest.approx(math.exp(2) / (1 + math.exp(2)), rel=1e-5)


def test_equal_pixels_of_a_window_share_one_keypoint() -> None:
    logits = torch.full((1, 1, 21, 21), -30.0)
    logits[0, 0, 10, 8] = logits[0, 0, 10, 11] = logits[0, 0, 10, 18] = 12.0  # the third is in neither's window
    found = window_log_probability(logits).exp()[0, 0, 10]
    assert float(found[8]) == pytest.approx(0.5, abs=1e-4)
    assert float(found[11]) == pytest.approx(0.5, abs=1e-4)
    assert float(found[18]) == pytest.approx(1.0, abs=1e-4)


def test_log_probabilities_are_finite_and_at_most_zero_for_any_logits() -> None:
    logits = torch.tensor([-1e4, 0.0, 5.0, 1e4]).repeat(16, 4)[None, None]
    found = window_log_probability(logits)
    assert bool(torch.isfinite(found).all())
    assert float(found.max()) <= 0.0
    assert float(window_log_probability(torch.full((1, 1, 9, 9), 1e4)).max()) <= LARGEST_LOGIT - math.log(16)


def test_windows_follow_every_shift() -> None:
    logits = torch.randn(1, 1, 40, 40)
    whole, moved = window_log_probability(logits), window_log_probability(logits[..., 5:, 3:])
    torch.testing.assert_close(moved[..., 4:-4, 4:-4], whole[..., 9:-4, 7:-4])


def test_context_is_interpolated_not_repeated() -> None:
    detector = PixelDetector(8, 8, 3).requires_grad_(False)
    wide = detector._doubled(torch.arange(12.0).repeat(3, 10, 1)[None])
    assert wide.shape == (1, 3, 20, 24)
    inner = wide[..., 4:-4, 4:-4]
    steps = inner[..., 1:] - inner[..., :-1]
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5))


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (3, 2), (7, 5)])
def test_evidence_follows_every_shift_exactly(shift: tuple[int, int]) -> None:
    stem = PixelStem(4, 3).eval().requires_grad_(False)
    image, (x, y) = torch.randn(1, 1, 48, 48), shift
    whole, moved = stem(image), stem(image[..., y:, x:])
    torch.testing.assert_close(moved[..., 5:-5, 5:-5], whole[..., 5 + y : -5, 5 + x : -5], rtol=1e-4, atol=1e-5)


def test_a_new_offset_head_moves_nothing_and_a_trained_one_at_most_a_pixel() -> None:
    head = PeakOffsetHead()
    windows = torch.rand(7, 25)
    assert float(head(windows).abs().max().detach()) < 1e-6
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=50.0)
    assert float(head(windows).abs().max().detach()) <= 1.0


def test_pixel_cross_entropy_is_least_at_its_targets() -> None:
    targets = torch.zeros(1, 16, 16)
    targets[0, 8, 8], targets[0, 4, 4] = 0.7, 0.2
    valid = torch.ones(1, 16, 16, dtype=torch.bool)

    def loss(probability: torch.Tensor) -> float:
        return float(pixel_cross_entropy(probability.clamp(min=1e-7).log(), targets, valid))

    best = loss(targets)
    expected = 49 / 256 * -sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in (0.7, 0.2))
    assert best == pytest.approx(expected, rel=1e-3)
    constant = torch.full_like(targets, float(targets.mean()))
    for other in (constant, torch.zeros_like(targets), torch.ones_like(targets) * 0.99, targets * 0.5):
        assert loss(other) > best + 1e-3  # neither a constant map nor silence is a minimum


def test_invalid_pixels_do_not_count() -> None:
    targets = torch.zeros(1, 8, 8)
    valid = torch.zeros(1, 8, 8, dtype=torch.bool)
    valid[0, :4] = True
    prediction = torch.full((1, 8, 8), 0.01).log()
    before = pixel_cross_entropy(prediction, targets, valid)
    targets[0, 6, 6] = 1.0
    assert float(pixel_cross_entropy(prediction, targets, valid)) == float(before)


def test_a_decoupled_detector_teaches_its_own_parts_alone() -> None:
    torch.manual_seed(0)
    model = SemanticKeypointDetector(ModelConfig(detector="pixels", detector_channels=8)).train()
    image = torch.randn(2, 1, 64, 64)
    model(image, decoupled=True).log_probability.mean().backward()
    assert all(parameter.grad is not None for parameter in model.detail.parameters())
    assert all(parameter.grad is None for parameter in model.pyramid.parameters())
    model(image).log_probability.mean().backward()
    assert all(parameter.grad is not None for parameter in model.pyramid.fuse.parameters())
