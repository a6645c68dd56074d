"""Losses of descriptors: dual softmax, hardest-in-batch triplet and neural reprojection error."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from semkey.losses.description import dual_softmax_loss, triplet_loss
from semkey.losses.nre import sparse_nre_loss


def random_tensor(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def unit(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return F.normalize(random_tensor(seed, *shape, dtype=dtype), dim=-1)


def spread(count: int, batch: int = 1) -> torch.Tensor:
    """Points 100 pixels apart: none is near another."""
    return torch.stack([100.0 * torch.arange(count), torch.zeros(count)], dim=-1).double().expand(batch, -1, -1)


# -- dual softmax --------------------------------------------------------------------------------------------------


def test_dual_softmax_adds_both_directions() -> None:
    """Cosines 1, 0.8 / 0.6, 0: rows and columns compete with other numbers, so neither direction stands for both."""
    descriptors0 = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).double()
    descriptors1 = torch.tensor([[[1.0, 0.6], [0.8, 0.0]]]).double()
    found = dual_softmax_loss(descriptors0, descriptors1, spread(2), temperature=0.5)
    cosines = [[1.0, 0.8], [0.6, 0.0]]
    expected = [
        math.log(1 + math.exp((cosines[0][1] - cosines[0][0]) / 0.5))
        + math.log(1 + math.exp((cosines[1][0] - cosines[0][0]) / 0.5)),
        math.log(1 + math.exp((cosines[1][0] - cosines[1][1]) / 0.5))
        + math.log(1 + math.exp((cosines[0][1] - cosines[1][1]) / 0.5)),
    ]
    torch.testing.assert_close(found, torch.tensor([expected]).double())


def test_dual_softmax_against_plain_loops_leaves_out_neighbours_of_the_true_match() -> None:
    descriptors0, descriptors1 = unit(0, 2, 7, 16), unit(1, 2, 7, 16)
    points1 = 12.0 * random_tensor(2, 2, 7, 2).abs()
    found = dual_softmax_loss(descriptors0, descriptors1, points1, temperature=0.1, exclusion_px=5.0)
    left_out = 0
    for b in range(2):
        for i in range(7):
            far = [j for j in range(7) if j == i or float((points1[b, i] - points1[b, j]).norm()) >= 5.0]
            left_out += 7 - len(far)
            row = torch.stack([descriptors0[b, i] @ descriptors1[b, j] / 0.1 for j in far])
            column = torch.stack([descriptors0[b, j] @ descriptors1[b, i] / 0.1 for j in far])
            own = descriptors0[b, i] @ descriptors1[b, i] / 0.1
            torch.testing.assert_close(found[b, i], row.logsumexp(0) + column.logsumexp(0) - 2 * own)
    assert left_out > 4


# -- triplet -------------------------------------------------------------------------------------------------------


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.sqrt(2.0 - 2.0 * float(a @ b))


def test_triplet_takes_the_hardest_of_row_and_column() -> None:
    d0 = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).double()
    d1 = torch.tensor([[[0.6, 0.8], [0.0, 1.0]]]).double()
    loss = triplet_loss(d0, d1, spread(2), spread(2))[0]
    # point 0: positive sqrt(0.8); row negative d(a0, p1) = sqrt 2, column negative d(a1, p0) = sqrt 0.4 is harder
    assert loss[0].item() == pytest.approx(1 + math.sqrt(0.8) - math.sqrt(0.4), abs=1e-5)
    # point 1: positive 0; row negative d(a1, p0) = sqrt 0.4 is harder than the column's sqrt 2
    assert loss[1].item() == pytest.approx(1 - math.sqrt(0.4), abs=2e-3)


def test_triplet_against_plain_loops() -> None:
    d0, d1 = unit(0, 2, 7, 4), unit(1, 2, 7, 4)
    p0, p1 = (20 * torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (2, 3))
    loss = triplet_loss(d0, d1, p0, p1, margin=0.7, exclusion_px=6.0)
    hidden = 0
    for b in range(2):
        for i in range(7):
            row = [distance(d0[b, i], d1[b, j]) for j in range(7) if (p1[b, j] - p1[b, i]).norm() >= 6.0]
            column = [distance(d0[b, j], d1[b, i]) for j in range(7) if (p0[b, j] - p0[b, i]).norm() >= 6.0]
            hidden += 12 - len(row) - len(column)
            expected = max(0.0, 0.7 + distance(d0[b, i], d1[b, i]) - min(row + column))
            assert loss[b, i].item() == pytest.approx(expected, abs=1e-4)
    assert hidden > 5


def test_triplet_leaves_out_neighbours_of_the_true_match_in_each_view() -> None:
    d0 = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).double()
    d1 = torch.tensor([[[0.6, 0.8], [0.0, 1.0]]]).double()
    close = torch.tensor([[[0.0, 0.0], [3.0, 3.9]]]).double()  # 4.92 px
    only_row = triplet_loss(d0, d1, close, spread(2))[0, 0]
    only_column = triplet_loss(d0, d1, spread(2), close)[0, 0]
    assert only_row.item() == pytest.approx(1 + math.sqrt(0.8) - math.sqrt(2), abs=1e-5)
    assert only_column.item() == pytest.approx(1 + math.sqrt(0.8) - math.sqrt(0.4), abs=1e-5)


def test_triplet_without_negatives_is_zero_with_zero_gradient() -> None:
    d0 = random_tensor(0, 1, 2, 4).requires_grad_()
    together = torch.zeros(1, 2, 2).double()
    loss = triplet_loss(F.normalize(d0, dim=-1), unit(1, 1, 2, 4), together, together)
    loss.sum().backward()
    assert loss.tolist() == [[0.0, 0.0]]
    assert d0.grad is not None
    assert (d0.grad == 0).all()


@pytest.mark.parametrize("count", [0, 1])
def test_triplet_of_hardly_any_points(count: int) -> None:
    d0 = random_tensor(0, 1, count, 4).requires_grad_()
    loss = triplet_loss(d0, d0.detach(), spread(count), spread(count))
    loss.sum().backward()
    assert loss.shape == (1, count)
    assert loss.sum() == 0


def test_triplet_gradient() -> None:
    inputs = (random_tensor(0, 2, 5, 4).requires_grad_(), random_tensor(1, 2, 5, 4).requires_grad_())
    points = spread(5, 2)
    assert torch.autograd.gradcheck(
        lambda a, b: triplet_loss(F.normalize(a, dim=-1), F.normalize(b, dim=-1), points, points), inputs
    )


def test_triplet_gradient_is_finite_where_descriptors_are_equal() -> None:
    d = F.normalize(torch.ones(1, 4, 8), dim=-1).requires_grad_()
    points = spread(4).float()
    loss = triplet_loss(d, d, points, points)
    loss.sum().backward()
    assert loss.detach().tolist() == [pytest.approx([1.0] * 4)]  # the margin: collapse is not free
    assert d.grad is not None
    assert torch.isfinite(d.grad).all()


def test_triplet_separates_almost_equal_descriptors() -> None:
    raw = (torch.ones(1, 6, 8) + 1e-3 * random_tensor(0, 1, 6, 8, dtype=torch.float32)).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.02)
    points = spread(6).float()
    losses = []
    for _ in range(200):
        d = F.normalize(raw, dim=-1)
        loss = triplet_loss(d, d.roll(0), points, points).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.9
    assert losses[-1] < 0.05


# -- neural reprojection error -------------------------------------------------------------------------------------


def test_sparse_nre_by_hand() -> None:
    d0 = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    d1 = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    loss = sparse_nre_loss(d0, d1, torch.tensor([[0, 0, -1]]), temperature=1.0)[0]
    total = 1 + math.exp(-1)  # similarities 1 and 0, less 1
    assert loss[0].item() == pytest.approx(math.log(total))
    assert loss[1].item() == pytest.approx(math.log(total) + 1)
    assert loss[2].item() == pytest.approx(math.log(1 + total))  # the class "not there" has similarity 1


def test_sparse_nre_counts_keypoints_without_match_as_negatives() -> None:
    d0, d1 = unit(0, 1, 2, 4), unit(1, 1, 5, 4)
    target = torch.tensor([[0, 1]])
    assert (sparse_nre_loss(d0, d1, target) > sparse_nre_loss(d0, d1[:, :2], target)).all()


def test_sparse_nre_of_nothing() -> None:
    empty = torch.zeros(1, 0, 4, requires_grad=True)
    assert sparse_nre_loss(empty, unit(0, 1, 3, 4).float(), torch.zeros(1, 0, dtype=torch.int64)).shape == (1, 0)
    alone = sparse_nre_loss(unit(0, 1, 3, 4).float(), empty, torch.full((1, 3), -1))
    assert alone.tolist() == [[0.0, 0.0, 0.0]]
    alone.sum().backward()


def test_sparse_nre_gradient() -> None:
    inputs = (random_tensor(0, 2, 4, 3).requires_grad_(), random_tensor(1, 2, 5, 3).requires_grad_())
    target = torch.tensor([[0, 3, -1, 4], [-1, -1, 2, 2]])
    assert torch.autograd.gradcheck(lambda a, b: sparse_nre_loss(a, b, target, temperature=0.5), inputs)
