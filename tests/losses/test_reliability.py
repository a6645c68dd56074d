"""Losses of reliability: match success, cross-entropy, average precision in soft bins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semkey.losses.reliability import (
    average_precision,
    match_success,
    position_labels,
    reliability_ap_loss,
    reliability_bce_loss,
)

# -- success and cross-entropy -------------------------------------------------------------------------------------


def test_a_match_succeeds_if_it_is_mutual_and_near() -> None:
    d0 = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.435, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    d1 = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    projected = torch.tensor([[5.0, 5.0], [5.0, 5.0], [20.0, 5.0], [40.0, 40.0]])
    keypoints = torch.tensor([[5.0, 7.9], [20.0, 8.0], [41.0, 40.0]])
    # right (2.9 px); not mutual; mutual but 3 px away; right
    assert match_success(d0, d1, projected, keypoints).tolist() == [True, False, False, True]


def test_without_keypoints_nothing_succeeds() -> None:
    some, none = torch.ones(2, 4), torch.zeros(0, 4)
    places = torch.zeros(2, 2)
    assert match_success(some, none, places, places[:0]).tolist() == [False, False]
    assert match_success(none, some, places[:0], places).shape == (0,)


def test_bce_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3.0)])  # probabilities 1/2 and 3/4
    loss = reliability_bce_loss(logits, torch.tensor([True, False]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_bce_of_nothing_and_of_certain_mistakes() -> None:
    empty = torch.zeros(0, requires_grad=True)
    reliability_bce_loss(empty, torch.zeros(0, dtype=torch.bool)).backward()
    certain = torch.tensor([500.0, -500.0], requires_grad=True)
    loss = reliability_bce_loss(certain, torch.tensor([False, True]))
    loss.backward()
    assert loss.item() == pytest.approx(500.0)
    assert certain.grad is not None
    assert torch.isfinite(certain.grad).all()


def test_bce_has_its_minimum_at_the_share_of_successes() -> None:
    success = torch.tensor([True] * 7 + [False] * 3)
    logit = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([logit], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        reliability_bce_loss(logit.expand(10), success).backward()
        optimizer.step()
    assert logit.detach().sigmoid().item() == pytest.approx(0.7, abs=1e-3)


def test_bce_gradient() -> None:
    logits = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    success = torch.tensor([True, False, True, True, False])
    assert torch.autograd.gradcheck(lambda x: reliability_bce_loss(x, success), logits)


# -- average precision ---------------------------------------------------------------------------------------------


def test_labels_by_position() -> None:
    labels, valid = position_labels(torch.zeros(1, 2), torch.tensor([[0.0, 2.9], [0.0, 4.0], [5.1, 0.0]]))
    assert labels.tolist() == [[True, False, False]]
    assert valid.tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("similarity", "labels", "expected"),
    [
        ([0.9, 0.1, 0.0], [1, 0, 0], 1.0),
        ([0.1, 0.9, 0.5], [1, 0, 0], 1 / 3),
        ([0.5, 0.5], [1, 0], 0.5),  # a tie
        ([1.0, 0.5, 0.0], [1, 0, 1], (1 + 2 / 3) / 2),
        ([0.4], [1], 1.0),
        ([0.4, 0.2], [0, 0], 0.0),
        ([-0.8, 0.4], [1, 0], 0.5),  # below 0 counts as 0
    ],
)
def test_average_precision_by_hand(similarity: list[float], labels: list[int], expected: float) -> None:
    ap = average_precision(torch.tensor([similarity]), torch.tensor([labels]).bool(), bins=21)
    assert ap.tolist() == [pytest.approx(expected, abs=1e-5)]


def exact_average_precision(similarity: np.ndarray, labels: np.ndarray) -> float:
    """By thresholds, ties taken together."""
    ap, before = 0.0, 0
    for threshold in np.unique(similarity)[::-1]:
        taken = similarity >= threshold
        right = int(labels[taken].sum())
        ap += (right - before) / labels.sum() * right / taken.sum()
        before = right
    return ap


def test_average_precision_is_exact_at_bin_centres_and_close_elsewhere(rng: np.random.Generator) -> None:
    labels = rng.random((6, 40)) < 0.2
    on_centres = rng.integers(0, 20, (6, 40)) / 19
    ap = average_precision(torch.from_numpy(on_centres), torch.from_numpy(labels))
    expected = [exact_average_precision(s, y) for s, y in zip(on_centres, labels, strict=True)]
    np.testing.assert_allclose(ap.numpy(), expected, atol=1e-9)
    anywhere = rng.random((6, 40))
    expected = [exact_average_precision(s, y) for s, y in zip(anywhere, labels, strict=True)]
    errors = [
        np.abs(average_precision(torch.from_numpy(anywhere), torch.from_numpy(labels), bins=b).numpy() - expected).max()
        for b in (20, 2000)
    ]
    assert errors[0] < 0.2
    assert errors[1] < 0.02


def test_average_precision_ignores_candidates_that_do_not_count() -> None:
    similarity = torch.tensor([[0.5, 0.9, 0.1]])
    labels = torch.tensor([[True, False, False]])
    valid = torch.tensor([[True, False, True]])
    assert average_precision(similarity, labels, bins=21).item() == pytest.approx(0.5)
    assert average_precision(similarity, labels, valid=valid, bins=21).item() == pytest.approx(1.0)
    assert average_precision(similarity, labels, valid=torch.zeros_like(valid)).item() == 0.0


def test_average_precision_learns_to_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(1, 200, generator=generator).requires_grad_()
    labels = torch.rand(1, 200, generator=generator) < 0.2
    before = average_precision(similarity, labels).item()
    optimizer = torch.optim.Adam([similarity], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        (1 - average_precision(similarity, labels)).sum().backward()
        optimizer.step()
    assert before < 0.3
    assert average_precision(similarity, labels).item() > 0.99


def test_average_precision_gradient_and_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(3, 8, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.rand(3, 8, generator=generator) < 0.4
    labels[2] = False
    assert torch.autograd.gradcheck(lambda s: average_precision(s, labels), similarity)
    for shape in ((0, 5), (5, 0)):
        nothing = torch.zeros(shape, requires_grad=True)
        ap = average_precision(nothing, torch.zeros(shape, dtype=torch.bool))
        assert ap.tolist() == [0.0] * shape[0]
        ap.sum().backward()


def test_reliability_ap_by_hand() -> None:
    loss = reliability_ap_loss(torch.tensor([0.9, 0.2, 0.2]), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(loss, torch.tensor([0.1, 0.8, 0.5]))


def test_reliability_ap_decides_at_the_base() -> None:
    logits = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        reliability_ap_loss(torch.tensor([0.6, 0.4]), logits.sigmoid()).sum().backward()
        optimizer.step()
    assert logits[0] > 3
    assert logits[1] < -3


def test_reliability_ap_gradient() -> None:
    inputs = tuple(torch.rand(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(reliability_ap_loss, inputs)
