"""What keyframes of one place see, together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def place_pixels(slam_map: SlamMap, place: Sequence[Keyframe], T_world_cam: Array, camera: PinholeCamera) -> Array:
    """Where a camera at a pose should see the landmarks of a place: (V, 2) pixels, inside the image."""
    return slam_map.landmarks.visible_from(place_landmarks(slam_map, place), T_world_cam, camera)[1]


def place_landmarks(slam_map: SlamMap, place: Sequence[Keyframe]) -> Indices:
    """The landmarks (L,) that keyframes see, each once."""
    seen = np.unique(np.concatenate([keyframe.landmark_ids for keyframe in place]))
    seen = seen[seen >= 0]
    return seen[slam_map.landmarks.alive[seen]]
