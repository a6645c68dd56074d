from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import open_sequence
from semkey.datasets.sequence import Frame
from semkey.errors import ConfigError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.rendering import RoomConfig, render_room, room_camera, write_room
from semkey.rendering.atlas import pack_textures
from semkey.rendering.furniture import Box, Material
from semkey.rendering.layout import RoomPlan, plan_room
from semkey.rendering.lighting import nearest_box_hit
from semkey.rendering.motion import look_pose, trajectory
from semkey.rendering.noise import motion_blur, sensor_noise, structured_light_depth
from semkey.rendering.raycast import cast
from semkey.rendering.scene import Scene, box_rectangles, build_scene, shell_rectangles

CAMERA = PinholeCamera(fx=130.0, fy=130.0, cx=79.5, cy=59.5, width=160, height=120)
WHITE = Material(kind="plain", color=(0.8, 0.8, 0.8))
ROOM = (6.0, 5.0, 2.6)
QUICK = RoomConfig(seed=3, frames=5, width=160, height=120, texel_size=0.02, blur=False, noise=False)
# Few boxes: built in a fraction of the time.
BARE = dataclasses.replace(QUICK, texture="low")


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(render_room(QUICK))


def make_scene(*boxes: Box) -> Scene:
    plan = RoomPlan(
        size=ROOM,
        shell=(WHITE,) * 6,
        boxes=boxes,
        lamps=((3.0, 2.5, 2.5),),
        window=((0.0, 2.5, 1.5), (1.0, 0.0, 0.0)),
    )
    return build_scene(plan, seed=0, texel_size=0.05)


def pixel_grid(camera: PinholeCamera) -> np.ndarray:
    y, x = np.mgrid[: camera.height, : camera.width]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(float)


def rays(camera: PinholeCamera, pose: np.ndarray) -> np.ndarray:
    """World directions with unit z in the camera, so that a distance along them is z-depth."""
    return camera.backproject(pixel_grid(camera), np.ones(camera.width * camera.height)) @ pose[:3, :3].T


def room_depth(pose: np.ndarray) -> np.ndarray:
    """z-depth of the empty room, from the slab formula."""
    directions, origin = rays(CAMERA, pose), pose[:3, 3]
    with np.errstate(divide="ignore"):
        distances = np.where(directions > 0, np.asarray(ROOM) - origin, -origin) / directions
    return distances.min(axis=1).reshape(CAMERA.height, CAMERA.width)


class TestDepth:
    def test_wall_seen_frontally_has_constant_depth(self) -> None:
        pose = look_pose(np.array([2.0, 2.5, 1.3]), 0.0, 0.0, 0.0)
        view = cast(make_scene(), CAMERA, pose)
        assert np.abs(view.depth[40:80, 40:120] - 4.0).max() < 1e-5

    @pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0.4, -0.2, 0.1), (2.5, 0.6, -0.3), (-1.2, -1.1, 1.0)])
    def test_empty_room_seen_obliquely(self, yaw: float, pitch: float, roll: float) -> None:
        pose = look_pose(np.array([2.2, 3.1, 1.4]), yaw, pitch, roll)
        view = cast(make_scene(), CAMERA, pose)
        assert np.abs(view.depth / room_depth(pose) - 1).max() < 1e-5

    def test_box_seen_frontally_covers_the_pixels_it_projects_to(self) -> None:
        box = Box(center=(4.5, 2.5, 1.3), size=(1.0, 0.8, 0.6), body=WHITE)
        view = cast(make_scene(box), CAMERA, look_pose(np.array([2.0, 2.5, 1.3]), 0.0, 0.0, 0.0))
        # The near face is 2 m away: half widths are 130 * 0.4 / 2 = 26 and 130 * 0.3 / 2 = 19.5 pixels.
        y, x = np.mgrid[:120, :160]
        expected = (np.abs(x - 79.5) < 26) & (np.abs(y - 59.5) <= 19.5 - 1e-3)
        covered = np.abs(view.depth - 2.0) < 1e-5
        undecided = np.abs(np.abs(y - 59.5) - 19.5) < 1e-3
        assert (covered == expected)[~undecided].all()
        assert (
            np.abs(
                view.depth[~covered & ~undecided]
                - room_depth(look_pose(np.array([2.0, 2.5, 1.3]), 0, 0, 0))[~covered & ~undecided]
            ).max()
            < 1e-4
        )

    @pytest.mark.parametrize("seed", range(4))
    def test_turned_boxes_agree_with_an_independent_ray_caster(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        boxes = [
            Box(
                center=(float(rng.uniform(3.2, 5.5)), float(rng.uniform(0.5, 4.5)), float(rng.uniform(0.2, 1.8))),
                size=tuple(rng.uniform(0.1, 0.8, 3).tolist()),
                body=WHITE,
                yaw=float(rng.uniform(0, 3)),
            )
            for _ in range(8)
        ]
        pose = look_pose(np.array([1.5, 2.4, 1.4]), 0.15, -0.1, 0.2)
        view = cast(make_scene(*boxes), CAMERA, pose)
        table = np.array([(*box.center, *box.size, box.yaw) for box in boxes], np.float32)
        directions = rays(CAMERA, pose).astype(np.float32)
        origins = np.broadcast_to(pose[:3, 3].astype(np.float32), directions.shape)
        expected = np.minimum(nearest_box_hit(origins, directions, table, 100.0).reshape(120, 160), room_depth(pose))
        wrong = np.abs(view.depth - expected) > 1e-3
        # Rays that graze an edge within float32 rounding may fall on either side.
        assert wrong.mean() < 5e-4
        assert (view.faces >= 6).mean() > 0.02

    def test_camera_outside_the_room_is_an_error(self) -> None:
        with pytest.raises(InputError, match="outside"):
            cast(make_scene(), CAMERA, look_pose(np.array([7.0, 2.0, 1.0]), 0.0, 0.0, 0.0))


class TestGeometry:
    def test_rectangles_face_their_viewer(self) -> None:
        origins, rights, downs = shell_rectangles(ROOM)
        away = np.cross(rights, downs)
        to_middle = np.asarray(ROOM) / 2 - (origins + (rights + downs) / 2)
        assert ((away * to_middle).sum(axis=1) < 0).all()
        origins, rights, downs = box_rectangles([Box(center=(1, 2, 1), size=(0.5, 0.7, 0.9), body=WHITE, yaw=0.7)])
        from_middle = origins + (rights + downs) / 2 - np.array([1.0, 2.0, 1.0])
        assert ((np.cross(rights, downs) * from_middle).sum(axis=1) < 0).all()
        area = (np.linalg.norm(rights, axis=1) * np.linalg.norm(downs, axis=1)).sum()
        assert area == pytest.approx(2 * (0.5 * 0.7 + 0.5 * 0.9 + 0.7 * 0.9))

    def test_pixels_carry_the_same_surface_point_into_another_frame(self, frames: list[Frame]) -> None:
        camera = room_camera(QUICK)
        scene = build_scene(plan_room(3, "normal"), seed=3, texel_size=0.02)
        errors, color_errors = [], []
        for first, second in ((frames[0], frames[2]), (frames[4], frames[1])):
            assert first.depth is not None
            assert first.T_world_cam is not None
            assert second.T_world_cam is not None
            points = camera.backproject(pixel_grid(camera), first.depth.ravel())
            world = transform_points(first.T_world_cam, points)
            moved = transform_points(inverse(second.T_world_cam), world)
            target = camera.project(moved)
            # Cast a camera of one pixel through the exact sub-pixel position: no interpolation of depth is needed.
            picked = np.flatnonzero(camera.contains(target, margin=2.0))[::97]
            for index in picked:
                x, y = target[index]
                probe = PinholeCamera(fx=camera.fx, fy=camera.fy, cx=camera.cx - x, cy=camera.cy - y, width=1, height=1)
                seen = cast(scene, probe, second.T_world_cam)
                difference = moved[index, 2] - float(seen.depth[0, 0])
                assert difference > -1e-4, "a surface point lies in front of what the other camera sees"
                if difference < 0.02:
                    errors.append(abs(difference))
                    row, column = divmod(int(index), camera.width)
                    color = first.image[row, column].astype(float)
                    color_errors.append(np.abs(color - second.image[round(y), round(x)]).mean())
        assert len(errors) > 200
        assert max(errors) < 1e-4
        # Nearest-pixel colours differ by texture and edges, but by far less than two unrelated pixels do.
        assert np.median(color_errors) < 4.0

    def test_pictures_and_poses_agree_to_a_twentieth_of_a_pixel(self, frames: list[Frame]) -> None:
        """One frame warped into another by depth and pose: the shift left between them, from grey gradients."""
        camera, (first, second) = room_camera(QUICK), (frames[0], frames[1])
        assert first.depth is not None
        assert second.depth is not None
        assert first.T_world_cam is not None
        assert second.T_world_cam is not None
        points = camera.backproject(pixel_grid(camera), first.depth.ravel())
        moved = transform_points(inverse(second.T_world_cam) @ first.T_world_cam, points)
        x, y = camera.project(moved).astype(np.float32).T.reshape(2, 120, 160)
        warped = cv2.remap(second.image, x, y, cv2.INTER_CUBIC).astype(np.float64).mean(axis=2)
        depth = cv2.remap(second.depth, x, y, cv2.INTER_NEAREST)
        grey = first.image.astype(np.float64).mean(axis=2)
        seen = (np.abs(depth - moved[:, 2].reshape(120, 160)) < 0.05) & (x > 3) & (x < 156) & (y > 3) & (y < 116)
        assert seen.mean() > 0.5
        gradient_y, gradient_x = np.gradient(grey)
        slopes = np.stack([gradient_x[seen], gradient_y[seen]], axis=1)
        shift = np.linalg.lstsq(slopes, (warped - grey)[seen], rcond=None)[0]
        assert np.abs(shift).max() < 0.05
        # What is left is the sharpness lost to interpolation; unrelated pixels differ by ten times as much.
        assert np.abs(warped - grey)[seen].mean() < 5.0

    def test_boxes_stay_in_the_room_and_clear_of_the_camera(self) -> None:
        for seed in range(8):
            for texture in ("normal", "low"):
                plan = plan_room(seed, texture)
                origins, rights, downs = box_rectangles(plan.boxes)
                corners = np.concatenate([origins, origins + rights, origins + downs, origins + rights + downs])
                assert (corners[:, 2] > -1e-6).all()
                assert (corners[:, 2] < plan.size[2] + 1e-6).all()
                for motion in ("hand-held", "loop", "fast", "kidnapped"):
                    config = RoomConfig(seed=seed, frames=60, motion=motion, texture=texture)
                    pose_at = trajectory(config, plan.size)
                    centers = np.array([pose_at(i / config.fps)[:3, 3] for i in range(config.frames)])
                    for box in plan.boxes:
                        cos, sin = np.cos(box.yaw), np.sin(box.yaw)
                        local = (centers - box.center) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
                        outside = np.maximum(np.abs(local) - np.asarray(box.size) / 2, 0)
                        assert np.linalg.norm(outside, axis=1).min() > 0.2, (seed, motion, box)


class TestMotion:
    def test_pose_convention(self) -> None:
        pose = look_pose(np.array([1.0, 2.0, 1.5]), 0.0, 0.0, 0.0)
        assert np.allclose(pose[:3, :3] @ [0, 0, 1], [1, 0, 0])
        assert np.allclose(pose[:3, :3] @ [0, 1, 0], [0, 0, -1])
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)

    @pytest.mark.parametrize("seed", range(3))
    def test_loop_closes_and_hand_held_is_smooth(self, seed: int) -> None:
        config = RoomConfig(seed=seed, frames=120, motion="loop")
        pose_at = trajectory(config, ROOM)
        duration = config.frames / config.fps
        assert np.abs(pose_at(0.0) - pose_at(duration)).max() < 1e-9
        walk = trajectory(dataclasses.replace(config, motion="hand-held"), ROOM)
        centers = np.array([walk(t)[:3, 3] for t in np.arange(0, duration, 0.02)])
        speed = np.linalg.norm(np.diff(centers, axis=0), axis=1) / 0.02
        assert 0.05 < speed.mean() < 0.8
        assert speed.max() < 2.0

    def test_fast_turns_faster_and_kidnapped_jumps_once(self) -> None:
        def angles(motion: str) -> np.ndarray:
            pose_at = trajectory(RoomConfig(seed=1, frames=90, motion=motion), ROOM)  # ty: ignore
            forward = np.array([pose_at(i / 15)[:3, 2] for i in range(90)])
            return np.degrees(np.arccos(np.clip((forward[1:] * forward[:-1]).sum(axis=1), -1, 1)))

        assert angles("fast").mean() > 1.8 * angles("hand-held").mean()
        pose_at = trajectory(RoomConfig(seed=1, frames=90, motion="kidnapped"), ROOM)
        centers = np.array([pose_at(i / 15)[:3, 3] for i in range(90)])
        steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
        assert steps[44] > 0.2
        assert np.delete(steps, 44).max() < 0.15


class TestImages:
    def test_a_seed_gives_the_same_pixels_and_another_seed_others(self) -> None:
        config = dataclasses.replace(BARE, frames=2, blur=True, noise=True, depth_noise=True, light="changing")
        first, second = list(render_room(config)), list(render_room(config))
        other = next(iter(render_room(dataclasses.replace(config, seed=4))))
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(a.image, b.image)
            assert np.array_equal(a.depth, b.depth)  # ty: ignore
        assert np.abs(first[0].image.astype(float) - other.image).mean() > 5

    def test_frame_is_complete(self, frames: list[Frame]) -> None:
        frame = frames[0]
        assert frame.image.shape == (120, 160, 3)
        assert frame.image.dtype == np.uint8
        assert frame.depth is not None
        assert frame.depth.dtype == np.float32
        assert frame.depth.min() > 0.3
        assert frame.depth.max() < 8.0
        # Neither black nor burnt out, and not flat.
        assert 50 < frame.image.mean() < 200
        assert frame.image.std() > 20

    def test_low_texture_has_less_contrast_than_normal(self, frames: list[Frame]) -> None:
        def gradient(rendered: Iterable[Frame]) -> float:
            pictures = [frame.image.astype(float).mean(axis=2) for frame in rendered]
            return float(np.mean([np.abs(np.diff(picture, axis=1)).mean() for picture in pictures]))

        assert gradient(render_room(BARE)) < 0.6 * gradient(frames)

    def test_edges_are_smooth_and_lie_where_they_project(self) -> None:
        """A vertical edge at x = 79.5 + 130 * 0.4 / 2 + shift: the grey of the edge pixel gives its position back."""
        scene_box = Box(center=(4.5, 2.5, 1.3), size=(1.0, 0.8, 5.0), body=Material(kind="glow", color=(0, 0, 0)))
        for shift in (0.1, 0.3, 0.45):
            camera = dataclasses.replace(CAMERA, cx=79.5 + shift)
            view = cast(make_scene(scene_box), camera, look_pose(np.array([2.0, 2.5, 1.3]), 0.0, 0.0, 0.0))
            row = view.image[60].astype(float).mean(axis=1)
            edge = int(np.floor(79.5 + shift + 26 + 0.5))
            background, dark = row[edge + 2], row[edge - 2]
            share = (row[edge - 1 : edge + 2] - dark).sum() / (background - dark)
            # Pixels edge-1 .. edge+1 span edge-1.5 .. edge+1.5; the bright part begins at the edge.
            assert edge + 1.5 - share == pytest.approx(79.5 + shift + 26, abs=0.15)

    def test_blur_moves_along_the_motion_only(self) -> None:
        image = np.zeros((120, 160, 3), np.uint8)
        image[:, 80:] = 200
        depth = np.full((120, 160), 2.0, np.float32)
        start, end = np.eye(4), np.eye(4)
        start[0, 3], end[0, 3] = -0.06, 0.06  # 130 * 0.12 / 2 = 7.8 pixels
        blurred = motion_blur(image, depth, CAMERA, start, end)[60, :, 0].astype(float)
        rising = np.flatnonzero((blurred > 5) & (blurred < 195))
        assert 6 <= len(rising) <= 9
        assert np.interp(100, blurred, np.arange(160)) == pytest.approx(79.5, abs=0.3)
        start[:3, 3], end[:3, 3] = (0, -0.06, 0), (0, 0.06, 0)
        assert np.array_equal(motion_blur(image, depth, CAMERA, start, end), image)
        assert motion_blur(image, depth, CAMERA, np.eye(4), np.eye(4)) is image

    def test_sensor_noise_grows_with_light(self) -> None:
        rng = np.random.default_rng(0)
        deviations = [
            sensor_noise(np.full((200, 200, 3), level, np.uint8), rng)[80:120, 80:120].std() for level in (20, 200)
        ]
        assert deviations[0] == pytest.approx(np.sqrt(0.013 * 20 + 0.64 + 1 / 12), rel=0.1)
        assert deviations[1] == pytest.approx(np.sqrt(0.013 * 200 + 0.64 + 1 / 12), rel=0.1)

    def test_structured_light_depth_has_the_published_noise_and_holes(self) -> None:
        camera = PinholeCamera(fx=525.0, fy=525.0, cx=319.5, cy=239.5, width=640, height=480)
        rng = np.random.default_rng(0)
        flat = structured_light_depth(np.full((480, 640), 2.0, np.float32), camera, rng)
        assert (flat > 0).all()
        assert flat.mean() == pytest.approx(2.0, abs=0.003)
        sigma = 0.0012 + 0.0019 * 1.6**2
        step = 2.0**2 / (525 * 0.075) / 8
        assert flat.std() == pytest.approx(np.hypot(sigma, step / np.sqrt(12)), rel=0.15)
        jump = np.full((480, 640), 1.5, np.float32)
        jump[:, 320:] = 3.0
        noisy = structured_light_depth(jump, camera, rng)
        assert (noisy[:, 318:322] == 0).mean() > 0.3
        assert (noisy[:, :300] == 0).mean() == 0
        assert (structured_light_depth(np.full((48, 64), 9.0, np.float32), camera, rng) == 0).all()


class TestAtlas:
    def test_each_texture_is_read_back_without_its_neighbours(self) -> None:
        rng = np.random.default_rng(0)
        textures = [
            np.full((int(h), int(w), 3), 10 * i + 5, np.uint8) for i, (h, w) in enumerate(rng.integers(1, 60, (20, 2)))
        ]
        atlas = pack_textures(textures)
        s, t = (rng.uniform(-0.2, 1.2, (20, 50)).astype(np.float32) for _ in range(2))
        index = np.repeat(np.arange(20, dtype=np.int32)[:, None], 50, axis=1)
        detail = rng.uniform(-1, 9, (20, 50)).astype(np.float32)
        colors = atlas.sample(index, s, t, detail)
        assert np.abs(colors[:, :, 0].astype(int) - (10 * index + 5)).max() <= 1

    def test_texel_centres_are_exact(self) -> None:
        texture = np.random.default_rng(0).integers(0, 256, (7, 11, 3)).astype(np.uint8)
        atlas = pack_textures([np.zeros((3, 3, 3), np.uint8), texture])
        rows, columns = np.mgrid[:7, :11].astype(np.float32)
        one = np.ones((7, 11), np.int32)
        colors = atlas.sample(one, (columns + 0.5) / 11, (rows + 0.5) / 7, np.zeros((7, 11), np.float32))
        assert np.array_equal(colors, texture)


class TestLayout:
    def test_rooms_of_one_layout_differ_in_pictures_and_the_way_alone(self, frames: list[Frame]) -> None:
        """The same camera sees the same depths in both, and other colours where they have pictures and grain."""
        own = build_scene(plan_room(3, "normal"), seed=3, texel_size=0.02)
        twin = dataclasses.replace(QUICK, seed=8, layout=3)
        scene = build_scene(plan_room(3, "normal"), seed=8, texel_size=0.02)
        found = next(iter(render_room(twin)))
        assert found.T_world_cam is not None
        assert found.depth is not None
        camera = room_camera(QUICK)
        same, other = cast(scene, camera, found.T_world_cam), cast(own, camera, found.T_world_cam)
        assert np.array_equal(found.image, same.image)
        assert np.array_equal(found.depth, same.depth)
        assert np.array_equal(found.depth, other.depth)
        differences = np.abs(found.image.astype(int) - other.image.astype(int))
        assert 2 < differences.mean() < 40
        assert frames[0].T_world_cam is not None
        assert np.abs(found.T_world_cam - frames[0].T_world_cam).max() > 0.1

    def test_the_layout_is_that_of_the_seed_by_default(self, frames: list[Frame]) -> None:
        named = next(iter(render_room(dataclasses.replace(QUICK, layout=3))))
        assert np.array_equal(named.image, frames[0].image)


class TestConfig:
    def test_unknown_key_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"'textur'.*'texture'"):
            RoomConfig.from_mapping({"textur": "low"})
        assert RoomConfig.from_mapping({"seed": 7, "texture": "low"}) == RoomConfig(seed=7, texture="low")

    @pytest.mark.parametrize(
        "values",
        [
            {"frames": 0},
            {"seed": -1},
            {"layout": -1},
            {"width": 8},
            {"fps": 0.0},
            {"fps": float("nan")},
            {"texture": "rough"},
            {"motion": "still"},
            {"light": "dark"},
            {"texel_size": 0.0},
        ],
    )
    def test_value_out_of_range_is_named(self, values: dict) -> None:
        with pytest.raises(ConfigError, match=next(iter(values)).replace("width", "image size")):
            RoomConfig.from_mapping(values)


class TestWriting:
    def test_written_folder_reads_back_as_a_tum_sequence(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        folder = write_room(tmp_path / "room", BARE, lambda done, total: seen.append((done, total)))
        assert seen == [(i + 1, 5) for i in range(5)]
        sequence = open_sequence(folder)
        assert sequence.format == "tum"
        assert len(sequence) == 5
        assert sequence.camera == room_camera(BARE)
        for written, rendered in zip(sequence, render_room(BARE), strict=True):
            assert written.timestamp == pytest.approx(rendered.timestamp, abs=1e-6)
            assert np.array_equal(written.image, rendered.image)
            assert written.depth is not None
            assert np.abs(written.depth - rendered.depth).max() <= 0.5001 / 5000 + 1e-6  # ty: ignore
            assert np.abs(written.T_world_cam - rendered.T_world_cam).max() < 1e-6  # ty: ignore
        assert [entry.name for entry in tmp_path.iterdir()] == ["room"]

    def test_full_folder_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "keep.txt").write_text("mine")
        with pytest.raises(InputError, match="not an empty folder"):
            write_room(tmp_path, BARE)
        assert [entry.name for entry in tmp_path.iterdir()] == ["keep.txt"]

    def test_an_earlier_room_is_replaced_only_on_request(self, tmp_path: Path) -> None:
        one = dataclasses.replace(BARE, frames=1)
        write_room(tmp_path / "room", dataclasses.replace(one, seed=5))
        before = (tmp_path / "room" / "rgb" / "0.000000.png").read_bytes()
        with pytest.raises(InputError, match="--overwrite"):
            write_room(tmp_path / "room", one)
        assert (tmp_path / "room" / "rgb" / "0.000000.png").read_bytes() == before
        write_room(tmp_path / "room", one, replace=True)
        assert (tmp_path / "room" / "rgb" / "0.000000.png").read_bytes() != before
        assert RoomConfig.from_mapping(json.loads((tmp_path / "room" / "room.json").read_text())) == one
        assert [entry.name for entry in tmp_path.iterdir()] == ["room"]

    def test_interruption_leaves_nothing(self, tmp_path: Path) -> None:
        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_room(tmp_path / "room", BARE, stop)
        assert list(tmp_path.iterdir()) == []
