"""Surfaces of rendered rooms against the rectangles that these are made of, and the floor plans that follow."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp, transform_points
from semkey.rendering import RoomConfig, render_room, room_camera
from semkey.rendering.layout import plan_room
from semkey.rendering.scene import box_rectangles, shell_rectangles
from semkey.surfaces.blocks import find, pack, split, unpack
from semkey.surfaces.config import OccupancyConfig, SurfaceConfig
from semkey.surfaces.floor import find_floor
from semkey.surfaces.mesh import SurfaceMesh, fuse, write_mesh
from semkey.surfaces.occupancy import FREE, OCCUPIED, UNKNOWN, occupancy_grid, write_occupancy
from semkey.surfaces.views import DepthView

ROOM = RoomConfig(seed=3, frames=16, width=240, height=180, fps=3.0, blur=False, noise=False, texel_size=0.02)
COARSE = SurfaceConfig(voxel_size=0.04, max_depth=5.0)


@dataclass
class Views:
    """Depth views kept in memory."""

    camera: PinholeCamera
    views: list[DepthView]

    def __len__(self) -> int:
        return len(self.views)

    def view(self, number: int) -> DepthView:
        return self.views[number]

    @property
    def poses(self) -> NDArray[np.float64]:
        return np.stack([view.T_world_cam for view in self.views])


@pytest.fixture(scope="module")
def room() -> Views:
    views = []
    for one in render_room(ROOM):
        assert one.depth is not None
        assert one.T_world_cam is not None
        views.append(DepthView(depth=one.depth, image=one.image, T_world_cam=one.T_world_cam))
    return Views(room_camera(ROOM), views)


@pytest.fixture(scope="module")
def mesh(room: Views) -> SurfaceMesh:
    return fuse(room, COARSE)


def distance_to_room(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of points (N, 3) from the nearest rectangle of the room."""
    plan = plan_room(ROOM.seed, ROOM.texture)
    tables = zip(shell_rectangles(plan.size), box_rectangles(plan.boxes), strict=True)
    nearest = np.full(len(points), np.inf)
    for origin, right, down in zip(*(np.concatenate(pair) for pair in tables), strict=True):
        away = points - origin
        s, t = (np.clip(away @ side / (side @ side), 0, 1) for side in (right, down))
        nearest = np.minimum(nearest, np.linalg.norm(away - s[:, None] * right - t[:, None] * down, axis=1))
    return nearest


def wall_views(*, distance: float = 2.0, color: int = 200, count: int = 3, step: float = 0.05) -> Views:
    """Cameras that look along z at a plane of one colour."""
    camera = PinholeCamera(fx=100, fy=100, cx=49.5, cy=39.5, width=100, height=80)
    views = [
        DepthView(
            depth=np.full((80, 100), distance, np.float32),
            image=np.full((80, 100, 3), (color, 0, 255 - color), np.uint8),
            T_world_cam=make_transform(np.eye(3), (step * number, 0, 0)),
        )
        for number in range(count)
    ]
    return Views(camera, views)


# -- the surface ---------------------------------------------------------------------------------------------------


def test_the_mesh_of_a_room_lies_within_a_centimetre_of_the_room(mesh: SurfaceMesh, room: Views) -> None:
    errors = distance_to_room(mesh.vertices)
    assert np.median(errors) < 0.01
    assert np.quantile(errors, 0.9) < 0.02
    seen = np.concatenate([view.points(room.camera, step=7, min_depth=0.2, max_depth=4.5)[0] for view in room.views])
    there = KDTree(mesh.vertices).query(seen)[0] < 0.06
    assert there.mean() > 0.9, "most of what the cameras saw is in the mesh"


def test_normals_and_triangles_face_the_cameras(mesh: SurfaceMesh, room: Views) -> None:
    nearest = KDTree(room.poses[:, :3, 3]).query(mesh.vertices)[1]
    towards = room.poses[nearest, :3, 3] - mesh.vertices
    assert ((towards * mesh.normals).sum(axis=1) > 0).mean() > 0.95
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    assert ((across * mesh.normals[mesh.faces[:, 0]]).sum(axis=1) > 0).mean() > 0.95


def test_colours_are_those_of_the_images(mesh: SurfaceMesh, room: Views) -> None:
    view = room.views[0]
    seen, _ = view.points(room.camera, step=5, min_depth=0.2, max_depth=4.5)
    distance, nearest = KDTree(mesh.vertices).query(seen)
    close = distance < 0.03
    v, u = np.mgrid[2 : ROOM.height : 5, 2 : ROOM.width : 5].reshape(2, -1)
    depth = view.depth[v, u]
    pixels = view.image[v, u][(depth >= 0.2) & (depth <= 4.5)]
    differences = np.abs(pixels[close].astype(float) - mesh.colors[nearest[close]].astype(float)).mean(axis=1)
    assert np.median(differences) < 12


def test_little_memory_gives_the_same_surface_in_parts(mesh: SurfaceMesh, room: Views) -> None:
    small = fuse(room, replace(COARSE, memory=16.0))
    assert len(small.vertices) == len(mesh.vertices)
    assert len(small) == len(mesh)
    assert KDTree(mesh.vertices).query(small.vertices)[0].max() < 1e-6


def test_the_mesh_has_no_seams(mesh: SurfaceMesh) -> None:
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert counts.max() <= 2, "an edge belongs to two triangles at most"
    assert len(np.unique(edges)) == len(mesh.vertices), "no vertex lies loose"
    assert (counts == 1).mean() < 0.1, "only the rim is open, not the faces between blocks"


def test_a_plane_lies_at_its_depth_with_its_colour() -> None:
    wall = fuse(wall_views(distance=2.013), SurfaceConfig(voxel_size=0.02))
    np.testing.assert_allclose(wall.vertices[:, 2], 2.013, atol=1e-4)
    np.testing.assert_allclose(wall.normals[:, 2], -1, atol=1e-3)
    assert np.abs(wall.colors.astype(int) - (200, 0, 55)).max() <= 1
    assert np.ptp(wall.vertices[:, 0]) == pytest.approx(2.1, abs=0.1)


def test_what_one_view_has_seen_is_left_out() -> None:
    views = wall_views(count=2)
    ghost = DepthView(
        depth=np.where(np.arange(100) < 30, 1.0, 2.0)[None].repeat(80, 0).astype(np.float32),
        image=views.views[0].image,
        T_world_cam=np.eye(4),
    )
    fused = fuse(Views(views.camera, [*views.views, ghost]), SurfaceConfig(voxel_size=0.02))
    assert fused.vertices[:, 2].min() > 1.9
    with_it = fuse(Views(views.camera, [*views.views, ghost]), SurfaceConfig(voxel_size=0.02, min_views=1))
    assert with_it.vertices[:, 2].min() < 1.1


def test_what_most_views_look_through_was_passing_by() -> None:
    views = wall_views(count=12, step=0.01)
    passing = [
        DepthView(
            depth=np.where(np.arange(100) < 30, 1.0, 2.0)[None].repeat(80, 0).astype(np.float32),
            image=views.views[0].image,
            T_world_cam=make_transform(np.eye(3), (0.01 * number, 0, 0)),
        )
        for number in range(2)
    ]
    fused = fuse(Views(views.camera, [*views.views, *passing]), SurfaceConfig(voxel_size=0.02))
    assert fused.vertices[:, 2].min() > 1.9


def test_holes_and_depth_out_of_range_say_nothing() -> None:
    views = wall_views()
    for view in views.views:
        view.depth[:, :40] = 0
        view.depth[:, 80:] = 9.0
    fused = fuse(views, SurfaceConfig(voxel_size=0.02, max_depth=4.0))
    x = (fused.vertices[:, 0] - 0.05) / 2.0 * 100 + 49.5
    assert x.min() > 36
    assert x.max() < 84
    with pytest.raises(InputError, match="no depth between 3 and 4 m"):
        fuse(views, SurfaceConfig(min_depth=3.0, max_depth=4.0))


def test_blocks_are_packed_and_split_without_loss() -> None:
    rng = np.random.default_rng(0)
    blocks = np.unique(rng.integers(-70_000, 70_000, (500, 3)), axis=0)
    keys = np.sort(pack(blocks))
    assert {tuple(row) for row in unpack(keys)} == {tuple(row) for row in blocks}
    assert find(keys, keys[[3, 7]]).tolist() == [3, 7]
    assert find(keys, pack(np.array([[1, 2, 3_000]]))).tolist() == [-1]
    boxes = split(keys, 40)
    inside = np.stack([((unpack(keys) >= low) & (unpack(keys) <= high)).all(axis=1) for low, high in boxes])
    assert (inside.sum(axis=0) == 1).all(), "each block lies in one box"
    assert inside.sum(axis=1).max() <= 40


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".stl"])
def test_trimesh_reads_what_is_written(mesh: SurfaceMesh, tmp_path: Path, suffix: str) -> None:
    trimesh = pytest.importorskip("trimesh", reason="comes with the extra mesh")
    write_mesh(tmp_path / f"room{suffix}", mesh)
    read = trimesh.load(tmp_path / f"room{suffix}", force="mesh", process=False)
    assert len(read.faces) == len(mesh)
    np.testing.assert_allclose(read.triangles, mesh.vertices[mesh.faces], atol=1e-5)
    if suffix == ".ply":
        np.testing.assert_array_equal(read.visual.vertex_colors[:, :3], mesh.colors)


# -- the floor plan ------------------------------------------------------------------------------------------------


def test_the_floor_is_found_in_a_world_that_stands_in_any_way(mesh: SurfaceMesh, room: Views) -> None:
    # A map's world is its first camera: turn the room as that would.
    turned = make_transform(so3_exp([0.4, -1.1, 0.7]), (3.0, -2.0, 0.5))
    moved = replace(mesh, vertices=transform_points(turned, mesh.vertices), normals=mesh.normals @ turned[:3, :3].T)
    floor = find_floor(moved, turned @ room.poses)
    up = floor.T_grid_world[2, :3] @ turned[:3, :3]
    assert np.degrees(np.arccos(up @ (0, 0, 1))) < 0.5
    cameras = transform_points(floor.T_grid_world @ turned, room.poses[:, :3, 3])
    np.testing.assert_allclose(cameras[:, 2], room.poses[:, 2, 3], atol=0.015)
    np.testing.assert_allclose(cameras[0, :2], 0, atol=1e-6)


def test_the_plan_has_the_furniture_and_the_free_floor_of_the_room(
    mesh: SurfaceMesh, room: Views, tmp_path: Path
) -> None:
    floor = find_floor(mesh, room.poses)
    grid = occupancy_grid(mesh, floor, OccupancyConfig(resolution=0.05))
    files = write_occupancy(tmp_path / "plan", grid)
    assert [path.name for path in files] == ["plan.pgm", "plan.yaml", "plan.json"]
    cells, description = as_map_server_reads(tmp_path / "plan.yaml")
    np.testing.assert_array_equal(cells, grid.cells)
    T_grid_world = np.array(json.loads((tmp_path / "plan.json").read_text())["T_grid_world"])

    def place(points: NDArray[np.float64]) -> NDArray[np.int8]:
        spots = transform_points(T_grid_world, points)
        column, row = np.floor((spots[:, :2] - description["origin"][:2]) / description["resolution"]).astype(int).T
        return cells[row, column]

    free = np.argwhere(cells == FREE)
    assert len(free) > 400, "square metres of floor"
    # What the plan says is free has no box of the room in a robot's way, but for the cells that touch one.
    centres = np.c_[
        (free[:, 1] + 0.5) * 0.05 + description["origin"][0], (free[:, 0] + 0.5) * 0.05 + description["origin"][1]
    ]
    world = transform_points(np.linalg.inv(T_grid_world), np.c_[centres, np.zeros(len(centres))])
    blocked = np.zeros(len(world), dtype=bool)
    for height in np.arange(0.15, 1.8, 0.05):
        blocked |= inside_boxes(world + np.array([0, 0, height]), shrink=0.05)
    assert blocked.mean() < 0.02
    # Walls that were seen at a robot's height are in the way.
    seen = np.concatenate([view.points(room.camera, step=6, min_depth=0.2, max_depth=4.5)[0] for view in room.views])
    wall = (seen[:, 2] > 0.3) & (seen[:, 2] < 1.5)
    assert (place(seen[wall]) == OCCUPIED).mean() > 0.9
    low = np.abs(seen[:, 2]) < 0.005
    assert (place(seen[low]) != UNKNOWN).mean() > 0.9


def inside_boxes(points: NDArray[np.float64], shrink: float) -> NDArray[np.bool_]:
    inside = np.zeros(len(points), dtype=bool)
    for box in plan_room(ROOM.seed, ROOM.texture).boxes:
        cos, sin = np.cos(box.yaw), np.sin(box.yaw)
        local = (points - box.center) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        inside |= (np.abs(local) < 0.5 * np.asarray(box.size) - shrink).all(axis=1)
    return inside


def as_map_server_reads(path: Path) -> tuple[NDArray[np.int8], dict]:
    """A floor plan as ROS's map server takes it: image rows from the top, darkness against two thresholds."""
    description = yaml.safe_load(path.read_text())
    data = (path.parent / description["image"]).read_bytes()
    magic, size, highest, pixels = data.split(b"\n", 3)
    assert (magic, highest) == (b"P5", b"255")
    width, height = map(int, size.split())
    grey = np.frombuffer(pixels, np.uint8).reshape(height, width)[::-1]
    assert description["mode"] == "trinary"
    assert description["negate"] == 0
    occupied = (255 - grey.astype(float)) / 255
    cells = np.full(grey.shape, UNKNOWN, np.int8)
    cells[occupied > description["occupied_thresh"]] = OCCUPIED
    cells[occupied < description["free_thresh"]] = FREE
    return cells, description


def test_a_room_without_floor_is_told() -> None:
    with pytest.raises(InputError, match="no floor was found"):
        find_floor(fuse(wall_views(), SurfaceConfig()), wall_views().poses)


def test_a_step_down_and_a_table_are_in_the_way() -> None:
    def patch(x0: float, x1: float, z: float) -> NDArray[np.float64]:
        x, y = np.meshgrid(np.arange(x0, x1, 0.02), np.arange(0, 1, 0.02))
        return np.stack([x, y, np.full(x.shape, z)], axis=-1).reshape(-1, 3)

    points = np.concatenate([patch(0, 2, 0.0), patch(1, 1.5, 0.7), patch(2, 2.3, -0.3), patch(0, 0.4, 2.2)])
    up = np.tile([0.0, 0.0, 1.0], (len(points), 1))
    mesh = SurfaceMesh(
        vertices=points, faces=np.zeros((0, 3), np.int64), normals=up, colors=np.zeros((len(points), 3), np.uint8)
    )
    ahead = make_transform([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], (0.5, 0.5, 1.0))
    floor = find_floor(mesh, ahead[None])
    assert floor.camera_height == pytest.approx(1.0, abs=0.01)
    grid = occupancy_grid(mesh, floor, OccupancyConfig())

    def at(x: float, y: float) -> int:
        return grid.at(*transform_points(floor.T_grid_world, [[x, y, 0.0]])[0, :2])

    assert at(0.7, 0.5) == FREE
    assert at(1.25, 0.5) == OCCUPIED, "a table top above the floor that was seen under it"
    assert at(2.15, 0.5) == OCCUPIED, "a step down"
    assert at(0.2, 0.5) == FREE, "a shelf at 2.2 m is higher than the robot"
    assert at(-0.5, 0.5) == UNKNOWN
