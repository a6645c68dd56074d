"""Bundle adjustment: known answers, the weight of depth, what is left out, and the process it runs in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle_problems import disturbed, make_problem
from semkey.errors import InputError
from semkey.geometry.transforms import inverse, rotation_angle_deg, se3_exp
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.mapping.background import BackgroundProcess, BackgroundProcessError
from semkey.slam.solvers.bundle import solve_bundle


def scene(cameras: int = 4, points: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    poses = np.stack([se3_exp([0.15 * k, 0.02 * k, 0.03 * k, 0.01 * k, -0.05 * k, 0]) for k in range(cameras)])
    return poses, rng.uniform([-0.8, -0.6, 1.8], [1.0, 0.6, 3.0], (points, 3))


def errors(result_poses: np.ndarray, poses: np.ndarray) -> tuple[float, float]:
    steps = [inverse(a) @ b for a, b in zip(result_poses, poses, strict=True)]
    return max(float(np.linalg.norm(step[:3, 3])) for step in steps), max(rotation_angle_deg(step) for step in steps)


def test_exact_measurements_give_back_the_truth_with_one_fixed_camera() -> None:
    poses, points = scene()
    result = solve_bundle(disturbed(make_problem(poses, points), 0.03))
    assert result.keyframe_ids.tolist() == [11, 12, 13], "the fixed one is not among them"
    metres, degrees = errors(result.poses, poses[1:])
    assert metres < 1e-5
    assert degrees < 1e-3
    np.testing.assert_allclose(result.positions, points, atol=1e-4)
    assert result.cost < 1e-6 < result.cost_before
    assert len(result.outlier_landmark_ids) == 0


def test_without_depth_two_fixed_cameras_hold_the_scale() -> None:
    poses, points = scene()
    problem = make_problem(poses, points, fixed=(0, 3), with_depth=False)
    result = solve_bundle(disturbed(problem, 0.02))
    assert errors(result.poses, poses[1:3])[0] < 1e-4
    np.testing.assert_allclose(result.positions, points, atol=2e-3)


def test_scale_comes_from_depth_alone() -> None:
    """One fixed camera and depths that are all 5 % too long: everything grows by 5 % about it."""
    poses, points = scene()
    problem = make_problem(poses, points)
    result = solve_bundle(replace(problem, depth=1.05 * problem.depth))
    np.testing.assert_allclose(result.positions, 1.05 * points, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(result.poses[:, :3, 3], 1.05 * poses[1:, :3, 3], rtol=5e-3, atol=1e-4)


def test_noise_is_averaged_over_all_sightings() -> None:
    poses, points = scene(cameras=8, points=60)
    problem = make_problem(poses, points, pixel_noise=1.0, depth_noise=0.02)
    start = disturbed(problem, 0.03)
    result = solve_bundle(start)
    assert result.cost < 0.1 * result.cost_before
    # One sighting places a point at 2.4 m to 2 cm along its ray and 1 px, 9 mm, across; eight to 7 and 3 mm.
    before, after = errors(start.poses[1:], poses[1:]), errors(result.poses, poses[1:])
    assert after[0] < min(0.02, 0.5 * before[0])
    assert after[1] < 0.3 * before[1]
    assert np.median(np.linalg.norm(result.positions - points, axis=1)) < 0.012


def test_two_measurements_of_depth_meet_by_their_uncertainty() -> None:
    """A point lies where the inverse variances of its disparities, under their Cauchy kernel, put it."""
    point = np.array([[0.0, 0.0, 2.0]])
    problem = make_problem(np.stack([np.eye(4), np.eye(4)]), point)
    depth, sigma = np.array([2.0, 2.03]), np.array([0.01, 0.02])
    problem = replace(problem, keyframe_rows=np.array([0, 0]), depth=depth, depth_sigma=sigma)
    inverse_depths, sigmas = 1 / depth, sigma / depth**2
    expected = inverse_depths.mean()
    for _ in range(50):
        weights = 1 / (1 + ((expected - inverse_depths) / sigmas / 1.96) ** 2) / sigmas**2
        expected = float((weights * inverse_depths).sum() / weights.sum())
    assert 2.004 < 1 / expected < 2.008
    assert solve_bundle(problem).positions[0, 2] == pytest.approx(1 / expected, abs=1e-4)


def test_wrong_sightings_are_found_and_do_not_pull() -> None:
    poses, points = scene(points=60)
    problem = make_problem(poses, points)
    keypoints, depth = problem.keypoints.copy(), problem.depth.copy()
    keypoints[[70, 140]] += [[25.0, -10.0], [-18.0, 12.0]]
    depth[[90, 160, 200]] += 0.6
    result = solve_bundle(disturbed(replace(problem, keypoints=keypoints, depth=depth), 0.02))
    pairs = zip(result.outlier_keyframe_ids.tolist(), result.outlier_landmark_ids.tolist(), strict=True)
    assert sorted(pairs) == [(11, 110), (12, 120)], "wrong depths are borne, wrong pixels are named"
    assert errors(result.poses, poses[1:])[0] < 2e-3


# -- the process ---------------------------------------------------------------------------------------------------


def double(values: np.ndarray) -> np.ndarray:
    return 2 * values


def noisy(values: np.ndarray) -> np.ndarray:
    os.write(1, b"a library that prints\n")
    return values


def refuse() -> None:
    raise InputError("no such thing")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def process() -> Iterator[BackgroundProcess]:
    background = BackgroundProcess()
    yield background
    background.close()


def test_calls_are_answered_in_order_and_arguments_are_copied(process: BackgroundProcess) -> None:
    values = np.arange(300_000.0)  # more than a pipe holds
    first, second = process.submit(double, values), process.submit(double, np.ones(2))
    values[:] = -1
    assert first.result()[-1] == 2 * 299_999
    assert second.result().tolist() == [2, 2]


def test_what_is_printed_and_raised_there(process: BackgroundProcess) -> None:
    printed = process.submit(noisy, np.ones(1))
    with pytest.raises(InputError, match="no such thing"):
        process.submit(refuse).result()
    assert printed.result().tolist() == [1]


def test_a_process_that_died_says_so(process: BackgroundProcess) -> None:
    with pytest.raises(BackgroundProcessError, match="ended unexpectedly"):
        process.submit(die).result()
    with pytest.raises(BackgroundProcessError, match="ended unexpectedly"):
        process.submit(double, np.ones(1)).result()


def test_closing_does_not_wait_for_what_is_under_way(process: BackgroundProcess) -> None:
    future = process.submit(time.sleep, 60)
    start = time.perf_counter()
    process.close()
    assert time.perf_counter() - start < 20
    with pytest.raises(BackgroundProcessError, match="ended unexpectedly"):
        future.result(timeout=0)


def test_the_process_ends_with_its_caller() -> None:
    """However that ends: here it is killed."""
    script = (
        "import os, signal, time\n"
        "from semkey.slam.mapping.background import BackgroundProcess\n"
        "process = BackgroundProcess()\n"
        "print(process.submit(os.getpid).result(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    child = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "Z":  # nobody has asked how it ended
            return
        time.sleep(0.1)
    pytest.fail(f"process {child} is still there")


def test_sliding_along_edges_does_not_move_the_cameras(rng: np.random.Generator) -> None:
    """Every camera sees its keypoints slid to one side along their edges; what is told across them is exact."""
    poses, points = scene(cameras=6, points=80)
    problem = make_problem(poses, points, with_depth=True, depth_noise=0.01)
    angle = np.tile(rng.uniform(0, np.pi, len(points)), len(poses))
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sign(np.cos(angle))[:, None]
    slide = np.repeat(rng.uniform(-2, 2, len(poses)), len(points))[:, None] * along
    keypoints = problem.keypoints + slide + rng.normal(0, 0.1, slide.shape)
    edges = along[:, :, None] * along[:, None, :] * 2.0**2 + 0.1**2 * np.eye(2)
    errors = []
    for covariances in (isotropic_covariances(len(problem), 2.0), edges):
        result = solve_bundle(replace(problem, keypoints=keypoints, covariances=covariances))
        turned = [rotation_angle_deg(inverse(a) @ b) for a, b in zip(result.poses, poses[1:], strict=True)]
        errors.append(float(np.mean(turned)))
    assert errors[1] < 0.25 * errors[0]
