"""Losses against hand-computed cases, gradients, edge cases and collapse."""

from __future__ import annotations

import math

import pytest
import torch

from semkey.losses.description import dual_softmax_loss, place_loss
from semkey.losses.detection import quality_focal_loss, render_targets, subpixel_loss


def test_targets_are_gaussians_at_sub_pixel_positions() -> None:
    heat = render_targets(torch.tensor([[5.25, 4.0]]), torch.tensor([0.8]), (9, 12), sigma=1.0)
    assert heat[4, 5].item() == pytest.approx(0.8 * math.exp(-(0.25**2) / 2))
    assert heat[4, 6].item() == pytest.approx(0.8 * math.exp(-(0.75**2) / 2))
    assert heat[5, 5].item() == pytest.approx(0.8 * math.exp(-(0.25**2 + 1) / 2))
    assert heat[0, 0].item() == 0.0


def test_overlapping_targets_take_the_maximum_and_outside_ones_vanish() -> None:
    points = torch.tensor([[3.0, 3.0], [4.0, 3.0], [-50.0, 3.0], [2.0, 99.0]])
    heat = render_targets(points, torch.tensor([0.5, 1.0, 1.0, 1.0]), (8, 8))
    assert heat[3, 3].item() == pytest.approx(math.exp(-0.5))
    assert heat[3, 4].item() == pytest.approx(1.0)
    assert heat.shape == (8, 8)


def test_quality_focal_loss_by_hand() -> None:
    logits, target = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    p = torch.sigmoid(logits)
    expected = (0.5**2 * math.log(2) + p[1].item() ** 2 * -math.log(1 - p[1].item())) / 1.0
    assert quality_focal_loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_quality_focal_loss_is_zero_at_the_target_and_a_constant_map_escapes() -> None:
    target = render_targets(torch.tensor([[8.0, 8.0]]), torch.tensor([0.9]), (17, 17)).clamp(1e-4, 1 - 1e-4)
    assert quality_focal_loss(torch.logit(target), target).item() == pytest.approx(0.0, abs=1e-9)
    logits = torch.full((17, 17), -3.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        quality_focal_loss(logits, target).backward()
        optimizer.step()
    assert torch.sigmoid(logits)[8, 8] > 0.5
    assert torch.sigmoid(logits)[0, 0] < 0.2


def test_quality_focal_loss_gradient() -> None:
    logits = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, target), logits)


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
