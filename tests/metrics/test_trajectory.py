from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import InputError
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.trajectories import Trajectory
from semkey.geometry.transforms import make_transform, se3_exp, so3_exp
from semkey.metrics import absolute_trajectory_error, relative_pose_errors, umeyama_alignment
from semkey.metrics.trajectory import Alignment
from synthetic_world import random_trajectory


def disturbed(trajectory: Trajectory, rng: np.random.Generator, size: float = 0.02) -> Trajectory:
    noise = np.stack([se3_exp(rng.normal(size=6) * size) for _ in range(len(trajectory))])
    return Trajectory(trajectory.timestamps, trajectory.poses @ noise)


def moved(trajectory: Trajectory, world: np.ndarray) -> Trajectory:
    return Trajectory(trajectory.timestamps, world @ trajectory.poses)


def straight(positions: list[float]) -> Trajectory:
    poses = np.stack([make_transform(np.eye(3), [x, 0.0, 0.0]) for x in positions])
    return Trajectory(np.arange(len(positions), dtype=np.float64), poses)


# Umeyama alignment


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 10.0), with_scale=st.booleans())
def test_alignment_recovers_a_similarity(seed: int, scale: float, with_scale: bool) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(12, 3))
    rotation, translation = so3_exp(rng.normal(size=3) * 2), rng.normal(size=3)
    true = ScaledTransform(T=make_transform(rotation, translation), scale=scale if with_scale else 1.0)
    target = true.scale * points @ rotation.T + translation
    found = umeyama_alignment(points, target, with_scale=with_scale)
    np.testing.assert_allclose(found.T[:3, :3], rotation, atol=1e-9)
    np.testing.assert_allclose(found.T[:3, 3], translation, atol=1e-8)
    assert found.scale == pytest.approx(true.scale, rel=1e-9)


def test_alignment_never_reflects() -> None:
    points = np.random.default_rng(1).normal(size=(20, 3))
    found = umeyama_alignment(points, points * [1.0, 1.0, -1.0], with_scale=True)
    assert np.linalg.det(found.T[:3, :3]) == pytest.approx(1.0)


def test_alignment_is_the_least_squares_optimum(rng: np.random.Generator) -> None:
    source, target = rng.normal(size=(2, 15, 3))

    def cost(similarity: ScaledTransform) -> float:
        return float(np.sum((similarity.apply(source) - target) ** 2))

    best = umeyama_alignment(source, target, with_scale=True)
    for _ in range(200):
        rotation = so3_exp(rng.normal(size=3) * 0.05) @ best.T[:3, :3]
        translation = best.T[:3, 3] + rng.normal(size=3) * 0.05
        scale = best.scale * (1 + rng.normal() * 0.05)
        nearby = ScaledTransform(T=make_transform(rotation, translation), scale=scale)
        assert cost(nearby) >= cost(best)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3))),
        (np.zeros((4, 3)), np.zeros((5, 3))),
        (np.zeros((4, 2)), np.zeros((4, 2))),
        (np.full((4, 3), np.nan), np.zeros((4, 3))),
    ],
)
def test_alignment_refuses(source: np.ndarray, target: np.ndarray) -> None:
    with pytest.raises(InputError):
        umeyama_alignment(source, target, with_scale=False)


@pytest.mark.parametrize("place", [0.0, 1e6])
def test_scale_needs_motion(place: float) -> None:
    still, moving = np.full((5, 3), place + 0.1), np.random.default_rng(0).normal(size=(5, 3))
    for source, target in ((still, moving), (moving, still)):
        with pytest.raises(InputError, match="scale cannot be estimated"):
            umeyama_alignment(source, target, with_scale=True)


# Absolute error


def test_error_of_known_offsets_without_alignment() -> None:
    reference = straight([0.0, 1.0, 2.0, 3.0])
    estimated = straight([0.0, 1.3, 1.6, 3.0])
    statistics = absolute_trajectory_error(estimated, reference, alignment="none").statistics
    assert statistics.rmse == pytest.approx(0.25)
    assert statistics.mean == pytest.approx(0.175)
    assert statistics.median == pytest.approx(0.15)
    assert statistics.max == pytest.approx(0.4)


def test_aligned_error_of_a_stretched_line() -> None:
    # Centred: -1 0 1 against -2 0 2. The error is 1 m at both ends, and none once the scale is free.
    reference, estimated = straight([0.0, 2.0, 4.0]), straight([5.0, 6.0, 7.0])
    error = absolute_trajectory_error(estimated, reference)
    np.testing.assert_allclose(error.errors, [1.0, 0.0, 1.0], atol=1e-12)
    assert error.similarity.scale == 1.0
    scaled = absolute_trajectory_error(estimated, reference, alignment="sim3")
    assert scaled.statistics.max < 1e-12
    assert scaled.similarity.scale == pytest.approx(2.0)


def test_a_camera_that_stood_still() -> None:
    # The estimate stays in one place while the reference moves: distances to the reference's centre.
    error = absolute_trajectory_error(straight([7.0, 7.0, 7.0]), straight([0.0, 3.0, 6.0]))
    np.testing.assert_allclose(error.errors, [3.0, 0.0, 3.0], atol=1e-12)
    assert absolute_trajectory_error(straight([1.0] * 3), straight([2.0] * 3)).statistics.rmse < 1e-12


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.2, 5.0))
def test_errors_do_not_depend_on_the_world_frame(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    reference = random_trajectory(rng, count=12)
    estimated = disturbed(reference, rng)
    elsewhere = moved(estimated, se3_exp(rng.normal(size=6) * 2))
    before, after = (absolute_trajectory_error(t, reference).errors for t in (estimated, elsewhere))
    np.testing.assert_allclose(after, before, atol=1e-9)
    relative = [relative_pose_errors(t, reference) for t in (estimated, elsewhere)]
    np.testing.assert_allclose(relative[1].translation_errors, relative[0].translation_errors, atol=1e-9)
    np.testing.assert_allclose(relative[1].rotation_errors_deg, relative[0].rotation_errors_deg, atol=1e-5)
    similarity = ScaledTransform(T=make_transform(so3_exp(rng.normal(size=3)), rng.normal(size=3)), scale=scale)
    by_scale = [
        absolute_trajectory_error(t, reference, alignment="sim3").errors
        for t in (estimated, estimated.mapped(similarity))
    ]
    np.testing.assert_allclose(by_scale[1], by_scale[0], atol=1e-9)


def test_only_pairs_in_time_count(rng: np.random.Generator) -> None:
    reference = random_trajectory(rng)
    estimated = disturbed(reference, rng).select(np.arange(30) % 3 != 1)
    late = Trajectory(estimated.timestamps + 0.015, estimated.poses)
    error = absolute_trajectory_error(late, reference)
    assert len(error.errors) == 20
    np.testing.assert_array_equal(error.timestamps, late.timestamps)
    with pytest.raises(InputError, match=r"only 0 of 20 estimated poses have a reference pose within 0\.01 s"):
        absolute_trajectory_error(late, reference, max_difference_s=0.01)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_poses(rng: np.random.Generator, count: int) -> None:
    reference = random_trajectory(rng)
    estimated = reference.select(np.arange(count))
    for function in (absolute_trajectory_error, relative_pose_errors):
        with pytest.raises(InputError, match="at least 3"):
            function(estimated, reference)


def test_unknown_alignment_is_refused(rng: np.random.Generator) -> None:
    reference = random_trajectory(rng)
    with pytest.raises(InputError, match="alignment 'SE3' is unknown"):
        absolute_trajectory_error(reference, reference, alignment="SE3")  # ty: ignore[invalid-argument-type]


# Relative error


def test_relative_errors_of_a_known_slip() -> None:
    reference = straight([0.0, 1.0, 2.0, 3.0])
    poses = reference.poses.copy()
    poses[2:, :3, 3] += [0.3, 0.0, 0.4]  # 0.5 m between the second and third pose, right again in between
    poses[3, :3, :3] = so3_exp([0.0, 0.0, np.radians(10.0)])
    errors = relative_pose_errors(Trajectory(reference.timestamps, poses), reference)
    np.testing.assert_allclose(errors.translation_errors, [0.0, 0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(errors.rotation_errors_deg, [0.0, 0.0, 10.0], atol=1e-9)
    assert errors.translation.rmse == pytest.approx(0.5 / np.sqrt(3))
    assert errors.rotation_deg.rmse == pytest.approx(10.0 / np.sqrt(3))


# The same numbers as evo


@pytest.mark.parametrize("alignment", ["none", "se3", "sim3"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_to_evo(alignment: Alignment, seed: int) -> None:
    pytest.importorskip("evo", reason="evo is a development dependency (GPL), used as an oracle only")
    from evo.core import metrics, sync
    from evo.core.trajectory import PoseTrajectory3D

    rng = np.random.default_rng(seed)
    reference = random_trajectory(rng, count=60)
    kept = rng.random(60) < 0.8
    estimated = moved(disturbed(reference, rng, 0.05).select(kept), se3_exp(rng.normal(size=6)))
    estimated = Trajectory(estimated.timestamps + rng.uniform(-0.008, 0.008, len(estimated)), estimated.poses)

    evo_reference, evo_estimated = (
        PoseTrajectory3D(poses_se3=list(t.poses), timestamps=t.timestamps) for t in (reference, estimated)
    )
    evo_reference, evo_estimated = sync.associate_trajectories(evo_reference, evo_estimated, max_diff=0.02)
    relative = {}
    for relation in (metrics.PoseRelation.translation_part, metrics.PoseRelation.rotation_angle_deg):
        rpe = metrics.RPE(relation, delta=1, delta_unit=metrics.Unit.frames, all_pairs=False)
        rpe.process_data((evo_reference, evo_estimated))
        relative[relation] = rpe.get_all_statistics()
    if alignment != "none":
        evo_estimated.align(evo_reference, correct_scale=alignment == "sim3")
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((evo_reference, evo_estimated))
    expected = ape.get_all_statistics()

    error = absolute_trajectory_error(estimated, reference, alignment=alignment)
    assert len(error.errors) == int(kept.sum())
    errors = relative_pose_errors(estimated, reference)
    for name in ("rmse", "mean", "median", "max"):
        assert getattr(error.statistics, name) == pytest.approx(expected[name], abs=1e-6)
        for relation, statistics in zip(relative, (errors.translation, errors.rotation_deg), strict=True):
            assert getattr(statistics, name) == pytest.approx(relative[relation][name], abs=1e-6)
