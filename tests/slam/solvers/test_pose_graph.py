"""Pose graphs against solutions that are known in closed form."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import InputError
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import compose, inverse, make_transform, rotation_angle_deg, se3_exp
from semkey.slam.solvers.pose_graph import PoseEdge, connected_components, optimise_pose_graph

numbers = st.floats(-2.0, 2.0)
transforms = st.builds(
    lambda xi, scale: ScaledTransform(T=se3_exp(np.array(xi)), scale=scale),
    st.tuples(*[numbers] * 6),
    st.floats(0.2, 5.0),
)


def edge(first: int, second: int, T: np.ndarray, *, sigma: float = 0.1, scale: float = 1.0) -> PoseEdge:
    return PoseEdge(
        first=first,
        second=second,
        S_first_second=ScaledTransform(T=T, scale=scale),
        rotation_sigma=sigma,
        translation_sigma=sigma,
        log_scale_sigma=sigma,
    )


def along_x(metres: float) -> np.ndarray:
    return make_transform(np.eye(3), [metres, 0, 0])


def ring(count: int, radius: float = 2.0) -> list[np.ndarray]:
    """Poses on a circle, each looking along its tangent."""
    step = se3_exp([0, 0, radius * 2 * np.pi / count, 0, 2 * np.pi / count, 0])
    poses = [np.eye(4)]
    for _ in range(count - 1):
        poses.append(compose(poses[-1], step))
    return poses


@given(transforms, transforms)
@settings(max_examples=50, deadline=None)
def test_scaled_transforms_form_a_group(first: ScaledTransform, second: ScaledTransform) -> None:
    points = np.array([[1.0, 2.0, 3.0], [-0.5, 0.1, 4.0]])
    np.testing.assert_allclose((first @ second).apply(points), first.apply(second.apply(points)), atol=1e-8)
    np.testing.assert_allclose(first.inverse().apply(first.apply(points)), points, atol=1e-8)
    assert (first @ first.inverse()).scale == pytest.approx(1.0)


def test_scaled_transforms_refuse_nonsense() -> None:
    with pytest.raises(InputError, match="scale"):
        ScaledTransform(T=np.eye(4), scale=0.0)
    with pytest.raises(InputError, match="shape"):
        ScaledTransform(T=np.eye(3))


def test_a_loop_error_is_shared_out_evenly() -> None:
    """Three steps of 1 m, and a loop that says 2.6 m: each of the four edges takes a quarter of the 0.4 m."""
    poses = {k: along_x(k) for k in range(4)}
    edges = [*(edge(k, k + 1, along_x(1.0)) for k in range(3)), edge(0, 3, along_x(2.6))]
    result = optimise_pose_graph(poses, edges, fixed=[0])
    for k in range(4):
        np.testing.assert_allclose(result.poses[k], along_x(0.9 * k), atol=1e-6)
    assert result.error_before == pytest.approx(0.5 * (0.4 / 0.1) ** 2)
    assert result.error_after == pytest.approx(0.5 * 4 * (0.1 / 0.1) ** 2, rel=1e-5)
    assert set(result.scales.values()) == {1.0}


def test_the_weaker_edge_takes_the_larger_share() -> None:
    """Variances 1 : 4 : 1 of the three edges: they take 1/6, 4/6 and 1/6 of the error of 0.6 m."""
    poses = {k: along_x(k) for k in range(3)}
    edges = [edge(0, 1, along_x(1.0)), edge(1, 2, along_x(1.0), sigma=0.2), edge(0, 2, along_x(1.4))]
    result = optimise_pose_graph(poses, edges, fixed=[0])
    np.testing.assert_allclose([result.poses[k][0, 3] for k in range(3)], [0.0, 0.9, 1.5], atol=1e-6)


def test_a_drifted_ring_is_closed() -> None:
    truth = ring(40)
    rng, bias = np.random.default_rng(0), np.array([0.004, 0, 0.004, 0, 0.004, 0])
    steps = [inverse(a) @ b for a, b in pairwise(truth)]
    noisy = [step @ se3_exp(bias + rng.normal(0, 5e-4, 6)) for step in steps]
    poses = [np.eye(4)]
    for step in noisy:
        poses.append(compose(poses[-1], step))
    edges = [edge(k, k + 1, step) for k, step in enumerate(noisy)]
    edges.append(edge(39, 0, inverse(truth[39]) @ truth[0], sigma=0.01))
    result = optimise_pose_graph(dict(enumerate(poses)), edges, fixed=[0])
    before = max(float(np.linalg.norm(poses[k][:3, 3] - truth[k][:3, 3])) for k in range(40))
    after = max(float(np.linalg.norm(result.poses[k][:3, 3] - truth[k][:3, 3])) for k in range(40))
    assert before > 0.3
    assert after < 0.1
    assert rotation_angle_deg(inverse(truth[39]) @ result.poses[39]) < 0.6
    assert result.error_after < 0.05 * result.error_before


def test_scale_drift_is_taken_out_by_a_loop_with_scale() -> None:
    """A monocular ring whose unit shrinks by 1 % per step; the loop measures the true motion and how much it shrank."""
    truth = ring(30)
    factors = 0.99 ** np.arange(30)
    poses, steps = [np.eye(4)], []
    for k in range(29):
        step = inverse(truth[k]) @ truth[k + 1]
        step[:3, 3] *= factors[k]
        steps.append(step)
        poses.append(compose(poses[-1], step))
    edges = [edge(k, k + 1, step) for k, step in enumerate(steps)]
    # Coordinates of the last camera are in its own, shrunken unit.
    edges.append(edge(0, 29, truth[29], scale=1.0 / factors[29], sigma=1e-3))
    result = optimise_pose_graph(dict(enumerate(poses)), edges, fixed=[0], with_scale=True)
    before = np.linalg.norm(poses[29][:3, 3] - truth[29][:3, 3])
    after = np.linalg.norm(result.poses[29][:3, 3] - truth[29][:3, 3])
    assert before > 0.3
    assert after < 0.01
    assert result.scales[29] == pytest.approx(1.0 / factors[29], rel=0.01)
    assert result.scales[0] == 1.0
    assert all(result.scales[k] < result.scales[k + 1] for k in range(29))
    worst = max(float(np.linalg.norm(result.poses[k][:3, 3] - truth[k][:3, 3])) for k in range(30))
    assert worst < 0.15


def test_every_component_keeps_a_pose_where_it_is() -> None:
    poses = {0: np.eye(4), 1: along_x(1), 5: along_x(7), 6: along_x(9), 8: along_x(20)}
    result = optimise_pose_graph(poses, [edge(0, 1, along_x(2)), edge(6, 5, along_x(-3))], fixed=[1])
    np.testing.assert_allclose(result.poses[1], along_x(1))
    np.testing.assert_allclose(result.poses[0], along_x(-1), atol=1e-6)
    np.testing.assert_allclose(result.poses[5], along_x(7))
    np.testing.assert_allclose(result.poses[6], along_x(10), atol=1e-6)
    np.testing.assert_allclose(result.poses[8], along_x(20))
    assert connected_components([8, 0, 1, 5, 6], [(0, 1), (6, 5)]) == [[0, 1], [5, 6], [8]]


def test_graphs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="graph"):
        optimise_pose_graph({0: np.eye(4)}, [edge(0, 1, np.eye(4))], fixed=[0])
    with pytest.raises(InputError, match="graph"):
        optimise_pose_graph({0: np.eye(4)}, [edge(0, 0, np.eye(4))], fixed=[0])
    assert optimise_pose_graph({}, [], fixed=[]).poses == {}
