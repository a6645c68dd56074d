"""A map's keyframes as a pose graph in g2o's text format, which GTSAM, Ceres and g2o itself read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.files import atomic_write_text
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import inverse, quaternion_xyzw_from_rotation
from semkey.interop.map_part import MapPart
from semkey.slam.loops.essential_graph import essential_edges, weighted_edge
from semkey.slam.solvers.pose_graph import PoseEdge


def pose_graph_edges(part: MapPart) -> list[PoseEdge]:
    """Edges of the map's pose graph: spanning tree, strong covisibility and loops, as they lie in the map now.

    What a loop measured when it was closed is not kept in the map: all edges agree with the poses, and what they carry
    is which keyframes hang together and how firmly.
    """
    poses = {keyframe.id: keyframe.T_world_cam for keyframe in part.keyframes}
    loops = [
        weighted_edge(
            first,
            second,
            ScaledTransform(T=inverse(poses[first]) @ poses[second]),
            shared=shared,
            kind="loop",
        )
        for first, second, shared in part.slam_map.loop_links
        if first in poses and second in poses
    ]
    config = part.result.config.loops
    return essential_edges(part.slam_map, part.submap, strong_covisibility=config.strong_covisibility, loops=loops)


def write_g2o(path: str | Path, part: MapPart) -> str:
    """Write ``VERTEX_SE3:QUAT`` and ``EDGE_SE3:QUAT`` rows, and ``FIX`` of the first; says how many.

    Vertex ids are the keyframes' ids, poses T_world_cam; an edge ``i j`` is the pose of j as seen from i, with the
    inverse covariance of its translation and rotation, in that order, as upper triangle.

    Raises:
        InputError: the file cannot be written.
    """
    edges = pose_graph_edges(part)
    keyframes = sorted(part.keyframes, key=lambda keyframe: keyframe.id)
    lines = [f"VERTEX_SE3:QUAT {keyframe.id} {_pose(keyframe.T_world_cam)}" for keyframe in keyframes]
    lines.append(f"FIX {keyframes[0].id}")
    for edge in edges:
        information = np.diag([edge.translation_sigma**-2] * 3 + [edge.rotation_sigma**-2] * 3)
        upper = " ".join(f"{value:.9g}" for value in information[np.triu_indices(6)])
        lines.append(f"EDGE_SE3:QUAT {edge.first} {edge.second} {_pose(edge.S_first_second.T)} {upper}")
    atomic_write_text(path, "\n".join(lines) + "\n")
    loops = sum(edge.kind == "loop" for edge in edges)
    return f"{len(keyframes)} poses, {len(edges)} edges, {loops} of them loops"


def _pose(transform: NDArray[np.float64]) -> str:
    numbers = [*transform[:3, 3], *quaternion_xyzw_from_rotation(transform[:3, :3])]
    return " ".join(f"{number:.12g}" for number in numbers)
