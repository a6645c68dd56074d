"""Objectives: only what has a weight is computed, nothing to learn from gives 0, gradients go where they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from semkey.errors import ConfigError
from semkey.losses.description import dual_softmax_loss
from semkey.model.checkpoint import save_checkpoint
from semkey.model.config import ModelConfig
from semkey.model.dense import DenseMaps
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.config import TrainConfig
from semkey.training.objectives.imitation import Guide
from semkey.training.objectives.losses import compute
from semkey.training.stage_config import CLIP_LOSSES, IMITATION_LOSSES, LOSSES, FinetuneStage, ObjectiveOptions
from semkey.training.stages import plan_stage
from training_fakes import MODEL, SIDE, ShiftedPairs, only, small_config

OPTIONS = ObjectiveOptions(max_keypoints=64)


@pytest.fixture
def model() -> SemanticKeypointDetector:
    torch.manual_seed(0)
    return SemanticKeypointDetector(
        ModelConfig.from_mapping({**MODEL, "reliability": "keypoint", "covariance": True})
    ).train()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    collated = default_collate([ShiftedPairs()[0], ShiftedPairs()[1]])
    torch.manual_seed(1)
    collated["teacher"] = torch.nn.functional.normalize(torch.randn(2, collated["points0"].shape[1], 32), dim=-1)
    return collated


def run(model: SemanticKeypointDetector, batch: dict[str, torch.Tensor], decoupled: bool = False) -> DenseMaps:
    return model(torch.cat([batch["image0"], batch["image1"]]), decoupled=decoupled)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in (*IMITATION_LOSSES, *CLIP_LOSSES)])
def test_each_loss_is_finite_and_has_a_gradient(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor], name: str
) -> None:
    result = compute(model, run(model, batch), batch, {name: 1.0}, OPTIONS)
    assert list(result.losses) == [name]
    assert torch.isfinite(result.losses[name])
    result.losses[name].backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(bool(torch.isfinite(g).all()) for g in grads)
    assert max(float(g.abs().max()) for g in grads) > 0


def test_only_weighted_losses_are_computed(model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]) -> None:
    result = compute(model, run(model, batch), batch, {"heat": 2.0, "place": 0.0}, OPTIONS)
    assert list(result.losses) == ["heat"]
    assert not result.figures
    assert result.weighted({"heat": 2.0})["heat"] == 2 * result.losses["heat"]


def test_matching_equals_the_loss_it_is_made_of(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]
) -> None:
    maps = run(model.eval(), batch)
    options = ObjectiveOptions(jitter_px=0.0)
    found = compute(model, maps, batch, {"match_dual_softmax": 1.0}, options).losses["match_dual_softmax"]
    own, other = (model.describe(maps, torch.cat([batch["points0"], batch["points1"]]))).chunk(2)
    torch.testing.assert_close(found, dual_softmax_loss(own, other, batch["points1"]).mean())


def test_drawn_shapes_and_missing_targets_teach_nothing(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]
) -> None:
    batch = batch | {"is_scene": torch.zeros(2)}
    for index in range(2):
        batch[f"targets{index}"] = torch.zeros_like(batch[f"targets{index}"])
    weights = dict.fromkeys(("match_dual_softmax", "match_triplet", "match_nre", "heat", "position", "anchor"), 1.0)
    weights["reliability_bce"] = 1.0
    losses = compute(model, run(model, batch), batch, weights, OPTIONS).losses
    assert {name: float(value.detach()) for name, value in losses.items()} == dict.fromkeys(weights, 0.0)
    torch.stack(list(losses.values())).sum().backward()  # still differentiable


def test_a_pair_without_targets_does_not_change_heat(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]
) -> None:
    maps = run(model.eval(), batch)
    emptied = dict(batch)
    for index in range(2):
        targets = batch[f"targets{index}"].clone()
        targets[1] = 0
        emptied[f"targets{index}"] = targets
    first = {name: value[:1] for name, value in batch.items()}
    of_first = compute(model, maps.map(lambda m: m[[0, 2]]), first, {"heat": 1.0}, OPTIONS).losses["heat"]
    torch.testing.assert_close(compute(model, maps, emptied, {"heat": 1.0}, OPTIONS).losses["heat"], of_first)


def test_maps_that_agree_have_no_repeatability_loss(model: SemanticKeypointDetector, batch: dict[str, Any]) -> None:
    """Maps that are each other's shifted copy, under the homography and under the same shift as a dense warp."""
    pair = {name: value[:1] for name, value in batch.items()}
    step = pair["H10"][0, :2, 2].long()
    torch.manual_seed(0)
    whole = torch.rand(1, 1, SIDE + 64, SIDE + 64).log()
    views = [
        whole[:, :, 32:-32, 32:-32],
        whole[:, :, 32 - step[1] : SIDE + 32 - step[1], 32 - step[0] : SIDE + 32 - step[0]],
    ]
    maps = run(model.eval(), pair)
    maps = DenseMaps(
        log_probability=torch.cat(views), grid=maps.grid, fine=maps.fine, detail=maps.detail, coarse=maps.coarse
    )
    weights = {"repeatability": 1.0}
    by_homography = compute(model, maps, pair, weights, OPTIONS).losses["repeatability"]
    assert float(by_homography) < 1e-4
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    warp = torch.stack([x, y], dim=-1)[None] + step
    seen = ((warp >= 0) & (warp <= SIDE - 1)).all(dim=-1)
    dense = {"H10": pair["H10"] * float("nan"), "warp10": warp.float().masked_fill(~seen[..., None], float("nan"))}
    torch.testing.assert_close(
        compute(model, maps, pair | dense, weights, OPTIONS).losses["repeatability"], by_homography
    )
    wrong = {"H10": pair["H10"] + torch.tensor([[0, 0, 9.0], [0, 0, 0], [0, 0, 0]])}
    assert float(compute(model, maps, pair | wrong, weights, OPTIONS).losses["repeatability"]) > 0.1


def test_relations_are_zero_for_the_teachers_own_descriptors(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]
) -> None:
    maps = run(model.eval(), batch)
    own = model.describe(maps, torch.cat([batch["points0"], batch["points1"]]))[:2].detach()
    found = compute(model, maps, batch | {"teacher": own}, {"relations": 1.0}, OPTIONS).losses["relations"]
    assert abs(float(found.detach())) < 1e-6
    assert float(compute(model, maps, batch, {"relations": 1.0}, OPTIONS).losses["relations"]) > 1e-3
    without = {name: value for name, value in batch.items() if name != "teacher"}
    assert float(compute(model, maps, without, {"relations": 1.0}, OPTIONS).losses["relations"]) == 0.0


def test_reliability_trains_nothing_else(model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]) -> None:
    weights = {"reliability_bce": 1.0, "reliability_ap": 1.0}
    losses = compute(model, run(model, batch), batch, weights, OPTIONS).losses
    torch.stack(list(losses.values())).sum().backward()
    moved = {
        name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    }
    assert moved == {"reliability"}


@pytest.mark.parametrize(("decoupled", "trunk_learns"), [(True, False), (False, True)])
def test_decoupled_detection_leaves_the_descriptors_features(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor], decoupled: bool, trunk_learns: bool
) -> None:
    compute(model, run(model, batch, decoupled), batch, {"heat": 1.0}, OPTIONS).losses["heat"].backward()
    learned = any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in model.pyramid.parameters())
    assert learned == trunk_learns
    assert any(p.grad is not None for p in model.detail.parameters())


def test_exact_positions_are_those_of_shapes_alone(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]
) -> None:
    maps, weights = run(model, batch), {"position": 1.0, "anchor": 1.0}
    exact = ObjectiveOptions(max_keypoints=64, exact_positions=True)
    of_scenes = compute(model, maps, batch, weights, exact).losses
    assert all(float(value.detach()) == 0.0 for value in of_scenes.values())
    shapes = batch | {"is_scene": torch.zeros(2)}
    torch.testing.assert_close(
        compute(model, maps, shapes, weights, exact).losses, compute(model, maps, batch, weights, OPTIONS).losses
    )


def test_success_of_shapes_asks_for_the_place_and_of_scenes_for_the_match_as_well(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]
) -> None:
    """With descriptors that are all the same nothing matches, so every keypoint of a scene has failed."""
    maps = run(model, batch)
    model.describe = lambda maps, keypoints: torch.ones(*keypoints.shape[:2], 4) / 2  # type: ignore[method-assign]
    weights = {"success": 1.0}
    scenes = compute(model, maps, batch, weights, OPTIONS).losses["success"]
    shapes = compute(model, maps, batch | {"is_scene": torch.zeros(2)}, weights, OPTIONS).losses["success"]
    assert float(shapes.detach()) > float(scenes.detach())  # the untrained probabilities are small: failing is expected


def test_a_guide_is_imitated_perfectly_by_itself(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "guide.safetensors"
    save_checkpoint(model.eval(), path)
    guide = Guide(str(path), model.config, torch.device("cpu"))
    images = torch.cat([batch["image0"], batch["image1"]])
    maps, weights = run(model, batch), {"imitate_scores": 1.0, "imitate_descriptors": 1.0}
    own = compute(model, maps, batch, weights, OPTIONS, (guide, guide.maps(images))).losses
    assert abs(float(own["imitate_descriptors"].detach())) < 1e-4
    torch.manual_seed(5)
    other = SemanticKeypointDetector(model.config).eval()
    others = compute(other, run(other, batch), batch, weights, OPTIONS, (guide, guide.maps(images))).losses
    for name, value in others.items():
        assert float(value.detach()) > float(own[name].detach()) + 1e-4
    torch.stack(list(others.values())).sum().backward()
    assert all(p.grad is None for p in guide.model.parameters())
    assert any(p.grad is not None for p in other.stem.parameters())


def test_a_guide_has_to_fit(model: SemanticKeypointDetector, tmp_path: Path) -> None:
    path = tmp_path / "guide.safetensors"
    save_checkpoint(model, path)
    wider = ModelConfig.from_mapping(MODEL | {"descriptor_dim": 32})
    with pytest.raises(ConfigError, match="width 16, the model to train has 32"):
        Guide(str(path), wider, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"imitate_scores needs guide"):
        small_config(stages={"detector": {"losses": {"imitate_scores": 1.0}}})


def test_nano_learns_from_compact() -> None:
    config = TrainConfig.load("configs/nano.yaml")
    assert config.guide == "compact"
    assert config.model.descriptor_dim == ModelConfig().descriptor_dim  # so that descriptors of both can be matched


@pytest.mark.parametrize("name", ["reliability_bce", "covariance_nll"])
def test_judges_change_nothing_but_themselves_unless_attached(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor], name: str
) -> None:
    part = {"reliability_bce": "reliability", "covariance_nll": "covariance"}[name]
    with torch.no_grad():  # an untrained head has no slope to send gradients through
        model.get_submodule(part).layers[2].weight.normal_(0, 0.1)  # ty: ignore
    for attached in (False, True):
        model.zero_grad(set_to_none=True)
        options = ObjectiveOptions(max_keypoints=64, match_px=60.0, attached_judges=attached)
        compute(model, run(model, batch), batch, {name: 1.0}, options).losses[name].backward()
        reached = {
            key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())
        }
        assert part in reached
        assert (len(reached) > 1) is attached
        assert "offset" not in reached  # places of keypoints are no matter of how they are judged
    assert {"stem", "pyramid", "detail"} <= reached


def test_the_likelihood_of_covariances_is_best_at_the_true_spread(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor]
) -> None:
    """All matches count as right: their spread is known, and both keypoints have a half of it."""
    options = ObjectiveOptions(max_keypoints=64, match_px=1e9)
    maps = run(model.eval(), batch)
    covariance = model.covariance
    assert covariance is not None
    last = covariance.layers[2]
    values = []
    for sigma in (0.3, 1.0, 3.0):
        with torch.no_grad():
            last.bias.copy_(torch.tensor([sigma, sigma, 1.0]).log())  # ty: ignore
        values.append(compute(model, maps, batch, {"covariance_nll": 1.0}, options).losses["covariance_nll"].item())
    assert values[0] > values[1] > values[2]  # random descriptors: matches lie many pixels off


def test_covariances_need_a_head_and_positive_weights() -> None:
    with pytest.raises(ConfigError, match=r"set model\.covariance to true"):
        plan_stage(small_config(stages=only("reliability", losses={"covariance_nll": 1.0})), "reliability")
    with pytest.raises(ConfigError, match="covariance_nll can be"):
        FinetuneStage(gradients="kendall", losses={"covariance_nll": 1.0})
