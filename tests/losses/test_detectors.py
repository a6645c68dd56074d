"""Losses of score maps: repeatability, peaks, coverage, reprojection; and which of them prevent collapse."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semkey.losses.detection import success_loss
from semkey.losses.peaks import coverage_loss, dispersity_loss, peakiness_loss
from semkey.losses.repeatability import cosine_repeatability_loss, mutual_nearest
from semkey.losses.warping import dense_warp
from semkey.model.dkd import detect_peaks
from semkey.model.heads import probability_from_score, score_from_log_probability


def identity_warp(height: int, width: int) -> torch.Tensor:
    return dense_warp(torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, height, width, 2, dtype=torch.float64))


def random_map(seed: int, height: int = 32, width: int = 40) -> torch.Tensor:
    return torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- windowed cosine -----------------------------------------------------------------------------------------------


def test_cosine_repeatability_by_hand() -> None:
    a = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]).double()
    b = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]).double()
    loss = cosine_repeatability_loss(a, b, identity_warp(2, 2), window=2)
    assert loss.item() == pytest.approx(1 - 1 / math.sqrt(2), abs=1e-5)


def test_cosine_repeatability_compares_windows_not_the_whole_map() -> None:
    """Each window of view 1 is scaled by another factor: nothing to complain about, window by window."""
    a = random_map(0, 16, 32)
    factors = torch.cat([torch.full((16,), 1.0), torch.full((16,), 0.1)])
    warp = identity_warp(16, 32)
    separate = cosine_repeatability_loss(a[:, :, :16], (a * factors)[:, :, :16], warp[:, :, :16])
    assert separate.item() == pytest.approx(0.0, abs=1e-6)
    # of the three windows only the middle one, half and half, has another direction
    whole = cosine_repeatability_loss(a, a * factors, warp)
    middle = F.cosine_similarity(a[:, :, 8:24].flatten(), (a * factors)[:, :, 8:24].flatten(), dim=0)
    assert whole.item() == pytest.approx((1 - middle.item()) / 3, abs=1e-6)


def test_cosine_repeatability_through_a_warp() -> None:
    world = random_map(0, 64, 64)
    view0, view1 = world[:, 8:40, 8:48], world[:, 3:35, 4:44]
    H = torch.tensor([[1.0, 0, 4], [0, 1, 5], [0, 0, 1]], dtype=torch.float64)
    warp = dense_warp(H[None], torch.zeros(1, 32, 40, 2, dtype=torch.float64))
    assert cosine_repeatability_loss(view0, view1, warp).item() == pytest.approx(0.0, abs=1e-6)
    assert cosine_repeatability_loss(view0, view1, identity_warp(32, 40)).item() > 0.1


def test_cosine_repeatability_ignores_what_is_not_seen_or_not_valid() -> None:
    a, warp = random_map(0), identity_warp(32, 40)
    b = a.clone()
    b[:, :, 20:] = random_map(1)[:, :, 20:]
    valid = torch.ones(1, 32, 40, dtype=torch.bool)
    valid[:, :, 20:] = False
    assert cosine_repeatability_loss(a, b, warp).item() > 0.05
    assert cosine_repeatability_loss(a, b, warp, valid0=valid).item() == pytest.approx(0.0, abs=1e-6)
    hidden = warp.masked_fill(~valid[..., None], float("nan"))
    assert cosine_repeatability_loss(a, b, hidden).item() == pytest.approx(0.0, abs=1e-6)
    # a window that is seen to less than a half does not count
    few = torch.zeros_like(valid)
    few[:, :16, :7] = True
    assert cosine_repeatability_loss(a, random_map(1), warp, valid0=few).item() == 0.0


def test_cosine_repeatability_of_dark_or_hidden_maps_has_finite_gradients() -> None:
    warp = identity_warp(32, 40)
    for dark, other, where in (
        (torch.zeros(1, 32, 40).double(), random_map(0), warp),
        (torch.zeros(1, 32, 40).double(), torch.zeros(1, 32, 40).double(), warp),
        (random_map(1), random_map(0), torch.full_like(warp, float("nan"))),
    ):
        scores = dark.clone().requires_grad_()
        loss = cosine_repeatability_loss(scores, other, where)
        loss.backward()
        assert torch.isfinite(loss)
        assert scores.grad is not None
        assert scores.grad.abs().max() < 1e3


def test_cosine_repeatability_gradient() -> None:
    H = torch.tensor([[1.0, 0.02, 0.4], [0.01, 1, 0.3], [0, 0, 1]], dtype=torch.float64)
    warp = dense_warp(H[None], torch.zeros(1, 6, 6, 2, dtype=torch.float64))
    inputs = (random_map(0, 6, 6).requires_grad_(), random_map(1, 6, 6).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: cosine_repeatability_loss(a, b, warp, window=4), inputs)


# -- dispersity ----------------------------------------------------------------------------------------------------


def test_dispersity_of_a_flat_window_is_one_and_of_a_peak_zero() -> None:
    flat = torch.full((1, 25), 0.5)
    assert dispersity_loss(flat, torch.tensor([0.5])).item() == pytest.approx(1.0)
    peak = torch.zeros(1, 25)
    peak[0, 12] = 3.0
    assert dispersity_loss(peak, torch.tensor([0.5])).item() == pytest.approx(0.0, abs=1e-6)


def test_dispersity_by_hand() -> None:
    """Two equal peaks side by side: the keypoint lies between, each is half a pixel away; r = 1."""
    windows = torch.full((1, 9), -20.0)
    windows[0, 4] = windows[0, 5] = 0.0
    assert dispersity_loss(windows, torch.tensor([0.9])).item() == pytest.approx(0.25)


def test_dispersity_does_not_count_weak_keypoints() -> None:
    peak = torch.zeros(25)
    peak[12] = 3.0
    windows = torch.stack([peak, torch.zeros(25)])
    assert dispersity_loss(windows, torch.tensor([0.5, 0.1])).item() == pytest.approx(0.0, abs=1e-6)
    assert dispersity_loss(windows, torch.tensor([0.5, 0.11])).item() == pytest.approx(0.5, abs=1e-6)


def test_dispersity_without_keypoints() -> None:
    windows = torch.zeros(0, 25, requires_grad=True)
    loss = dispersity_loss(windows, torch.zeros(0))
    loss.backward()
    assert loss.item() == 0.0


def test_dispersity_gradient() -> None:
    windows = torch.rand(3, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores = torch.tensor([0.5, 0.05, 0.9])
    assert torch.autograd.gradcheck(lambda w: dispersity_loss(w, scores), windows)


# -- peakiness and coverage ----------------------------------------------------------------------------------------


def test_peakiness_by_hand() -> None:
    scores = torch.zeros(1, 3, 4)
    scores[0, 1, 0] = 0.9  # the left one of two 3 x 3 windows has it
    assert peakiness_loss(scores, window=2).item() == pytest.approx(1 - (0.9 - 0.1) / 2)
    assert peakiness_loss(torch.full((1, 20, 20), 0.7)).item() == pytest.approx(1.0, abs=1e-5)


def test_peakiness_leaves_out_windows_with_invalid_pixels() -> None:
    scores = torch.zeros(1, 3, 4)
    scores[0, 1, 0] = 0.9
    valid = torch.ones(1, 3, 4, dtype=torch.bool)
    valid[0, 0, 3] = False
    assert peakiness_loss(scores, valid=valid, window=2).item() == pytest.approx(0.2)


def test_peakiness_of_a_small_or_invalid_map_is_zero() -> None:
    scores = torch.rand(1, 12, 40, requires_grad=True)
    for loss in (peakiness_loss(scores), peakiness_loss(scores, valid=torch.zeros(1, 12, 40).bool(), window=4)):
        loss.backward()
        assert loss.item() == 0.0
    assert scores.grad is not None
    assert (scores.grad == 0).all()


def test_peakiness_gradient() -> None:
    scores = random_map(0, 7, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: peakiness_loss(s, window=4), scores)


def test_coverage_by_hand() -> None:
    probability = torch.zeros(1, 2, 4)
    probability[0, :, :2] = 0.5
    assert coverage_loss(probability, cell=2).item() == pytest.approx((0.5**4 + 1) / 2)
    valid = torch.ones(1, 2, 4, dtype=torch.bool)
    valid[0, 1, 3] = False
    assert coverage_loss(probability, valid=valid, cell=2).item() == pytest.approx(0.5**4)


def test_coverage_asks_for_keypoints_only_where_there_are_none() -> None:
    probability = torch.zeros(1, 32, 64)
    probability[0, 3, 3:6] = 1.0
    probability.requires_grad_()
    coverage_loss(probability).backward()
    assert probability.grad is not None
    assert (probability.grad[0, :, 32:] < 0).all()
    assert probability.grad[0, :, :32].abs().max() < 1e-6


def test_coverage_of_a_small_or_invalid_map_is_zero() -> None:
    probability = torch.rand(1, 40, 20, requires_grad=True)
    for loss in (
        coverage_loss(probability),
        coverage_loss(probability, cell=8, valid=torch.zeros(1, 40, 20, dtype=torch.bool)),
    ):
        loss.backward()
        assert loss.item() == 0.0


def test_coverage_gradient() -> None:
    probability = (0.3 * random_map(0, 5, 6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: coverage_loss(p, cell=2), probability)


# -- pairs of keypoints ------------------------------------------------------------------------------------------------


def test_mutually_nearest_by_hand() -> None:
    projected = torch.tensor([[10.0, 10.0], [11.0, 10.0], [50.0, 50.0], [90.0, 9.0]])
    keypoints = torch.tensor([[10.3, 9.6], [54.0, 53.5], [91.0, 7.0]])
    index0, index1 = mutual_nearest(projected, keypoints, 5.0)
    # (11, 10) is nearest to the same keypoint but not the nearest; (50, 50) is 5.3 px away
    assert index0.tolist() == [0, 3]
    assert index1.tolist() == [0, 2]
    nobody = torch.zeros(0, 2)
    assert [len(part) for part in mutual_nearest(projected, nobody, 5.0)] == [0, 0]


# -- collapse ------------------------------------------------------------------------------------------------------

SIDE = 48
SHIFT = torch.tensor([[1.0, 0, 5], [0, 1, 3], [0, 0, 1]], dtype=torch.float64)


def views(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of random tiles: pixel (x, y) of the first is (x + 5, y + 3) of the second."""
    tiles = torch.rand(1, 1, 14, 14, generator=torch.Generator().manual_seed(seed))
    world = F.interpolate(tiles, size=(56, 56), mode="nearest")
    return world[:, :, 3 : 3 + SIDE, 5 : 5 + SIDE], world[:, :, :SIDE, :SIDE]


def train_from_constant(terms: Collection[str]) -> torch.Tensor:
    """The score map of an unseen view after 200 steps from a network whose map is 0.05 everywhere."""
    torch.manual_seed(0)
    last = nn.Conv2d(8, 1, 1)
    with torch.no_grad():
        for name, value in (("weight", 0.0), ("bias", -3.0)):
            last.get_parameter(name).fill_(value)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), last, nn.Sigmoid()
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    warp = dense_warp(SHIFT[None], torch.zeros(1, SIDE, SIDE, 2))
    for step in range(200):
        scores = [network(view)[:, 0] for view in views(step % 8)]
        loss = cosine_repeatability_loss(scores[0], scores[1], warp)
        if "peakiness" in terms:
            loss = loss + 0.5 * sum(peakiness_loss(s) for s in scores)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return network(views(100)[0])[0, 0]


def contrast(scores: torch.Tensor) -> float:
    """The 50 strongest peaks above the median."""
    peaks = detect_peaks(scores, radius=2, window=5, temperature=0.1, count=50)
    return float(peaks.scores.mean() - scores.median())


def test_repeatability_alone_leaves_a_constant_map_constant() -> None:
    scores = train_from_constant([])
    assert contrast(scores) < 0.02


def test_peakiness_leads_out_of_a_constant_map() -> None:
    scores = train_from_constant(["peakiness"])
    assert contrast(scores) > 0.4


def test_a_small_constant_map_is_a_minimum_of_repeatability_and_dispersity_but_not_of_peakiness() -> None:
    constant = torch.full((1, 40, 40), 0.05, dtype=torch.float64)
    noise = 1e-3 * random_map(0, 40, 40)
    warp = identity_warp(40, 40)

    def terms(scores: torch.Tensor) -> tuple[float, float, float]:
        peaks = detect_peaks(scores[0], radius=2, window=5, temperature=0.1, count=60)
        return (
            cosine_repeatability_loss(scores, scores.flip(2), warp).item(),
            dispersity_loss(peaks.windows, peaks.scores).item(),
            peakiness_loss(scores).item(),
        )

    assert terms(constant)[:2] == pytest.approx((0.0, 0.0), abs=1e-5)
    assert terms(constant + noise)[0] > terms(constant)[0]
    assert terms(constant)[2] == pytest.approx(1.0)
    assert terms(constant + noise)[2] < 1.0 - 4e-4


# -- success -------------------------------------------------------------------------------------------------------


def window(middle: float, around: float, far: float) -> torch.Tensor:
    """A 5 x 5 window of probabilities: its centre, the 8 pixels around, the 16 further out."""
    values = torch.full((5, 5), far, dtype=torch.float64)
    values[1:4, 1:4] = around
    values[2, 2] = middle
    return values.reshape(1, 25)


def test_success_by_hand() -> None:
    mass = 0.3 + 8 * 0.05
    lasting, lost = torch.tensor([True]), torch.tensor([False])
    assert success_loss(window(0.3, 0.05, 0.9), lasting).item() == pytest.approx(-math.log(mass))
    assert success_loss(window(0.3, 0.05, 0.0), lost).item() == pytest.approx(-math.log(1 - mass))


def test_success_raises_what_lasts_and_lowers_the_rest() -> None:
    windows = torch.cat([window(0.2, 0.01, 0.01)] * 2).requires_grad_()
    success_loss(windows, torch.tensor([True, False])).backward()
    assert windows.grad is not None
    middle = windows.grad.reshape(2, 5, 5)[:, 1:4, 1:4]
    assert (middle[0] < 0).all()
    assert (middle[1] > 0).all()
    assert windows.grad.abs().sum() == middle.abs().sum()  # pixels further out are not touched


def test_success_is_finite_at_the_ends_and_zero_for_nothing() -> None:
    windows = torch.cat([window(0.0, 0.0, 0.0), window(1.0, 0.0, 0.0)])
    assert success_loss(windows, torch.tensor([True, False])).isfinite()
    assert success_loss(torch.zeros(0, 25), torch.zeros(0)).item() == 0.0


def test_success_gradient() -> None:
    windows = torch.rand(4, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 30
    labels = torch.tensor([1.0, 0.0, 1.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w: success_loss(w, labels), windows.requires_grad_())


def test_a_score_stands_for_its_probability() -> None:
    probability = torch.tensor([1.0, 0.5, 1e-3, 1e-4])
    torch.testing.assert_close(probability_from_score(score_from_log_probability(probability.log())), probability)
