"""Where the floor is: its plane below the cameras, and a frame that stands upright on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.transforms import inverse, make_transform
from semkey.surfaces.mesh import SurfaceMesh

# Angles, degrees, between what counts as horizontal and the direction up, from the first guess (the cameras' own up,
# tilted as they are) to the last.
_NARROWING = (40.0, 25.0, 15.0, 8.0, 5.0)
# Thickness of a layer of horizontal surface, metres.
_LAYER = 0.02
# The floor is the lowest layer with at least this share of the largest one's surface: tables may be larger.
_SHARE_OF_LARGEST = 0.2
# Less horizontal surface than this share of all is no floor, and neither is less than so many vertices.
_LEAST_SHARE = 0.01
_FEWEST = 200
# Distance from the plane within which vertices refine it, metres.
_NEAR = 0.03


@dataclass(frozen=True, kw_only=True, eq=False)
class Floor:
    """The floor of a map.

    Attributes:
        T_grid_world: (4, 4) from the world to a frame with z up and z = 0 on the floor, below the first camera, whose
            viewing direction is x.
        support: vertices that lie on the floor.
        camera_height: median height of the cameras above it, metres.
    """

    T_grid_world: NDArray[np.float64]
    support: int
    camera_height: float


def find_floor(mesh: SurfaceMesh, poses: ArrayLike) -> Floor:
    """The floor below cameras that are held upright, or tilted by less than about 40 degrees.

    Up is the direction around which the normals of horizontal surfaces gather; the floor is the lowest layer with much
    of such surface.

    Args:
        mesh: the surface.
        poses: (N, 4, 4) T_world_cam of the cameras.

    Raises:
        InputError: there is no such layer, or it is not below the cameras.
    """
    cameras = np.asarray(poses, dtype=np.float64)
    up = -cameras[:, :3, 1].mean(axis=0)
    if np.linalg.norm(up) < 0.1:
        raise InputError("no floor was found: the cameras were held in all directions, so that up is not known")
    up /= np.linalg.norm(up)
    for angle in _NARROWING:
        normals = mesh.normals[mesh.normals @ up > np.cos(np.radians(angle))]
        if len(normals) < _FEWEST:
            raise InputError("no floor was found: hardly any horizontal surface below the cameras was seen")
        up = normals.mean(axis=0)
        up /= np.linalg.norm(up)
    flat = mesh.normals @ up > np.cos(np.radians(2 * _NARROWING[-1]))
    heights = mesh.vertices[flat] @ up
    height = _lowest_layer(heights, len(mesh.vertices))
    near = mesh.vertices[flat][np.abs(heights - height) < _NEAR]
    # The plane of these: the direction in which they spread least.
    centre = near.mean(axis=0)
    direction = np.linalg.svd(near - centre, full_matrices=False)[2][2]
    up = direction if direction @ up > 0 else -direction
    above = float(np.median((cameras[:, :3, 3] - centre) @ up))
    if above <= 0:
        raise InputError("no floor was found: the lowest horizontal surface is above the cameras")
    T_grid_world = inverse(_grid_pose(cameras[0], centre, up))
    return Floor(T_grid_world=T_grid_world, support=len(near), camera_height=above)


def _lowest_layer(heights: NDArray[np.float64], total: int) -> float:
    low = heights.min()
    counts = np.bincount(((heights - low) / _LAYER).astype(np.int64))
    layers = np.convolve(counts, np.ones(3), mode="same")
    enough = layers >= max(_SHARE_OF_LARGEST * layers.max(), _LEAST_SHARE * total, _FEWEST)
    if not enough.any():
        raise InputError("no floor was found: no horizontal surface is large enough")
    # The first layer that is enough lies at the lower edge of a peak: climb to its top.
    layer = int(np.argmax(enough))
    while layer + 1 < len(counts) and layers[layer + 1] > layers[layer]:
        layer += 1
    return float(low + (layer + 0.5) * _LAYER)


def _grid_pose(
    T_world_cam: NDArray[np.float64], on_floor: NDArray[np.float64], up: NDArray[np.float64]
) -> NDArray[Any]:
    """T_world_grid (4, 4)."""
    centre, ahead = T_world_cam[:3, 3], T_world_cam[:3, 2]
    forward = ahead - (ahead @ up) * up
    if np.linalg.norm(forward) < 1e-3:  # it looks straight down: what is above in the image is ahead
        forward = -T_world_cam[:3, 1] + (T_world_cam[:3, 1] @ up) * up
    forward /= np.linalg.norm(forward)
    rotation = np.stack([forward, np.cross(up, forward), up], axis=1)
    return make_transform(rotation, centre - ((centre - on_floor) @ up) * up)
