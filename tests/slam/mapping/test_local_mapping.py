"""The map over time: adjusted while tracking goes on, the same in every run, as large as what there is to see."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from semkey.geometry.transforms import compose, se3_exp, transform_points
from semkey.slam import MapConfig, SlamConfig, SlamListener, SlamResult, run_slam
from semkey.slam.events import FrameEvent
from semkey.slam.mapping import local_mapping
from semkey.slam.mapping.background import BackgroundProcess
from semkey.slam.solvers.bundle import BundleProblem, BundleResult, solve_bundle
from synthetic_world import PointExtractor, PointWorld, walk


def orbit(count: int, period: int) -> list[np.ndarray]:
    """Poses of a camera that turns round again and again, and sways, always through the same places."""
    angles = 2 * np.pi * np.arange(count) / period
    return [
        compose(
            se3_exp([0.3 * np.sin(a), 0.1 * np.sin(2 * a), 0.3 * np.cos(a) - 0.3, 0, 0, 0]), se3_exp([0, 0, 0, 0, a, 0])
        )
        for a in angles
    ]


class MapSize(SlamListener):
    """Rows of landmarks and number of keyframes after every frame."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.keyframes: list[int] = []

    def on_frame(self, event: FrameEvent) -> None:
        self.rows.append(len(event.slam_map.landmarks))
        self.keyframes.append(len(event.slam_map.keyframes))


def centres(poses: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.stack([pose[:3, 3] for pose in poses if pose is not None])


def centre_errors(result: SlamResult, world: PointWorld) -> np.ndarray:
    assert result.tracked == len(world)
    return np.linalg.norm(centres(result.poses) - centres(world.ground_truth), axis=1)


def run(world: PointWorld, adjustment: str, **settings) -> SlamResult:
    config = SlamConfig(map=MapConfig.from_mapping({"adjustment": adjustment, **settings}))
    return run_slam(world, PointExtractor(world), config)


def check_memory(frames: int, period: int) -> None:
    world = PointWorld(orbit(frames, period), pixel_noise=0.5, depth_noise=1.0, outlier_share=0.1, points=900)
    size = MapSize()
    result = run_slam(world, PointExtractor(world), SlamConfig(map=MapConfig(adjustment="none")), listeners=[size])
    assert result.tracked == frames
    assert centre_errors(result, world).max() < 0.05
    known = 3 * period // 2  # by then everything has been seen, from everywhere
    assert max(size.rows[known:]) <= 1.15 * max(size.rows[:known])
    assert max(size.keyframes[known:]) <= 1.15 * max(size.keyframes[:known])
    last = size.keyframes[-period:]
    assert max(last) <= max(size.keyframes[known : known + period]) + 2, "it does not grow from round to round"


def test_memory_follows_the_explored_space() -> None:
    check_memory(300, 80)


@pytest.mark.slow
def test_memory_over_2000_frames_of_one_room() -> None:
    check_memory(2000, 80)


def test_adjustment_makes_a_noisy_map_better() -> None:
    errors = []
    for seed in range(4):  # in one world alone the noise may happen to fall the other way
        world = PointWorld(walk(40), pixel_noise=1.0, depth_noise=2.0, outlier_share=0.2, points=1500, seed=seed)
        without = run(world, "none")
        adjusted = run(world, "foreground", adjusted_keyframes=12, adjustment_iterations=10)
        assert adjusted.tracked == without.tracked == 40
        errors.append([np.sqrt((centre_errors(result, world) ** 2).mean()) for result in (without, adjusted)])
    before, after = np.mean(errors, axis=0)
    assert after < 0.95 * before


def test_background_adjustment_is_used_and_repeats_exactly() -> None:
    world = PointWorld(walk(20), pixel_noise=0.5, depth_noise=1.0, outlier_share=0.2, points=1200)
    first, second, without = run(world, "background"), run(world, "background"), run(world, "none")
    corrected = centres(first.poses)
    np.testing.assert_array_equal(corrected, centres(second.poses))
    assert not np.allclose(corrected, centres(without.poses), atol=1e-9)
    assert "adjust" in first.stage_seconds
    # Corrections of keyframes reach the frames between them: the final trajectory is not the live one.
    live = centres([record.T_world_cam for record in first.frames])
    assert not np.allclose(corrected, live, atol=1e-9)
    np.testing.assert_array_equal(first.live_trajectory().positions, live)
    np.testing.assert_array_equal(first.trajectory().positions, corrected)
    assert centre_errors(first, world).max() < 0.02


def die(problem: BundleProblem) -> BundleResult:
    os.kill(os.getpid(), signal.SIGKILL)
    return solve_bundle(problem)


def hang(problem: BundleProblem) -> BundleResult:
    time.sleep(1000)
    return solve_bundle(problem)


def fail(problem: BundleProblem) -> BundleResult:
    raise RuntimeError(f"{len(problem)} observations say nothing")


def test_a_process_that_dies_is_done_without(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def solve(problem: BundleProblem) -> BundleResult:
        here.append(len(problem))
        return solve_bundle(problem)

    def die_once(process: BackgroundProcess, _: object, problem: BundleProblem) -> Future[BundleResult]:
        monkeypatch.setattr(local_mapping, "solve_bundle", solve)  # what the main process calls from now on
        return submit(process, die, problem)

    here: list[int] = []
    submit = BackgroundProcess.submit
    monkeypatch.setattr(local_mapping, "prepare", None)
    monkeypatch.setattr(BackgroundProcess, "submit", die_once)
    world = PointWorld(walk(12), points=1200)
    assert centre_errors(run(world, "background"), world).max() < 0.01
    assert caplog.text.count("has died") == 1
    assert here


@pytest.mark.parametrize("number", [signal.SIGSTOP, None], ids=["stopped", "hung"])
def test_a_process_that_does_not_answer_is_given_up(
    number: int | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def solve(problem: BundleProblem) -> BundleResult:
        here.append(len(problem))
        return solve_bundle(problem)

    def halt(process: BackgroundProcess, _: object, problem: BundleProblem) -> Future[BundleResult]:
        monkeypatch.setattr(local_mapping, "solve_bundle", solve)
        if number is None:
            return submit(process, hang, problem)
        os.kill(process._process.pid, number)
        return submit(process, solve_bundle, problem)

    here: list[int] = []
    submit = BackgroundProcess.submit
    monkeypatch.setattr(local_mapping, "prepare", None)
    monkeypatch.setattr(local_mapping, "_LIMIT_S", 0.5)
    monkeypatch.setattr(BackgroundProcess, "submit", halt)
    world = PointWorld(walk(12), points=1200)
    start = time.monotonic()
    assert centre_errors(run(world, "background"), world).max() < 0.01
    assert time.monotonic() - start < 30
    assert caplog.text.count("does not answer for 0.5 s; adjusting in the main process") == 1
    assert here


def test_an_adjustment_that_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_mapping, "solve_bundle", fail)
    world = PointWorld(walk(8), points=1200)
    assert centre_errors(run(world, "foreground"), world).max() < 0.01
    assert "say nothing" in caplog.text


def test_the_end_of_a_run_adjusts_every_submap() -> None:
    world = PointWorld(walk(30), pixel_noise=0.7, depth_noise=1.0, points=1500)
    options = {"adjusted_keyframes": 1, "fixed_keyframes": 1}
    plain, final = run(world, "foreground", final_keyframes=0, **options), run(world, "foreground", **options)
    np.testing.assert_array_equal(plain.live_trajectory().positions, final.live_trajectory().positions)
    assert not np.allclose(centres(plain.poses), centres(final.poses), atol=1e-6)
    np.testing.assert_array_equal(final.poses[0], np.eye(4))


def test_records_name_the_keyframe_they_follow() -> None:
    result = run(PointWorld(walk(15), points=1200), "none")
    slam_map = result.slam_map
    assert slam_map is not None
    assert {record.reference_keyframe for record in result.frames} <= set(slam_map.keyframes)
    live = centres([record.T_world_cam for record in result.frames])
    np.testing.assert_allclose(centres(result.poses), live, atol=1e-12)
    correction = se3_exp([1, 2, 3, 0.1, 0.2, 0.3])
    slam_map.set_poses({k: correction @ keyframe.T_world_cam for k, keyframe in slam_map.keyframes.items()})
    np.testing.assert_allclose(centres(result.poses), transform_points(correction, live), atol=1e-9)
    lost = replace(result.frames[0], T_world_cam=None, reference_keyframe=None, T_keyframe_cam=None)
    assert result.pose(lost) is None
