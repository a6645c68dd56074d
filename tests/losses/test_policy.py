"""Keypoints drawn from a map, the policy's gradient, and rewards of scenes whose structure is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semkey.losses.policy import Draw, draw_keypoints, policy_loss
from semkey.losses.rewards import agreement, log10_false_alarms, mutual_matches, sampson_distances, track_reward
from semkey.losses.temporal import temporal_descriptor_loss, temporal_score_loss

SIZE = (320, 256)


def scene(count: int, seed: int = 0, noise_px: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of points in space, seen by two cameras that a step and a turn lie between."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2, -1.5, 3], [2, 1.5, 8], (count, 3))
    K = np.array([[300, 0, 159.5], [0, 300, 127.5], [0, 0, 1.0]])
    angle = 0.1
    R = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    views = []
    for seen in (points, points @ R.T + [0.5, 0.1, 0.0]):
        pixels = seen @ K.T
        views.append(pixels[:, :2] / pixels[:, 2:] + rng.normal(0, noise_px, (count, 2)))
    return views[0], views[1]


# -- drawing -------------------------------------------------------------------------------------------------------


def test_keypoints_are_drawn_as_often_as_the_map_says() -> None:
    torch.manual_seed(0)
    probability = torch.full((40, 48), 1e-9)
    probability[20, 24], probability[20, 12] = 0.7, 0.2
    counts = torch.zeros(40, 48)
    for _ in range(400):
        for x, y in draw_keypoints(probability.log()).pixels.tolist():
            counts[y, x] += 1
    assert counts[20, 24] / 400 == pytest.approx(0.7, abs=0.08)
    assert counts[20, 12] / 400 == pytest.approx(0.2, abs=0.08)
    assert counts.sum() == counts[20, 24] + counts[20, 12]


def test_a_cell_gives_at_most_one_keypoint_and_its_log_probability() -> None:
    torch.manual_seed(1)
    logs = torch.full((64, 64), 0.5).log()  # every cell sums to 32: all are scaled to 1
    draw = draw_keypoints(logs)
    assert len(draw) == len({(x, y) for x, y in draw.pixels.tolist()}) in (49, 56, 64)
    assert torch.allclose(draw.log_probability, torch.full((len(draw),), 1 / 64).log())


def test_cells_lie_elsewhere_each_time_and_the_margin_is_kept() -> None:
    torch.manual_seed(2)
    logs = torch.full((48, 64), 0.5).log()
    seen = torch.cat([draw_keypoints(logs, margin=5).pixels for _ in range(60)])
    assert seen.min() == 5
    assert (int(seen[:, 0].max()), int(seen[:, 1].max())) == (58, 42)


def test_nothing_is_drawn_where_the_view_shows_nothing() -> None:
    valid = torch.zeros(48, 64, dtype=torch.bool)
    valid[:, 32:] = True
    pixels = draw_keypoints(torch.full((48, 64), 0.4).log(), valid).pixels
    assert len(pixels) > 8
    assert int(pixels[:, 0].min()) >= 32
    assert len(draw_keypoints(torch.full((48, 64), 0.4).log(), torch.zeros_like(valid))) == 0


def test_a_map_smaller_than_a_cell_gives_nothing() -> None:
    assert len(draw_keypoints(torch.zeros(6, 6))) == 0


# -- the gradient --------------------------------------------------------------------------------------------------


def test_what_was_worth_more_becomes_more_probable() -> None:
    """The structure is known: only the right half of the picture is ever worth anything."""
    torch.manual_seed(3)
    halves = torch.zeros(2, requires_grad=True)

    def logs() -> torch.Tensor:
        return torch.nn.functional.logsigmoid(halves - 6.0).repeat_interleave(32).expand(64, -1)

    optimiser = torch.optim.SGD([halves], lr=1.0)
    for _ in range(25):
        draw = draw_keypoints(logs())
        optimiser.zero_grad()
        policy_loss([draw], [(draw.pixels[:, 0] >= 32).float()]).backward()
        optimiser.step()
    assert float(halves[1].detach()) > 1.0
    assert float(halves[0].detach()) < -1.0


def test_equal_rewards_change_nothing_and_no_keypoints_are_no_loss() -> None:
    logits = torch.zeros(32, 32, requires_grad=True)
    draw = draw_keypoints(torch.nn.functional.logsigmoid(logits))
    policy_loss([draw], [torch.ones(len(draw))]).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0.0
    nothing = Draw(pixels=torch.zeros(0, 2, dtype=torch.int64), log_probability=logits.reshape(-1)[:0])
    assert policy_loss([nothing], [torch.zeros(0)]).item() == 0.0


def test_images_are_compared_with_themselves() -> None:
    """An image with good matches throughout is no reason for another one to lose its keypoints."""
    logs = torch.tensor([-1.0, -1.0, -1.0, -1.0], requires_grad=True)
    pixels = torch.zeros(2, 2, dtype=torch.int64)
    draws = [Draw(pixels=pixels, log_probability=logs[:2]), Draw(pixels=pixels, log_probability=logs[2:])]
    policy_loss(draws, [torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])]).backward()
    assert logs.grad is not None
    assert logs.grad.tolist() == pytest.approx([0.0, 0.0, -0.125, 0.125])


# -- rewards -------------------------------------------------------------------------------------------------------


def test_matches_of_one_scene_agree_and_wrong_ones_do_not() -> None:
    first, second = scene(80)
    second[:30] = np.random.default_rng(1).uniform([0, 0], SIZE, (30, 2))
    found = np.isfinite(agreement(first, second, SIZE, max_error_px=1.5))
    assert found[30:].mean() > 0.9
    assert found[:30].mean() < 0.25


@pytest.mark.parametrize("seed", range(8))
def test_unrelated_images_are_worth_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.uniform([0, 0], SIZE, (60, 2)) for _ in range(2))
    assert not np.isfinite(agreement(first, second, SIZE, max_error_px=1.5)).any()
    # what RANSAC can always make agree is believed where that is asked for, for the penalty of foreign images
    assert np.isfinite(agreement(first, second, SIZE, max_error_px=1.5, believe=True)).sum() >= 7


def test_too_few_matches_are_worth_nothing() -> None:
    first, second = scene(9)
    assert not np.isfinite(agreement(first, second, SIZE, max_error_px=1.5)).any()


def test_false_alarms_fall_with_inliers_and_a_sample_alone_is_none() -> None:
    values = [log10_false_alarms(count, 100, 1.5, SIZE) for count in (7, 20, 40, 80)]
    assert values[0] == math.inf
    assert values[1] > values[2] > values[3]
    assert values[3] < -50 < 0 < log10_false_alarms(9, 100, 1.5, SIZE)


def test_sampson_distance_is_that_of_the_epipolar_line_for_a_sideways_step() -> None:
    F = np.array([[0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])  # rows stay rows
    points0 = np.array([[10.0, 20.0], [30.0, 40.0]])
    points1 = points0 + np.array([[5.0, 2.0], [9.0, 0.0]])
    # half of the gap lies in either image: sqrt(2) less than the distance in one
    assert sampson_distances(F, points0, points1) == pytest.approx([2 / math.sqrt(2), 0.0])


def test_mutual_matches_are_both_ways() -> None:
    own = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), dim=1)
    other = torch.nn.functional.normalize(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), dim=1)
    first, second = mutual_matches(own, other)
    assert (first.tolist(), second.tolist()) == ([0, 2], [1, 0])
    assert len(mutual_matches(own, other[:0])[0]) == 0


def test_a_track_is_worth_its_length_and_accuracy_until_it_breaks() -> None:
    lost = np.inf
    errors = np.array([[0.0, 0.0, lost, 0.75], [0.0, 0.0, 0.0, 0.75], [0.0, lost, 0.0, 0.75], [0.0, 0.0, 0.0, 0.75]])
    assert track_reward(errors, 1.5).tolist() == pytest.approx([1.0, 0.5, 0.0, 0.5])


# -- temporal consistency ------------------------------------------------------------------------------------------


def test_scores_that_stay_cost_nothing_and_scale_does_not_matter() -> None:
    torch.manual_seed(4)
    frame = torch.rand(1, 32, 32) * 0.05
    steady = frame.expand(3, -1, -1).log()
    tracks = torch.randint(4, 28, (20, 1, 2)).expand(-1, 3, -1).float()
    assert float(temporal_score_loss(steady, tracks)) == pytest.approx(0.0, abs=1e-6)
    flicker = torch.stack([frame[0], 0.5 * frame[0], frame[0]]).log()
    loss = float(temporal_score_loss(flicker, tracks))
    assert loss > 0.1
    assert float(temporal_score_loss(flicker - math.log(10.0), tracks)) == pytest.approx(loss, rel=1e-4)


def test_the_score_loss_follows_the_points() -> None:
    probability = torch.full((2, 32, 32), 1e-4)
    probability[0, 10, 10], probability[1, 10, 15] = 0.5, 0.5
    moving = torch.tensor([[[10.0, 10.0], [15.0, 10.0]]])
    assert float(temporal_score_loss(probability.log(), moving)) == pytest.approx(0.0, abs=1e-4)
    assert float(temporal_score_loss(probability.log(), moving[:, [0, 0]])) > 0.9
    assert float(temporal_score_loss(probability.log(), moving[:0])) == 0.0


def test_the_gradient_of_the_score_loss_raises_the_frame_that_lags() -> None:
    logs = torch.full((2, 16, 16), 0.02).log()
    logs[0] = math.log(0.1)
    logs.requires_grad_()
    temporal_score_loss(logs, torch.full((1, 2, 2), 8.0)).backward()
    assert logs.grad is not None
    assert float(logs.grad[0, 8, 8]) > 0 > float(logs.grad[1, 8, 8])


def test_descriptors_that_agree_cost_nothing() -> None:
    same = torch.nn.functional.normalize(torch.randn(5, 1, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert float(temporal_descriptor_loss(same.expand(-1, 4, -1))) == pytest.approx(0.0, abs=1e-6)
    opposite = torch.cat([same, -same], dim=1)
    assert float(temporal_descriptor_loss(opposite)) == pytest.approx(1.0, abs=1e-6)
    assert float(temporal_descriptor_loss(same[:0])) == 0.0
