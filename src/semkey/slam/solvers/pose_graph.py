"""Pose graph optimisation: keyframe poses that agree best with measured relative poses, by gtsam."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph

from semkey.errors import InputError
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import make_transform

Array = NDArray[np.float64]

_MAX_ITERATIONS = 50
# Standard deviations of a pose that must stay where it is, metres and radians.
_FIXED_SIGMA = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseEdge:
    """A measured relative pose of two keyframes.

    Attributes:
        first: id of one keyframe.
        second: id of the other.
        S_first_second: maps camera coordinates of ``second`` to those of ``first``; its scale counts in a graph with
            scale only.
        rotation_sigma: standard deviation of the rotation about each axis, radians.
        translation_sigma: of the translation along each axis, metres.
        log_scale_sigma: of the logarithm of the scale.
        kind: ``tree`` (spanning tree), ``covisible`` or ``loop``.
    """

    first: int
    second: int
    S_first_second: ScaledTransform
    rotation_sigma: float
    translation_sigma: float
    log_scale_sigma: float = 0.05
    kind: str = "tree"


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseGraphResult:
    """Optimised poses.

    Attributes:
        poses: T_world_cam (4, 4) by keyframe id.
        scales: by keyframe id, how much larger than before its camera coordinates are in the world; all 1 without
            scale.
        error_before: half the sum of squared whitened residuals of all edges.
        error_after: the same with the optimised poses.
    """

    poses: dict[int, Array]
    scales: dict[int, float]
    error_before: float
    error_after: float


def optimise_pose_graph(
    poses: Mapping[int, Array],
    edges: Sequence[PoseEdge],
    fixed: Collection[int],
    *,
    with_scale: bool = False,
) -> PoseGraphResult:
    """Move poses to where they agree best with all edges, in the least-squares sense (Levenberg-Marquardt).

    In every connected component that holds no fixed pose, the one with the lowest id stays where it is.

    Args:
        poses: T_world_cam (4, 4) of every keyframe.
        edges: between these keyframes.
        fixed: ids of the keyframes that do not move.
        with_scale: every keyframe has a scale as well (7 degrees of freedom: Strasdat, Montiel and Davison, *Scale
            Drift-Aware Large Scale Monocular SLAM*, RSS 2010).

    Raises:
        InputError: an edge names a keyframe without a pose, or joins a keyframe to itself.
    """
    for edge in edges:
        if edge.first not in poses or edge.second not in poses or edge.first == edge.second:
            raise InputError(f"an edge joins keyframes {edge.first} and {edge.second}; both must be in the graph")
    if not poses:
        return PoseGraphResult(poses={}, scales={}, error_before=0.0, error_after=0.0)
    anchors = _anchors(poses, edges, fixed)
    group = _Similarities() if with_scale else _Poses()

    import gtsam

    graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    for key, T_world_cam in poses.items():
        values.insert(key, group.element(ScaledTransform(T=np.asarray(T_world_cam, dtype=np.float64))))
    for edge in edges:
        noise = gtsam.noiseModel.Diagonal.Sigmas(group.sigmas(edge))
        graph.add(group.between(edge.first, edge.second, group.element(edge.S_first_second), noise))
    error_before = graph.error(values)
    still = gtsam.noiseModel.Diagonal.Sigmas(np.full(group.dimension, _FIXED_SIGMA))
    for key in anchors:
        graph.add(group.prior(key, group.element(ScaledTransform(T=np.asarray(poses[key], dtype=np.float64))), still))
    parameters = gtsam.LevenbergMarquardtParams()
    parameters.setMaxIterations(_MAX_ITERATIONS)
    parameters.setRelativeErrorTol(1e-8)
    optimised = gtsam.LevenbergMarquardtOptimizer(graph, values, parameters).optimize()
    moved = {key: group.read(optimised, key) for key in poses}
    for key in anchors:
        moved[key] = ScaledTransform(T=np.array(poses[key], dtype=np.float64))
    return PoseGraphResult(
        poses={key: transform.T for key, transform in moved.items()},
        scales={key: transform.scale for key, transform in moved.items()},
        error_before=float(error_before),
        error_after=float(graph.error(optimised)),
    )


def connected_components(nodes: Iterable[int], pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Sets of nodes that are joined by ``pairs``; sorted, the one with the lowest node first."""
    order = sorted(nodes)
    index = {node: position for position, node in enumerate(order)}
    joined = np.array([(index[first], index[second]) for first, second in pairs], dtype=np.intp).reshape(-1, 2)
    graph = coo_array((np.ones(len(joined)), joined.T), shape=(len(order), len(order)))
    components: dict[int, list[int]] = {}
    for node, label in zip(order, csgraph.connected_components(graph, directed=False)[1], strict=True):
        components.setdefault(int(label), []).append(node)
    return list(components.values())


def _anchors(poses: Mapping[int, Array], edges: Sequence[PoseEdge], fixed: Collection[int]) -> list[int]:
    anchors = []
    for component in connected_components(poses, ((edge.first, edge.second) for edge in edges)):
        held = [key for key in component if key in fixed]
        anchors.extend(held or component[:1])
    return anchors


class _Poses:
    """gtsam's classes for rigid poses; tangent vectors are rotation, translation."""

    dimension = 6

    def element(self, transform: ScaledTransform) -> Any:
        import gtsam

        return gtsam.Pose3(transform.T)

    def sigmas(self, edge: PoseEdge) -> Array:
        return np.array([edge.rotation_sigma] * 3 + [edge.translation_sigma] * 3)

    def between(self, first: int, second: int, measured: Any, noise: Any) -> Any:
        import gtsam

        return gtsam.BetweenFactorPose3(first, second, measured, noise)

    def prior(self, key: int, pose: Any, noise: Any) -> Any:
        import gtsam

        return gtsam.PriorFactorPose3(key, pose, noise)

    def read(self, values: Any, key: int) -> ScaledTransform:
        return ScaledTransform(T=np.array(values.atPose3(key).matrix()))


class _Similarities:
    """gtsam's classes for similarities ``s (R p + t)``; tangent vectors are rotation, translation, log scale."""

    dimension = 7

    def element(self, transform: ScaledTransform) -> Any:
        import gtsam

        rotation = gtsam.Rot3(np.ascontiguousarray(transform.T[:3, :3]))
        return gtsam.Similarity3(rotation, transform.T[:3, 3] / transform.scale, transform.scale)

    def sigmas(self, edge: PoseEdge) -> Array:
        return np.array([edge.rotation_sigma] * 3 + [edge.translation_sigma] * 3 + [edge.log_scale_sigma])

    def between(self, first: int, second: int, measured: Any, noise: Any) -> Any:
        import gtsam

        return gtsam.BetweenFactorSimilarity3(first, second, measured, noise)

    def prior(self, key: int, pose: Any, noise: Any) -> Any:
        import gtsam

        return gtsam.PriorFactorSimilarity3(key, pose, noise)

    def read(self, values: Any, key: int) -> ScaledTransform:
        similarity = values.atSimilarity3(key)
        scale = float(similarity.scale())
        translation = scale * np.asarray(similarity.translation())
        return ScaledTransform(T=make_transform(similarity.rotation().matrix(), translation), scale=scale)
