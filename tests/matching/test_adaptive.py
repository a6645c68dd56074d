"""LightGlue that stops early and leaves keypoints out: with heads set by hand, and with heads that learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from semkey.errors import CheckpointError, ConfigError
from semkey.matching.lightglue.adaptive import assign_adaptively
from semkey.matching.lightglue.assignment import partners_by_scores
from semkey.matching.lightglue.checkpoint import MatcherInfo, read_matcher, write_matcher
from semkey.matching.lightglue.network import LightGlueShape, build_network, layer_states, start_as_dual_softmax
from semkey.matching.lightglue.trained import TrainedLightGlue, assign
from semkey.model.features import Features
from semkey.training.matcher import MatcherTrainConfig
from semkey.training.matcher.heads import HeadsTrainer
from semkey.training.matcher.losses import confidence_loss

pytest.importorskip("kornia", reason="LightGlue runs through kornia, extra 'peers'")

WIDTH = 64
SHAPE = LightGlueShape(layers=3, width=WIDTH, heads=4)
SIZE = torch.tensor([[320, 240]])
SIZES = (SIZE, SIZE)
Pair = tuple[torch.Tensor, torch.Tensor]


def unit(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn((count, WIDTH), generator=generator), dim=1)


def places(count: int, seed: int) -> torch.Tensor:
    return torch.rand((1, count, 2), generator=torch.Generator().manual_seed(seed)) * torch.tensor([319.0, 239.0])


def noisy_pair(count: int, seed: int) -> tuple[Pair, Pair]:
    """Keypoints and descriptors of two images; keypoint i of one is count - 1 - i of the other."""
    first = unit(count, seed)
    second = F.normalize(first + 0.3 * unit(count, seed + 1), dim=1).flip(0)
    points = places(count, seed + 2)
    return (points, points.flip(1)), (first[None], second[None])


def network_of(*, depth: float | None = None, width: float | None = None, sure: float = 0.0) -> Any:
    """A dual softmax whose heads say the same of every keypoint."""
    network = build_network(
        WIDTH, SHAPE, filter_threshold=0.02, depth_confidence=depth, width_confidence=width
    ).requires_grad_(False)
    start_as_dual_softmax(network)
    for head in network.token_confidence:
        head.token[0].weight.zero_()
        head.token[0].bias.fill_(sure)
    return network.eval()


def as_set(indices: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(pair) for pair in indices.tolist()}


def test_sure_heads_stop_after_a_layer_and_unsure_ones_never() -> None:
    keypoints, descriptors = noisy_pair(60, 0)
    with torch.no_grad():
        early = assign_adaptively(network_of(depth=0.95, sure=20.0), keypoints, descriptors, SIZES)
        whole = assign_adaptively(network_of(depth=0.95, sure=-20.0), keypoints, descriptors, SIZES)
        expected, scores = assign(network_of(), keypoints, descriptors, SIZES, 0.02)[0]
    assert (early.layers, whole.layers) == (1, 3)
    assert len(expected) > 50
    for found in (early, whole):
        assert torch.equal(found.indices, expected)
        torch.testing.assert_close(found.scores, scores)
    assert bool((expected.sum(dim=1) == 59).float().mean() > 0.9)
    network = network_of(depth=0.95, sure=20.0)
    network.log_assignment[2].matchability.bias.fill_(-20.0)  # nothing would be left of what the last layer matches
    with torch.no_grad():
        assert torch.equal(assign_adaptively(network, keypoints, descriptors, SIZES).indices, expected)


def test_it_stops_only_when_more_than_the_share_is_sure() -> None:
    network = network_of(depth=0.9)
    common = unit(1, 9)[0]
    for head in network.token_confidence:  # sure where a descriptor leans towards one direction
        head.token[0].weight.copy_(network.input_proj.weight @ common * 10)
    keypoints, _ = noisy_pair(20, 0)
    for sure, layers in ((20, 1), (19, 1), (18, 3), (0, 3)):  # more than 90 % of 40: both images hold the same
        signs = torch.where(torch.arange(20) < sure, 1.0, -1.0)[:, None]
        descriptors = F.normalize(0.3 * unit(20, 1) + signs * common, dim=1)[None]
        with torch.no_grad():
            assert assign_adaptively(network, keypoints, (descriptors, descriptors), SIZES).layers == layers, sure


def unmatchable(network: Any, direction: torch.Tensor) -> None:
    """Keypoints with descriptors against a direction have no match, those along it do."""
    for assignment in network.log_assignment:
        assignment.matchability.weight.copy_((network.input_proj.weight @ direction)[None] * 5)
        assignment.matchability.bias.zero_()


def test_what_is_surely_unmatchable_is_left_out_and_the_rest_keeps_its_numbers() -> None:
    network = network_of(width=0.99, sure=20.0)
    direction = unit(1, 9)[0]
    unmatchable(network, direction)
    signs = torch.where(torch.arange(60) % 3 > 0, 1.0, -1.0)[:, None]
    descriptors = F.normalize(unit(60, 0) + signs * direction, dim=1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    keypoints = places(60, 1), places(60, 1)[:, order]
    both = descriptors[None], descriptors[order][None]
    with torch.no_grad():
        pruned = assign_adaptively(network, keypoints, both, SIZES)
        whole, scores = assign(network, keypoints, both, SIZES, 0.02)[0]
        for head in network.token_confidence:
            head.token[0].bias.fill_(-20.0)
        unsure = assign_adaptively(network, keypoints, both, SIZES)
    assert pruned.layers == 3
    assert pruned.kept == (40, 40)
    assert len(whole) == 40
    assert torch.equal(order[pruned.indices[:, 1]], pruned.indices[:, 0])
    assert torch.equal(pruned.indices, whole)
    torch.testing.assert_close(pruned.scores, scores, atol=0.02, rtol=0)
    assert unsure.kept == (60, 60)
    assert torch.equal(unsure.indices, whole)


def test_images_without_anything_in_common_end_without_a_match() -> None:
    network = network_of(depth=0.95, width=0.99, sure=0.5)  # 0.62: above no threshold of surety
    unmatchable(network, unit(1, 9)[0])
    descriptors = (F.normalize(unit(30, 0) - 3 * unit(1, 9), dim=1)[None], unit(30, 3)[None])
    keypoints = places(30, 1), places(30, 2)
    with torch.no_grad():
        assert assign_adaptively(network, keypoints, descriptors, SIZES).kept == (30, 30)
        for head in network.token_confidence:
            head.token[0].bias.fill_(20.0)
        network.conf.depth_confidence = -1
        found = assign_adaptively(network, keypoints, descriptors, SIZES)
    assert found.kept[0] == 0
    assert found.layers == 1
    assert found.indices.shape == (0, 2)
    assert found.scores.shape == (0,)


def two_sided() -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A network whose first two layers cannot see half of the directions, and the two halves."""
    network = network_of(depth=0.95)
    basis = torch.linalg.qr(unit(WIDTH, 11).T)[0].T
    seen, hidden = basis[:32], basis[32:]
    to_state = network.input_proj.weight / WIDTH**0.5
    blind = (to_state @ hidden.T) @ (to_state @ hidden.T).T
    for assignment in network.log_assignment[:2]:
        weight = assignment.final_proj.weight
        weight.copy_(weight @ (torch.eye(WIDTH) - blind))
    return network, seen, hidden


def half_pair(half: torch.Tensor, mark: torch.Tensor, seed: int) -> tuple[Pair, Pair]:
    """Descriptors that differ in the directions of a half alone, and have a mark in common."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn((40, len(half)), generator=generator)
    others = parts + 0.1 * torch.randn((40, len(half)), generator=generator)
    first, second = (F.normalize(F.normalize(p @ half, dim=1) + 0.8 * mark, dim=1)[None] for p in (parts, others))
    return (places(40, seed), places(40, seed)), (first, second)


def test_heads_learn_to_stop_on_easy_pairs_and_to_go_to_the_end_on_hard_ones() -> None:
    network, seen, hidden = two_sided()
    mark = seen[0]
    easy, hard = (lambda seed: half_pair(seen[1:], mark, seed)), (lambda seed: half_pair(hidden, -mark, seed))
    config = MatcherTrainConfig.from_mapping(
        {"name": "heads", "confidence": {"steps": 60, "learning_rate": 0.1}, "shape": SHAPE.to_mapping()}
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer = HeadsTrainer(network, config)
    losses = []
    for step in range(60):
        keypoints, descriptors = (easy if step % 2 else hard)(100 + step)
        with torch.no_grad():
            states = layer_states(network, keypoints, descriptors, SIZES)
        losses.append(trainer.update(step, states))
    assert sum(losses[-4:]) < 0.2 * sum(losses[:4])
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("token_confidence")), name
    for pair_of, layers in ((easy, 1), (hard, 3)):
        keypoints, descriptors = pair_of(1)
        with torch.no_grad():
            found = assign_adaptively(network, keypoints, descriptors, SIZES)
            whole, _ = assign(network, keypoints, descriptors, SIZES, 0.02)[0]
        assert found.layers == layers
        assert as_set(found.indices) == as_set(whole)
        assert len(whole) > 30


def test_the_loss_of_heads_is_that_of_a_hand_case() -> None:
    network = network_of(sure=0.7)
    keypoints, descriptors = noisy_pair(30, 0)
    with torch.no_grad():
        states = layer_states(network, keypoints, descriptors, SIZES)
        # All layers agree: each keypoint is right to be sure.
        torch.testing.assert_close(confidence_loss(network, states), F.softplus(torch.tensor(-0.7)))
        network.log_assignment[2].matchability.bias.fill_(-20.0)  # now the last layer matches nothing
        scores, _ = network.log_assignment[0](*states[0])
        matched0, matched1, _ = partners_by_scores(scores, 0.02)
        share = torch.cat([matched0, matched1], dim=1).ge(0).float().mean()
        expected = share * F.softplus(torch.tensor(0.7)) + (1 - share) * F.softplus(torch.tensor(-0.7))
        torch.testing.assert_close(confidence_loss(network, states), expected)


def test_partners_of_both_images_say_the_same() -> None:
    scores = torch.log(torch.tensor([[[0.9, 0.1, 0.0, 0.1], [0.8, 0.05, 0.0, 0.1], [0.0, 0.3, 0.2, 0.5], [0.1] * 4]]))
    first, second, confidence = partners_by_scores(scores, 0.05)
    assert first.tolist() == [[0, -1, 1]]
    assert second.tolist() == [[0, 2, -1]]
    torch.testing.assert_close(confidence, torch.tensor([[0.9, 0.8, 0.3]]))
    assert partners_by_scores(scores, 0.5)[0].tolist() == [[0, -1, -1]]
    assert partners_by_scores(scores, 0.5)[1].tolist() == [[0, -1, -1]]


def test_a_file_says_whether_it_adapts_and_may_be_run_whole(tmp_path: Path) -> None:
    network = network_of(sure=20.0)
    info = MatcherInfo(features="compact", input_dim=WIDTH, shape=SHAPE, filter_threshold=0.02)
    fast = replace(info, depth_confidence=0.95, width_confidence=0.99)
    for name, said in (("whole", info), ("fast", fast)):
        write_matcher(tmp_path / f"{name}.safetensors", network, said)
    read, said = read_matcher(tmp_path / "fast.safetensors")
    assert said == fast
    assert (read.conf.depth_confidence, read.conf.width_confidence) == (0.95, 0.99)
    device = torch.device("cpu")
    (points, _), (descriptors, _) = noisy_pair(40, 0)
    features = Features(
        keypoints=points[0],
        scores=torch.ones(40),
        reliability=torch.ones(40),
        descriptors=descriptors[0],
        global_descriptor=torch.zeros(0),
        image_size=(320, 240),
        method="compact",
    )
    results = []
    for name, adaptive in (("whole", True), ("fast", True), ("fast", False)):
        matcher = TrainedLightGlue(tmp_path / f"{name}.safetensors", device, adaptive=adaptive)
        assert matcher.settings["adaptive"] is (name == "fast" and adaptive)
        results.append(matcher.match(features, features).indices)
    assert len(results[0]) == 40
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    with pytest.raises(ConfigError, match="depth_confidence"):
        MatcherInfo(features="compact", input_dim=WIDTH, depth_confidence=1.5)
    with pytest.raises(CheckpointError):
        read_matcher(tmp_path / "none.safetensors")
