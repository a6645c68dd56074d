"""Whether a camera only turned between two views: then nothing tells how far anything is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.slam.solvers.bounds import CHI2_95_2

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ROTATION_FITS = 4
_TURNED_SHARE = 0.9


def only_turned(keypoints0: Array, keypoints1: Array, inliers: Mask, camera: PinholeCamera, pixel_sigma: float) -> bool:
    """Whether a rotation alone explains the matches that agree with a model of motion, nearly as well as that model.

    A turn and a short step along a plane move pixels alike but for the image's edges. Taken for the step, the turn of a
    camera that stands still made maps of 300 to 600 landmarks with 1.5 degrees of parallax.

    Args:
        keypoints0: (M, 2) pixels in view 0.
        keypoints1: (M, 2) pixels of the same points in view 1.
        inliers: (M,) matches that agree with the model.
        camera: of both views.
        pixel_sigma: standard deviation of a keypoint's coordinates, pixels.
    """
    rays0, rays1 = _rays(keypoints0, camera), _rays(keypoints1, camera)
    explained = inliers
    for _ in range(_ROTATION_FITS):
        if np.count_nonzero(explained) < 3:
            return False
        U, _, Vt = np.linalg.svd(rays1[explained].T @ rays0[explained])  # Kabsch 1976
        R_10 = U @ np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt
        errors = np.square(camera.project(rays0 @ R_10.T) - keypoints1).sum(axis=1)
        explained = inliers & (errors < CHI2_95_2 * 2 * pixel_sigma**2)  # both keypoints have noise
    return bool(np.count_nonzero(explained) >= _TURNED_SHARE * np.count_nonzero(inliers))


def _rays(keypoints: Array, camera: PinholeCamera) -> Array:
    rays = np.concatenate([camera.normalize(keypoints), np.ones((len(keypoints), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
