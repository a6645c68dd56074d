"""Recognising places again: candidates for a lost frame, loops inside a submap, meetings of submaps."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import inverse
from semkey.slam.config import LoopConfig, TrackingConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.loops.essential_graph import essential_edges, weighted_edge
from semkey.slam.loops.plausibility import is_plausible, pose_difference
from semkey.slam.loops.retrieval import ConsistencyFilter, PlaceIndex, place_groups
from semkey.slam.loops.submaps import join_at
from semkey.slam.loops.verification import PlaceMatch, count_supporters, match_place, place_landmarks
from semkey.slam.map.duplicates import fuse_duplicates, identify
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.placing import accept
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.records import LoopRecord
from semkey.slam.solvers.pose_graph import PoseEdge, optimise_pose_graph
from semkey.slam.solvers.similarity import ScaledTransform

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

logger = logging.getLogger(__name__)

# Neighbours of a keyframe that closed a loop in which the place's landmarks are looked for.
_FUSED_NEIGHBOURS = 15


class LoopCloser:
    """Finds again what the map has seen before, and corrects the map.

    Keeps an index of the map's keyframes by appearance, which follows the map by itself: keyframes that were added,
    removed or loaded are noticed at the next question.

    Args:
        slam_map: the map.
        config: settings.
        ransac_error_px: inlier threshold of PnP-RANSAC for images 640 pixels wide.
        with_scale: the map's unit of length may drift (monocular).
        seed: of RANSAC.

    Attributes:
        loops: edges of the loops that were closed, newest last.
    """

    def __init__(
        self,
        slam_map: SlamMap,
        config: LoopConfig,
        *,
        ransac_error_px: float = TrackingConfig.ransac_error_px,
        with_scale: bool = False,
        seed: int = 0,
    ) -> None:
        self.loops = [_known_edge(slam_map, *link) for link in slam_map.loop_links if _has(slam_map, *link[:2])]
        self._map = slam_map
        self._config = config
        self._with_scale = with_scale
        self._ransac_error_px = ransac_error_px
        self._seed = seed
        self._index = PlaceIndex(keypoints=config.retrieval_keypoints, prefilter=config.retrieval_prefilter)
        self._filter = ConsistencyFilter(config.consistency)

    def places_like(self, frame: ObservedFrame) -> list[list[Keyframe]]:
        """Groups of keyframes that a lost frame may be seeing again, the most promising first."""
        self._follow_map()
        groups = place_groups(
            self._scores(frame, exclude=()),
            self._map.covisible,
            count=self._config.relocalisation_candidates,
            group_size=self._config.group_size,
        )
        return [[self._map.keyframes[key] for key in group.members] for group in groups]

    def find(self, keyframe: Keyframe) -> PlaceMatch | None:
        """Look for a place that a new keyframe sees again; the map is not changed."""
        if not self._config.enabled:
            return None
        self._follow_map()
        groups = place_groups(
            self._scores(keyframe.frame, exclude=self._near(keyframe)),
            self._map.covisible,
            count=self._config.candidates,
            group_size=self._config.group_size,
        )
        for group in self._filter.update(groups):
            place = [self._map.keyframes[key] for key in group.members]
            match = match_place(
                self._map,
                keyframe,
                place,
                ransac_error_px=self._ransac_error_px,
                with_scale=self._with_scale,
                seed=self._seed,
            )
            if match is not None and self._convinces(match, place):
                self._filter.reset()
                return match
        return None

    # -- finding -------------------------------------------------------------------------------------------------

    def _follow_map(self) -> None:
        for key in self._index.keys:
            if key not in self._map.keyframes:
                self._index.remove(key)
        for key, keyframe in self._map.keyframes.items():
            if key not in self._index:
                frame = keyframe.frame
                self._index.add(key, frame.descriptors, frame.features.global_descriptor.numpy())

    def _scores(self, frame: ObservedFrame, exclude: Collection[int]) -> dict[int, float]:
        return self._index.scores(frame.descriptors, frame.features.global_descriptor.numpy(), exclude=exclude)

    def _near(self, keyframe: Keyframe) -> set[int]:
        """Keyframes that a keyframe is connected to already, or follows too closely to have drifted from."""
        near = {keyframe.id, *(key for key, _ in self._map.covisible(keyframe.id))}
        for key, other in self._map.keyframes.items():
            age = abs(keyframe.frame.timestamp - other.frame.timestamp)
            if other.submap == keyframe.submap and age < self._config.min_gap_seconds:
                near.add(key)
        return near

    def _convinces(self, match: PlaceMatch, place: Sequence[Keyframe]) -> bool:
        """Whether a match passes all checks, the cheap ones first."""
        config, frame = self._config, self._map.keyframes[match.query].frame
        logger.debug(
            "keyframe %d at %d: %d inliers, coverage %.2f", match.query, match.matched, match.inliers, match.coverage
        )
        if not accept(
            match.placement,
            frame,
            self._map.camera,
            min_inliers=config.min_inliers,
            expected=match.placement.pixels,
            min_coverage=config.min_coverage,
        ):
            return False
        if not is_plausible(self._map, match, config, with_scale=self._with_scale):
            return False
        supporters = count_supporters(
            self._map, match, place, wanted=config.min_supporters, inliers=config.supporter_inliers
        )
        return supporters >= config.min_supporters

    # -- correcting ----------------------------------------------------------------------------------------------

    def correct(self, match: PlaceMatch) -> LoopRecord:
        """Close a loop, or join two submaps, where :meth:`find` has found a place.

        Poses of keyframes, positions and ids of landmarks may all change.
        """
        query, matched = self._map.keyframes[match.query], self._map.keyframes[match.matched]
        before, scale_before = query.T_world_cam, query.scale
        place = [matched, *(self._map.keyframes[key] for key, _ in self._map.covisible(matched.id))]
        place = place[: 1 + self._config.group_size]
        landmark_ids = place_landmarks(self._map, place)
        kind = "loop" if query.submap == matched.submap else "merge"
        self.loops.append(_loop_edge(match, matched))
        self._map.loop_links.append((matched.id, query.id, match.inliers))
        scales = join_at(self._map, match) if kind == "merge" else self._optimise(query.submap)
        self.loops = [_rescaled(edge, scales) for edge in self.loops]
        merged = identify(self._map, query, match.associations)
        neighbours = [self._map.keyframes[key] for key, _ in self._map.covisible(query.id)[:_FUSED_NEIGHBOURS]]
        neighbours = [neighbour for neighbour in neighbours if neighbour not in place]
        radius = self._config.fuse_radius_px * image_scale(self._map.camera)
        merged += fuse_duplicates(self._map, [query, *neighbours], landmark_ids, radius_px=radius)
        metres, degrees = pose_difference(before, query.T_world_cam)
        logger.info(
            "%s: keyframe %d sees keyframe %d again, %d inliers, moved %.3f m and %.2f deg, %d landmarks merged",
            kind,
            query.id,
            matched.id,
            match.inliers,
            metres,
            degrees,
            merged,
        )
        return LoopRecord(
            kind=kind,
            frame_index=query.frame.index,
            keyframe_id=query.id,
            matched_keyframe_id=matched.id,
            inliers=match.inliers,
            correction_m=metres,
            correction_deg=degrees,
            scale=query.scale / scale_before,
        )

    def _optimise(self, submap: int) -> dict[int, float]:
        """Close the loops of a submap; returns by how much the surroundings of each keyframe grew."""
        poses = {key: k.T_world_cam for key, k in self._map.keyframes.items() if k.submap == submap}
        edges = essential_edges(
            self._map, submap, strong_covisibility=self._config.strong_covisibility, loops=self.loops
        )
        # The world is the camera of the submap's first keyframe, and stays so.
        fixed = [key for key in poses if self._map.keyframes[key].parent is None]
        optimised = optimise_pose_graph(poses, edges, fixed, with_scale=self._with_scale)
        self._map.set_poses(optimised.poses, optimised.scales if self._with_scale else None)
        return optimised.scales


def _has(slam_map: SlamMap, first: int, second: int) -> bool:
    return first in slam_map.keyframes and second in slam_map.keyframes


def _known_edge(slam_map: SlamMap, first: int, second: int, inliers: int) -> PoseEdge:
    """The edge of a loop that was closed before the map was saved: where the two keyframes are has been adjusted."""
    relative = inverse(slam_map.keyframes[first].T_world_cam) @ slam_map.keyframes[second].T_world_cam
    return weighted_edge(first, second, ScaledTransform(T=relative), shared=inliers, kind="loop")


def _loop_edge(match: PlaceMatch, matched: Keyframe) -> PoseEdge:
    """The measured pose of the query as seen from the keyframe of the place."""
    measured = ScaledTransform(T=inverse(matched.T_world_cam)) @ match.S_place_query
    edge = weighted_edge(matched.id, match.query, measured, shared=match.inliers, kind="loop")
    return replace(edge, log_scale_sigma=match.log_scale_sigma)


def _rescaled(edge: PoseEdge, scales: Mapping[int, float]) -> PoseEdge:
    """An edge in the units that the camera coordinates of both its keyframes have now."""
    first, second = scales.get(edge.first, 1.0), scales.get(edge.second, 1.0)
    if first == second == 1.0:
        return edge
    T = edge.S_first_second.T.copy()
    T[:3, 3] *= first
    measured = ScaledTransform(T=T, scale=edge.S_first_second.scale * first / second)
    return replace(edge, S_first_second=measured, translation_sigma=edge.translation_sigma * first)
