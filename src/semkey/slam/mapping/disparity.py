"""A stereo pair's constant error of disparity: watched from keyframe to keyframe, and taken out of the map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import compose, inverse, transform_points
from semkey.matching import match
from semkey.matching.background import background_similarity
from semkey.matching.robust import estimate_relative_pose
from semkey.slam.config import StereoConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.solvers.stereo_offset import OffsetPair, estimate_offset

Array = NDArray[np.float64]

# Matches of two left images are right within so many pixels of their epipolar lines, of an image 640 wide.
_EPIPOLAR_PX = 1.0
# Fewer points do not tell motion and offset apart.
_FEWEST_POINTS = 30
# Pairs of keyframes agree on the offset to so much, however many points they share, pixels: cars move, keypoints slide.
_PAIR_SIGMA = 0.2
# Fewer pairs say nothing about how much they agree.
_FEWEST_PAIRS = 5
# After so many pairs what is known is known.
_MOST_PAIRS = 40
# An offset is believed when it is so many times as large as its uncertainty, and worth moving the map for from here on.
_SURE = 3.0
_SMALLEST_PX = 0.1
# ... when the map is adjusted as a whole anyway.
_SMALLEST_AT_LAST_PX = 0.02
# A calibration that is farther off is wrong altogether, and not what is left of a right one.
_LARGEST_PX = 3.0


class DisparityWatch:
    """Finds out by how much all disparities are wrong, see :mod:`semkey.slam.solvers.stereo_offset`.

    Args:
        slam_map: the map.
        baseline: metres between the two cameras.
        config: ``offset_sigma`` and ``disparity_offset`` are read.
    """

    def __init__(self, slam_map: SlamMap, baseline: float, config: StereoConfig) -> None:
        self._map = slam_map
        self._baseline = baseline
        self._prior = config.offset_sigma
        self.offset: float = config.disparity_offset
        self._offsets: list[float] = []
        self._weights: list[float] = []

    def corrected(self, frame: ObservedFrame) -> ObservedFrame:
        """A frame with the depths that its disparities have once the offset is added."""
        return frame.with_disparity_offset(self.offset, self._map.camera.fx * self._baseline)

    def find_change(self, keyframe: Keyframe) -> float | None:
        """What a new keyframe says; by how much the offset has to change for that, pixels, or None for not at all."""
        parent = None if keyframe.parent is None else self._map.keyframes.get(keyframe.parent)
        if not self._prior or parent is None or len(self._offsets) >= _MOST_PAIRS:
            return None
        pair = self._pair(parent, keyframe)
        if len(pair) < _FEWEST_POINTS:
            return None
        motion = inverse(keyframe.T_world_cam) @ parent.T_world_cam
        found = estimate_offset(pair, motion, self._map.camera, self._baseline)
        if not found.information or abs(found.offset) > _LARGEST_PX:
            return None
        self._offsets.append(self.offset + found.offset)
        self._weights.append(1.0 / (1.0 / found.information + _PAIR_SIGMA**2))
        return self._change(max(_SMALLEST_PX, self._mean()[1]))

    def last_change(self) -> float | None:
        """By how much the offset has to change for what all keyframes have said, pixels; None where it is right."""
        return self._change(_SMALLEST_AT_LAST_PX)

    def _change(self, smallest: float) -> float | None:
        if len(self._offsets) < _FEWEST_PAIRS:
            return None
        mean, sigma = self._mean()
        change = mean - self.offset
        return change if abs(mean) > _SURE * sigma and abs(change) > smallest else None

    def apply(self, change: float) -> None:
        """Add to the offset, and make the map what it would be if it had been known from the start.

        Keyframes follow each other by motions that are estimated anew, with the new depths; landmarks lie along the
        rays of their reference keyframes at these. What is left of tension is the next adjustment's business.
        """
        self.offset += change
        focal_baseline = self._map.camera.fx * self._baseline
        landmarks = self._map.landmarks
        alive = landmarks.ids
        references = landmarks.references[alive]
        local: dict[int, Array] = {}
        for keyframe_id in np.unique(references).tolist():
            pose = inverse(self._map.keyframes[keyframe_id].T_world_cam)
            points = transform_points(pose, landmarks.positions[alive[references == keyframe_id]])
            disparity = focal_baseline / np.maximum(points[:, 2], 1e-6)
            local[keyframe_id] = points * (disparity / np.maximum(disparity + change, 1e-3))[:, None]
        poses, growth = self._chain(change)
        for keyframe in self._map.keyframes.values():
            keyframe.frame = keyframe.frame.with_disparity_offset(change, focal_baseline)
        # Frames between keyframes go as far as these.
        self._map.set_poses(poses, dict.fromkeys(poses, growth))
        for keyframe_id, points in local.items():
            ids = alive[references == keyframe_id]
            landmarks.positions[ids] = transform_points(self._map.keyframes[keyframe_id].T_world_cam, points)

    def _mean(self) -> tuple[float, float]:
        """The offset by all pairs and by what is expected of a calibration, and its standard deviation."""
        offsets, weights = np.array(self._offsets), np.array(self._weights)
        total = weights.sum() + 1.0 / self._prior**2
        mean = float(weights @ offsets / total)
        scatter = weights**2 @ np.square(offsets - weights @ offsets / weights.sum())
        scatter *= len(offsets) / max(len(offsets) - 1, 1)
        return mean, float(np.sqrt(max(scatter / total**2, 1.0 / total)))

    def _pair(self, parent: Keyframe, keyframe: Keyframe) -> OffsetPair:
        """What two keyframes both see, where the first has a disparity.

        Which keypoints belong together is decided by their looks and by the epipolar geometry of the two left images,
        neither of which knows of depths. Landmarks that both see have agreed with poses that come from the disparities
        as they are, and ask for none to be changed: by those of KITTI 01 the offset is 0.45 px until it is corrected,
        and 0.88 px from then on.
        """
        first, second = parent.frame, keyframe.frame
        matches = match(first.features, second.features)
        similar = matches.scores.numpy() > background_similarity(first.descriptors, second.descriptors)
        rows0, rows1 = matches.indices.numpy()[similar].T
        found = estimate_relative_pose(
            first.keypoints[rows0],
            second.keypoints[rows1],
            self._map.camera,
            self._map.camera,
            max_error_px=_EPIPOLAR_PX * image_scale(self._map.camera),
        )
        together = found.inliers & (first.depth[rows0] > 0)
        rows0, rows1 = rows0[together], rows1[together]
        depth = first.depth[rows0]
        disparities = self._map.camera.fx * self._baseline / depth
        return OffsetPair(
            keypoints0=first.keypoints[rows0],
            disparities=disparities,
            disparity_sigmas=first.depth_sigma[rows0] / depth * disparities,
            keypoints1=second.keypoints[rows1],
            covariances=first.covariances[rows0] + second.covariances[rows1],
        )

    def _chain(self, change: float) -> tuple[dict[int, Array], float]:
        """New poses of all keyframes, and by how much motions grow (the median)."""
        poses: dict[int, Array] = {}
        growths: list[float] = []
        for keyframe in self._map.keyframes.values():
            parent = None if keyframe.parent is None else self._map.keyframes.get(keyframe.parent)
            if parent is None or parent.id not in poses:
                poses[keyframe.id] = keyframe.T_world_cam
                continue
            motion = inverse(keyframe.T_world_cam) @ parent.T_world_cam
            pair = self._pair(parent, keyframe)
            if len(pair) >= _FEWEST_POINTS:
                old = float(np.linalg.norm(motion[:3, 3]))
                found = estimate_offset(pair, motion, self._map.camera, self._baseline, fixed=change)
                motion = found.T_cam1_cam0
                if old > 0:
                    growths.append(float(np.linalg.norm(motion[:3, 3])) / old)
            poses[keyframe.id] = compose(poses[parent.id], inverse(motion))
        return poses, float(np.median(growths)) if growths else 1.0
