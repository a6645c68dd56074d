"""A map's keyframes as nerfstudio's ``transforms.json``: what radiance fields and splats are trained from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.files import atomic_write_text
from semkey.geometry.camera import PinholeCamera
from semkey.interop.colmap import COLMAP_PIXEL_CENTRE

FILE_NAME = "transforms.json"
#: Depth images are 16-bit PNG in millimetres, which is what nerfstudio takes where it is told nothing else.
DEPTH_UNITS_PER_METRE = 1000.0

# OpenGL's camera looks along -z with y up; ours along z with y down.
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def transforms(
    camera: PinholeCamera,
    poses: Sequence[NDArray[np.float64]],
    images: Sequence[str],
    depths: Sequence[str | None],
    *,
    points: str | None = None,
) -> dict[str, Any]:
    """The content of a ``transforms.json``.

    Args:
        camera: of all images.
        poses: T_world_cam (4, 4) of each image; camera axes x right, y down, z forward.
        images: file of each image, relative to the JSON file's folder.
        depths: the same for depth images, None where there is none.
        points: file of a point cloud in the same world, to start from.

    Returns:
        ``transform_matrix`` is camera to world with OpenGL's camera axes (x right, y up, looking along -z); the world
        is as it was. Pixel centres are at 0.5, as COLMAP and nerfstudio count them.
    """
    frames = []
    for pose, image, depth in zip(poses, images, depths, strict=True):
        frame: dict[str, Any] = {"file_path": image, "transform_matrix": (pose @ _OPENCV_FROM_OPENGL).tolist()}
        if depth is not None:
            frame["depth_file_path"] = depth
        frames.append(frame)
    content: dict[str, Any] = {
        "camera_model": "OPENCV",
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx + COLMAP_PIXEL_CENTRE,
        "cy": camera.cy + COLMAP_PIXEL_CENTRE,
        "w": camera.width,
        "h": camera.height,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "frames": frames,
    }
    if points is not None:
        content["ply_file_path"] = points
    return content


def write_transforms(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``transforms.json`` into a folder.

    Raises:
        InputError: it cannot be written.
    """
    atomic_write_text(folder / FILE_NAME, json.dumps(content, indent=1, allow_nan=False) + "\n")
