"""Losses over clips: a detector that follows the picture is rewarded, unrelated pictures are not, gradients go home."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, default_collate

from semkey.errors import ConfigError
from semkey.model.dense import DenseMaps
from semkey.model.presets import load_detector
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training import fit
from semkey.training.objectives.clips import clip_losses, clip_rows, middle_images
from semkey.training.objectives.losses import compute
from semkey.training.stage_config import CLIP_LOSSES, DetectorStage, FinetuneStage, ObjectiveOptions
from training_fakes import SIDE, ShiftedPairs, only, small_config

FRAMES, POINTS = 4, 48
OPTIONS = ObjectiveOptions(max_keypoints=200)


class SlidingClips(Dataset):
    """A random picture that slides by a few pixels per frame: where each of its points goes is known.

    Args:
        seed: of the pictures.
        unrelated: every frame shows another picture.
    """

    def __init__(self, seed: int = 0, *, unrelated: bool = False, side: int = SIDE) -> None:
        self.seed, self.unrelated, self.side = seed, unrelated, side

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index])
        side = self.side
        pictures = [_picture(rng, side + 40) for _ in range(FRAMES if self.unrelated else 1)]
        steps = np.cumsum(np.concatenate([[[20, 20]], rng.integers(-4, 5, (FRAMES - 1, 2))]), axis=0)
        views = [pictures[k % len(pictures)][y : y + side, x : x + side] for k, (x, y) in enumerate(steps)]
        frames = torch.stack([torch.from_numpy(((v - v.mean()) / v.std()).copy())[None] for v in views])
        starts = rng.uniform(20, side - 20, (POINTS, 2))
        tracks = torch.from_numpy(starts[:, None] + (steps[0] - steps)[None]).float()
        return {
            "image0": frames[0],
            "image1": frames[-1],
            "frames": frames[1:-1],
            "tracks": tracks,
            "scene": torch.tensor(index),
            "clip": torch.tensor(index),
            "points0": tracks[:, 0],
            "points1": tracks[:, -1],
            "H10": torch.full((3, 3), float("nan"), dtype=torch.float64),
            "warp10": torch.full((side, side, 2), float("nan")),
            "is_scene": torch.tensor(1.0),
            **{f"targets{k}": torch.zeros(64, 3) for k in range(2)},
            **{f"valid{k}": torch.ones(side, side, dtype=torch.bool) for k in range(2)},
        }


def _picture(rng: np.random.Generator, side: int) -> np.ndarray:
    return cv2.GaussianBlur(rng.uniform(0, 255, (side, side)).astype(np.float32), (0, 0), 2.0)


@pytest.fixture(scope="module")
def compact() -> SemanticKeypointDetector:
    return load_detector("compact")


def losses_of(
    model: SemanticKeypointDetector, batch: dict[str, torch.Tensor], wanted: set[str]
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    images = torch.cat([batch["image0"], batch["image1"], middle_images(batch, clip_rows(batch))])  # ty: ignore
    maps = model(images).map(torch.Tensor.float)
    half = len(batch["image0"])
    sides = maps.map(lambda m: m[:half]), maps.map(lambda m: m[half : 2 * half])
    return clip_losses(model, sides, maps.map(lambda m: m[2 * half :]), batch, wanted, OPTIONS)


@pytest.mark.parametrize(("name", "figure"), [("reward_inliers", "reward"), ("reward_tracks", "track")])
def test_one_scene_is_rewarded_and_unrelated_pictures_are_not(
    compact: SemanticKeypointDetector, name: str, figure: str
) -> None:
    torch.manual_seed(0)
    _, known = losses_of(compact, default_collate([SlidingClips(side=160)[0]]), {name})
    _, foreign = losses_of(compact, default_collate([SlidingClips(side=160, unrelated=True)[0]]), {name})
    assert known[figure] > 0.2
    assert foreign[figure] == 0.0


def test_tracks_that_stay_cost_less_than_tracks_that_drift(compact: SemanticKeypointDetector) -> None:
    batch = default_collate([SlidingClips(side=160)[0]])
    wanted = {"temporal_scores", "temporal_descriptors"}
    right, _ = losses_of(compact, batch, wanted)
    drift = torch.linspace(0, 12, FRAMES)[None, None, :, None] * torch.tensor([1.0, -1.0])
    wrong, _ = losses_of(compact, {**batch, "tracks": batch["tracks"] + drift}, wanted)
    assert all(float(right[name]) < 0.7 * float(wrong[name]) for name in wanted)


def test_the_frames_between_are_used_in_their_order(compact: SemanticKeypointDetector) -> None:
    batch = default_collate([SlidingClips(side=160)[0], SlidingClips(side=160)[1]])
    ordered, _ = losses_of(compact, batch, {"temporal_descriptors"})
    swapped = {**batch, "frames": batch["frames"].flip(0)}  # those of the other clip
    other, _ = losses_of(compact, swapped, {"temporal_descriptors"})
    backwards, _ = losses_of(compact, {**batch, "frames": batch["frames"].flip(1)}, {"temporal_descriptors"})
    assert float(ordered["temporal_descriptors"]) < 0.8 * float(other["temporal_descriptors"])
    assert float(ordered["temporal_descriptors"]) < 0.8 * float(backwards["temporal_descriptors"])


def test_an_inlier_in_a_foreign_image_is_a_penalty(
    compact: SemanticKeypointDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies of one clip that claim to be of different scenes: what matches between them loses its reward."""
    import semkey.training.objectives.clips as module

    seen: list[torch.Tensor] = []
    monkeypatch.setattr(module, "policy_loss", lambda draws, rewards: seen.extend(rewards) or torch.zeros(()))
    batch = default_collate([SlidingClips(side=160)[0], SlidingClips(side=160)[0]])
    torch.manual_seed(0)
    losses_of(compact, batch, {"reward_inliers"})
    assert all(float(reward.min()) >= 0.0 for reward in seen)
    seen.clear()
    torch.manual_seed(0)
    losses_of(compact, {**batch, "scene": torch.tensor([0, 1])}, {"reward_inliers"})
    assert [float(reward.min()) for reward in seen] == [-0.5, 0.0, -0.5, 0.0]  # view 0 is what is compared


@pytest.mark.parametrize("name", CLIP_LOSSES)
def test_each_loss_has_a_gradient_and_is_nothing_without_clips(name: str) -> None:
    torch.manual_seed(0)
    model = load_detector("compact")  # ready for inference: not trainable
    model = SemanticKeypointDetector(model.config).train()
    batch = default_collate([SlidingClips(side=160)[0]])
    maps = model(torch.cat([batch["image0"], batch["image1"], batch["frames"].flatten(0, 1)]))
    views, middle = maps.map(lambda m: m[:2]), maps.map(lambda m: m[2:])
    result = compute(model, views, batch, {name: 1.0}, OPTIONS, None, middle)
    assert list(result.losses) == [name]
    assert torch.isfinite(result.losses[name])
    pairs = default_collate([ShiftedPairs()[0]])
    nothing = compute(model, model(torch.cat([pairs["image0"], pairs["image1"]])), pairs, {name: 1.0}, OPTIONS)
    assert float(nothing.losses[name].detach()) == 0.0
    if name.startswith("temporal"):  # a random network earns no reward to learn from
        result.losses[name].backward()
        assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) > 0


def test_the_reward_reaches_the_detector_and_nothing_else(compact: SemanticKeypointDetector) -> None:
    torch.manual_seed(1)
    batch = default_collate([SlidingClips(side=160)[0]])
    with torch.no_grad():
        images = torch.cat([batch["image0"], batch["image1"], batch["frames"].flatten(0, 1)])
        maps = compact(images).map(torch.Tensor.float)
    leaves = DenseMaps(
        log_probability=maps.log_probability.clone().requires_grad_(),
        grid=maps.grid,
        fine=maps.fine.clone().requires_grad_(),
        detail=maps.detail,
        coarse=maps.coarse,
    )
    sides = leaves.map(lambda m: m[:1]), leaves.map(lambda m: m[1:2])
    losses, _ = clip_losses(compact, sides, leaves.map(lambda m: m[2:]), batch, {"reward_tracks"}, OPTIONS)
    losses["reward_tracks"].backward()
    gradient = leaves.log_probability.grad
    assert gradient is not None
    assert float(gradient[0].abs().max()) > 0.0  # keypoints are drawn from the first frame
    assert float(gradient[1:].abs().max()) == 0.0
    assert leaves.fine.grad is None


def test_losses_without_negatives_need_one_beside_them() -> None:
    alone = {"temporal_descriptors": 1.0, "match_dual_softmax": 0.0}
    with pytest.raises(ConfigError, match=r"temporal_descriptors alone makes all descriptors equal"):
        FinetuneStage(losses={**alone, "heat": 1.0})
    with pytest.raises(ConfigError, match="trains nothing with mode 'decoupled'"):
        DetectorStage(losses={"temporal_descriptors": 1.0})
    assert FinetuneStage(losses={"temporal_descriptors": 1.0, "match_dual_softmax": 1.0}).active_losses


LOSSES = {
    **dict.fromkeys(("reward_inliers", "reward_tracks", "temporal_scores", "temporal_descriptors"), 1.0),
    "match_dual_softmax": 1.0,
    "heat": 0.0,
    "position": 0.0,
    "reprojection": 0.0,
    "anchor": 0.0,
}


def clip_config(**changes: Any) -> Any:
    stages = only("detector", mode="joint", losses=LOSSES, detected_from=0)
    config = small_config(
        stages=stages,
        pairs_per_epoch=6,
        optimizer={"batch_pairs": 2, "micro_batch": 2},
        validation={"pairs": 1, "every": 100, "pictures": 0},
        run={"save_every": 0, "keep": 9},
        **changes,
    )
    return replace(config, data=replace(config.data, clips=replace(config.data.clips, frames=FRAMES)))


def test_training_on_clips_stops_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = fit(clip_config(), tmp_path / "whole", train_pairs=SlidingClips(), val_pairs=SlidingClips(1))
    folder = tmp_path / "resumed"
    fit(clip_config(), folder, train_pairs=SlidingClips(), val_pairs=SlidingClips(1))
    for file in sorted((folder / "checkpoints").iterdir())[1:]:
        file.unlink()  # as if it had been killed after the first step
    (folder / "stages" / "detector.safetensors").unlink()
    again = fit(clip_config(), folder, resume=True, train_pairs=SlidingClips(), val_pairs=SlidingClips(1))
    assert again.weights.read_bytes() == whole.weights.read_bytes()
