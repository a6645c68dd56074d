"""Photos of a textured plane from known poses, as a COLMAP model, text or binary, or a ``transforms.json``."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np

SIZE, FOCAL = (240, 180), 220.0
K = np.array([[FOCAL, 0, (SIZE[0] - 1) / 2], [0, FOCAL, (SIZE[1] - 1) / 2], [0, 0, 1.0]])
_PIXELS_PER_UNIT = 120.0
_SIDE = 720


def poses(count: int) -> list[np.ndarray]:
    """T_cam_world of cameras before the plane z = 0, on an arc, looking at its middle."""
    result = []
    for angle in np.linspace(-0.35, 0.35, count):
        centre = np.array([2.2 * np.sin(angle), 0.3 * np.cos(7 * angle), -2.2 * np.cos(angle)])
        ahead = -centre / np.linalg.norm(centre)
        right = np.cross([0.0, 1.0, 0.0], ahead)
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(ahead, right), ahead])
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, -R @ centre
        result.append(T)
    return result


def write_photos(folder: Path, count: int = 8, seed: int = 0) -> list[np.ndarray]:
    """Photos ``images/0.png``, ... of a plane; returns their poses."""
    rng = np.random.default_rng(seed)
    plane = rng.uniform(0, 255, (_SIDE // 6, _SIDE // 6)).astype(np.float32)
    plane = cv2.resize(plane, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    to_plane = np.array([[_PIXELS_PER_UNIT, 0, _SIDE / 2], [0, _PIXELS_PER_UNIT, _SIDE / 2], [0, 0, 1.0]])
    (folder / "images").mkdir(parents=True)
    found = poses(count)
    for number, T in enumerate(found):
        H = K @ T[:3, [0, 1, 3]] @ np.linalg.inv(to_plane)
        image = cv2.warpPerspective(plane, H, SIZE, flags=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    return found


def plane_points(count: int = 300, seed: int = 1) -> np.ndarray:
    """Points (N, 3) of the plane."""
    points = np.random.default_rng(seed).uniform(-0.8, 0.8, (count, 3))
    points[:, 2] = 0.0
    return points


def write_colmap(folder: Path, *, count: int = 8, binary: bool = False, points: bool = True, seed: int = 0) -> None:
    """A model of such photos in ``sparse/0``, whose points every photo sees."""
    found = write_photos(folder, count, seed)
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    cx, cy = K[0, 2] + 0.5, K[1, 2] + 0.5  # COLMAP counts from the corner of the first pixel
    quaternions = [_quaternion(T[:3, :3]) for T in found]
    places = plane_points() if points else np.zeros((0, 3))
    if binary:
        camera = struct.pack("<QiiQQdddd", 1, 1, 1, *SIZE, FOCAL, FOCAL, cx, cy)
        (model / "cameras.bin").write_bytes(camera)
        rows = [
            struct.pack("<I4d3dI", n + 1, *q, *T[:3, 3], 1) + f"{n}.png".encode() + b"\0" + struct.pack("<Q", 0)
            for n, (q, T) in enumerate(zip(quaternions, found, strict=True))
        ]
        (model / "images.bin").write_bytes(struct.pack("<Q", count) + b"".join(rows))
        seen = b"".join(struct.pack("<II", n + 1, 0) for n in range(count))
        stored = [
            struct.pack("<Q3d3Bd", n, *p, 9, 9, 9, 0.5) + struct.pack("<Q", count) + seen for n, p in enumerate(places)
        ]
        (model / "points3D.bin").write_bytes(struct.pack("<Q", len(places)) + b"".join(stored))
        return
    (model / "cameras.txt").write_text(f"1 PINHOLE {SIZE[0]} {SIZE[1]} {FOCAL} {FOCAL} {cx} {cy}\n")
    lines = []
    for n, (q, T) in enumerate(zip(quaternions, found, strict=True)):
        lines.append(" ".join(map(repr, [n + 1, *map(float, q), *map(float, T[:3, 3])])) + f" 1 {n}.png\n\n")
    (model / "images.txt").write_text("".join(lines))
    track = " ".join(f"{n + 1} 0" for n in range(count))
    (model / "points3D.txt").write_text(
        "# points\n"
        + "".join(f"{n} {p[0]!r} {p[1]!r} {p[2]!r} 9 9 9 0.5 {track}\n" for n, p in enumerate(places.tolist()))
    )


def write_transforms(folder: Path, *, count: int = 8) -> None:
    """The same photos with nerfstudio's ``transforms.json``: OpenGL axes, no points."""
    frames = []
    for number, T in enumerate(write_photos(folder, count)):
        pose = np.linalg.inv(T) @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"images/{number}.png", "transform_matrix": pose.tolist()})
    camera = {"w": SIZE[0], "h": SIZE[1], "fl_x": FOCAL, "fl_y": FOCAL, "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5}
    (folder / "transforms.json").write_text(json.dumps({**camera, "camera_model": "OPENCV", "frames": frames}))


def _quaternion(R: np.ndarray) -> np.ndarray:
    """w x y z."""
    w = np.sqrt(max(1.0 + np.trace(R), 1e-12)) / 2
    return np.array([w, (R[2, 1] - R[1, 2]) / (4 * w), (R[0, 2] - R[2, 0]) / (4 * w), (R[1, 0] - R[0, 1]) / (4 * w)])
