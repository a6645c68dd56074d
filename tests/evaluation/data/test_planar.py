"""Layouts of planar data sets: what is found, how it is grouped, what is said of broken folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import semkey
from semkey.errors import DatasetError
from semkey.evaluation.data.pairs import HomographyTruth
from semkey.evaluation.data.planar import HPATCHES_EXCLUDED, planar_sets
from semkey.extractors import create_extractor
from semkey.images.writing import write_image

IDENTITY = "1 0 0\n0 1 0\n0 0 1\n"


def write_matrix(path: Path, k: int) -> None:
    """A shift by k pixels, in the number format of the releases."""
    path.write_text(f"  1.0000000e+00 0.0000000e+00   {k:e} \n 0 1 0 \n 0 0 1\n\n")


def make_hpatches(root: Path, scenes: list[str], suffix: str = ".png") -> Path:
    for scene in scenes:
        (root / scene).mkdir(parents=True)
        for k in range(1, 7):
            write_image(root / scene / f"{k}{suffix}", np.full((20, 30 + k, 3), 10 * k, np.uint8))
            if k > 1:
                write_matrix(root / scene / f"H_1_{k}", k)
    return root


def make_oxford(folder: Path, numbers: tuple[int, ...] = (1, 2, 3)) -> Path:
    folder.mkdir(parents=True)
    for k in numbers:
        write_image(folder / f"img{k}.png", np.full((20, 30, 3), 10 * k, np.uint8))
        if k > 1:
            write_matrix(folder / f"H1to{k}p", k)
    return folder


def make_pairs(folder: Path, names: tuple[str, ...] = ("adam", "Boston")) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        write_image(folder / f"{name}A.png", np.zeros((20, 30, 3), np.uint8))
        write_image(folder / f"{name}B.jpg", np.zeros((25, 35, 3), np.uint8))
        write_matrix(folder / f"{name}_H_A_to_B.txt", number)
    return folder


def shift(pair_truth: object) -> float:
    assert isinstance(pair_truth, HomographyTruth)
    assert pair_truth.H10.dtype == np.float64
    return float(pair_truth.H10[0, 2])


def test_hpatches(tmp_path: Path) -> None:
    root = make_hpatches(tmp_path / "hpatches", ["v_wall", "i_dome", "i_dc"])
    (found,) = planar_sets(root)
    assert found.name == "hpatches"
    assert len(found.pairs) == 15
    assert len({pair.name for pair in found.pairs}) == 15
    first = found.pairs[0]
    assert (first.name, first.group, first.image0.key, first.image1.key) == (
        "i_dc 1-2",
        "illumination",
        "i_dc/1",
        "i_dc/2",
    )
    assert first.image1.read()[0, 0].tolist() == [20, 20, 20]
    assert first.image1.size == (32, 20)
    assert [shift(pair.truth) for pair in found.pairs[:5]] == [2, 3, 4, 5, 6]
    assert found.pairs[-1].group == "viewpoint"


def test_hpatches_exclusions_are_named_and_counted(tmp_path: Path) -> None:
    root = make_hpatches(tmp_path / "hpatches", ["v_wall", "i_dome", "i_dc", "v_talent"])
    (found,) = planar_sets(root, exclude_hpatches=True)
    assert {pair.name.split()[0] for pair in found.pairs} == {"i_dome", "v_wall"}
    assert "2 scenes" in found.description
    assert found.description != planar_sets(root)[0].description
    assert len(set(HPATCHES_EXCLUDED)) == 8
    assert sum(name.startswith("i_") for name in HPATCHES_EXCLUDED) == 5


def test_one_scene_of_hpatches(tmp_path: Path) -> None:
    root = make_hpatches(tmp_path / "hpatches", ["v_wall"], ".tif")
    (found,) = planar_sets(root / "v_wall")
    assert found.name == "v_wall"
    assert [pair.group for pair in found.pairs] == ["viewpoint"] * 5
    make_hpatches(tmp_path / "other", ["i_dc"])
    with pytest.raises(DatasetError, match="excluded"):
        planar_sets(tmp_path / "other" / "i_dc", exclude_hpatches=True)


def test_oxford_and_pairs_below_one_root(tmp_path: Path) -> None:
    make_oxford(tmp_path / "wall", (1, 2, 3, 10))
    make_pairs(tmp_path / "homogr")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    homogr, wall = planar_sets(tmp_path)
    assert (homogr.name, wall.name) == ("homogr", "wall")
    assert [pair.name for pair in wall.pairs] == ["1-2", "1-3", "1-10"]
    assert [shift(pair.truth) for pair in wall.pairs] == [2, 3, 10]
    assert [pair.name for pair in homogr.pairs] == ["adam", "Boston"]
    assert homogr.pairs[1].image1.size == (35, 25)
    assert {pair.group for pair in (*wall.pairs, *homogr.pairs)} == {""}
    assert [pair.name for pair in planar_sets(tmp_path / "wall")[0].pairs] == ["1-2", "1-3", "1-10"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0\n0 1\n0 0 1\n", r"H1to2p:2: expected 3 numbers .* found 2"),
        ("1 0 0\n0 1 0\n", r"H1to2p: expected 3 rows .* found 2"),
        (IDENTITY + "0 0 1\n", r"H1to2p: expected 3 rows .* found 4"),
        ("1 0 0\n0 one 0\n0 0 1\n", r"H1to2p:2: 'one' is not a number"),
        ("1 0 0\n0 1 0\n0 0 nan\n", r"H1to2p:3: 'nan' is not a finite number"),
        ("1 0 0\n2 0 0\n0 0 1\n", r"H1to2p: the homography is singular"),
        ("0 0 0\n0 0 0\n0 0 0\n", r"H1to2p: the homography is singular"),
        ("", r"H1to2p: expected 3 rows"),
    ],
)
def test_a_broken_matrix_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    folder = make_oxford(tmp_path / "wall")
    (folder / "H1to2p").write_text(text)
    with pytest.raises(DatasetError, match=message):
        planar_sets(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = make_oxford(tmp_path / "wall")
    (folder / "H1to3p").unlink()
    with pytest.raises(DatasetError, match=r"wall/H1to3p: file is missing"):
        planar_sets(folder)
    write_matrix(folder / "H1to3p", 3)
    (folder / "img3.png").unlink()
    with pytest.raises(DatasetError, match=r"wall/img3\.\*: image is missing"):
        planar_sets(folder)
    scene = make_hpatches(tmp_path / "hpatches", ["i_dome"]) / "i_dome"
    (scene / "H_1_4").unlink()
    with pytest.raises(DatasetError, match=r"i_dome/H_1_4: file is missing"):
        planar_sets(tmp_path / "hpatches")
    pairs = make_pairs(tmp_path / "homogr")
    (pairs / "adamB.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"adamB\.jpg: file is empty"):
        planar_sets(pairs)


def test_folders_without_planar_data(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        planar_sets(tmp_path / "none")
    with pytest.raises(DatasetError, match=r"no planar data .* HPatches"):
        planar_sets(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="is a file"):
        planar_sets(tmp_path / "file")


def test_the_shared_planar_data(shared: Path) -> None:
    sets = {found.name: found for found in planar_sets(shared / "data" / "planar")}
    counts = {"graf": 5, "homogr": 6, "v_dogman": 5, "hpatches": 5}
    assert {"graf", "homogr"} <= set(sets)
    assert {name: len(found.pairs) for name, found in sets.items()} == {name: counts[name] for name in sets}
    for pair in (pair for found in sets.values() for pair in found.pairs):
        size0, size1 = pair.image0.size, pair.image1.size
        assert size0 is not None
        assert size1 is not None
        x, y = np.meshgrid(np.linspace(0, size0[0] - 1, 30), np.linspace(0, size0[1] - 1, 30))
        _, seen = pair.truth.project(np.stack([x, y], -1).reshape(-1, 2), size1)
        assert 0.1 < seen.mean() < 1.0, pair.name


def test_real_matches_agree_with_the_direction_and_the_pixels_of_the_matrices(shared: Path) -> None:
    pair = planar_sets(shared / "data" / "planar" / "graf")[0].pairs[0]
    sift = create_extractor("sift", max_keypoints=1000)
    features0, features1 = sift.extract(pair.image0.read()), sift.extract(pair.image1.read())
    indices = semkey.match(features0, features1).indices
    points0 = features0.keypoints[indices[:, 0]].numpy()
    points1 = features1.keypoints[indices[:, 1]].numpy()
    mapped, seen = pair.truth.project(points0, features1.image_size)
    difference = (points1 - mapped)[seen]
    close = np.linalg.norm(difference, axis=1) < 3.0
    assert close.mean() > 0.5
    assert np.abs(np.median(difference[close], axis=0)).max() < 0.3
    assert pair.truth.swapped().project(points0, features1.image_size)[1].sum() > 0
    wrong, _ = pair.truth.swapped().project(points0, features1.image_size)
    assert (np.linalg.norm(points1 - wrong, axis=1) < 3.0).mean() < 0.05
