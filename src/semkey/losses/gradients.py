"""Several losses, one update: how to weigh or combine gradients that disagree.

Gradients are rows of a matrix (L, P): one row per loss, one column per parameter that all losses train. Results have
the scale of the sum of the losses' gradients: without conflict they replace ``sum(losses).backward()``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from semkey.errors import ConfigError


def flat_gradients(losses: Sequence[torch.Tensor], parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """The gradient of each loss; the graph stays alive.

    Args:
        losses: L scalars; one that has no gradient at all gives a row of zeros.
        parameters: tensors that require gradients, P numbers together.

    Returns:
        (L, P).
    """
    parameters = list(parameters)
    rows = []
    for loss in losses:
        parts: Sequence[torch.Tensor | None] = [None] * len(parameters)
        if loss.requires_grad:
            parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]
        rows.append(torch.cat([part.reshape(-1) for part in filled]))
    return torch.stack(rows)


def set_gradient(parameters: Iterable[torch.Tensor], flat: torch.Tensor) -> None:
    """Write a flat gradient (P,) into ``parameter.grad`` of each parameter, in order."""
    parameters = list(parameters)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.reshape(parameter.shape).to(parameter.dtype).clone()


def pcgrad(gradients: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Sum of gradients without the parts that oppose another loss (PCGrad, Yu et al. 2020, algorithm 1).

    Each gradient loses, for every other one in random order that it opposes, its component along that *original*
    gradient.

    Args:
        gradients: (L, P).
        generator: of the random order, on the CPU; torch's default one if None.

    Returns:
        (P,).
    """
    count = len(gradients)
    gram = _gram(gradients)
    # every projected gradient is a combination of the originals: its coefficients are enough
    coefficients = torch.eye(count, dtype=torch.float64)
    for i in range(count):
        for j in torch.randperm(count, generator=generator).tolist():
            product = coefficients[i] @ gram[:, j]
            if j != i and product < 0 and gram[j, j] > 0:
                coefficients[i, j] -= product / gram[j, j]
    return coefficients.sum(dim=0).to(gradients) @ gradients


def cagrad(gradients: torch.Tensor, c: float = 0.5) -> torch.Tensor:
    """The update that helps the worst-off loss most, close to the mean gradient (CAGrad, Liu et al. 2021, algorithm 1).

    ``d = argmax min_i <g_i, d>`` subject to ``|d - g0| <= c |g0|``, g0 the mean. Its dual is solved over the weights w
    of the simplex, ``min <g_w, g0> + c |g0| |g_w|``; then ``d = g0 + c |g0| g_w / |g_w|``. Returned times L, the scale
    of the sum. With ``c < 1`` it still converges to a stationary point of the mean loss (theorem 3.2). The released
    code divides by ``1 + c^2`` in addition, the paper does not.

    Args:
        gradients: (L, P).
        c: in [0, 1); 0 is the plain sum.

    Returns:
        (P,).

    Raises:
        ConfigError: ``c`` lies outside [0, 1).
    """
    if not 0.0 <= c < 1.0:
        raise ConfigError(f"CAGrad: c is {c}, it must lie in [0, 1)")
    count = len(gradients)
    gram = _gram(gradients).numpy()
    mean = np.full(count, 1.0 / count)
    radius = c * np.sqrt(max(mean @ gram @ mean, 0.0))
    weights = mean
    if radius > 0 and np.isfinite(radius):
        inner = worst_case_weights(gram, c)
        length = np.sqrt(max(inner @ gram @ inner, 0.0))
        if length > 1e-9 * radius:  # else the losses cannot all fall: any direction is as good, the mean is kept
            weights = mean + radius / length * inner
    return torch.from_numpy(count * weights).to(gradients) @ gradients


def worst_case_weights(gram: np.ndarray, c: float) -> np.ndarray:
    """Solve CAGrad's inner problem.

    Args:
        gram: (L, L) float64, inner products of the gradients.
        c: see :func:`cagrad`.

    Returns:
        (L,) float64, at least 0, sum 1.
    """
    count = len(gram)
    mean = np.full(count, 1.0 / count)
    # The solver's tolerances are absolute, gradients may have any scale: 1e-6 or 1e6 must give the same weights.
    scaled = gram / max(float(np.diag(gram).max()), np.finfo(np.float64).tiny)
    along = scaled @ mean
    radius = c * np.sqrt(max(mean @ along, 0.0))

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        product = scaled @ w
        length = np.sqrt(max(w @ product, 0.0) + 1e-18)
        return float(w @ along + radius * length), along + radius * product / length

    best = min(
        (
            minimize(
                objective,
                start,
                jac=True,
                method="SLSQP",
                bounds=[(0.0, 1.0)] * count,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
                options={"ftol": 1e-14, "maxiter": 500},
            ).x
            for start in (mean, np.eye(count)[int(along.argmin())])
        ),
        key=lambda w: objective(w)[0],
    )
    best = np.clip(best, 0.0, None)
    return best / best.sum()


def _gram(gradients: torch.Tensor) -> torch.Tensor:
    """Inner products (L, L), float64 on the CPU."""
    detached = gradients.detach()
    return (detached @ detached.T).double().cpu()


class KendallWeighting(nn.Module):
    """Loss weights learned as uncertainties: Kendall et al. 2018 (eq. 7 and 10).

    Learns ``s = log sigma^2`` per loss. A regression loss L adds ``exp(-s) L / 2 + s / 2`` (its best s is log L), a
    classification loss ``exp(-s) L + s / 2`` (log 2L). The derivation needs a loss that is a negative log-likelihood:
    a hinge loss (triplet) or one minus a cosine is none, for those the weights are a heuristic. The smaller a loss, the
    greater its weight; losses must not be negative, or the sum has no minimum.
    """

    def __init__(self, names: Sequence[str], classification: Collection[str] = ()) -> None:
        super().__init__()
        unknown = sorted(set(classification) - set(names))
        if unknown:
            raise ConfigError(f"Kendall weighting: {', '.join(unknown)} is no loss; there are {', '.join(names)}")
        self.index = {name: index for index, name in enumerate(names)}
        self.log_variance = nn.Parameter(torch.zeros(len(names)))
        factors = torch.tensor([1.0 if name in classification else 0.5 for name in names])
        self.register_buffer("factors", factors, persistent=False)

    factors: torch.Tensor

    def forward(self, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum of some or all of the named losses (scalars), differentiable in losses and weights."""
        rows = torch.tensor([self.index[name] for name in losses], device=self.log_variance.device)
        s = self.log_variance[rows]
        return (self.factors[rows] * torch.exp(-s) * torch.stack(list(losses.values())) + s / 2.0).sum()

    @torch.no_grad()
    def weights(self) -> dict[str, float]:
        """The current factor of each loss."""
        values = (self.factors * torch.exp(-self.log_variance)).tolist()
        return {name: values[index] for name, index in self.index.items()}
