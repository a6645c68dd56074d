"""Where single images were taken in a map that was made before; the map stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.model.features import Features
from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.frames.covariance import can_be_aligned, covariance_model
from semkey.slam.frames.frame import ObservedFrame, observe_frame
from semkey.slam.loops.place_recognition import PlaceRecognition
from semkey.slam.map.association import Associations, match_keyframe, merge_associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.places import place_pixels
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.acceptance import accept
from semkey.slam.placing.alignment import align_placement
from semkey.slam.placing.doubts import Doubts
from semkey.slam.placing.placement import Placement, PlacingRules
from semkey.slam.placing.placing import place_frame
from semkey.slam.placing.sampling import sample_pose
from semkey.slam.timing import StageTimer

Array = NDArray[np.float64]

# Keyframes of a place that are matched together.
_MATCHED_MEMBERS = 4
# After RANSAC landmarks are looked for this close to their projection, then closer.
_SEARCH_RADII_PX = (8.0, 5.0)
# Images whose shape differs by more than this were cropped, and the map's camera is not theirs.
_ASPECT_TOLERANCE = 0.01
# Focal lengths that are tried, as multiples of the camera's, a sixth apart. Another than the camera's is believed where
# so many times as many matches agree within RANSAC's threshold.
_FOCAL_FACTORS = (0.5, 0.6, 0.71, 0.84, 1.19, 1.41, 1.68, 2.0)
_BETTER_BY = 1.25
_NO_DEPTH = np.zeros((1, 1), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization:
    """What was found out about one image.

    Attributes:
        T_world_cam: (4, 4) pose in the world of the submap; None where the image was not found in the map.
        submap: the submap, None where it was not found.
        keyframe_id: the keyframe that it was recognised by, None where it was not found.
        matches: associations that the pose was looked for with; of the best candidate where it was not found.
        landmark_ids: (M,) landmarks that agree with the pose.
        keypoints: (M, 2) where the image sees them, pixels.
        projected: (M, 2) where they should be by the pose, pixels.
        camera: of the image.
        covariance: (6, 6) of the pose in the map, see :mod:`semkey.geometry.pose_covariance`; None where not found.
        quality: of the landmarks that should be in view, the share that was seen where it should be, in [0, 1].
        focal_factor: about by how much the focal length of ``camera`` would have to be multiplied for the image to fit
            the map better; 1 where it is right. With another one the image counts as not found: a pose by a wrong focal
            length is metres off.
    """

    T_world_cam: Array | None
    submap: int | None
    keyframe_id: int | None
    matches: int
    landmark_ids: NDArray[np.int64]
    keypoints: Array
    projected: Array
    camera: PinholeCamera
    covariance: Array | None = None
    quality: float = 0.0
    focal_factor: float = 1.0

    @property
    def remark(self) -> str | None:
        """What is the matter with the image, in a sentence; None for nothing that is known."""
        if self.focal_factor == 1.0:
            return None
        return (
            f"fits the map better with a focal length of about {self.focal_factor:.2f} times that of the camera "
            f"({self.camera.fx:.0f} px): was it cropped, or taken with another lens? Give its own camera"
        )

    @property
    def inliers(self) -> int:
        """How many landmarks agree with the pose; 0 where there is none."""
        return len(self.landmark_ids)


def camera_of_image(
    map_camera: PinholeCamera, size: tuple[int, int], given: tuple[float, float, float, float] | None = None
) -> PinholeCamera:
    """The camera of an image (width, height): the given ``fx, fy, cx, cy``, or the map's, resized if need be.

    Raises:
        ConfigError: no camera is given, and the image has another shape than those of the map.
    """
    width, height = size
    if given is not None:
        fx, fy, cx, cy = given
        return PinholeCamera(fx=fx, fy=fy, cx=cx, cy=cy, width=width, height=height)
    if size == (map_camera.width, map_camera.height):
        return map_camera
    ratio = width * map_camera.height / (height * map_camera.width)
    if abs(ratio - 1) > _ASPECT_TOLERANCE:
        raise ConfigError(
            f"the image is {width}x{height} and those of the map {map_camera.width}x{map_camera.height}, of another "
            "shape; give its camera with --camera fx,fy,cx,cy"
        )
    return map_camera.resized(width, height)


class Localizer:
    """Finds images in a map by their descriptors.

    Args:
        slam_map: the map, with at least one keyframe.
        config: settings; ``tracking`` and ``loops`` have the thresholds.
    """

    def __init__(self, slam_map: SlamMap, config: SlamConfig) -> None:
        self._map = slam_map
        self._config = config.tracking
        self._seed = config.seed
        self._least_coverage = config.loops.relocalisation_coverage
        self._places = PlaceRecognition(
            slam_map, config.loops, ransac_error_px=config.tracking.ransac_error_px, seed=config.seed
        )

    def localize(
        self, features: Features, camera: PinholeCamera, image: NDArray[np.uint8] | None = None
    ) -> Localization:
        """The pose of one image.

        The places that look most like it are tried, each some keyframes that see the same: matching, PnP-RANSAC, then
        landmarks of the surroundings are looked for near their projections. They must agree wherever both the place has
        landmarks and the image has keypoints, not on one poster only. The pose with most agreeing landmarks counts.

        Args:
            features: of the image, of the same kind as the map's.
            camera: of the image.
            image: (H, W, 3) RGB or (H, W) grey, uint8, which tells how exactly each keypoint lies where it should;
                None takes all to be equally exact.
        """
        covariances = covariance_model(self._config, image_scale(camera))(features, image)
        frame = observe_frame(0, 0.0, features, _NO_DEPTH, covariances, min_depth=0.0, max_depth=np.inf)
        if image is not None and can_be_aligned(self._config, features):
            frame = frame.with_image(image)
        best = _not_found(camera)
        if len(frame) < self._config.min_relocalisation_inliers:
            return best
        for place in self._places.places_like(frame):
            found = self._locate(frame, camera, place)
            if (found.inliers, found.matches) > (best.inliers, best.matches) or found.focal_factor != 1.0:
                best = found
            if found.focal_factor != 1.0:
                break
        return best

    def _locate(self, frame: ObservedFrame, camera: PinholeCamera, place: list[Keyframe]) -> Localization:
        scale, least = image_scale(camera), self._config.min_relocalisation_inliers
        matched = merge_associations(
            [match_keyframe(frame, keyframe, self._map.landmarks) for keyframe in place[:_MATCHED_MEMBERS]]
        )
        rules = PlacingRules(
            min_matches=least,
            min_sample_inliers=least // 2,
            ransac_error_px=self._config.ransac_error_px * scale,
            search_radii_px=tuple(radius * scale for radius in _SEARCH_RADII_PX),
        )
        placement = place_frame(self._map, frame, matched, self._nearby, rules, camera=camera, seed=self._seed)
        if placement is None or not accept(
            placement,
            frame,
            camera,
            min_inliers=least,
            expected=place_pixels(self._map, place, placement.T_world_cam, camera),
            min_coverage=self._least_coverage,
            is_alone=True,
        ):
            return _not_found(
                camera, matches=len(matched), focal_factor=self._focal_factor(frame, matched, camera, rules)
            )
        focal_factor = self._focal_factor(frame, matched, camera, rules)
        doubts = Doubts(self._map, pixel=scale, seed=self._seed, timer=StageTimer(), camera=camera)
        if focal_factor != 1.0 or doubts.repeats(frame, place[:_MATCHED_MEMBERS], placement, rules):
            return _not_found(camera, matches=len(matched), focal_factor=focal_factor)
        frame, placement = align_placement(self._map, frame, placement, camera)
        pose, inliers = placement.T_world_cam, placement.inlier_associations
        points = self._map.landmarks.positions[inliers.landmark_ids]
        return Localization(
            T_world_cam=pose,
            submap=place[0].submap,
            keyframe_id=place[0].id,
            matches=len(matched),
            landmark_ids=inliers.landmark_ids,
            keypoints=frame.keypoints[inliers.keypoint_indices],
            projected=camera.project(transform_points(inverse(pose), points)),
            camera=camera,
            covariance=placement.covariance,
            quality=placement.quality,
        )

    def _focal_factor(
        self, frame: ObservedFrame, matched: Associations, camera: PinholeCamera, rules: PlacingRules
    ) -> float:
        """The factor of the focal length with which most matches agree on a pose; 1 if none is clearly better."""

        def agreeing(factor: float) -> int:
            other = replace(camera, fx=factor * camera.fx, fy=factor * camera.fy)
            sampled = sample_pose(self._map, frame, matched, rules, other, self._seed)
            return 0 if sampled is None else sampled.inlier_count

        counts = {factor: agreeing(factor) for factor in _FOCAL_FACTORS}
        best = max(counts, key=counts.__getitem__)
        least = max(2 * self._config.min_relocalisation_inliers, _BETTER_BY * agreeing(1.0))
        return best if counts[best] >= least else 1.0

    def _nearby(self, placement: Placement) -> NDArray[np.int64]:
        return self._map.covisibility.local_landmarks(placement.inlier_associations.landmark_ids)


def _not_found(camera: PinholeCamera, *, matches: int = 0, focal_factor: float = 1.0) -> Localization:
    return Localization(
        T_world_cam=None,
        submap=None,
        keyframe_id=None,
        matches=matches,
        landmark_ids=np.zeros(0, dtype=np.int64),
        keypoints=np.zeros((0, 2)),
        projected=np.zeros((0, 2)),
        camera=camera,
        focal_factor=focal_factor,
    )
