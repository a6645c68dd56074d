"""A wall whose pattern repeats: every place of it looks like the one a period further."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from semkey.datasets import Frame, FrameSequence
from semkey.evaluation.slam.torture.faults import texture
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp

PERIOD = 0.25
"""Metres after which the wall repeats itself, across and down."""

_DISTANCE = 1.6
_TEXELS = 125


class WallpaperSequence(FrameSequence):
    """A hand-held camera before an endless wall, rendered when a frame is read.

    Args:
        camera: of the images.
        frames: how many.
        fps: frames per second.
    """

    def __init__(self, camera: PinholeCamera, frames: int, *, fps: float = 15.0) -> None:
        times = np.arange(frames) / fps
        super().__init__(
            name="wallpaper",
            format="torture",
            camera=camera,
            has_depth=True,
            timestamps=times,
            ground_truth=[_pose(time) for time in times],
        )

    def _load(self, index: int) -> Frame:
        assert self.camera is not None
        pose = self.ground_truth[index]
        assert pose is not None
        rays = _rays(self.camera) @ pose[:3, :3].T
        # The wall is the plane z = 0, and the camera is behind it at z = -distance.
        depth = -pose[2, 3] / rays[..., 2]
        places = pose[:2, 3] + depth[..., None] * rays[..., :2]
        texels = np.mod(places / PERIOD, 1.0) * _TEXELS
        pattern = cv2.copyMakeBorder(texture(_TEXELS, _TEXELS, seed=3), 0, 2, 0, 2, cv2.BORDER_WRAP)
        pattern = cv2.GaussianBlur(pattern, (0, 0), 0.8)
        x, y = texels[..., 0].astype(np.float32), texels[..., 1].astype(np.float32)
        image = cv2.remap(pattern, x, y, cv2.INTER_LINEAR)
        rng = np.random.default_rng([5, index])
        image = np.clip(image + rng.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8)
        return Frame(
            index=index,
            timestamp=float(self.timestamps[index]),
            image=image,
            depth=depth.astype(np.float32),
            T_world_cam=pose,
        )


def _pose(time: float) -> np.ndarray:
    sway = 0.06 * np.array([np.sin(1.9 * time), np.sin(2.7 * time + 1.0), np.sin(1.3 * time)])
    turn = 0.08 * np.array([np.sin(1.1 * time), np.sin(1.7 * time + 0.5), np.sin(0.9 * time)])
    return make_transform(so3_exp(turn), np.array([0.22 * time, 0.0, -_DISTANCE]) + sway)


@lru_cache(maxsize=2)
def _rays(camera: PinholeCamera) -> np.ndarray:
    """Directions (H, W, 3) of the pixels in camera coordinates, z = 1."""
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return np.stack([x, y, np.ones_like(x)], axis=-1)
