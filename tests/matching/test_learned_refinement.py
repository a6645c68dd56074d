"""The learned refiner: its arithmetic by hand, gradients, known homographies, when not to move, and its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import semkey
from command_line import Run
from pictures import NEAR, SIZE, drawing, mapped
from semkey.errors import CheckpointError, ConfigError, InputError
from semkey.evaluation.running.methods import create_method
from semkey.images import write_image
from semkey.matching import AlignmentConfig, Matches, refine
from semkey.matching.alignment.learned import align_learned, cut_patches
from semkey.matching.alignment.network import (
    PatchNetwork,
    RefinerInfo,
    RefinerShape,
    read_refiner,
    soft_argmax,
    write_refiner,
)
from semkey.model.features import Features
from semkey.training.refiner.fit import refinement_loss
from training_fakes import PATCH_SHAPE, PATCH_WIDTH, uneven_network, unit_vectors

Array = NDArray[np.float64]


def corners_apart(seed: int, noise: float = 0.7) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Array, Array, Array]:
    """Two drawings of the same corners, the corners in both, and the second ones disturbed."""
    rng = np.random.default_rng(seed)
    (image0, corners), (image1, _) = drawing(np.eye(3), seed), drawing(NEAR, seed)
    truth = mapped(NEAR, corners)
    return image0, image1, corners, truth, truth + rng.normal(0, noise, truth.shape)


# -- the network ---------------------------------------------------------------------------------------------------


def test_the_soft_argmax_is_the_mean_and_covariance_of_the_heat() -> None:
    heat = torch.full((3, 5, 5), -60.0, dtype=torch.float64)
    heat[0, 3, 0] = 0.0  # one place: x -2, y 1
    heat[1, 2, 1] = heat[1, 2, 3] = 0.0  # two places beside the middle
    heat[2] = 0.0
    mean, covariance = soft_argmax(heat)
    expected = torch.tensor([[-2.0, 1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(mean, expected, atol=1e-12, rtol=0)
    spread = torch.tensor([[[0.0, 0], [0, 0]], [[1, 0], [0, 0]], [[2, 0], [0, 2]]], dtype=torch.float64)
    torch.testing.assert_close(covariance, spread, atol=1e-12, rtol=0)


def test_a_network_that_has_learned_nothing_moves_nothing() -> None:
    image0, image1, corners, _, start = corners_apart(0)
    found = align_learned(
        PatchNetwork(PATCH_WIDTH, PATCH_SHAPE), image0, image1, corners, start, unit_vectors(len(corners))
    )
    assert not found.moved.any()
    np.testing.assert_array_equal(found.points1, start)
    np.testing.assert_array_equal(found.covariances, np.tile(np.eye(2), (len(start), 1, 1)))


def test_each_place_sees_seven_pixels_and_is_compared_with_the_middle_of_the_first() -> None:
    network = uneven_network()
    patches0, patches1 = torch.randn(2, 11, 11), torch.randn(2, 11, 11)
    heat = network.heat(patches0, patches1, unit_vectors(2))
    rim, far = patches0.clone(), patches1.clone()
    rim[:, :2] = rim[:, -2:] = 7.0
    far[:, 7:] = 7.0
    torch.testing.assert_close(network.heat(rim, patches1, unit_vectors(2)), heat)
    changed = network.heat(patches0, far, unit_vectors(2))
    torch.testing.assert_close(changed[:, 0], heat[:, 0])
    assert not torch.allclose(changed[:, 1], heat[:, 1])
    inner = patches0.clone()
    inner[:, 5, 5] += 3.0
    assert not torch.allclose(network.heat(inner, patches1, unit_vectors(2)), heat)


# -- what it does with images --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> PatchNetwork:
    """Trained on corners of other drawings, which start up to two pixels off."""
    rows = []
    for seed in range(20, 30):
        image0, image1, corners, truth, start = corners_apart(seed)
        off = np.linalg.norm(truth - start, axis=1) < 2
        cut = cut_patches(image0, image1, corners[off], start[off])
        rows.append((cut.patches0, cut.patches1, cut.deformations, (truth - start)[off]))
    columns = [torch.from_numpy(np.concatenate(values)).float() for values in zip(*rows, strict=True)]
    torch.manual_seed(0)
    network = PatchNetwork(PATCH_WIDTH, RefinerShape(channels=16))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    steps, generator = 600, torch.Generator().manual_seed(0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(columns[0]), (128,), generator=generator)
        patches0, patches1, deformations, misses = (column[chosen] for column in columns)
        unrelated = torch.rand(128, generator=generator) < 0.15
        patches0 = torch.where(unrelated[:, None, None], patches0.roll(1, 0), patches0)
        descriptors = torch.zeros(128, PATCH_WIDTH)
        loss = refinement_loss(network, (patches0, patches1), descriptors, deformations, misses, unrelated)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def test_corners_are_found_to_a_fraction_of_a_pixel(trained: PatchNetwork) -> None:
    image0, image1, corners, truth, start = corners_apart(3)
    near = np.linalg.norm(truth - start, axis=1) < 2
    found = align_learned(trained, image0, image1, corners, start, torch.zeros(len(corners), PATCH_WIDTH))
    errors = np.linalg.norm(found.points1 - truth, axis=1)
    assert np.median(np.linalg.norm(start - truth, axis=1)) > 0.7
    assert found.moved[near].mean() > 0.8
    assert np.median(errors[found.moved]) < 0.15
    deviations = (found.points1 - truth)[found.moved & near]
    inverse = np.linalg.inv(found.covariances[found.moved & near])
    squares = np.einsum("mi,mij,mj->m", deviations, inverse, deviations)
    assert 0.15 < np.median(squares) < 6.0  # 1.39 for two degrees of freedom


def test_what_shows_something_else_or_nothing_stays_where_it_is(trained: PatchNetwork) -> None:
    image0, image1, corners, _, start = corners_apart(3)
    none = torch.zeros(len(corners), PATCH_WIDTH)
    right = align_learned(trained, image0, image1, corners, start, none)
    noise = np.random.default_rng(0).integers(0, 256, image0.shape, dtype=np.uint8)
    other = align_learned(trained, image0, noise, corners, start, none)
    assert other.moved.mean() < 0.02
    blank = align_learned(trained, image0, np.full_like(image0, 90), corners, start, none)
    assert not blank.moved.any()
    np.testing.assert_array_equal(blank.points1, start)
    assert np.linalg.norm(right.points1 - start, axis=1).max() <= 3.0
    outside = align_learned(trained, image0, image1, corners, start * 0.0 - 0.4, none)
    assert (outside.points1 >= -0.5).all()


def test_matches_together_and_one_by_one_give_the_same() -> None:
    image0, image1, corners, _, start = corners_apart(0)
    network = uneven_network().eval()
    corners, start = corners[:4], start[:4]  # so few that none is deformed by the others
    together = align_learned(network, image0, image1, corners, start, unit_vectors(4))
    for k in range(4):
        alone = align_learned(network, image0, image1, corners[k : k + 1], start[k : k + 1], unit_vectors(4)[k : k + 1])
        np.testing.assert_allclose(alone.points1[0], together.points1[k], atol=1e-5)
        np.testing.assert_allclose(alone.covariances[0], together.covariances[k], atol=1e-5)
        assert alone.moved[0] == together.moved[k]


# -- semkey.refine and files ---------------------------------------------------------------------------------------


@pytest.fixture
def refiner(trained: PatchNetwork, tmp_path: Path) -> Path:
    """The trained network as a file."""
    path = tmp_path / "refiner.safetensors"
    write_refiner(
        path, trained, RefinerInfo(features="corners", input_dim=PATCH_WIDTH, shape=RefinerShape(channels=16))
    )
    return path


def features_at(points: Array) -> Features:
    count, width, height = len(points), *SIZE
    return Features(
        keypoints=torch.from_numpy(points).float(),
        scores=torch.ones(count),
        reliability=torch.ones(count),
        descriptors=unit_vectors(count),
        global_descriptor=torch.zeros(0),
        image_size=(width, height),
        method="corners",
    )


@pytest.fixture(scope="module")
def views() -> tuple[NDArray[np.uint8], NDArray[np.uint8], Features, Features, Matches]:
    """Features at corners, matched in another order, and two that nothing matches."""
    image0, image1, corners, _, start = corners_apart(3)
    count = len(corners) - 2
    indices = torch.stack([torch.arange(count), torch.arange(count)], dim=1).flip(0)
    matches = Matches(indices=indices, scores=torch.ones(count))
    return image0, image1, features_at(corners), features_at(start), matches


def test_refine_takes_a_file_and_moves_keypoints_nearer_to_the_truth(views: tuple, refiner: Path) -> None:
    image0, image1, features0, features1, matches = views
    before = features1.keypoints.clone()
    refined = refine(features0, features1, matches, image0, image1, method=refiner)
    torch.testing.assert_close(features1.keypoints, before, rtol=0, atol=0)
    truth = mapped(NEAR, refined.points0.double().numpy())
    old = np.linalg.norm(before[matches.indices[:, 1]].numpy() - truth, axis=1)
    new = np.linalg.norm(refined.points1.numpy() - truth, axis=1)
    right = old < 2
    assert right.sum() > 50
    assert np.median(new[right]) < 0.3 * np.median(old[right])
    unmatched = np.setdiff1d(np.arange(len(before)), matches.indices[:, 1].numpy())
    assert refined.features1 is not None
    torch.testing.assert_close(refined.features1.keypoints[unmatched], before[unmatched], rtol=0, atol=0)
    none = Matches(indices=torch.zeros((0, 2), dtype=torch.int64), scores=torch.zeros(0))
    assert refine(features0, features1, none, image0, image1, method=refiner).covariances.shape == (0, 2, 2)


def test_bad_methods_and_files_are_one_clear_error(views: tuple, refiner: Path, tmp_path: Path) -> None:
    image0, image1, features0, features1, matches = views

    def tried(method: str | Path, config: AlignmentConfig | None = None) -> None:
        refine(features0, features1, matches, image0, image1, method=method, config=config)

    with pytest.raises(ConfigError, match=r"unknown method 'aligned'.*alignment, learned or a file"):
        tried("aligned")
    with pytest.raises(ConfigError, match="no learned refiner comes with semkey for the features 'corners'"):
        tried("learned")
    with pytest.raises(ConfigError, match="settings of the alignment"):
        tried(refiner, AlignmentConfig())
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file of a refiner"):
        tried(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(refiner.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: cannot be read"):
        tried(tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match="is no refiner of semkey"):
        tried(Path(semkey.__file__).parent / "weights/compact.safetensors")
    network, info = read_refiner(refiner)
    write_refiner(
        tmp_path / "narrow.safetensors", PatchNetwork(64, PATCH_SHAPE), replace(info, input_dim=64, shape=PATCH_SHAPE)
    )
    with pytest.raises(InputError, match="trained for 'corners' of width 64, got descriptors of width 8"):
        tried(tmp_path / "narrow.safetensors")
    write_refiner(tmp_path / "other.safetensors", network, replace(info, shape=PATCH_SHAPE))
    with pytest.raises(CheckpointError, match="does not fit the refiner's network"):
        tried(tmp_path / "other.safetensors")
    network.spread.data.fill_(torch.nan)
    write_refiner(refiner, network, info)
    with pytest.raises(CheckpointError, match="not finite"):
        tried(refiner)


def test_the_command_line_refines_by_a_file(views: tuple, refiner: Path, tmp_path: Path, run: Run) -> None:
    import json

    for name, image in zip("ab", views[:2], strict=True):
        write_image(tmp_path / f"{name}.png", np.repeat(image[:, :, None], 3, axis=2))
    network = PatchNetwork(256, RefinerShape(channels=16))
    network.load_state_dict(read_refiner(refiner)[0].state_dict() | {"from_descriptor.weight": torch.zeros(16, 256)})
    write_refiner(refiner, network, RefinerInfo(features="orb", input_dim=256, shape=RefinerShape(channels=16)))
    arguments = ("match", tmp_path / "a.png", tmp_path / "b.png", "-f", "orb", "-n", "300", "--json", "-")
    done = run(*arguments, "--refiner", refiner)
    assert done.code == 0
    moved = [match["moved"] for match in json.loads(done.out)["matches"]]
    assert 10 < sum(moved) < len(moved)
    missing = run(*arguments, "--refiner", tmp_path / "none.safetensors")
    assert missing.code == 2
    assert "no such file of a refiner" in missing.err


def test_methods_of_an_evaluation_name_the_file(refiner: Path, tmp_path: Path) -> None:
    plain, learned = create_method("orb+refine"), create_method(f"orb+dual-softmax+refine={refiner}")
    assert (plain.refinement, learned.refinement) == ("alignment", refiner)
    assert learned.matching["matcher"] == "dual-softmax"
    assert len(learned.matching["refinement"]["weights_sha256"]) == 64
    assert plain.matching["refinement"]["radius"] == 5
    with pytest.raises(CheckpointError, match="no such file of a refiner"):
        create_method(f"orb+refine={tmp_path / 'none.safetensors'}")
