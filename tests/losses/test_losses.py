"""Losses against hand-computed cases, gradients, edge cases and collapse."""

from __future__ import annotations

import math

import pytest
import torch

from semkey.losses.description import dual_softmax_loss, place_loss
from semkey.losses.detection import cell_cross_entropy, render_targets, subpixel_loss
from semkey.model.dkd import detect_peaks
from semkey.model.heads import ScoreHead, score_from_log_probability


def test_targets_are_gaussians_at_sub_pixel_positions() -> None:
    heat = render_targets(torch.tensor([[9.25, 8.0]]), torch.tensor([0.8]), (17, 20), sigma=1.0)
    height = 0.8 / (2 * math.pi)
    assert heat[8, 9].item() == pytest.approx(height * math.exp(-(0.25**2) / 2))
    assert heat[8, 10].item() == pytest.approx(height * math.exp(-(0.75**2) / 2))
    assert heat[9, 9].item() == pytest.approx(height * math.exp(-(0.25**2 + 1) / 2))
    assert heat[0, 0].item() == 0.0
    assert heat.sum().item() == pytest.approx(0.8, rel=0.01)


def test_overlapping_targets_take_the_maximum_and_outside_ones_vanish() -> None:
    points = torch.tensor([[3.0, 3.0], [4.0, 3.0], [-50.0, 3.0], [2.0, 99.0]])
    heat = render_targets(points, torch.tensor([0.5, 1.0, 1.0, 1.0]), (8, 8), sigma=1.0) * 2 * math.pi
    assert heat[3, 3].item() == pytest.approx(math.exp(-0.5))
    assert heat[3, 4].item() == pytest.approx(1.0)
    assert heat.shape == (8, 8)


ALL_VALID = torch.ones(1, 8, 8, dtype=torch.bool)


def test_cell_cross_entropy_by_hand() -> None:
    """Uniform over 64 pixels and "none"; the target is 0.7 at one pixel, 0.3 none: log 65 either way."""
    uniform = torch.full((1, 8, 8), -math.log(65.0))
    target = torch.zeros(1, 8, 8)
    target[0, 2, 5] = 0.7
    assert cell_cross_entropy(uniform, target, ALL_VALID).item() == pytest.approx(math.log(65.0), rel=1e-5)


def test_cell_cross_entropy_leaves_out_invalid_cells_and_scales_crowded_ones() -> None:
    logits = torch.full((1, 8, 16), -math.log(65.0))
    target = torch.zeros(1, 8, 16)
    target[0, 1, 1] = 1.5  # more than certain: scaled to 1
    valid = torch.ones(1, 8, 16, dtype=torch.bool)
    valid[0, 7, 15] = False
    assert cell_cross_entropy(logits, target, valid).item() == pytest.approx(math.log(65.0), rel=1e-5)
    assert cell_cross_entropy(logits, target, torch.zeros_like(valid)).item() == 0.0


def test_a_constant_score_map_escapes() -> None:
    """From a constant map, 200 steps find the target; the peak stands where it should."""
    head = ScoreHead(4, 64)
    target = render_targets(torch.tensor([[11.3, 4.8]]), torch.tensor([0.9]), (8, 16))[None]
    logits = torch.zeros(1, 64, 1, 2, requires_grad=True)
    nothing = torch.zeros_like(logits)
    head.layers = torch.nn.Sequential(torch.nn.Identity())
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        cell_cross_entropy(head(logits, nothing)[:, 0], target, torch.ones(1, 8, 16, dtype=torch.bool)).backward()
        optimizer.step()
    probability = head(logits, nothing).exp()[0, 0]
    assert divmod(int(probability.argmax()), 16) == (5, 11)
    assert probability[:, :8].max() < 0.02
    assert probability[:, 8:].sum().item() == pytest.approx(0.9, abs=0.05)
    keypoint = detect_peaks(
        score_from_log_probability(head(logits, nothing)[0, 0]), radius=3, window=5, temperature=0.1, count=1
    ).keypoints[0]
    torch.testing.assert_close(keypoint, torch.tensor([11.3, 4.8]), atol=0.05, rtol=0)


def test_cell_cross_entropy_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 64, 2, 1, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.rand(1, 16, 8, dtype=torch.float64, generator=generator) / 40
    valid = torch.ones(1, 16, 8, dtype=torch.bool)

    def loss(values: torch.Tensor) -> torch.Tensor:
        full = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1).log_softmax(dim=1)[:, :64]
        return cell_cross_entropy(torch.nn.functional.pixel_shuffle(full, 8)[:, 0], target, valid)

    assert torch.autograd.gradcheck(loss, logits)


def test_subpixel_loss() -> None:
    window = torch.zeros(1, 25)
    assert subpixel_loss(window, torch.tensor([[0.25, -0.5]])).item() == pytest.approx(0.75)
    empty = torch.zeros(0, 25, requires_grad=True)
    subpixel_loss(empty, torch.zeros(0, 2)).backward()


def test_dual_softmax_by_hand() -> None:
    d0 = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    points = torch.tensor([[[0.0, 0.0], [50.0, 0.0]]])
    loss = dual_softmax_loss(d0, d0, points, temperature=1.0)
    expected = 2 * (math.log(math.e + 1) - 1)  # both directions: -log softmax of (1, 0) at 1
    torch.testing.assert_close(loss, torch.full((1, 2), expected))


def test_dual_softmax_ignores_neighbours_of_the_true_match() -> None:
    generator = torch.Generator().manual_seed(0)
    d0, d1 = (torch.nn.functional.normalize(torch.randn(1, 3, 8, generator=generator), dim=-1) for _ in range(2))
    far = torch.tensor([[[0.0, 0.0], [100.0, 0.0], [200.0, 0.0]]])
    near = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [200.0, 0.0]]])
    assert dual_softmax_loss(d0, d1, near)[0, 0] < dual_softmax_loss(d0, d1, far)[0, 0]
    only_near = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]]])
    torch.testing.assert_close(dual_softmax_loss(d0, d1, only_near)[0, :1], torch.zeros(1), atol=1e-5, rtol=0)


def test_dual_softmax_gradient() -> None:
    d0, d1 = (torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    points = torch.rand(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 20
    d0.requires_grad_()
    d1.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: dual_softmax_loss(a, b, points, temperature=0.5), (d0, d1))


def test_place_loss_by_hand() -> None:
    g = torch.eye(3)
    assert place_loss(g, g, temperature=1.0).item() == pytest.approx(math.log(math.e + 2) - 1)
