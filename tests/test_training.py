"""The training scripts: pairs that correspond, losses that see them, a resume that is bit-exact, disjoint splits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import objectives
import pairs
import pytest
import shapes
import torch
import train_compact
from torch.utils.data import default_collate

from semkey.errors import InputError
from semkey.model.semantic_detector import SemanticKeypointDetector


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two smooth random photos and made-up teacher keypoints."""
    folder, teacher = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("teacher")
    rng = np.random.default_rng(0)
    for index in range(2):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8), (0, 0), 3)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.normalize(noise, noise.copy(), 0, 255, cv2.NORM_MINMAX))
        keypoints = rng.uniform([5, 5], [395, 295], (400, 2)).astype(np.float32)
        np.savez(teacher / f"{index}.npz", keypoints=keypoints, scores=rng.uniform(0, 1, 400).astype(np.float32))
    return folder, teacher


def test_points_of_a_pair_correspond(photos: tuple[Path, Path]) -> None:
    data = pairs.PhotoPairs(*photos, pairs.PairConfig(points=64), seed=0)
    for index in range(4):
        pair = data[index]
        projected = objectives.warp_points(pair["H01"], pair["points0"])
        torch.testing.assert_close(projected, pair["points1"], atol=1e-2, rtol=0)
        assert (pair["points1"] >= 0).all()
        assert (pair["points1"] <= torch.tensor([319.0, 255.0])).all()
        assert pair["image0"].mean().abs() < 1e-4


def test_pictures_of_a_pair_correspond(photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without photometric change, view 1 read at the mapped points shows what view 0 shows."""
    monkeypatch.setattr(pairs, "relight", lambda _, image: image)
    monkeypatch.setattr(pairs, "normalize", lambda image: torch.from_numpy(image).float()[None])
    config = pairs.PairConfig(points=200, scale=1.1, shapes=0.0)
    pair = pairs.PhotoPairs(*photos, config, seed=3)[0]

    def read(name: str) -> torch.Tensor:
        image, points = pair[f"image{name}"], pair[f"points{name}"]
        grid = (2 * points + 1) / torch.tensor([320.0, 256.0]) - 1
        return torch.nn.functional.grid_sample(image[None], grid[None, None], align_corners=False)[0, 0, 0]

    assert (read("0") - read("1")).abs().median() < 4.0
    assert read("0").std() > 12.0


def test_pairs_depend_on_seed_and_index_alone(photos: tuple[Path, Path]) -> None:
    first, again, other = (pairs.PhotoPairs(*photos, pairs.PairConfig(), seed=seed) for seed in (1, 1, 2))
    first[0]
    assert torch.equal(first[5]["image1"], again[5]["image1"])
    assert not torch.equal(first[5]["image1"], other[5]["image1"])


def test_missing_photos_and_targets_are_told(photos: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no photos"):
        pairs.PhotoPairs(tmp_path, photos[1], pairs.PairConfig(), seed=0)
    with pytest.raises(InputError, match=r"no targets for 0\.png"):
        pairs.PhotoPairs(photos[0], tmp_path, pairs.PairConfig(), seed=0)


def test_shapes_know_their_corners() -> None:
    """Around a keypoint of a synthetic picture the grey values change; elsewhere they mostly do not."""
    image, keypoints = shapes.draw_shapes(np.random.default_rng(4))
    assert len(keypoints) > 30
    spread = cv2.dilate(image, np.ones((5, 5), np.uint8)).astype(int) - cv2.erode(image, np.ones((5, 5), np.uint8))
    at_keypoints = spread[np.rint(keypoints[:, 1]).astype(int), np.rint(keypoints[:, 0]).astype(int)]
    assert np.median(at_keypoints) > 4 * max(np.median(spread), 4)


def test_every_loss_is_finite_and_every_part_learns(photos: tuple[Path, Path]) -> None:
    torch.manual_seed(0)
    model = SemanticKeypointDetector().train()
    data = pairs.PhotoPairs(*photos, pairs.PairConfig(points=64, shapes=0.0), seed=0)
    batch = default_collate([data[0], data[1]])
    maps = model(torch.cat([batch["image0"], batch["image1"]]))
    result = objectives.compute(model, maps, batch, with_detected=True)
    assert all(set(result.losses) == set(weights) for weights in objectives.STAGES.values())
    assert all(bool(torch.isfinite(value)) for value in result.losses.values())
    assert 0.0 <= result.figures["precision"] <= 1.0
    result.total(objectives.JOINT).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def weights_after(photos: tuple[Path, Path], run: Path, *runs: tuple[int, bool]) -> dict[str, Any]:
    """Train in ``run`` up to each of the step counts in turn; the schedule is that of 4 steps."""
    for steps, resume in runs:
        arguments = [*map(str, (*photos, run)), "--steps", "4", "--batch", "1", "--save-every", "1"]
        args = train_compact.read_arguments([*arguments, *(["--resume"] if resume else [])])
        run.mkdir(exist_ok=True)
        trainer = train_compact.Trainer(args)
        stop, args.steps = args.steps, steps
        trainer.rate = lambda at=trainer, total=stop: 1e-3 * (1 - at.step / (2 * total))
        train_compact.run(trainer)
    return torch.load(run / "last.pt", weights_only=True)


def test_resuming_is_bit_exact(photos: tuple[Path, Path], tmp_path: Path) -> None:
    straight = weights_after(photos, tmp_path / "straight", (4, False))
    resumed = weights_after(photos, tmp_path / "resumed", (2, False), (4, True))
    assert straight["step"] == resumed["step"] == 4
    for part in ("model", "average"):
        for name, value in straight[part].items():
            assert torch.equal(value, resumed[part][name]), f"{part} {name}"
    for index, moments in straight["optimizer"]["state"].items():
        assert torch.equal(moments["exp_avg"], resumed["optimizer"]["state"][index]["exp_avg"])
    assert not list((tmp_path / "resumed").glob("*.tmp"))


def test_training_and_validation_photos_are_disjoint(shared: Path) -> None:
    folders = [shared / "data" / "photos" / name for name in ("train", "val")]
    hashes = [{hashlib.sha256(file.read_bytes()).digest() for file in folder.iterdir()} for folder in folders]
    assert all(hashes)
    assert not hashes[0] & hashes[1]
