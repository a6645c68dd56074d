"""Lines in bundle adjustment: their ends as points that are seen across a segment only, and how far away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse
from semkey.slam.solvers.bounds import CHI_95_1

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# An end may slide along its line by this share of the line's length: nothing is seen of that direction.
_SLIDE_SHARE = 0.5
# An end this far beyond the seen segment, as a share of the segment, is not judged by it.
_BEYOND = 0.15


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleLines:
    """M lines and O sightings of one of their ends, as plain arrays for another process.

    Attributes:
        serials: (M,) which lines.
        points: (M, 2, 3) their ends in the world, metres.
        keyframe_rows: (O,) who sees, row of the problem's poses.
        end_rows: (O,) what: row of the lines times two, plus one for the second end.
        feet: (O, 2) a point of the seen segment, pixels: where the end lay beside it.
        normals: (O, 2) unit normal of the segment.
        pixel_sigma: standard deviation of a segment across itself, pixels.
        depth: (O,) of the measured 3D line at ``feet``, metres; 0 where unknown.
        depth_sigma: (O,) metres.
    """

    serials: Indices
    points: Array
    keyframe_rows: Indices
    end_rows: Indices
    feet: Array
    normals: Array
    pixel_sigma: float
    depth: Array
    depth_sigma: Array

    def __len__(self) -> int:
        return len(self.serials)


@dataclass(frozen=True, kw_only=True, eq=False)
class LineSightings:
    """O sightings of lines by keyframes, as the map keeps them.

    Attributes:
        keyframe_rows: (O,) row of the poses.
        line_rows: (O,) row of the points.
        segments: (O, 2, 2) where, pixels.
        range_planes: (O, 4) see :class:`semkey.slam.solvers.pose_lines.LineObservations`.
        range_sigma: (O, 2) metres, 0 where no depth was measured.
    """

    keyframe_rows: Indices
    line_rows: Indices
    segments: Array
    range_planes: Array
    range_sigma: Array


def bundle_lines(
    serials: Indices,
    points_world: Array,
    poses: Array,
    sightings: LineSightings,
    camera: PinholeCamera,
    *,
    pixel_sigma: float,
) -> BundleLines:
    """Break sightings of lines up into sightings of those of their ends that lie beside the seen segment.

    Args:
        serials: (M,) numbers of the lines.
        points_world: (M, 2, 3) their ends, metres.
        poses: (K, 4, 4) T_world_cam of the keyframes.
        sightings: who sees which.
        camera: of all keyframes.
        pixel_sigma: standard deviation of a segment across itself, pixels.
    """
    T = np.stack([inverse(pose) for pose in poses])[sightings.keyframe_rows]
    ends = points_world[sightings.line_rows]
    cam = ends @ T[:, :3, :3].transpose(0, 2, 1) + T[:, None, :3, 3]
    in_front = cam[:, :, 2] > 0.1
    safe = np.where(in_front[:, :, None], cam, np.array([0.0, 0.0, 1.0]))
    pixels = camera.project(safe.reshape(-1, 3)).reshape(-1, 2, 2)
    step = sightings.segments[:, 1] - sightings.segments[:, 0]
    length = np.maximum(np.linalg.norm(step, axis=1), 1e-9)
    direction = step / length[:, None]
    along = np.einsum("oek,ok->oe", pixels - sightings.segments[:, :1], direction)
    feet = sightings.segments[:, :1] + along[:, :, None] * direction[:, None]
    reach = along / length[:, None]
    beside = in_front & (reach > -_BEYOND) & (reach < 1 + _BEYOND)

    rays = np.concatenate([camera.normalize(feet.reshape(-1, 2)).reshape(-1, 2, 2), np.ones((len(feet), 2, 1))], axis=2)
    slope = np.einsum("oek,ok->oe", rays, sightings.range_planes[:, :3])
    measured = (sightings.range_sigma > 0) & (np.abs(slope) > 0.1)
    slope = np.where(measured, slope, 1.0)
    depth = np.where(measured, -sightings.range_planes[:, None, 3] / slope, 0.0)
    depth = np.where(depth > 0.1, depth, 0.0)
    rows, which = np.nonzero(beside)
    normals = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    return BundleLines(
        serials=serials,
        points=points_world,
        keyframe_rows=sightings.keyframe_rows[rows],
        end_rows=2 * sightings.line_rows[rows] + which,
        feet=feet[rows, which],
        normals=normals[rows],
        pixel_sigma=pixel_sigma,
        depth=depth[rows, which],
        depth_sigma=(sightings.range_sigma / np.abs(slope))[rows, which],
    )


def add_lines(
    graph: Any, values: Any, lines: BundleLines, first_key: int, camera: PinholeCamera, baseline: float
) -> None:
    """Add the ends of lines to a GTSAM problem whose poses have the keys from 0 on.

    Args:
        graph: gtsam.NonlinearFactorGraph.
        values: gtsam.Values; gets the ends under the keys from ``first_key`` on.
        lines: what to add.
        first_key: key of the first end.
        camera: of all keyframes.
        baseline: virtual stereo baseline by which depth becomes disparity, metres.
    """
    import gtsam

    intrinsics = gtsam.Cal3_S2(camera.fx, camera.fy, 0.0, camera.cx, camera.cy)
    stereo = gtsam.Cal3_S2Stereo(camera.fx, camera.fy, 0.0, camera.cx, camera.cy, baseline)
    robust, gaussian = gtsam.noiseModel.Robust.Create, gtsam.noiseModel.Gaussian.SqrtInformation
    huber = gtsam.noiseModel.mEstimator.Huber.Create(CHI_95_1)
    cauchy = gtsam.noiseModel.mEstimator.Cauchy.Create(CHI_95_1)
    slide = _SLIDE_SHARE * np.maximum(np.linalg.norm(lines.points[:, 1] - lines.points[:, 0], axis=1), 1e-3)
    for key, (point, sigma) in enumerate(
        zip(lines.points.reshape(-1, 3), np.repeat(slide, 2).tolist(), strict=True), start=first_key
    ):
        values.insert(key, point)
        graph.add(gtsam.PriorFactorPoint3(key, point, gtsam.noiseModel.Isotropic.Sigma(3, sigma)))
    rows = zip(
        lines.keyframe_rows.tolist(),
        (lines.end_rows + first_key).tolist(),
        lines.feet,
        lines.normals / lines.pixel_sigma,
        lines.depth.tolist(),
        lines.depth_sigma.tolist(),
        strict=True,
    )
    for keyframe, end, foot, normal, depth, depth_sigma in rows:
        # Only the component across the segment is measured.
        # Not "smart": GTSAM would take the diagonal matrix of an upright normal for two standard deviations.
        noise = robust(huber, gaussian(np.stack([normal, np.zeros(2)]), False))
        graph.add(gtsam.GenericProjectionFactorCal3_S2(foot, noise, keyframe, end, intrinsics, False, False))
        if depth > 0:
            disparity = camera.fx * baseline / depth
            scale = depth / (disparity * depth_sigma)
            whitening = np.array([[scale, -scale, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
            measured = gtsam.StereoPoint2(foot[0], foot[0] - disparity, foot[1])
            noise = robust(cauchy, gaussian(whitening))
            graph.add(gtsam.GenericStereoFactor3D(measured, noise, keyframe, end, stereo, False, False))
