"""Reconstructions and telephone recordings as sequences: poses, cameras and depth in semkey's conventions."""

from __future__ import annotations

import json
import sys
import types
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import open_sequence
from semkey.errors import DatasetError
from semkey.geometry.transforms import inverse, make_transform, quaternion_xyzw_from_rotation, so3_exp
from semkey.images import write_image

SIZE = (64, 48)
CAMERA = (60.0, 61.0, 31.25, 23.0)
POSES = [make_transform(so3_exp([0.1 * k, 0.2, -0.1 * k]), [k, 0.5, -0.2 * k]) for k in range(12)]
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def picture(k: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), 20 * k, np.uint8)


def check_poses(sequence, poses=POSES) -> None:
    assert len(sequence) == len(poses)
    for found, expected in zip(sequence.ground_truth, poses, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


# -- nerfstudio ----------------------------------------------------------------------------------------------------


def write_nerfstudio(folder: Path, **top: object) -> Path:
    frames = []
    for k in (10, 2, 0, 1, *range(3, 10), 11):  # not in order
        write_image(folder / f"images/{k}.png", picture(k))
        frames.append({"file_path": f"images/{k}.png", "transform_matrix": (POSES[k] @ FLIP).tolist()})
    values = {"fl_x": 60.0, "fl_y": 61.0, "cx": 31.75, "cy": 23.5, "w": 64, "h": 48, "frames": frames} | top
    (folder / "transforms.json").write_text(json.dumps(values))
    return folder


def test_nerfstudio_axes_half_pixel_and_order(tmp_path: Path) -> None:
    sequence = open_sequence(write_nerfstudio(tmp_path))
    assert (sequence.format, sequence.sensor) == ("nerfstudio", "mono")
    check_poses(sequence)
    assert sequence.camera is not None
    assert (sequence.camera.fx, sequence.camera.fy, sequence.camera.cx, sequence.camera.cy) == CAMERA
    assert [int(frame.image[0, 0, 0]) for frame in sequence] == [20 * k for k in range(12)]


def test_nerfstudio_depth_in_millimetres_where_all_have_it(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path)
    stored = json.loads((tmp_path / "transforms.json").read_text())
    for k, frame in enumerate(stored["frames"]):
        frame["depth_file_path"] = f"depth/{k}.png"
        (tmp_path / "depth").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"depth/{k}.png"), np.full(SIZE[::-1], 1500, np.uint16))
    (tmp_path / "transforms.json").write_text(json.dumps(stored))
    depth = open_sequence(tmp_path)[5].depth
    assert depth is not None
    np.testing.assert_allclose(depth, 1.5, atol=1e-6)
    del stored["frames"][3]["depth_file_path"]
    (tmp_path / "transforms.json").write_text(json.dumps(stored))
    sequence = open_sequence(tmp_path)
    assert sequence.sensor == "mono"
    assert "1 of 12 images have no depth" in sequence.faults[0].message


def test_nerfstudio_images_of_another_camera_are_told(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path)
    stored = json.loads((tmp_path / "transforms.json").read_text())
    stored["frames"][0]["fl_x"] = 99.0
    (tmp_path / "transforms.json").write_text(json.dumps(stored))
    sequence = open_sequence(tmp_path)
    assert (len(sequence), sequence.faults[0].kind) == (11, "unpaired")
    (tmp_path / "transforms.json").write_text('{"frames": 3}')
    with pytest.raises(DatasetError, match="has no list 'frames'"):
        open_sequence(tmp_path)


def test_handed_photos_agree_with_their_matches(shared: Path) -> None:
    """Neighbouring photos of the toy: matches lie on the epipolar lines of the poses as read."""
    from semkey import load, match

    sequence = open_sequence(shared / "data/posed-photos/toy")
    assert len(sequence) == 96
    assert sequence.camera is not None
    first, second = sequence[10], sequence[11]
    features = [load("sift", max_keypoints=1000).extract(frame.image) for frame in (first, second)]
    pairs = match(*features).indices.numpy()
    x = [sequence.camera.normalize(f.keypoints.numpy()[pairs[:, side]]) for side, f in enumerate(features)]
    assert first.T_world_cam is not None
    assert second.T_world_cam is not None
    T = inverse(second.T_world_cam) @ first.T_world_cam
    t = T[:3, 3]
    E = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) @ T[:3, :3]
    rays = [np.column_stack([points, np.ones(len(points))]) for points in x]
    lines = rays[0] @ E.T
    distance = np.abs((lines * rays[1]).sum(1)) / np.linalg.norm(lines[:, :2], axis=1) * sequence.camera.fx
    assert len(distance) > 100
    assert (distance < 3).mean() > 0.6  # with wrong axes a few per cent


# -- COLMAP --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "binary"])
@pytest.mark.parametrize("place", ["sparse/0", "sparse", "."])
def test_colmap_models_of_pycolmap(tmp_path: Path, form: str, place: str) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap comes with the extra colmap")
    reconstruction = pycolmap.Reconstruction()
    camera = pycolmap.Camera(camera_id=3, model="PINHOLE", width=64, height=48, params=[60, 61, 31.75, 23.5])
    reconstruction.add_camera_with_trivial_rig(camera)
    for k, T_world_cam in enumerate(POSES):
        write_image(tmp_path / f"images/shot {k}.png", picture(k))
        T = inverse(T_world_cam)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(T[:3, :3]), T[:3, 3])
        image = pycolmap.Image(
            name=f"shot {k}.png", camera_id=3, image_id=100 - k,
            points2D=pycolmap.Point2DList([pycolmap.Point2D([1.0, 2.0])] * (k % 3)),
        )  # fmt: skip
        reconstruction.add_image_with_trivial_frame(image, pose)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    getattr(reconstruction, f"write_{form}")(str(tmp_path / place))
    for path in (tmp_path, tmp_path / place):
        sequence = open_sequence(path)
        assert (sequence.format, sequence.sensor) == ("colmap", "mono")
        check_poses(sequence)
        assert sequence.camera is not None
        np.testing.assert_allclose(
            (sequence.camera.fx, sequence.camera.fy, sequence.camera.cx, sequence.camera.cy), CAMERA
        )
        assert int(sequence[11].image[0, 0, 0]) == 220


def test_colmap_models_that_are_broken(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", picture(1))
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 64 48 60 61 31.75 23.5\n")
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 0 0 1 b.png\n\n")
    with pytest.raises(DatasetError, match=r"the images of the model are not there \(b\.png"):
        open_sequence(tmp_path)
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 0 0 7 a.png\n\n")
    with pytest.raises(DatasetError, match=r"has camera 7, which cameras\.txt does not hold"):
        open_sequence(tmp_path)
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 x 0 1 a.png\n\n")
    with pytest.raises(DatasetError, match=r"images\.txt:1: expected IMAGE_ID"):
        open_sequence(tmp_path)


# -- telephones ----------------------------------------------------------------------------------------------------


def small_depth(k: int) -> np.ndarray:
    return (np.arange(16 * 12).reshape(12, 16) + 1000 + k).astype(np.uint16)


def test_record3d_poses_camera_and_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    (tmp_path / "rgbd").mkdir()
    for k, T in enumerate(POSES):
        write_image(tmp_path / f"rgbd/{k}.png", picture(k))
        metres = small_depth(k).astype(np.float32) / 1000
        metres[0, 0] = np.nan
        (tmp_path / f"rgbd/{k}.depth").write_bytes(zlib.compress(metres.tobytes()))
        rows.append([*quaternion_xyzw_from_rotation((T @ FLIP)[:3, :3]), *T[:3, 3]])
    metadata = {"w": 64, "h": 48, "dw": 16, "dh": 12, "fps": 60, "K": [60, 0, 0, 0, 61, 0, 31.25, 23, 1], "poses": rows}
    (tmp_path / "metadata").write_text(json.dumps(metadata))
    monkeypatch.setitem(sys.modules, "liblzfse", None)  # not installed
    sequence = open_sequence(tmp_path)
    assert (sequence.format, sequence.sensor) == ("record3d", "mono")
    assert "pip install pyliblzfse" in sequence.faults[0].message
    check_poses(sequence)
    np.testing.assert_allclose(np.diff(sequence.timestamps), 1 / 60)
    packed = types.ModuleType("liblzfse")
    packed.decompress = zlib.decompress  # ty: ignore[missing-attribute]
    monkeypatch.setitem(sys.modules, "liblzfse", packed)
    sequence = open_sequence(tmp_path)
    assert sequence.camera is not None
    assert (sequence.camera.fx, sequence.camera.fy, sequence.camera.cx, sequence.camera.cy) == CAMERA
    depth = sequence[3].depth
    assert depth is not None
    # Four pixels of the image to one of depth, on both sides of a border.
    assert depth[0, 3] == 0
    assert depth[20, [39, 40]] == pytest.approx(small_depth(3)[5, [9, 10]] / 1000, abs=1e-6)
    (tmp_path / "metadata").write_text(json.dumps(metadata | {"poses": rows[:3]}))
    with pytest.raises(DatasetError, match="12 images in rgbd, but 3 poses"):
        open_sequence(tmp_path)
    (tmp_path / "scan.r3d").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="unpack it"):
        open_sequence(tmp_path / "scan.r3d")


def test_stray_scanner(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "rgb.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 60, SIZE)
    for name in ("depth", "confidence"):
        (tmp_path / name).mkdir()
    rows = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for k, T in enumerate(POSES):
        writer.write(picture(k))
        cv2.imwrite(str(tmp_path / f"depth/{k:06d}.png"), small_depth(k))
        confidence = np.full((12, 16), 2, np.uint8)
        confidence[0, 0] = 0
        cv2.imwrite(str(tmp_path / f"confidence/{k:06d}.png"), confidence)
        values = [*T[:3, 3], *quaternion_xyzw_from_rotation(T[:3, :3])]
        rows.append(f"{5000 + k / 60:.6f}, {k:06d}, " + ", ".join(f"{value:.9f}" for value in values))
    writer.release()
    (tmp_path / "odometry.csv").write_text("\n".join(rows))
    (tmp_path / "camera_matrix.csv").write_text("60.0, 0.0, 31.25\n0.0, 61.0, 23.0\n0.0, 0.0, 1.0\n")
    (tmp_path / "imu.csv").write_text(
        "timestamp, a_x, a_y, a_z, alpha_x, alpha_y, alpha_z\n5000, 0, 0, 9.8, 0.1, 0, 0\n"
    )
    sequence = open_sequence(tmp_path)
    assert (sequence.format, sequence.sensor) == ("stray", "rgbd")
    check_poses(sequence)
    np.testing.assert_allclose(sequence.timestamps, 5000 + np.arange(12) / 60, atol=1e-6)
    frame = sequence[7]
    assert abs(int(frame.image.mean()) - 140) < 6
    assert frame.depth is not None
    assert frame.depth[0, 0] == 0
    assert frame.depth[20, 40] == pytest.approx(small_depth(7)[5, 10] / 1000)
    assert sequence.imu is not None
    assert (sequence.imu.accel[0, 2], sequence.imu.gyro[0, 0]) == (9.8, 0.1)
    (tmp_path / "odometry.csv").write_text("\n".join(rows[:6]))
    shorter = open_sequence(tmp_path)
    assert len(shorter) == 5
    assert "5 poses, but 12 frames" in shorter.faults[0].message
