"""A map as a COLMAP model, through pycolmap: cameras, posed images with their keypoints, points with their tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse
from semkey.interop.map_part import MapPart

if TYPE_CHECKING:
    from pycolmap import Reconstruction

#: COLMAP counts the middle of the upper left pixel as (0.5, 0.5), semkey as (0, 0).
COLMAP_PIXEL_CENTRE = 0.5
_CAMERA_ID = 1
# A point is triangulated from two views; COLMAP's filters throw shorter tracks away.
_SHORTEST_TRACK = 2


def import_pycolmap() -> Any:
    """The module.

    Raises:
        InputError: it is not installed.
    """
    # Loaded first, pycolmap (4.1 to 4.2.1) brings a zlib of its own, and reading a PNG later ends the process.
    import zlib  # noqa: F401

    try:
        import pycolmap
    except ImportError:
        raise InputError("this needs pycolmap: pip install 'semkey[colmap]'") from None
    return pycolmap


def colmap_camera(camera: PinholeCamera, camera_id: int = _CAMERA_ID) -> Any:
    """A pycolmap camera of model PINHOLE, its principal point in COLMAP's count of pixels."""
    pycolmap = import_pycolmap()
    return pycolmap.Camera(
        model="PINHOLE",
        width=camera.width,
        height=camera.height,
        params=[camera.fx, camera.fy, camera.cx + COLMAP_PIXEL_CENTRE, camera.cy + COLMAP_PIXEL_CENTRE],
        camera_id=camera_id,
    )


def colmap_model(part: MapPart, names: Sequence[str]) -> Reconstruction:
    """The model of a part of a map.

    Keyframe k becomes image k + 1; its keypoints are the image's 2D points in the same order, and landmarks that at
    least two keyframes see become 3D points, with colour, track and reprojection error. World and unit are the map's.

    Args:
        part: the map.
        names: file name of each keyframe's image.

    Raises:
        InputError: pycolmap is not installed.
    """
    pycolmap = import_pycolmap()
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(colmap_camera(part.camera))
    tracks: dict[int, list[tuple[int, int]]] = {row: [] for row in part.landmark_ids.tolist()}
    for number, (keyframe, name) in enumerate(zip(part.keyframes, names, strict=True), start=1):
        image = pycolmap.Image(
            name=name,
            keypoints=keyframe.frame.keypoints + COLMAP_PIXEL_CENTRE,
            camera_id=_CAMERA_ID,
            image_id=number,
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(inverse(keyframe.T_world_cam)[:3]))
        for keypoint in keyframe.observed.tolist():
            row = int(keyframe.landmark_ids[keypoint])
            if row in tracks:
                tracks[row].append((number, keypoint))
    for row, point, color in zip(part.landmark_ids.tolist(), part.points, part.colors, strict=True):
        if len(tracks[row]) >= _SHORTEST_TRACK:
            track = pycolmap.Track([pycolmap.TrackElement(*sighting) for sighting in tracks[row]])
            model.add_point3D(point, track, color)
    model.update_point_3d_errors()
    return model


def write_colmap_model(part: MapPart, names: Sequence[str], folder: Path) -> str:
    """Write ``cameras``, ``images``, ``points3D``, ``rigs`` and ``frames`` (binary); says what is in them.

    Args:
        part: the map.
        names: file name of each keyframe's image.
        folder: made if missing.

    Raises:
        InputError: pycolmap is not installed.
    """
    model = colmap_model(part, names)
    folder.mkdir(parents=True, exist_ok=True)
    model.write(str(folder))
    errors = [point.error for point in model.points3D.values()]
    error = f", reprojection error {np.mean(errors):.2f} px" if errors else ""
    return f"{model.num_reg_images()} images, {model.num_points3D()} points{error}"
