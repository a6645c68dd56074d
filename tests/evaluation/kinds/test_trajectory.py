from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import ConfigError, DatasetError, InputError
from semkey.evaluation.data.trajectories import GroundTruth, name_estimates, read_ground_truth
from semkey.evaluation.kinds.trajectory import TrajectoryConfig, evaluate_trajectory, trajectory_pictures
from semkey.evaluation.running.results import Evaluation, SetResult
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.trajectories import Trajectory, write_tum_trajectory
from semkey.geometry.transforms import make_transform, se3_exp
from semkey.metrics import relative_pose_errors
from semkey.metrics.relative_pairs import DeltaUnit, relative_pairs
from semkey.metrics.trajectory import Alignment


def random_walk(rng: np.random.Generator, count: int = 60, step: float = 0.1) -> Trajectory:
    """Frames 0.1 s apart."""
    pose, poses = se3_exp(rng.normal(size=6)), []
    for _ in range(count):
        poses.append(pose)
        pose = pose @ se3_exp(rng.normal(size=6) * step)
    return Trajectory(np.linspace(1000.0, 1000.0 + 0.1 * (count - 1), count), np.stack(poses))


def disturbed(trajectory: Trajectory, rng: np.random.Generator, size: float = 0.03) -> Trajectory:
    noise = np.stack([se3_exp(rng.normal(size=6) * size) for _ in range(len(trajectory))])
    return Trajectory(trajectory.timestamps, se3_exp(rng.normal(size=6)) @ trajectory.poses @ noise)


def straight(positions: list[float], stamps: list[float] | None = None) -> Trajectory:
    poses = np.stack([make_transform(np.eye(3), [x, 0.0, 0.0]) for x in positions])
    return Trajectory(np.arange(len(positions), dtype=float) if stamps is None else np.array(stamps), poses)


def truth(trajectory: Trajectory, frames: Any = None) -> GroundTruth:
    stamps = None if frames is None else np.asarray(frames, dtype=np.float64)
    return GroundTruth(name="gt", trajectory=trajectory, frame_timestamps=stamps)


def evaluate(estimate: Trajectory, ground_truth: GroundTruth, **options: Any) -> SetResult:
    evaluation = evaluate_trajectory({"est": estimate}, ground_truth, TrajectoryConfig(**options), environment={})
    return evaluation.results["est"]["gt"]


# Which pairs


@pytest.mark.parametrize(
    ("delta", "unit", "all_pairs", "expected"),
    [
        (1, "frames", False, [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]),
        (2, "frames", False, [[0, 2], [2, 4]]),
        (2, "frames", True, [[0, 2], [1, 3], [2, 4], [3, 5]]),
        # Stamps 0 1 2 4 5 6, places 0 1 1 3 3 4.
        (2, "s", False, [[0, 2], [2, 3], [3, 5]]),
        (2, "s", True, [[0, 2], [2, 3], [3, 5]]),
        (2, "m", False, [[0, 3]]),
        (2, "m", True, [[1, 3], [2, 3]]),
        (3, "m", True, [[0, 3], [1, 5], [2, 5]]),
    ],
)
def test_pairs_by_hand(delta: float, unit: DeltaUnit, all_pairs: bool, expected: list[list[int]]) -> None:
    trajectory = straight([0, 1, 1, 3, 3, 4], [0, 1, 2, 4, 5, 6])
    pairs = relative_pairs(trajectory, delta=delta, unit=unit, all_pairs=all_pairs)
    np.testing.assert_array_equal(pairs, expected)


def test_rounding_of_stamps_does_not_move_a_pair() -> None:
    trajectory = straight([0.0] * 31, [0.1 * index for index in range(31)])
    np.testing.assert_array_equal(relative_pairs(trajectory, delta=0.3, unit="s")[:, 1], np.arange(3, 31, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0}, "positive"),
        ({"delta": math.nan}, "positive"),
        ({"delta": 1.5}, "whole number"),
        ({"delta": 6}, "no two of 6 poses are 6 frames apart"),
        ({"delta": 1, "unit": "km"}, "'km' is unknown"),
    ],
)
def test_pairs_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        relative_pairs(straight([0, 1, 1, 3, 3, 4]), **options)


# Errors by hand


def test_perfect_in_another_world(rng: np.random.Generator) -> None:
    reference = random_walk(rng)
    elsewhere = Trajectory(reference.timestamps, se3_exp(rng.normal(size=6)) @ reference.poses)
    result = evaluate(elsewhere, truth(reference, reference.timestamps))
    assert result.metrics["tracked"] == 1.0
    assert result.failures == 0
    assert result.count == 60
    for name, value in result.metrics.items():
        if "ate" in name or "rpe_trans" in name:
            assert value < 1e-9, name
    assert result.curves["recall"].y[-1] == 1.0


def test_relative_error_over_two_metres_by_hand() -> None:
    # The estimate runs 10 % too far: 0.2 m over each two metres, 0.1 over each frame.
    reference, estimate = straight([0, 1, 2, 3, 4]), straight([0, 1.1, 2.2, 3.3, 4.4])
    over_metres = evaluate(estimate, truth(reference), alignment="none", delta=2, unit="m").metrics
    assert over_metres["rpe_trans_rmse_m"] == pytest.approx(0.2)
    assert over_metres["rpe_trans_max_m"] == pytest.approx(0.2)
    assert evaluate(estimate, truth(reference), alignment="none").metrics["rpe_trans_mean_m"] == pytest.approx(0.1)
    assert over_metres["ate_rmse_m"] == pytest.approx(math.sqrt((0.01 + 0.04 + 0.09 + 0.16) / 5))
    # With the scale free nothing is left, in the relative errors neither.
    scaled = evaluate(estimate, truth(reference), alignment="sim3", delta=2, unit="m").metrics
    assert scaled["scale"] == pytest.approx(1 / 1.1)
    assert scaled["rpe_trans_max_m"] < 1e-9
    assert scaled["ate_max_m"] < 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.2, 5.0))
def test_sim3_errors_do_not_depend_on_the_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    reference = random_walk(rng, count=15)
    estimate = disturbed(reference, rng)
    other = estimate.mapped(ScaledTransform(T=np.eye(4), scale=scale))
    first, second = (evaluate(each, truth(reference), alignment="sim3").metrics for each in (estimate, other))
    assert second["scale"] == pytest.approx(first["scale"] / scale)
    for name in set(first) - {"scale"}:
        assert second[name] == pytest.approx(first[name], abs=1e-6), name


# Percent tracked


def test_tracked_share_of_frames() -> None:
    reference = straight([0.0, 1, 2, 3, 4, 5, 6, 7])
    estimate = reference.select([0, 1, 2, 5, 6, 7])
    result = evaluate(estimate, truth(reference, np.arange(10)))  # two frames after the end of the ground truth
    assert result.metrics["tracked"] == 0.6
    assert (result.count, result.failures) == (10, 4)
    assert result.metrics["poses"] == 6
    # The recall curve counts lost frames: perfect poses, yet no more than 60 %.
    assert result.curves["recall"].y[-1] == 0.6


def test_covered_share_of_time() -> None:
    reference = straight([float(x) for x in range(101)], [0.1 * index for index in range(101)])
    # Frames every 0.5 s from 1 s to 6 s, then from 8 s to 9 s: 6 of 10 s.
    stamps = [*np.arange(1.0, 6.01, 0.5), *np.arange(8.0, 9.01, 0.5)]
    estimate = reference.select(np.isin(np.round(reference.timestamps, 3), np.round(stamps, 3)))
    assert len(estimate) == len(stamps)
    result = evaluate(estimate, truth(reference))
    assert result.metrics["tracked"] == pytest.approx(0.6)
    assert result.count == len(stamps)


@pytest.mark.parametrize("frames", [None, [0, 1, 2, 3, 4]])
def test_too_few_poses_are_a_failure(frames: list[float] | None, tmp_path: Path) -> None:
    reference = straight([0.0, 1, 2, 3, 4])
    evaluation = evaluate_trajectory(
        {"short": reference.select([0, 3]), "none": reference.select(np.zeros(0, dtype=int))},
        truth(reference, frames),
        environment={},
    )
    for result in (evaluation.results["short"]["gt"], evaluation.results["none"]["gt"]):
        assert result.metrics["ate_rmse_m"] == result.metrics["rpe_rot_max_deg"] == math.inf
        assert result.metrics["ate_common_rmse_m"] == math.inf
    if frames:
        assert evaluation.results["short"]["gt"].metrics["tracked"] == 0.4
        assert evaluation.results["none"]["gt"].failures == 5
    shown = {metric.name for metric in evaluation.metrics}
    assert shown - set(evaluation.results["short"]["gt"].metrics) == set()
    evaluation.write(tmp_path / "results.json")
    assert Evaluation.read(tmp_path / "results.json").results["short"]["gt"].metrics["ate_rmse_m"] == math.inf


def test_a_short_estimate_has_no_error_over_a_long_way() -> None:
    reference = straight([0.0, 1, 2, 3, 4, 5])
    result = evaluate(reference.select([0, 1, 2]), truth(reference), delta=4, unit="m")
    assert result.metrics["rpe_trans_rmse_m"] == math.inf
    assert result.metrics["ate_rmse_m"] < 1e-9
    with pytest.raises(InputError, match="no two of 6 poses are 9 m apart"):
        evaluate(reference, truth(reference), delta=9, unit="m")


def test_errors_of_common_poses() -> None:
    reference = straight([0.0, 1, 2, 3, 4, 5])
    positions = reference.positions[:, 0].copy()
    positions[5] += 3.0  # wrong where the other one was lost
    estimates = {"long": straight(positions.tolist()), "short": reference.select([0, 1, 2, 3])}
    evaluation = evaluate_trajectory(estimates, truth(reference), environment={})
    long, short = (evaluation.results[name]["gt"].metrics for name in estimates)
    assert long["ate_rmse_m"] > 0.5
    assert long["ate_common_rmse_m"] < 1e-9
    assert short["ate_common_rmse_m"] < 1e-9
    assert "ate_common_rmse_m" in [metric.name for metric in evaluation.metrics if metric.headline]
    alone = evaluate_trajectory({"long": estimates["long"]}, truth(reference), environment={})
    assert "ate_common_rmse_m" not in [metric.name for metric in alone.metrics]
    assert alone.results["long"]["gt"].metrics["ate_common_rmse_m"] == pytest.approx(long["ate_rmse_m"])


# The same numbers as evo


def evo_statistics(
    estimate: Trajectory, reference: Trajectory, alignment: Alignment, delta: float, unit: str, all_pairs: bool
) -> Mapping[str, Mapping[str, float]]:
    from evo.core import metrics, sync
    from evo.core.trajectory import PoseTrajectory3D

    evo_reference, evo_estimate = (
        PoseTrajectory3D(poses_se3=list(each.poses), timestamps=each.timestamps) for each in (reference, estimate)
    )
    evo_reference, evo_estimate = sync.associate_trajectories(evo_reference, evo_estimate, max_diff=0.02)
    if alignment != "none":
        evo_estimate.align(evo_reference, correct_scale=alignment == "sim3")
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((evo_reference, evo_estimate))
    found = {"ate_{}_m": ape.get_all_statistics()}
    relations = {
        "rpe_trans_{}_m": metrics.PoseRelation.translation_part,
        "rpe_rot_{}_deg": metrics.PoseRelation.rotation_angle_deg,
    }
    for key, relation in relations.items():
        rpe = metrics.RPE(
            relation,
            delta=delta,
            delta_unit=metrics.Unit.frames if unit == "frames" else metrics.Unit.meters,
            all_pairs=all_pairs,
            pairs_from_reference=True,
        )
        rpe.process_data((evo_reference, evo_estimate))
        found[key] = rpe.get_all_statistics()
    return found


def assert_equal_to_evo(estimate: Trajectory, reference: Trajectory, **options: Any) -> None:
    measured = evaluate(estimate, truth(reference), **options).metrics
    for key, statistics in evo_statistics(estimate, reference, **options).items():
        for name in ("rmse", "mean", "median", "max"):
            assert measured[key.format(name)] == pytest.approx(statistics[name], abs=1e-6), (key, name, options)


@pytest.mark.parametrize("all_pairs", [False, True])
@pytest.mark.parametrize(("delta", "unit"), [(1, "frames"), (5, "frames"), (1.0, "m"), (2.5, "m")])
@pytest.mark.parametrize("alignment", ["none", "se3", "sim3"])
def test_equal_to_evo(alignment: Alignment, delta: float, unit: str, all_pairs: bool) -> None:
    pytest.importorskip("evo", reason="evo is a development dependency (GPL), used as an oracle only")
    for seed in range(3):
        rng = np.random.default_rng(seed)
        reference = random_walk(rng, count=90)
        kept = rng.random(90) < 0.8
        estimate = disturbed(reference, rng).select(kept)
        estimate = estimate.mapped(ScaledTransform(T=np.eye(4), scale=1.3))
        estimate = Trajectory(estimate.timestamps + rng.uniform(-0.008, 0.008, len(estimate)), estimate.poses)
        assert_equal_to_evo(estimate, reference, alignment=alignment, delta=delta, unit=unit, all_pairs=all_pairs)


def test_equal_to_evo_on_a_real_trajectory(shared: Path) -> None:
    pytest.importorskip("evo", reason="evo is a development dependency (GPL), used as an oracle only")
    ground_truth = read_ground_truth(shared / "data/tum/rgbd_dataset_freiburg3_cabinet_subsampled")
    assert ground_truth.frame_timestamps is not None
    assert len(ground_truth.frame_timestamps) == len(ground_truth.trajectory) == 58
    rng = np.random.default_rng(0)
    estimate = disturbed(ground_truth.trajectory, rng).select(rng.random(58) < 0.9)
    for options in ({"delta": 1, "unit": "frames"}, {"delta": 1.0, "unit": "m"}):
        assert_equal_to_evo(estimate, ground_truth.trajectory, alignment="se3", all_pairs=False, **options)
    named = GroundTruth(name="gt", trajectory=ground_truth.trajectory, frame_timestamps=ground_truth.frame_timestamps)
    assert evaluate(estimate, named).metrics["tracked"] == pytest.approx(len(estimate) / 58)


def test_the_old_call_still_means_consecutive_poses(rng: np.random.Generator) -> None:
    reference = random_walk(rng, count=20)
    estimate = disturbed(reference, rng)
    errors = relative_pose_errors(estimate, reference)
    assert len(errors.translation_errors) == 19


# Files and pictures


def test_ground_truth_from_files(tmp_path: Path, rng: np.random.Generator) -> None:
    walk = random_walk(rng, count=5)
    write_tum_trajectory(tmp_path / "walk.txt", walk)
    (tmp_path / "rgb.txt").write_text("# color images\n1000.0 rgb/a.png\n1000.1 rgb/b.png\n")
    plain = read_ground_truth(tmp_path / "walk.txt")
    assert plain.name == "walk"
    assert plain.frame_timestamps is None
    with_frames = read_ground_truth(tmp_path / "walk.txt", frames=tmp_path / "rgb.txt")
    assert with_frames.frame_timestamps is not None
    np.testing.assert_allclose(with_frames.frame_timestamps, [1000.0, 1000.1])
    (tmp_path / "rgb.txt").write_text("# nothing\n")
    with pytest.raises(DatasetError, match=r"rgb\.txt: holds no timestamps"):
        read_ground_truth(tmp_path / "walk.txt", frames=tmp_path / "rgb.txt")
    (tmp_path / "rgb.txt").write_text("1000.0 a\nsoon b\n")
    with pytest.raises(DatasetError, match=r"rgb\.txt:2: 'soon'"):
        read_ground_truth(tmp_path / "walk.txt", frames=tmp_path / "rgb.txt")


def test_estimates_get_short_unique_names() -> None:
    assert list(name_estimates(["a/orb.txt", "b/sift.txt"])) == ["orb", "sift"]
    assert list(name_estimates(["orb/trajectory.txt", "sift/trajectory.txt"])) == ["orb", "sift"]
    assert list(name_estimates(["1/orb/t.txt", "2/orb/t.txt"])) == ["1/orb/t.txt", "2/orb/t.txt"]
    with pytest.raises(ConfigError, match="twice"):
        name_estimates(["a.txt", "a.txt"])
    with pytest.raises(ConfigError, match="no estimated"):
        name_estimates([])


def test_pictures_even_of_failures(rng: np.random.Generator) -> None:
    reference = random_walk(rng, count=20)
    estimates = {"good": disturbed(reference, rng), "lost": reference.select(np.zeros(0, dtype=int))}
    pictures = trajectory_pictures(estimates, truth(reference, reference.timestamps))
    assert [picture.caption.split(",")[0] for picture in pictures] == ["good", "lost"]
    assert all(picture.data.startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize(
    "options",
    [
        {"alignment": "SE3"},
        {"unit": "km"},
        {"max_difference_s": 0.0},
        {"delta": -1},
        {"delta": 0.5},
        {"delta": math.inf, "unit": "m"},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrajectoryConfig(**options)


def test_no_estimates() -> None:
    with pytest.raises(ConfigError, match="no estimated trajectory"):
        evaluate_trajectory({}, truth(straight([0, 1, 2])))
