"""Correcting the map where a place was recognised: loops closed, submaps joined, duplicates made one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import inverse
from semkey.slam.config import LoopConfig, image_scale
from semkey.slam.loops.essential_graph import essential_edges, weighted_edge
from semkey.slam.loops.plausibility import pose_difference
from semkey.slam.loops.submaps import join_at
from semkey.slam.loops.verification import PlaceMatch
from semkey.slam.map.duplicates import adopt_landmarks, fuse_duplicates
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.places import place_landmarks
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.records import LoopRecord
from semkey.slam.solvers.pose_graph import PoseEdge, optimise_pose_graph

logger = logging.getLogger(__name__)

# Neighbours of a keyframe that closed a loop in which the place's landmarks are looked for.
_FUSED_NEIGHBOURS = 15


class LoopCloser:
    """Corrects the map at places that were recognised.

    Args:
        slam_map: the map.
        config: settings.
        with_scale: the map's unit of length may drift (monocular).

    Attributes:
        loops: edges of the loops that were closed, newest last.
    """

    def __init__(self, slam_map: SlamMap, config: LoopConfig, *, with_scale: bool = False) -> None:
        self.loops = [_known_edge(slam_map, *link) for link in slam_map.loop_links if _has(slam_map, *link[:2])]
        self._map = slam_map
        self._config = config
        self._with_scale = with_scale

    def correct(self, match: PlaceMatch) -> LoopRecord:
        """Close a loop, or join two submaps, where a keyframe was found to see a place again.

        Poses of keyframes, positions and ids of landmarks may all change.
        """
        query, matched = self._map.keyframes[match.query], self._map.keyframes[match.matched]
        before, scale_before = query.T_world_cam, query.scale
        place = [matched, *(self._map.keyframes[key] for key, _ in self._map.covisibility.neighbours(matched.id))]
        place = place[: 1 + self._config.group_size]
        landmark_ids = place_landmarks(self._map, place)
        kind = "loop" if query.submap == matched.submap else "merge"
        self.loops.append(_loop_edge(match, matched))
        self._map.loop_links.append((matched.id, query.id, match.inliers))
        scales = join_at(self._map, match) if kind == "merge" else self._optimise(query.submap)
        self.loops = [_rescaled(edge, scales) for edge in self.loops]
        merged = adopt_landmarks(self._map, query, match.associations)
        covisible = self._map.covisibility.neighbours(query.id)[:_FUSED_NEIGHBOURS]
        neighbours = [self._map.keyframes[key] for key, _ in covisible]
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
