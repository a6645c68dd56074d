"""The detector by pixels: probabilities in sliding windows, and what follows a picture that is moved."""

from __future__ import annotations

import math

import pytest
import torch

from semkey.losses.detection import pixel_cross_entropy
from semkey.model.config import ModelConfig
from semkey.model.heads import QuadraticOffset, WindowOffset, score_from_log_probability
from semkey.model.pixels import LARGEST_LOGIT, CellSmoothing, PixelStem, window_log_probability, window_sum
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


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (3, 2), (7, 5)])
def test_evidence_follows_every_shift_exactly(shift: tuple[int, int]) -> None:
    stem = PixelStem(4).eval().requires_grad_(False)
    image, (x, y) = torch.randn(1, 1, 48, 48), shift
    whole, moved = stem(image), stem(image[..., y:, x:])
    torch.testing.assert_close(moved[..., 7:-7, 7:-7], whole[..., 7 + y : -7, 7 + x : -7], rtol=1e-4, atol=1e-5)


def test_smoothing_with_and_without_gradients_agrees() -> None:
    smoothing, logits = CellSmoothing(), torch.randn(2, 1, 17, 30)
    with_gradients = smoothing(logits)
    torch.testing.assert_close(smoothing.requires_grad_(False)(logits), with_gradients.detach())
    assert float(smoothing(torch.ones(1, 1, 9, 9))[0, 0, 4, 4]) == pytest.approx(1.0)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, -0.5), (-0.3, 0.1)])
def test_the_top_of_a_gaussian_is_found_whatever_its_width(place: tuple[float, float], sigma: float) -> None:
    steps = torch.arange(-2.0, 3.0)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    squared = (x - place[0]) ** 2 + (y - place[1]) ** 2
    windows = score_from_log_probability(-1.0 - squared / (2 * sigma**2)).reshape(1, 25)
    torch.testing.assert_close(QuadraticOffset()(windows)[0], torch.tensor(place), rtol=1e-3, atol=1e-3)


def test_on_a_ridge_the_place_is_moved_across_alone() -> None:
    x = torch.arange(-2.0, 3.0).repeat(5, 1)
    ridge = (0.7 - 0.05 * (x - 0.4) ** 2).reshape(1, 25)
    torch.testing.assert_close(QuadraticOffset()(ridge)[0], torch.tensor([0.4, 0.0]), rtol=0.1, atol=1e-3)


def test_no_window_moves_a_keypoint_far_or_nowhere() -> None:
    torch.manual_seed(3)
    shifts = QuadraticOffset()(torch.cat([torch.rand(500, 25), torch.zeros(1, 25), torch.eye(25)]))
    assert bool(torch.isfinite(shifts).all())
    assert float(shifts.abs().max()) <= QuadraticOffset.largest_shift
    assert QuadraticOffset()(torch.zeros(0, 25)).shape == (0, 2)


def test_an_untrained_correction_adds_nothing_and_a_trained_one_at_most_a_pixel() -> None:
    torch.manual_seed(5)
    windows, offset = torch.rand(50, 25), WindowOffset()
    torch.testing.assert_close(offset(windows), QuadraticOffset()(windows))
    torch.nn.init.constant_(offset.layers[-1].bias, 100.0)  # ty: ignore[invalid-argument-type]
    torch.testing.assert_close(offset(windows), QuadraticOffset()(windows) + 1.0)


def test_a_correction_does_not_depend_on_the_height_of_a_peak() -> None:
    torch.manual_seed(6)
    windows, offset = torch.rand(20, 25), WindowOffset()
    torch.nn.init.normal_(offset.layers[-1].weight)  # ty: ignore[invalid-argument-type]
    torch.testing.assert_close(offset.correction(windows + 0.3), offset.correction(windows), rtol=1e-4, atol=1e-5)
    assert float(offset.correction(windows).detach().abs().max()) > 0.1


def test_gradients_of_the_offset() -> None:
    torch.manual_seed(4)
    windows = (torch.rand(3, 25, dtype=torch.float64) * 0.05).requires_grad_()
    QuadraticOffset()(windows).sum().backward()
    assert windows.grad is not None
    assert bool(torch.isfinite(windows.grad).all())


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
    for part in (model.detail, model.detector, model.smoothing):
        assert part is not None
        assert all(parameter.grad is not None for parameter in part.parameters())
    assert all(parameter.grad is None for parameter in model.pyramid.parameters())
    model(image).log_probability.mean().backward()
    assert all(parameter.grad is not None for parameter in model.pyramid.fuse.parameters())
