"""PCGrad, CAGrad and Kendall weighting on problems with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from semkey.errors import ConfigError
from semkey.losses.gradients import (
    KendallWeighting,
    cagrad,
    flat_gradients,
    pcgrad,
    set_gradient,
    worst_case_weights,
)

OPPOSED = torch.tensor([[1.0, 0.0], [-0.5, 1.0]], dtype=torch.float64)


def random_gradients(seed: int, losses: int, parameters: int = 6) -> torch.Tensor:
    return torch.randn(losses, parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- flat gradients ------------------------------------------------------------------------------------------------


def test_flat_gradients_are_those_of_autograd_and_can_be_written_back() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    unused = nn.Parameter(torch.ones(2, 2))
    parameters = [*network.parameters(), unused]
    output = network(torch.rand(4, 3))
    losses = [output.square().mean(), output.sum(), torch.tensor(3.0)]
    flat = flat_gradients(losses, parameters)
    assert flat.shape == (3, 6 + 2 + 4)
    assert (flat[:, 8:] == 0).all()  # a parameter that no loss uses
    assert (flat[2] == 0).all()  # a loss without gradient
    set_gradient(parameters, flat.sum(dim=0))
    collected = [p.grad.clone() for p in parameters if p.grad is not None]
    network.zero_grad()
    (losses[0] + losses[1]).backward()
    torch.testing.assert_close(collected[0], network.weight.grad)
    torch.testing.assert_close(collected[1], network.bias.grad)
    assert collected[2].shape == (2, 2)


# -- PCGrad --------------------------------------------------------------------------------------------------------


def test_pcgrad_by_hand() -> None:
    """(1, 0) loses its part along (-0.5, 1), becomes (0.8, 0.4); (-0.5, 1) becomes (0, 1)."""
    torch.testing.assert_close(pcgrad(OPPOSED), torch.tensor([0.8, 1.4], dtype=torch.float64))


def test_pcgrad_is_the_sum_where_nothing_conflicts() -> None:
    agreeing = random_gradients(0, 3).abs()
    torch.testing.assert_close(pcgrad(agreeing), agreeing.sum(dim=0))
    assert pcgrad(torch.tensor([[3.0, 0.0], [-1.0, 0.0]])).tolist() == [0.0, 0.0]
    with_zero = torch.cat([agreeing, torch.zeros(1, 6)])
    torch.testing.assert_close(pcgrad(with_zero), agreeing.sum(dim=0))


def test_pcgrad_projects_on_the_original_gradients_in_random_order() -> None:
    gradients = random_gradients(3, 5)
    generator = torch.Generator().manual_seed(7)
    orders = [torch.randperm(5, generator=generator).tolist() for _ in range(5)]
    expected = torch.zeros(6, dtype=torch.float64)
    for i, order in enumerate(orders):
        projected = gradients[i].clone()
        for j in order:
            if j != i and projected @ gradients[j] < 0:
                projected -= (projected @ gradients[j]) / gradients[j].square().sum() * gradients[j]
        expected += projected
    torch.testing.assert_close(pcgrad(gradients, torch.Generator().manual_seed(7)), expected)
    results = {tuple(pcgrad(gradients, torch.Generator().manual_seed(s)).tolist()) for s in range(20)}
    assert len(results) > 1  # with more than two losses the order matters


# -- CAGrad --------------------------------------------------------------------------------------------------------


def test_cagrad_by_hand() -> None:
    """Orthogonal gradients of one length: d = 1.5 times the mean. Opposed (2, 0) and (-1, 0): d = 0.25 (of a mean of
    0.5, the ball reaches from 0.25 to 0.75, and the second loss suffers least at 0.25)."""
    torch.testing.assert_close(cagrad(torch.eye(2).double()), torch.tensor([1.5, 1.5]).double())
    opposed = torch.tensor([[2.0, 0.0], [-1.0, 0.0]]).double()
    torch.testing.assert_close(cagrad(opposed), torch.tensor([0.5, 0.0]).double())


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_cagrad_of_two_losses_against_a_fine_grid(c: float) -> None:
    for seed in range(20):
        gradients = random_gradients(seed, 2) * torch.tensor([[1.0], [10.0 ** (seed % 4 - 1)]])
        gram = (gradients @ gradients.T).numpy()
        mean = np.full(2, 0.5)
        w = np.linspace(0, 1, 100001)
        grid = np.stack([w, 1 - w])
        values = mean @ gram @ grid + c * math.sqrt(mean @ gram @ mean) * np.sqrt(((gram @ grid) * grid).sum(axis=0))
        assert worst_case_weights(gram, c)[0] == pytest.approx(w[values.argmin()], abs=2e-4)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_no_other_update_in_the_ball_helps_the_worst_loss_more(count: int) -> None:
    """Strong duality: the worst improvement of d equals the dual's value, and random updates do not beat it."""
    for seed in range(10):
        gradients = random_gradients(seed, count)
        mean = gradients.mean(dim=0)
        d = cagrad(gradients, 0.5) / count
        assert (d - mean).norm().item() == pytest.approx(0.5 * mean.norm().item(), rel=1e-6)
        worst = (gradients @ d).min().item()
        steps = random_gradients(seed + 100, 2000)
        others = mean + 0.5 * mean.norm() * steps / steps.norm(dim=1, keepdim=True)
        assert worst >= (others @ gradients.T).min(dim=1).values.max().item() - 1e-9
        gram = (gradients @ gradients.T).numpy()
        w = worst_case_weights(gram, 0.5)
        value = w @ gram @ np.full(count, 1 / count) + 0.5 * mean.norm().item() * math.sqrt(w @ gram @ w)
        assert worst == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_cagrad_does_not_depend_on_the_scale_of_gradients(scale: float) -> None:
    gradients = random_gradients(10, 4)
    assert (worst_case_weights((gradients @ gradients.T).numpy(), 0.5) > 0.1).all()  # inside the simplex, not a corner
    torch.testing.assert_close(cagrad(gradients * scale) / scale, cagrad(gradients), rtol=1e-5, atol=1e-7)


def test_cagrad_edge_cases() -> None:
    gradients = random_gradients(0, 3)
    torch.testing.assert_close(cagrad(gradients, 0.0), gradients.sum(dim=0))
    torch.testing.assert_close(cagrad(gradients[:1], 0.5), 1.5 * gradients[0])
    assert cagrad(torch.zeros(3, 4)).tolist() == [0.0] * 4
    assert cagrad(torch.tensor([[1.0, 2.0], [-1.0, -2.0]])).tolist() == [0.0, 0.0]  # balanced: no update
    assert torch.isfinite(cagrad(torch.cat([gradients, torch.zeros(1, 6)]))).all()
    for c in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="CAGrad: c is"):
            cagrad(gradients, c)


# -- two quadratics ------------------------------------------------------------------------------------------------

A, B = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([-1.0, 0.0], dtype=torch.float64)
STEEP = torch.tensor([1.0, 8.0], dtype=torch.float64)


def descend(combine: Callable[[torch.Tensor], torch.Tensor], steps: int = 800) -> torch.Tensor:
    """Minimise (x - a)^2 in one metric and 0.1 (x - b)^2 in another from a common start."""
    x = nn.Parameter(torch.tensor([-2.0, 1.5], dtype=torch.float64))
    for _ in range(steps):
        losses = [(STEEP * (x - A).square()).sum(), 0.1 * (STEEP.flip(0) * (x - B).square()).sum()]
        set_gradient([x], combine(flat_gradients(losses, [x])))
        with torch.no_grad():
            assert x.grad is not None
            x -= 0.01 * x.grad
    return x.detach()


def pareto_gap(x: torch.Tensor) -> float:
    """Length of the shortest convex combination of the normed gradients at x; 0 on the Pareto set."""
    g0, g1 = 2 * STEEP * (x - A), 0.2 * STEEP.flip(0) * (x - B)
    w = torch.linspace(0, 1, 10001, dtype=torch.float64)[:, None]
    return float((w * g0 / g0.norm() + (1 - w) * g1 / g1.norm()).norm(dim=1).min())


def test_pcgrad_ends_on_the_pareto_set() -> None:
    assert pareto_gap(descend(pcgrad)) < 1e-2


def test_cagrad_ends_at_the_minimum_of_the_sum() -> None:
    """Theorem 3.2: for c < 1 the only limits are those of gradient descent on the mean."""
    # x: 1 (x - 1) + 0.8 (x + 1) = 0; y: 8 y + 0.1 y = 0
    torch.testing.assert_close(descend(cagrad), torch.tensor([1 / 9, 0.0]).double(), atol=1e-3, rtol=0)


def test_cagrad_keeps_the_weak_loss_from_growing_where_the_sum_does_not() -> None:
    gradients = torch.tensor([[10.0, 1.0], [-0.5, 1.0]]).double()
    assert (gradients @ gradients.sum(dim=0)).min() < -1
    assert (gradients @ cagrad(gradients, 0.9)).min() > 0


# -- Kendall -------------------------------------------------------------------------------------------------------


def test_kendall_by_hand() -> None:
    weighting = KendallWeighting(["position", "heat"], classification=["heat"])
    with torch.no_grad():
        weighting.log_variance.copy_(torch.tensor([math.log(4.0), math.log(0.5)]))
    total = weighting({"position": torch.tensor(3.0), "heat": torch.tensor(2.0)})
    assert total.item() == pytest.approx(3 / 8 + math.log(2) + 2 / 0.5 + math.log(0.5) / 2)
    assert weighting.weights() == pytest.approx({"position": 1 / 8, "heat": 2.0})
    # a loss that is not computed in this step adds nothing, its weight stays
    assert weighting({"heat": torch.tensor(2.0)}).item() == pytest.approx(4 + math.log(0.5) / 2)


def test_kendall_finds_the_variance_of_a_regression() -> None:
    """Fitting the mean of samples by squared error: sigma^2 is their variance, in both scales."""
    generator = torch.Generator().manual_seed(0)
    samples = {
        "metres": 1 + 0.1 * torch.randn(500, generator=generator),
        "pixels": 3 * torch.randn(500, generator=generator),
    }
    mean = {name: nn.Parameter(torch.zeros(())) for name in samples}
    weighting = KendallWeighting(list(samples))
    optimizer = torch.optim.Adam([*mean.values(), *weighting.parameters()], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        weighting({name: (values - mean[name]).square().mean() for name, values in samples.items()}).backward()
        optimizer.step()
    for index, (name, values) in enumerate(samples.items()):
        assert mean[name].item() == pytest.approx(values.mean().item(), abs=0.05)
        variance = values.var(unbiased=False).item()
        assert weighting.log_variance[index].exp().item() == pytest.approx(variance, rel=0.05)


def test_kendall_gradient() -> None:
    weighting = KendallWeighting(["a", "b"], classification=["b"]).double()
    losses = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)

    def total(values: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(weighting, {"log_variance": s}, ({"a": values[0], "b": values[1]},))

    s = torch.tensor([0.2, -0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (losses, s))


def test_kendall_names_a_loss_that_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="heet"):
        KendallWeighting(["heat"], classification=["heet"])
