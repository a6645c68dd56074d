"""Training pairs of views with depth: rendered rooms and RGB-D sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.datasets import open_sequence
from semkey.datasets.sequence import Frame
from semkey.errors import DatasetError
from semkey.extractors import create_extractor
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import (
    inverse,
    make_transform,
    quaternion_xyzw_from_rotation,
    rotation_from_quaternion_xyzw,
    so3_exp,
    transform_points,
)
from semkey.images.writing import write_image
from semkey.model.features import Features
from semkey.rendering import RoomConfig, write_room
from semkey.rendering.layout import plan_room
from semkey.rendering.motion import look_pose
from semkey.rendering.raycast import cast
from semkey.rendering.scene import build_scene
from semkey.training.data import DataConfig, open_data, rgbd, rooms
from semkey.training.data.pair import MARGIN, Pair, inside
from semkey.training.data.photos import open_photos
from semkey.training.data.pictures import measure_pair
from semkey.training.data.projection import DepthView, dense_warp, depth_pair, draw_by_overlap, overlap
from semkey.training.data.rgbd import crop_frame, prepare_sequences, random_crop
from semkey.training.data.rooms import DEPTH_TOLERANCE, RoomPairs, prepare_rooms
from semkey.training.data.sequence_poses import FrameKeypoints, find_keypoints, refine_relative_pose

NO_LIGHT = {
    "shadow": 0, "gradient": 0, "gamma": 0, "contrast": [1, 1], "level": 0, "blur": 0, "motion_blur": 0, "noise": 0,
    "jpeg": 0,
}  # fmt: skip
SMALL_ROOMS = {"count": 2, "views": 8, "texel_size": 0.02, "changing_light": 0}


def make_config(cache: Path, **values: object) -> DataConfig:
    shared = {"cache": str(cache), "width": 128, "height": 96, "points": 48, "light": NO_LIGHT, "rooms": SMALL_ROOMS}
    return DataConfig.from_mapping({**shared, "shares": {"photos": 0, "shapes": 0, "rooms": 1}, **values})


def flat_view(depth: np.ndarray, x: float = 0.0) -> DepthView:
    """A camera of focal length 100 at ``x`` metres, looking along z."""
    height, width = depth.shape
    K = np.array([[100.0, 0, (width - 1) / 2], [0, 100.0, (height - 1) / 2], [0, 0, 1]])
    image = np.random.default_rng(0).integers(0, 255, depth.shape).astype(np.uint8)
    return DepthView(image=image, depth=depth.astype(np.float32), T_world_cam=make_transform(np.eye(3), [x, 0, 0]), K=K)


# -- correspondences -----------------------------------------------------------------------------------------------


def test_a_wall_moves_by_its_disparity() -> None:
    wall = np.full((60, 80), 2.0)
    warp = dense_warp(flat_view(wall), flat_view(wall, x=0.2), 0.02)
    # 100 px * 0.2 m / 2 m = 10 px to the left.
    y, x = np.mgrid[:60, :80]
    np.testing.assert_allclose(warp[:, 10:, 0], x[:, 10:] - 10.0, atol=1e-5)
    np.testing.assert_allclose(warp[:, 10:, 1], y[:, 10:], atol=1e-5)
    assert np.isnan(warp[:, :10]).all()  # outside view 1
    assert overlap(flat_view(wall), flat_view(wall, x=0.2), 0.02) == pytest.approx(70 / 80, abs=0.04)


def test_what_is_hidden_or_unknown_is_not_seen() -> None:
    wall, hidden = np.full((60, 80), 2.0), np.full((60, 80), 2.0)
    hidden[20:40, 30:50] = 1.0  # something stands before the wall in view 1
    warp = dense_warp(flat_view(wall), flat_view(hidden, x=0.2), 0.02)
    seen = np.isfinite(warp[..., 0])
    assert not seen[20:40, 40:60].any()
    assert seen[:19, 10:].all()
    unknown = wall.copy()
    unknown[5:9] = 0.0
    assert not np.isfinite(dense_warp(flat_view(unknown), flat_view(wall), 0.02)[5:9]).any()
    assert np.isfinite(dense_warp(flat_view(unknown), flat_view(wall), 0.02)[10:]).all()
    assert not np.isfinite(dense_warp(flat_view(wall), flat_view(unknown), 0.02)[5:9]).any()


def test_what_lies_behind_the_second_camera_is_not_seen() -> None:
    wall = np.full((60, 80), 2.0)
    behind = replace(flat_view(wall), T_world_cam=make_transform(np.eye(3), [0, 0, 3.0]))
    turned = replace(flat_view(wall), T_world_cam=make_transform(so3_exp([0, np.pi, 0]), [0, 0, 0]))
    assert not np.isfinite(dense_warp(flat_view(wall), behind, 0.5)).any()
    assert not np.isfinite(dense_warp(flat_view(wall), turned, 0.5)).any()


@pytest.fixture(scope="module")
def room_views() -> list[DepthView]:
    """Two views of a rendered room, and their cameras' exact depth."""
    scene = build_scene(plan_room(5, "normal"), seed=5, texel_size=0.02)
    camera = PinholeCamera(fx=110, fy=110, cx=63.5, cy=47.5, width=128, height=96)
    views = []
    for x, yaw, roll in ((2.0, 0.3, 0.1), (2.5, 0.5, -0.2)):
        T_world_cam = look_pose(np.array([x, 2.0, 1.4]), yaw, -0.1, roll)
        view = cast(scene, camera, T_world_cam)
        gray = np.asarray(cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY), np.uint8)
        views.append(DepthView(image=gray, depth=view.depth, T_world_cam=T_world_cam, K=camera.matrix))
    return views


def check_against_projection(pair: Pair, view0: DepthView, view1: DepthView, atol: float) -> None:
    """Points of a pair against the camera model's own projection of their depth."""
    K0, K1 = view0.K, view1.K
    points0, points1 = pair["points0"].numpy().astype(np.float64), pair["points1"].numpy()
    column, row = points0.astype(int).T
    np.testing.assert_array_equal(points0, np.stack([column, row], axis=1))
    rays = np.c_[points0, np.ones(len(points0))] @ np.linalg.inv(K0).T
    points = transform_points(
        inverse(view1.T_world_cam) @ view0.T_world_cam, rays * view0.depth[row, column, None].astype(np.float64)
    )
    projected = points @ K1.T
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], points1, atol=atol)


def test_points_of_a_room_pair_are_where_their_depth_projects(room_views: list[DepthView], tmp_path: Path) -> None:
    config = make_config(tmp_path)
    pair = depth_pair(np.random.default_rng(0), room_views[0], room_views[1], config, DEPTH_TOLERANCE)
    assert pair is not None
    check_against_projection(pair, *room_views, atol=1e-3)
    assert inside(pair["points1"].numpy(), config.size, MARGIN - 1e-3).all()
    assert torch.isnan(pair["H10"]).all()
    assert pair["warp10"].shape == (96, 128, 2)
    column, row = pair["points0"].long().T
    torch.testing.assert_close(pair["warp10"][row, column], pair["points1"])
    assert len(pair["points0"].unique(dim=0)) == config.points
    assert measure_pair(pair).agreement > 0.9


def test_mirrored_and_turned_views_have_mirrored_and_turned_correspondences(room_views: list[DepthView]) -> None:
    first, second = room_views
    warp = dense_warp(first, second, DEPTH_TOLERANCE)
    mirrored = dense_warp(first.mirrored(), second.mirrored(), DEPTH_TOLERANCE)
    expected = warp[:, ::-1] * [-1, 1] + [127, 0]
    both = np.isfinite(mirrored[..., 0]) & np.isfinite(expected[..., 0])
    assert both.mean() > 0.9 * np.isfinite(warp[..., 0]).mean() > 0.2
    np.testing.assert_allclose(mirrored[both], expected[both], atol=1e-3)
    turned = dense_warp(first.upside_down(), second.upside_down(), DEPTH_TOLERANCE)
    expected = np.array([127, 95]) - warp[::-1, ::-1]
    both = np.isfinite(turned[..., 0]) & np.isfinite(expected[..., 0])
    assert both.mean() > 0.9 * np.isfinite(warp[..., 0]).mean()
    np.testing.assert_allclose(turned[both], expected[both], atol=1e-3)


def test_too_little_in_common_gives_no_pair(room_views: list[DepthView], tmp_path: Path) -> None:
    away = replace(room_views[1], T_world_cam=look_pose(np.array([2.5, 2.0, 1.4]), 3.4, 0.0, 0.0))
    assert depth_pair(np.random.default_rng(0), room_views[0], away, make_config(tmp_path), 0.02) is None


def test_all_overlaps_are_drawn_equally_often() -> None:
    overlaps = np.r_[np.full(900, 0.85), np.linspace(0.3, 0.8, 100)]
    rng = np.random.default_rng(0)
    drawn = np.array([overlaps[draw_by_overlap(rng, overlaps)] for _ in range(1000)])
    assert 0.14 < (drawn > 0.74).mean() < 0.27
    assert 0.14 < (drawn < 0.41).mean() < 0.27
    assert draw_by_overlap(rng, np.array([0.5])) == 0


# -- rooms ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rooms of ``make_config`` for both sides, without photos."""
    cache = tmp_path_factory.mktemp("rooms")
    for split in ("train", "val"):
        prepare_rooms(make_config(cache), cache, [], split)
    return cache


def test_rooms_are_made_once_and_resumed(room_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(room_cache)
    made: list[int] = []
    render = rooms.render_views
    monkeypatch.setattr(rooms, "render_views", lambda seed, *rest: made.append(seed) or render(seed, *rest))
    files = prepare_rooms(config, room_cache, [], "train")
    assert made == []
    assert len(files) == 2
    content = files[1].read_bytes()
    files[1].unlink()
    told: list[tuple[int, int, str]] = []
    prepare_rooms(config, room_cache, [], "train", lambda *what: told.append(what))
    assert len(made) == 1
    assert told[-1] == (2, 2, "rendering rooms (train)")
    assert files[1].read_bytes() == content  # the same room again
    assert not list(files[1].parent.glob("*.tmp"))


def test_another_seed_other_photos_and_the_other_side_have_rooms_of_their_own(
    room_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(rooms, "render_views", lambda seed, *_: seeds.append(seed) or b"room")
    config = make_config(tmp_path)
    write_image(tmp_path / "photos" / "a.png", np.zeros((80, 80, 3), np.uint8))
    photos = open_photos(tmp_path / "photos", tmp_path, config.size).photos
    sets = [
        prepare_rooms(config, tmp_path, [], "train"),
        prepare_rooms(config, tmp_path, [], "val"),
        prepare_rooms(config, tmp_path, photos, "train"),
        prepare_rooms(replace(config, rooms=replace(config.rooms, seed=1)), tmp_path, [], "train"),
        prepare_rooms(replace(config, width=160), tmp_path, [], "train"),
    ]
    assert len({file for files in sets for file in files}) == 2 + 1 + 2 + 2 + 2
    train, val, other = set(seeds[:2]), set(seeds[2:3]), set(seeds[5:7])
    assert not train & val
    assert not train & other
    more = prepare_rooms(replace(config, rooms=replace(config.rooms, count=3)), tmp_path, [], "train")
    assert more[:2] == sets[0]  # a larger number keeps the rooms that there are


def test_pairs_of_rooms_agree_and_depend_on_the_index_alone(room_cache: Path) -> None:
    data = open_data(make_config(room_cache), split="train", seed=2)
    agreements = []
    for index in range(8):
        pair = data[index]
        agreements.append(measure_pair(pair).agreement)
        assert len(pair["points0"]) == 48
        assert not pair["targets0"].any()
        again = open_data(make_config(room_cache), split="train", seed=2)[index] if index < 2 else pair
        assert all(torch.equal(pair[key].nan_to_num(-9.0), again[key].nan_to_num(-9.0)) for key in pair)
    assert np.median(agreements) > 0.9
    assert not torch.equal(data[0]["image0"], data[1]["image0"])


def test_views_that_never_share_enough_are_an_error(room_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data(make_config(room_cache), split="val")
    monkeypatch.setattr(rooms, "depth_pair", lambda *_: None)
    with pytest.raises(DatasetError, match=r"lower data\.points"):
        data[0]


def test_a_damaged_room_is_named(room_cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "room-00000.safetensors"
    file.write_bytes(b"not a room")
    with pytest.raises(DatasetError, match=r"room-00000\.safetensors: not a readable room"):
        RoomPairs([file], make_config(tmp_path), (0,))


def test_photos_cover_surfaces_and_pictures() -> None:
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 230
    camera = PinholeCamera(fx=80, fy=80, cx=63.5, cy=47.5, width=128, height=96)
    T_world_cam = look_pose(np.array([2.4, 2.2, 1.5]), 0.6, -0.1, 0.0)
    shares = []
    for photos in ([], [red]):
        scene = build_scene(plan_room(3, "normal"), seed=3, texel_size=0.03, photos=photos)
        image = cast(scene, camera, T_world_cam).image.astype(int)
        shares.append(float(((image[..., 0] > 40) & (image[..., 1:].max(axis=-1) < 12)).mean()))
    assert shares[0] < 0.02
    assert shares[1] > 0.15


def test_rooms_without_photos_look_as_before() -> None:
    plan = plan_room(3, "low")
    camera = PinholeCamera(fx=80, fy=80, cx=63.5, cy=47.5, width=128, height=96)
    T_world_cam = look_pose(np.array([2.4, 2.2, 1.5]), 0.6, -0.1, 0.0)
    first, second = (
        cast(build_scene(plan, seed=3, texel_size=0.03, **arguments), camera, T_world_cam).image
        for arguments in ({}, {"photos": []})
    )
    np.testing.assert_array_equal(first, second)


# -- RGB-D sequences -----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(640, 480), (480, 640), (1226, 370)]))
def test_upright_crops_lie_inside_the_image(seed: int, source: tuple[int, int]) -> None:
    size = (128, 96)
    change = random_crop(np.random.default_rng(seed), source, size, 0.0)
    corners = np.array([[-0.5, -0.5, 1], [127.5, -0.5, 1], [127.5, 95.5, 1], [-0.5, 95.5, 1]])
    back = corners @ np.linalg.inv(change).T
    assert (back[:, :2] > -0.5 - 1e-9).all()
    assert (back[:, :2] < np.array(source) - 0.5 + 1e-9).all()
    part = 1 / change[0, 0] * np.array(size) / np.array(source)
    assert 0.6 - 1e-9 <= part.max() <= 1.0 + 1e-9


def test_crops_are_turned_about_a_place_in_the_image() -> None:
    change = random_crop(np.random.default_rng(1), (640, 480), (128, 96), 20.0)
    rotation = change[:2, :2] / np.sqrt(np.linalg.det(change[:2, :2]))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-9)
    assert 0 < abs(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))) <= 20


def test_a_cropped_frame_keeps_image_depth_and_camera_together() -> None:
    """A slanted plane: the crop's depth must be what its own camera sees of that plane."""
    camera = PinholeCamera(fx=300, fy=300, cx=319.5, cy=239.5, width=640, height=480)
    x = np.mgrid[:480, :640][1].astype(float)
    slope = 0.3  # depth 3 + 0.3 X
    depth = 3.0 / (1.0 - slope * (x - camera.cx) / camera.fx)
    ramp = np.repeat(np.rint(40 + 0.25 * x)[..., None], 3, axis=2).astype(np.uint8)
    depth[200:280, 280:360] = 0.0
    frame = Frame(index=0, timestamp=0, image=ramp, depth=depth.astype(np.float32), T_world_cam=np.eye(4))
    change = random_crop(np.random.default_rng(3), (640, 480), (128, 96), 15.0)
    view = crop_frame(frame, np.eye(4), camera.matrix, change, (128, 96), np.full(3, 1 / 3, np.float32))
    v, u = np.mgrid[:96, :128].astype(float)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(view.K).T
    expected = 3.0 / (1.0 - slope * rays[..., 0])
    known = view.depth > 0
    assert view.valid is not None
    assert 0.7 < known.mean() < view.valid.mean() <= 1.0
    np.testing.assert_allclose(view.depth[known], expected[known], rtol=2e-3)
    source = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(change).T
    np.testing.assert_allclose(view.image[view.valid], (40 + 0.25 * source[..., 0])[view.valid], atol=1.0)


@pytest.fixture(scope="module")
def sequence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered sequence in the TUM layout, exact depth and poses."""
    config = RoomConfig(seed=4, frames=16, width=160, height=120, fps=3.0, texel_size=0.02, blur=False, noise=False)
    return write_room(tmp_path_factory.mktemp("sequence") / "room", config)


def sequence_config(cache: Path, *folders: Path, **values: object) -> DataConfig:
    return make_config(
        cache,
        shares={"photos": 0, "shapes": 0, "rooms": 0, "sequences": 1},
        sequences={"folders": [str(folder) for folder in folders], "refine": False, **values},
        val_share=0.3,
    )


def test_pairs_of_a_sequence_show_the_same(sequence_folder: Path, tmp_path: Path) -> None:
    config = sequence_config(tmp_path, sequence_folder)
    data = open_data(config, split="train", seed=1)
    agreements = []
    for index in range(12):
        pair = data[index]
        assert len(pair["points0"]) == 48
        assert inside(pair["points1"].numpy(), config.size, MARGIN - 1e-3).all()
        agreements.append(measure_pair(pair).agreement)
    assert np.median(agreements) > 0.9
    again = open_data(config, split="train", seed=1)
    again[5]
    assert torch.equal(again[3]["image1"], data[3]["image1"])
    assert torch.equal(again[3]["points1"], data[3]["points1"])


def test_overlaps_are_measured_once_and_lie_in_their_range(sequence_folder: Path, tmp_path: Path) -> None:
    config = sequence_config(tmp_path, sequence_folder, overlap=[0.4, 0.8], max_gap=5).sequences
    told: list[int] = []
    first = prepare_sequences(config, tmp_path, 0.3, "train", lambda done, *_: told.append(done))
    assert told == list(range(1, 12))
    second = prepare_sequences(config, tmp_path, 0.3, "train", lambda done, *_: told.append(done))
    assert len(told) == 11
    np.testing.assert_array_equal(first[0].pairs, second[0].pairs)
    assert ((first[0].overlaps >= 0.4) & (first[0].overlaps <= 0.8)).all()
    assert np.abs(np.diff(first[0].pairs, axis=1)).max() <= 5
    next((tmp_path / "sequences").iterdir()).write_bytes(b"damaged")
    third = prepare_sequences(config, tmp_path, 0.3, "train")
    np.testing.assert_array_equal(first[0].pairs, third[0].pairs)


def test_frames_of_training_and_validation_are_disjoint(sequence_folder: Path, tmp_path: Path) -> None:
    config = sequence_config(tmp_path, sequence_folder, overlap=[0.05, 1.0]).sequences
    train, val = (prepare_sequences(config, tmp_path, 0.3, side)[0].pairs for side in ("train", "val"))
    assert train.max() < val.min()


def test_sequences_that_cannot_be_used_are_named(
    sequence_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "images" / "1.png", np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(DatasetError, match="images: has no depth"):
        open_data(sequence_config(tmp_path, tmp_path / "images"), split="train")
    with pytest.raises(DatasetError, match="no such file or folder"):
        open_data(sequence_config(tmp_path, tmp_path / "none"), split="train")
    with pytest.raises(DatasetError, match=r"no two of its .* frames for training share"):
        open_data(sequence_config(tmp_path, sequence_folder, overlap=[0.99, 0.999]), split="train")
    data = open_data(sequence_config(tmp_path, sequence_folder), split="train")
    monkeypatch.setattr(rgbd, "depth_pair", lambda *_: None)
    with pytest.raises(DatasetError, match=r"lower data\.points"):
        data[0]


def seen_points(count: int, camera: PinholeCamera, T_cam1_cam0: np.ndarray, seed: int) -> list[FrameKeypoints]:
    """Keypoints of two frames that see the same random points, each with a descriptor of its own."""
    rng = np.random.default_rng(seed)
    pixels0 = rng.uniform([0, 0], [camera.width - 1, camera.height - 1], (count, 2)).astype(np.float32)
    points0 = camera.backproject(pixels0, rng.uniform(1.5, 4.0, count))
    points1 = transform_points(T_cam1_cam0, points0)
    pixels1 = camera.project(points1).astype(np.float32)
    descriptors = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(count, 32))).float(), dim=1)
    frames = []
    for pixels, points in ((pixels0, points0), (pixels1, points1)):
        features = Features(
            keypoints=torch.from_numpy(pixels),
            scores=torch.ones(count),
            reliability=torch.ones(count),
            descriptors=descriptors,
            global_descriptor=torch.zeros(0),
            image_size=(camera.width, camera.height),
        )
        frames.append(FrameKeypoints(features=features, depth=points[:, 2].copy()))
    return frames


CAMERA = PinholeCamera(fx=525, fy=525, cx=319.5, cy=239.5, width=640, height=480)
T_TRUE = make_transform(so3_exp([0.02, -0.05, 0.1]), [0.1, -0.05, 0.08])


def test_a_recorded_pose_that_is_a_little_off_is_corrected() -> None:
    frames = seen_points(300, CAMERA, T_TRUE, 0)
    recorded = make_transform(so3_exp([0.015, 0.01, -0.01]), [0.02, 0.0, -0.03]) @ T_TRUE
    refined = refine_relative_pose(frames[0], frames[1], CAMERA, recorded)
    assert refined is not None
    np.testing.assert_allclose(refined, T_TRUE, atol=1e-4)


def test_poses_that_cannot_be_told_reliably_are_left_out() -> None:
    few = seen_points(30, CAMERA, T_TRUE, 0)
    assert refine_relative_pose(few[0], few[1], CAMERA, T_TRUE) is None
    first, second = seen_points(300, CAMERA, T_TRUE, 0)
    far = make_transform(so3_exp([0.0, 0.0, 0.3]), [0.0, 0.0, 0.0]) @ T_TRUE
    assert refine_relative_pose(first, second, CAMERA, far) is None
    wrong_depth = replace(second, depth=1.15 * second.depth)  # as from a camera of another focal length
    assert refine_relative_pose(first, wrong_depth, CAMERA, T_TRUE) is None
    blind = replace(first, depth=np.full(300, np.nan))
    assert refine_relative_pose(blind, second, CAMERA, T_TRUE) is None


def test_keypoints_at_depth_edges_have_no_depth() -> None:
    image = np.full((96, 128, 3), 60, np.uint8)
    image[30:70, 40:90] = 200
    depth = np.full((96, 128), 3.0, np.float32)
    depth[30:70, 40:90] = 1.5
    depth[:, 120:] = 0.0
    frame = Frame(index=0, timestamp=0.0, image=image, depth=depth, T_world_cam=np.eye(4))
    found = find_keypoints(frame, create_extractor("orb", max_keypoints=50))
    column, row = np.rint(found.features.keypoints.numpy()).astype(int).T
    for x, y, z in zip(column, row, found.depth, strict=True):
        patch = depth[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        if patch.min() == patch.max() > 0:
            assert z == pytest.approx(patch[0, 0])
        else:
            assert np.isnan(z)


def test_pairs_of_a_sequence_with_wrong_poses_are_corrected(tmp_path: Path) -> None:
    config = RoomConfig(seed=4, frames=10, width=320, height=240, fps=5.0, texel_size=0.01, blur=False, noise=False)
    folder = write_room(tmp_path / "room", config)
    lines = []
    rng = np.random.default_rng(0)
    for line in (folder / "groundtruth.txt").read_text().splitlines():
        values = line.split()
        if not line.startswith("#"):
            rotation = rotation_from_quaternion_xyzw([float(v) for v in values[4:]]) @ so3_exp(rng.normal(0, 0.012, 3))
            values[4:] = [f"{v:.9f}" for v in quaternion_xyzw_from_rotation(rotation)]
        lines.append(" ".join(values))
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    agreements = {}
    for refine in (False, True):
        settings = sequence_config(tmp_path / "cache", folder, refine=refine, overlap=[0.3, 0.99], rotation_deg=0.0)
        data = open_data(settings, split="train")
        agreements[refine] = np.median([measure_pair(data[index]).agreement for index in range(12)])
    assert agreements[True] > 0.93
    assert agreements[False] < agreements[True] - 0.03


def test_real_frames_show_the_same(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "tum" / "rgbd_dataset_freiburg3_cabinet_subsampled"
    config = sequence_config(tmp_path, folder, refine=True, overlap=[0.4, 0.95], rotation_deg=0.0, max_gap=2)
    assert open_sequence(folder).has_depth
    data = open_data(config, split="train")
    agreements = [measure_pair(data[index]).agreement for index in range(10)]
    assert np.median(agreements) > 0.95
