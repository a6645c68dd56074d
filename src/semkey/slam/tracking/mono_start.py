"""How a map starts without depth: which two frames, and what they give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, transform_points
from semkey.matching import match
from semkey.matching.background import background_similarity
from semkey.slam.config import MonoConfig
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.alignment import align_pair
from semkey.slam.solvers.two_views import TwoViewGeometry, initialise_two_views

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class MonoStart:
    """Two frames that make a first map.

    Attributes:
        reference: the earlier frame; its camera is the map's first.
        frame: the later one.
        indices: (M, 2) keypoints of the landmarks in both.
        points_reference: (M, 3) landmarks in the camera of ``reference``, in units of their median depth.
        information: (M, 3, 3) their inverse covariances.
        T_frame_reference: (4, 4) motion.
        between: the frames between the two, which can be placed now.
        model: ``homography`` or ``essential``.
    """

    reference: ObservedFrame
    frame: ObservedFrame
    indices: Indices
    points_reference: Array
    information: Array
    T_frame_reference: Array
    between: list[ObservedFrame]
    model: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """A frame after the reference, with what it saw of the reference's keypoints.

    Attributes:
        frame: the frame.
        keypoints: (N,) keypoint that matches each of the reference, -1 for none.
        motion_px: median distance of the matches in the image.
    """

    frame: ObservedFrame
    keypoints: Indices
    motion_px: float


class MonoStarter:
    """Waits for a pair of frames from which the first landmarks can be triangulated.

    Every frame is matched to a reference frame, and tried with it once the matches have moved far enough in the image.
    A reference that is no longer recognised, or with which nothing came about for long, is replaced.

    Args:
        camera: of all frames.
        config: settings.
        image_scale: scale factor of the pixel values of the settings.
        seed: of the random sampling.
    """

    def __init__(self, camera: PinholeCamera, config: MonoConfig, *, image_scale: float, seed: int) -> None:
        self._camera = camera
        self._config = config
        self._image_scale = image_scale
        self._seed = seed
        self._reference: ObservedFrame | None = None
        self._seen: list[_Seen] = []

    def reset(self) -> None:
        """Forget the reference."""
        self._reference = None
        self._seen = []

    def offer(self, frame: ObservedFrame) -> MonoStart | None:
        """Try a frame with the reference; the result, if there is one, ends the waiting."""
        config = self._config
        if self._reference is None:
            self._restart(frame)
            return None
        seen, similarity_count = self._match(self._reference, frame)
        if similarity_count < config.min_initial_matches or len(self._seen) >= config.max_initial_frames:
            self._restart(frame)
            return None
        previous = self._seen
        self._seen = [*previous, seen]
        if seen.motion_px < config.min_initial_motion_px * self._image_scale:
            return None
        rows = np.flatnonzero(seen.keypoints >= 0)
        geometry = initialise_two_views(
            self._reference.keypoints[rows],
            seen.frame.keypoints[seen.keypoints[rows]],
            self._camera,
            config,
            between=self._third_view(previous, seen.motion_px, rows),
            pixel_sigma=config.pixel_sigma * self._image_scale,
            covariances=(self._reference.covariances[rows], seen.frame.covariances[seen.keypoints[rows]]),
            seed=self._seed,
        )
        if geometry is None:
            return None
        start = self._make_start(self._reference, seen, rows, geometry, [other.frame for other in previous])
        self.reset()
        return start

    def _make_start(
        self,
        reference: ObservedFrame,
        seen: _Seen,
        rows: Indices,
        geometry: TwoViewGeometry,
        between: list[ObservedFrame],
    ) -> MonoStart:
        good = geometry.landmarks
        return MonoStart(
            reference=reference,
            frame=seen.frame,
            indices=np.stack([rows[good], seen.keypoints[rows[good]]], axis=1),
            points_reference=geometry.points_cam0[good],
            information=geometry.information[good],
            T_frame_reference=geometry.T_cam1_cam0,
            between=between,
            model=geometry.model,
        )

    def _restart(self, frame: ObservedFrame) -> None:
        """Make a frame the reference if there is enough to see in it."""
        self.reset()
        if len(frame) >= self._config.min_initial_matches:
            self._reference = frame

    def _match(self, reference: ObservedFrame, frame: ObservedFrame) -> tuple[_Seen, int]:
        matches = match(reference.features, frame.features)
        background = background_similarity(reference.descriptors, frame.descriptors)
        indices = matches.indices.numpy()[matches.scores.numpy() > background]
        keypoints = np.full(len(reference), -1, dtype=np.int64)
        keypoints[indices[:, 0]] = indices[:, 1]
        frame = align_pair(reference, frame, indices, self._camera)
        moved = np.linalg.norm(reference.keypoints[indices[:, 0]] - frame.keypoints[indices[:, 1]], axis=1)
        motion = float(np.median(moved)) if len(moved) else 0.0
        return _Seen(frame=frame, keypoints=keypoints, motion_px=motion), len(indices)

    @staticmethod
    def _third_view(previous: list[_Seen], motion_px: float, rows: Indices) -> Array | None:
        """Where the frame about halfway saw the reference's keypoints ``rows`` (M,): (M, 2) pixels, NaN for unseen."""
        if not previous:
            return None
        halfway = min(previous, key=lambda seen: abs(seen.motion_px - 0.5 * motion_px))
        keypoints = halfway.keypoints[rows]
        pixels = np.full((len(rows), 2), np.nan)
        pixels[keypoints >= 0] = halfway.frame.keypoints[keypoints[keypoints >= 0]]
        return pixels


def begin_submap(
    slam_map: SlamMap, start: MonoStart, T_world_reference: Array, submap: int
) -> tuple[Keyframe, Keyframe]:
    """Keep the two frames that a map without depth starts from, with the landmarks that they see together."""
    first = slam_map.add_keyframe(start.reference, T_world_reference, None, submap)
    pose = compose(T_world_reference, inverse(start.T_frame_reference))
    second = slam_map.add_keyframe(start.frame, pose, None, submap)
    second.parent = first.id
    rotation = T_world_reference[:3, :3]
    ids = slam_map.add_landmarks(
        first.id,
        start.indices[:, 0],
        transform_points(T_world_reference, start.points_reference),
        rotation @ start.information @ rotation.T,
    )
    slam_map.add_sightings(second.id, ids, start.indices[:, 1])
    return first, second
