"""Peak detection: against brute force, on known sub-pixel peaks, and under flips and rotations."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.model.dkd import detect_peaks, local_maxima, read_windows, soft_argmax


def brute_force_maxima(scores: torch.Tensor, radius: int, border: int) -> set[tuple[int, int]]:
    pooled = F.max_pool2d(scores[None, None], 2 * radius + 1, 1, radius)[0, 0]
    keep = scores == pooled
    mask = torch.zeros_like(keep)
    mask[border : scores.shape[0] - border, border : scores.shape[1] - border] = True
    y, x = torch.nonzero(keep & mask, as_tuple=True)
    return set(zip(x.tolist(), y.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), radius=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_all_maxima_equal_max_pooling(height: int, width: int, radius: int, seed: int) -> None:
    scores = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
    # the border must not hide a larger value next to it: max-pooling sees it, so mask it for both
    inner = torch.full_like(scores, -1.0)
    inner[2 : height - 2, 2 : width - 2] = scores[2 : height - 2, 2 : width - 2]
    found = local_maxima(scores, radius, 2, 10_000)
    assert {(x, y) for x, y in found.tolist()} == brute_force_maxima(inner, radius, 2)


def test_maxima_are_strongest_first_and_capped() -> None:
    scores = torch.rand(90, 120, generator=torch.Generator().manual_seed(1))
    everything = local_maxima(scores, 3, 2, 10_000)
    values = scores[everything[:, 1], everything[:, 0]]
    assert (values[:-1] >= values[1:]).all()
    assert torch.equal(local_maxima(scores, 3, 2, 25), everything[:25])


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_plateau_gives_no_two_maxima_within_the_radius(value: float) -> None:
    found = local_maxima(torch.full((40, 50), value), 3, 2, 10_000)
    distance = (found[:, None] - found[None]).abs().amax(dim=-1)
    distance.fill_diagonal_(99)
    assert len(found) >= 1
    assert int(distance.min()) > 3


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (4, 4), (50, 3)])
def test_an_image_smaller_than_the_border_has_no_maxima(size: tuple[int, int]) -> None:
    assert local_maxima(torch.rand(size), 3, 2, 10).shape == (0, 2)


def test_soft_argmax_by_hand() -> None:
    window = torch.zeros(25)
    window[12], window[13] = 0.2, 0.1  # centre and its right neighbour
    weights = np.exp(np.array([2.0, 1.0] + [0.0] * 23))
    positions = [(0, 0), (1, 0)] + [
        (x, y) for y in range(-2, 3) for x in range(-2, 3) if (x, y) not in [(0, 0), (1, 0)]
    ]
    expected = (weights[:, None] * np.array(positions)).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(soft_argmax(window, 0.1).numpy(), expected, atol=1e-6)


def test_soft_argmax_gradient() -> None:
    windows = torch.rand(3, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: soft_argmax(w, 0.1), windows)


def test_read_windows_is_row_by_row() -> None:
    scores = torch.arange(100.0).reshape(10, 10)
    window = read_windows(scores, torch.tensor([[4, 6]]), 3)
    assert window.tolist() == [[53, 54, 55, 63, 64, 65, 73, 74, 75]]


def blob(width: int, height: int, center: tuple[float, float]) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return 0.9 * torch.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / 4.0)


@given(x=st.floats(10, 20), y=st.floats(8, 15))
@settings(max_examples=50, deadline=None)
def test_a_single_peak_is_found_below_a_third_of_a_pixel(x: float, y: float) -> None:
    peaks = detect_peaks(blob(32, 24, (x, y)), radius=3, window=5, temperature=0.1, count=1)
    assert np.abs(peaks.keypoints[0].numpy() - [x, y]).max() < 0.35


def test_positions_follow_flips_and_quarter_turns() -> None:
    scores = sum(blob(41, 30, c) for c in [(8.3, 7.8), (25.6, 20.1), (33.2, 9.9)])
    assert isinstance(scores, torch.Tensor)
    detect = functools.partial(detect_peaks, radius=3, window=5, temperature=0.1, count=3)
    plain = detect(scores).keypoints
    flipped = detect(scores.flip(1)).keypoints
    torch.testing.assert_close(flipped, torch.stack([40 - plain[:, 0], plain[:, 1]], dim=1), atol=1e-4, rtol=0)
    turned = detect(torch.rot90(scores, 1, (0, 1))).keypoints
    torch.testing.assert_close(turned, torch.stack([plain[:, 1], 40 - plain[:, 0]], dim=1), atol=1e-4, rtol=0)


def test_min_score_drops_weak_peaks() -> None:
    scores = blob(40, 30, (10, 10)) + 0.3 * blob(40, 30, (28, 18))
    assert len(detect_peaks(scores, radius=3, window=5, temperature=0.1, count=9, min_score=0.5).scores) == 1


@pytest.mark.parametrize(("border", "window", "nearest"), [(0, 5, 2), (4, 5, 4), (1, 7, 3)])
def test_no_peak_lies_closer_to_the_edge_than_asked_or_than_its_window_needs(
    border: int, window: int, nearest: int
) -> None:
    scores = torch.rand(60, 80, generator=torch.Generator().manual_seed(2))
    peaks = detect_peaks(scores, radius=1, window=window, temperature=0.1, count=10_000, border=border)
    low, high = peaks.pixels.amin(dim=0).tolist(), peaks.pixels.amax(dim=0).tolist()
    assert low == [nearest, nearest]
    assert high == [79 - nearest, 59 - nearest]


def test_only_the_strongest_of_many_maxima_are_sorted_and_the_result_is_the_same() -> None:
    torch.manual_seed(0)
    levels = torch.randint(0, 40, (120, 160)).float() / 40  # many exact ties
    few, all_of_them = local_maxima(levels, 1, 0, 30), local_maxima(levels, 1, 0, 10_000)
    assert len(all_of_them) > 2 * (30 + 64)
    torch.testing.assert_close(few, all_of_them[:30], rtol=0, atol=0)


def test_a_plateau_among_the_strongest_does_not_use_up_the_places_of_other_maxima() -> None:
    """Hundreds of equal pixels are one maximum: the next strongest are to be looked for behind them all."""
    scores = torch.zeros(140, 160)
    scores[10:50, 10:50] = 1.0  # 1600 pixels, more than a shortcut of the strongest would hold
    for k, (y, x) in enumerate((y, x) for y in range(60, 136, 5) for x in range(10, 150, 5)):
        scores[y, x] = 0.9 - 0.002 * k
    strongest = local_maxima(scores, 2, 2, 40)
    assert len(strongest) == 40
    assert strongest[0].tolist() == [10, 10], "of equal ones the first in row order"
    assert strongest[1].tolist() == [10, 60]
    torch.testing.assert_close(strongest, local_maxima(scores, 2, 2, 10_000)[:40], rtol=0, atol=0)


def test_of_equal_maxima_at_the_end_of_the_list_the_first_in_row_order_are_kept() -> None:
    scores = torch.zeros(100, 100)
    scores[2:98:3, 2:98:3] = 0.5  # 1024 equal maxima
    found = local_maxima(scores, 1, 0, 40)
    rows = [(x, y) for y in range(2, 98, 3) for x in range(2, 98, 3)]
    assert [tuple(pixel) for pixel in found.tolist()] == rows[:40]
