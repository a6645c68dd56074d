"""A map in the formats of other programs, read back by these."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import gtsam
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from command_line import Run
from saved_room import ROOM, SavedRoom
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.interop.map_part import MapPart, map_part
from semkey.slam.output.session import load_session


@pytest.fixture(scope="module")
def part(room: SavedRoom) -> MapPart:
    return map_part(load_session(room.map))


def export(run: Run, room: SavedRoom, kind: str, out: Path, *more: object) -> str:
    outcome = run("export", "map", room.map, "--to", kind, "--out", out, *more)
    assert outcome.code == 0, outcome.err
    return outcome.out


def read(path: Path, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    assert image is not None
    return image


def warp_error(image0, depth0, image1, K, T_1_0) -> float:
    """Median difference of grey values of image 0 and of what image 1 shows where its depth says that it is."""
    v, u = np.mgrid[4 : depth0.shape[0] : 5, 4 : depth0.shape[1] : 5].reshape(2, -1)
    z = depth0[v, u]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(len(u))])
    points = T_1_0[:3, :3] @ (rays * z) + T_1_0[:3, 3:]
    x, y, w = K @ points
    with np.errstate(all="ignore"):
        x, y = (x / w).astype(np.float32), (y / w).astype(np.float32)
    inside = (w > 0.1) & (x > 0) & (y > 0) & (x < image1.shape[1] - 1) & (y < image1.shape[0] - 1) & (z > 0)
    assert inside.sum() > 100, "hardly anything of image 0 lands in image 1"
    seen = cv2.remap(image1, x[None], y[None], cv2.INTER_LINEAR)[0]
    return float(np.median(np.abs(seen[inside].astype(float) - image0[v, u][inside].astype(float))))


def test_nerfstudio_poses_and_depth_warp_one_image_onto_another(run: Run, room: SavedRoom, tmp_path: Path) -> None:
    said = export(run, room, "nerfstudio", tmp_path / "out", "--sequence", room.folder)
    content = json.loads((tmp_path / "out/transforms.json").read_text())
    frames = content["frames"]
    assert f"{len(frames)} frames" in said
    assert len(frames) >= 4
    # As nerfstudio does: OpenGL's camera, pixel centres at 0.5, depth in millimetres.
    K = np.array([[content["fl_x"], 0, content["cx"] - 0.5], [0, content["fl_y"], content["cy"] - 0.5], [0, 0, 1]])
    poses = [np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1]) for frame in frames]
    images = [read(tmp_path / "out" / frame["file_path"], cv2.IMREAD_GRAYSCALE) for frame in frames]
    depths = [read(tmp_path / "out" / frame["depth_file_path"]) for frame in frames]
    assert images[0].shape == (content["h"], content["w"])
    assert depths[0].dtype == np.uint16
    pairs = [(k, k + 1) for k in range(len(frames) - 1)]
    turned = [np.degrees(Rotation.from_matrix((poses[a].T @ poses[b])[:3, :3]).magnitude()) for a, b in pairs]
    assert max(turned) > 3, "poses without rotation would not show an axis that is the wrong way round"
    right = [warp_error(images[a], depths[a] / 1e3, images[b], K, np.linalg.inv(poses[b]) @ poses[a]) for a, b in pairs]
    still = [warp_error(images[a], depths[a] / 1e3, images[b], K, np.eye(4)) for a, b in pairs]
    assert np.median(right) < 4.0
    assert np.median(right) < 0.4 * np.median(still)
    points = (tmp_path / "out" / content["ply_file_path"]).read_bytes()
    assert b"element vertex" in points[:200]


def test_semkey_reads_the_transforms_that_it_writes(run: Run, room: SavedRoom, part: MapPart, tmp_path: Path) -> None:
    from semkey.evaluation.data.transforms_json import read_posed_photos

    export(run, room, "nerfstudio", tmp_path / "out", "--sequence", room.folder)
    photos = read_posed_photos(tmp_path / "out/transforms.json")
    assert len(photos) == len(part.keyframes)
    for photo, keyframe in zip(photos, part.keyframes, strict=True):
        np.testing.assert_allclose(photo.T_world_cam, keyframe.T_world_cam, atol=1e-9)
        assert photo.lens.pinhole == part.camera


def test_colmap_reads_the_model_and_its_reprojection_errors_are_ours(
    run: Run, room: SavedRoom, part: MapPart, tmp_path: Path
) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="comes with the extra colmap")
    export(run, room, "colmap", tmp_path / "out", "--sequence", room.folder)
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    assert model.num_reg_images() == len(part.keyframes)
    assert model.num_points3D() > 100
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == sorted(
        image.name for image in model.images.values()
    )
    by_time = sorted(model.images.values(), key=lambda image: image.name)
    for image, keyframe in zip(by_time, part.keyframes, strict=True):
        T_cam_world = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        np.testing.assert_allclose(np.linalg.inv(T_cam_world), keyframe.T_world_cam, atol=1e-9)
    # COLMAP projects with its own camera: the same residuals as ours, half a pixel in camera and points alike.
    errors = []
    for point in model.points3D.values():
        for element in point.track.elements:
            image = model.images[element.image_id]
            seen = image.points2D[element.point2D_idx].xy
            errors.append(np.linalg.norm(image.project_point(point.xyz) - seen))
    ours = []
    for keyframe in part.keyframes:
        rows = keyframe.landmark_ids[keyframe.observed]
        points = (
            np.linalg.inv(keyframe.T_world_cam) @ np.c_[part.slam_map.landmarks.positions[rows], np.ones(len(rows))].T
        )
        ours += np.linalg.norm(
            part.camera.project(points[:3].T) - keyframe.frame.keypoints[keyframe.observed], axis=1
        ).tolist()
    assert np.median(errors) < 2.0
    assert np.median(errors) == pytest.approx(np.median(ours), rel=0.5)
    image = by_time[0]
    camera = model.cameras[image.camera_id]
    assert camera.params.tolist() == pytest.approx(
        [part.camera.fx, part.camera.fy, part.camera.cx + 0.5, part.camera.cy + 0.5]
    )
    # The colour of a point is that of its pixel.
    pixels = read(tmp_path / "out/images" / image.name)[..., ::-1]
    seen = [(point, model.points3D[point.point3D_id]) for point in image.points2D if point.has_point3D()]
    differences = [
        np.abs(pixels[int(point.xy[1]), int(point.xy[0])].astype(float) - landmark.color.astype(float)).mean()
        for point, landmark in seen
    ]
    assert np.median(differences) < 20


def test_gtsam_reads_the_pose_graph_and_finds_the_poses_again(
    run: Run, room: SavedRoom, part: MapPart, tmp_path: Path
) -> None:
    export(run, room, "g2o", tmp_path / "room.g2o")
    graph, values = gtsam.readG2o(str(tmp_path / "room.g2o"), True)
    assert values.size() == len(part.keyframes)
    assert graph.size() >= len(part.keyframes) - 1, "the spanning tree at least"
    for keyframe in part.keyframes:
        np.testing.assert_allclose(values.atPose3(keyframe.id).matrix(), keyframe.T_world_cam, atol=1e-6)
    assert graph.error(values) < 1e-6, "edges agree with the poses"
    # Pushed away, the poses come back: the edges hold all of them together, and their directions are right.
    first = part.keyframes[0]
    graph.add(
        gtsam.PriorFactorPose3(first.id, gtsam.Pose3(first.T_world_cam), gtsam.noiseModel.Isotropic.Sigma(6, 1e-4))
    )
    rng = np.random.default_rng(0)
    pushed = gtsam.Values()
    for keyframe in part.keyframes:
        pushed.insert(keyframe.id, values.atPose3(keyframe.id).retract(rng.normal(0, 0.1, 6)))
    found = gtsam.LevenbergMarquardtOptimizer(graph, pushed).optimize()
    for keyframe in part.keyframes:
        np.testing.assert_allclose(found.atPose3(keyframe.id).matrix(), keyframe.T_world_cam, atol=1e-3)


def test_the_information_of_an_edge_is_in_g2o_order(run: Run, room: SavedRoom, part: MapPart, tmp_path: Path) -> None:
    from semkey.interop.g2o import pose_graph_edges

    export(run, room, "g2o", tmp_path / "room.g2o")
    edge = pose_graph_edges(part)[0]
    row = next(line for line in (tmp_path / "room.g2o").read_text().splitlines() if line.startswith("EDGE")).split()
    assert row[1:3] == [str(edge.first), str(edge.second)]
    upper = np.zeros((6, 6))
    upper[np.triu_indices(6)] = [float(text) for text in row[10:]]
    assert np.diag(upper)[:3] == pytest.approx(edge.translation_sigma**-2)
    assert np.diag(upper)[3:] == pytest.approx(edge.rotation_sigma**-2)


@pytest.mark.parametrize("kind", ["tum", "kitti", "euroc"])
def test_evo_reads_the_trajectory(run: Run, room: SavedRoom, part: MapPart, tmp_path: Path, kind: str) -> None:
    file_interface = pytest.importorskip("evo.tools.file_interface", reason="evo comes with the dev extra")
    out = tmp_path / "poses.txt"
    export(run, room, kind, out)
    reader = {
        "tum": file_interface.read_tum_trajectory_file,
        "kitti": file_interface.read_kitti_poses_file,
        "euroc": file_interface.read_euroc_csv_trajectory,
    }[kind]
    found = reader(str(out))
    ours = part.trajectory()
    np.testing.assert_allclose(np.stack(found.poses_se3), ours.poses, atol=1e-8)
    stamps = np.loadtxt(tmp_path / "poses_times.txt") if kind == "kitti" else found.timestamps
    np.testing.assert_allclose(stamps, ours.timestamps, atol=1e-6)


def test_points_are_those_of_the_map(run: Run, room: SavedRoom, part: MapPart, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="comes with the extra mesh")
    export(run, room, "ply", tmp_path / "room.ply")
    cloud = trimesh.load(tmp_path / "room.ply")
    np.testing.assert_allclose(cloud.vertices, part.points, atol=1e-5)
    np.testing.assert_array_equal(cloud.colors[:, :3], part.colors)


def test_the_exported_trajectory_is_true(run: Run, room: SavedRoom, tmp_path: Path) -> None:
    from semkey.metrics.trajectory import absolute_trajectory_error

    export(run, room, "tum", tmp_path / "poses.txt")
    estimated = read_tum_trajectory(tmp_path / "poses.txt")
    truth = read_tum_trajectory(room.folder / "groundtruth.txt")
    assert absolute_trajectory_error(estimated, truth, alignment="se3").statistics.rmse < 0.05


# -- what is not there or belongs elsewhere ------------------------------------------------------------------------


def test_metres_are_those_of_a_part_that_has_depth(part: MapPart) -> None:
    assert "points (metres)" in part.summary
    single = replace(part, result=replace(part.result, sensor="mono"))
    assert single.is_metric, "a map made with depth, gone on with by a single camera"
    flat = [replace(keyframe, frame=keyframe.frame.without_depth()) for keyframe in part.keyframes]
    assert "map units, not metres" in replace(single, keyframes=flat).summary


def test_another_recording_is_refused(run: Run, room: SavedRoom, tmp_path: Path) -> None:

    from semkey.rendering import write_room

    write_room(tmp_path / "other", replace(ROOM, seed=4, frames=24, texel_size=0.05))
    other = run(
        "export", "map", room.map, "--to", "nerfstudio", "--out", tmp_path / "out", "--sequence", tmp_path / "other"
    )
    assert other.code == 2
    assert "its depth is not that of the map's keyframe" in other.err
    assert not (tmp_path / "out").exists()


def test_a_recording_of_another_clock_is_refused(run: Run, room: SavedRoom, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("rgb", "depth"):
        (moved / name).symlink_to(room.folder / name)
        rows = [line.split() for line in (room.folder / f"{name}.txt").read_text().splitlines()[1:]]
        (moved / f"{name}.txt").write_text("".join(f"{float(stamp) + 50:.6f} {file}\n" for stamp, file in rows))
    (moved / "camera.txt").write_text((room.folder / "camera.txt").read_text())
    outcome = run("export", "map", room.map, "--to", "colmap", "--out", tmp_path / "out", "--sequence", moved)
    assert outcome.code == 2
    assert "no frame at the time of any keyframe" in outcome.err


def test_a_folder_with_something_in_it_is_left_alone(run: Run, room: SavedRoom, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    outcome = run("export", "map", room.map, "--to", "nerfstudio", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to write"),
        (("--to", "tum"), "belong together"),
        (("--dense", "mesh.ply"), "need --sequence"),
        (("--to", "tum", "--out", "a.txt", "--submap", "7"), "no submap 7"),
        (("--dense", "mesh.xyz", "--sequence", "."), "a mesh ends in"),
        (("--to", "tum", "--out", "a.txt", "--voxel-size", "0"), "--voxel-size"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, room: SavedRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("export", "map", room.map, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
