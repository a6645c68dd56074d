"""Posed photos: tracks of a known plane, read or made; pairs whose points show the same; test scenes that stay out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from posed_photos import plane_points, write_colmap, write_transforms
from semkey.datasets import open_sequence
from semkey.errors import ConfigError, DatasetError
from semkey.training.data import DataConfig, PosedConfig, open_data
from semkey.training.data.config import LightConfig
from semkey.training.data.posed.colmap_points import read_colmap_points
from semkey.training.data.posed.scene import find_scenes, open_scene
from semkey.training.data.posed.tracks import find_tracks, shared_points


def config(folder: Path, cache: Path, **posed: object) -> DataConfig:
    return DataConfig.from_mapping(
        {
            "width": 128,
            "height": 96,
            "points": 96,
            "cache": str(cache),
            "shares": {"photos": 0, "shapes": 0, "rooms": 0, "posed": 1},
            "posed": {"folders": [str(folder)], **posed},
            "light": LightConfig.off().to_mapping(),
            "val_share": 0.3,
        }
    )


def patches(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """5 x 5 pixels around points, (P, 25)."""
    pixels = points.round().long().clamp(min=2)
    steps = torch.arange(-2, 3)
    y = pixels[:, 1, None, None] + steps[:, None]
    x = pixels[:, 0, None, None] + steps
    return image[0][y.clamp(max=image.shape[1] - 1), x.clamp(max=image.shape[2] - 1)].flatten(1)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_points_of_a_model_are_read(tmp_path: Path, binary: bool) -> None:
    write_colmap(tmp_path, binary=binary)
    points, rows, images = read_colmap_points(tmp_path / "sparse/0" / f"points3D.{'bin' if binary else 'txt'}")
    assert np.allclose(points, plane_points())
    assert len(rows) == len(images) == 8 * len(points)
    assert sorted(images[rows == 5].tolist()) == list(range(1, 9))


def test_damaged_points_are_an_error(tmp_path: Path) -> None:
    write_colmap(tmp_path, binary=True)
    file = tmp_path / "sparse/0/points3D.bin"
    data = file.read_bytes()
    file.write_bytes(data[:-3])
    with pytest.raises(DatasetError, match=r"points3D\.bin: is cut off"):
        read_colmap_points(file)
    text = tmp_path / "points3D.txt"
    text.write_text("1 0 0 1 9 9 9 0.5 3 1 4\n")
    with pytest.raises(DatasetError, match=r"points3D\.txt:1: expected POINT3D_ID"):
        read_colmap_points(text)
    text.write_text("1 0 0 nan 9 9 9 0.5 3 1\n")
    with pytest.raises(DatasetError, match="not finite"):
        read_colmap_points(text)


def test_tracks_of_a_model_lie_where_its_photos_show_them(tmp_path: Path) -> None:
    write_colmap(tmp_path, binary=True)
    scene = open_scene(tmp_path)
    tracks = find_tracks(scene, PosedConfig())
    assert len(tracks.points) == len(plane_points())
    assert (tracks.lengths == 8).all()
    assert (shared_points(tracks, 8) + len(tracks.points) * np.eye(8, dtype=int) == len(tracks.points)).all()
    # the sequence reader is another way to the same cameras
    sequence = open_sequence(tmp_path)
    pose = sequence[3].T_world_cam
    assert pose is not None
    assert np.allclose(np.linalg.inv(pose), scene.photos[3].T_cam_world)
    assert np.array_equal(sequence[3].image, scene.photos[3].read())


def test_tracks_are_made_where_only_poses_are_known(tmp_path: Path) -> None:
    """All points lie on the plane z = 0, and every one is seen by three photos or more."""
    write_transforms(tmp_path)
    tracks = find_tracks(open_scene(tmp_path), PosedConfig(neighbours=4))
    assert len(tracks.points) > 100
    assert tracks.lengths.min() >= 3
    assert np.quantile(np.abs(tracks.points[:, 2]), 0.9) < 0.02  # cameras are 2.2 away


def test_matches_that_do_not_fit_the_poses_make_no_tracks(tmp_path: Path) -> None:
    """The same photos in another order than their poses."""
    write_transforms(tmp_path)
    right = len(find_tracks(open_scene(tmp_path), PosedConfig(neighbours=4)).points)
    stored = json.loads((tmp_path / "transforms.json").read_text())
    files = [frame["file_path"] for frame in stored["frames"]]
    for frame, file in zip(stored["frames"], [files[k] for k in (4, 0, 6, 2, 7, 1, 5, 3)], strict=True):
        frame["file_path"] = file
    (tmp_path / "transforms.json").write_text(json.dumps(stored))
    assert len(find_tracks(open_scene(tmp_path), PosedConfig(neighbours=4)).points) < 0.3 * right


def test_points_and_targets_of_a_pair_show_the_same(tmp_path: Path) -> None:
    write_colmap(tmp_path / "scene")
    data = open_data(config(tmp_path / "scene", tmp_path / "cache"), split="train")
    for index in range(4):
        pair = data[index]
        same = patches(pair["image0"], pair["points0"])
        other = patches(pair["image1"], pair["points1"])
        centre = torch.corrcoef(torch.stack([same[:, 12], other[:, 12]]))[0, 1]
        assert float(centre) > 0.8
        assert float(torch.corrcoef(torch.stack([same[:, 12], other[:, 12].roll(1)]))[0, 1]) < 0.5
        targets = pair["targets0"][pair["targets0"][:, 2] > 0, :2]
        gaps = torch.cdist(targets, targets) + 1e3 * torch.eye(len(targets))
        assert len(targets) > 20
        assert float(gaps.min()) > 3.0  # suppressed
        assert float(torch.cdist(pair["points0"], targets).min(dim=1).values.median()) < 3.0
        assert int(pair["scene"]) > 0 > int(pair["clip"])


def test_sides_share_no_photo_and_tracks_are_kept(tmp_path: Path) -> None:
    write_colmap(tmp_path / "scene")
    sides = [open_data(config(tmp_path / "scene", tmp_path / "cache"), split=split) for split in ("train", "val")]
    pairs = [set(side.sources["posed"]._scenes[0].pairs.ravel().tolist()) for side in sides]  # ty: ignore
    assert pairs == [set(range(6)), {6, 7}]
    (file,) = (tmp_path / "cache" / "tracks").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    again = open_data(config(tmp_path / "scene", tmp_path / "cache"), split="train")
    assert torch.equal(again[3]["image1"], sides[0][3]["image1"])
    assert torch.equal(again[3]["points1"], sides[0][3]["points1"])


def test_scenes_that_others_test_on_stay_out(tmp_path: Path) -> None:
    for name in ("0001", "0015", "0042"):
        write_colmap(tmp_path / "mega" / "Undistorted_SfM" / name, count=3)
    root = tmp_path / "mega"
    assert [path.name for path in find_scenes(PosedConfig(folders=(root,)))] == ["0001", "0042"]
    listed = tmp_path / "train.txt"
    listed.write_text("# mine\n0042_0.1_0.3\n0042_0.3_0.5\n")
    assert [p.name for p in find_scenes(PosedConfig(folders=(root,), scene_list=listed))] == ["0042"]
    listed.write_text("0042\n0015_0.1_0.3.npz\n")
    with pytest.raises(ConfigError, match="scene 0015, which others test on"):
        find_scenes(PosedConfig(folders=(root,), scene_list=listed))
    with pytest.raises(DatasetError, match="there is no scene 0007"):
        find_scenes(PosedConfig(folders=(root,), scenes=("0007",)))
    with pytest.raises(ConfigError, match="0015"):
        find_scenes(PosedConfig(folders=(root,), scenes=("0015",)))


def test_what_holds_no_scene_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        find_scenes(PosedConfig(folders=(tmp_path / "missing",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"neither a COLMAP model with images, nor a transforms\.json"):
        find_scenes(PosedConfig(folders=(tmp_path / "empty",)))
    write_colmap(tmp_path / "scene", points=False)
    with pytest.raises(DatasetError, match="no two of its photos for training share 48 points"):
        open_data(config(tmp_path / "scene", tmp_path / "cache"), split="train")
    with pytest.raises(ConfigError, match=r"data\.posed\.folders is empty"):
        open_data(config(tmp_path, tmp_path).with_changes(["posed.folders=[]"]), split="train")
