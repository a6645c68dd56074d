"""SLAM on a world of points whose truth is known."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from semkey.errors import ConfigError, DatasetError
from semkey.geometry.transforms import compose, inverse, rotation_angle_deg, se3_exp
from semkey.slam import FrameRecord, MapConfig, SlamConfig, SlamInterrupted, SlamResult, TrackingConfig, run_slam
from semkey.slam.config import LoopConfig
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.output.report import summarise
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.motion import ConstantVelocity
from synthetic_world import PointExtractor, PointWorld, walk

# Starting a process for a handful of frames takes longer than tracking them: only tests of that process do it.
QUICK = MapConfig(adjustment="none")


def run(world: PointWorld, config: SlamConfig | None = None, **options) -> SlamResult:
    return run_slam(world, PointExtractor(world), config or SlamConfig(map=QUICK), **options)


def tracking(base: TrackingConfig | None = None, **changes) -> SlamConfig:
    return SlamConfig(tracking=replace(base or TrackingConfig(), **changes), map=QUICK)


def known(pose: np.ndarray | None) -> np.ndarray:
    assert pose is not None
    return pose


def without_poses(record: FrameRecord) -> FrameRecord:
    return replace(record, T_world_cam=None, T_keyframe_cam=None, covariance=None)


def worst_error(result: SlamResult, world: PointWorld) -> tuple[float, float]:
    """Largest error of a pose in metres and degrees, with both worlds laid on the first tracked frame."""
    tracked = [record for record in result.frames if record.T_world_cam is not None]
    first = inverse(known(world.ground_truth[tracked[0].index]))
    differences = [compose(inverse(first @ known(world.ground_truth[r.index])), known(r.T_world_cam)) for r in tracked]
    return (
        max(float(np.linalg.norm(difference[:3, 3])) for difference in differences),
        max(rotation_angle_deg(difference) for difference in differences),
    )


def test_exact_without_noise() -> None:
    # At constant velocity the prediction is right, so that not even the motion prior is in the way.
    world = PointWorld(walk(30, unsteadiness=0.0))
    result = run(world)
    assert result.tracked == 30
    assert result.lost_events == []
    metres, degrees = worst_error(result, world)
    assert metres < 2e-5
    assert degrees < 2e-3
    np.testing.assert_array_equal(known(result.frames[0].T_world_cam), np.eye(4))
    assert 2 <= len(result.keyframe_indices) < 20
    assert [record.method for record in result.frames[3:]].count("guided") == 27


def test_bounded_error_with_noise_and_outliers() -> None:
    world = PointWorld(walk(30), pixel_noise=0.5, depth_noise=1.0, outlier_share=0.3)
    result = run(world)
    assert result.tracked == 30
    metres, degrees = worst_error(result, world)
    assert metres < 0.02
    assert degrees < 0.4
    figures = summarise(result)
    assert figures["ate_rmse_m"] < 0.015
    assert figures["alignment"] == "se3"


def test_large_motion_falls_back_to_descriptors_alone() -> None:
    """The direction of a large motion turns over in every frame, so every prediction is far off."""
    steps = [(0.12 * (-1) ** k, 0.0, 0.0, 0.0, 0.15 * (-1) ** k, 0.02) for k in range(10)]
    poses = [walk(2, step)[1] for step in steps]
    world = PointWorld(poses, pixel_noise=0.3, depth_noise=0.5)
    result = run(world)
    assert result.tracked == 10
    assert worst_error(result, world)[0] < 0.02


def test_blackout_is_reported_and_ends_by_relocalisation() -> None:
    world = PointWorld(walk(24), pixel_noise=0.3, depth_noise=0.5, blank=[10, 11, 12])
    result = run(world)
    assert [record.index for record in result.frames if record.T_world_cam is None] == [10, 11, 12]
    assert [record.method for record in result.frames[10:14]] == ["lost", "lost", "lost", "relocalised"]
    assert [(e.first_frame, e.last_frame, e.recovered) for e in result.lost_events] == [(10, 12, "relocalised")]
    assert worst_error(result, world)[0] < 0.02
    figures = summarise(result)
    assert (figures["frames"], figures["tracked"], figures["lost_events"]) == (24, 21, 1)
    assert figures["tracked_percent"] == pytest.approx(87.5)
    assert len(result.trajectory()) == 21
    assert len(figures["submaps"]) == 1


def test_kidnapped_for_good_starts_a_new_submap_and_says_so() -> None:
    world = PointWorld(walk(24), elsewhere=range(10, 24))
    result = run(world, SlamConfig(loops=LoopConfig(new_submap_seconds=0.29)))
    assert [record.index for record in result.frames if record.T_world_cam is None] == [10, 11, 12]
    assert result.lost_events[0].recovered == "new submap"
    submaps = summarise(result)["submaps"]
    assert [(s["submap"], s["first_frame"], s["last_frame"]) for s in submaps] == [(0, 0, 9), (1, 13, 23)]
    np.testing.assert_allclose(known(result.frames[13].T_world_cam), known(result.frames[9].T_world_cam))


def test_back_from_elsewhere_returns_to_the_old_submap() -> None:
    poses = walk(30)
    world = PointWorld(poses[:20] + poses[10:20], elsewhere=range(10, 20))
    result = run(world, SlamConfig(loops=LoopConfig(new_submap_seconds=0.2)))
    assert [record.submap for record in result.frames[20:]] == [0] * 10
    for record in result.frames[20:]:
        np.testing.assert_allclose(known(record.T_world_cam), poses[record.index - 10], atol=2e-3)


def test_a_jump_within_the_known_world_is_followed_not_pulled_back() -> None:
    poses = walk(24)
    jump = se3_exp([0.8, 0.1, -0.3, 0.05, 0.3, 0.05])
    world = PointWorld(poses[:12] + [pose @ jump for pose in poses[12:]], pixel_noise=0.3, depth_noise=0.5)
    result = run(world)
    assert result.tracked == 24
    assert result.frames[12].method in ("keyframe", "relocalised")
    assert worst_error(result, world)[0] < 0.02


def test_keyframes_are_made_where_landmarks_do_not_cover_the_image() -> None:
    world = PointWorld(walk(20, step=(0, 0, 0, 0.03, 0, 0)))
    never = TrackingConfig(
        keyframe_tracked_share=0.01, keyframe_parallax=9, keyframe_rotation_deg=180, keyframe_uncovered_share=1.0
    )
    assert run(world, SlamConfig(tracking=never, map=QUICK)).keyframe_indices == [0, 1], (
        "the first frame, and the one that had no prediction yet"
    )
    kept = run(world, tracking(never, keyframe_uncovered_share=0.25)).keyframe_indices
    assert 4 <= len(kept) <= 10


def test_keyframes_tell_the_map_how_sure_their_poses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[int, np.ndarray | None] = {}
    add_keyframe = SlamMap.add_keyframe

    def noted(slam_map: SlamMap, frame: ObservedFrame, *args, covariance: np.ndarray | None = None) -> Keyframe:
        told[frame.index] = covariance
        return add_keyframe(slam_map, frame, *args, covariance=covariance)

    monkeypatch.setattr(SlamMap, "add_keyframe", noted)
    result = run(PointWorld(walk(12), pixel_noise=0.3))
    assert len(told) >= 2
    first, *others = sorted(told)
    assert told[first] is None
    for index in others:
        np.testing.assert_array_equal(known(told[index]), known(result.frames[index].covariance))


def test_lost_at_the_end_and_blank_at_the_start() -> None:
    world = PointWorld(walk(12), blank=[0, 1, 10, 11])
    result = run(world)
    assert [record.T_world_cam is None for record in result.frames] == [True] * 2 + [False] * 8 + [True] * 2
    assert [event.recovered for event in result.lost_events] == ["new submap", "not"]
    np.testing.assert_array_equal(known(result.frames[2].T_world_cam), np.eye(4))


def test_nothing_to_see_at_all() -> None:
    world = PointWorld(walk(3), blank=range(3))
    result = run(world)
    assert result.poses == [None, None, None]
    assert len(result.trajectory()) == 0
    figures = summarise(result)
    assert figures["tracked_percent"] == 0
    assert figures["ate_rmse_m"] is None


def test_a_frame_without_depth_is_still_tracked() -> None:
    world = PointWorld(walk(12), without_depth=[6, 7])
    result = run(world)
    assert result.tracked == 12
    assert worst_error(result, world)[0] < 1e-3


def test_same_seed_same_trajectory() -> None:
    world = PointWorld(walk(15), pixel_noise=0.5, depth_noise=1.0, outlier_share=0.3)
    first, second = run(world, SlamConfig(seed=3)), run(world, SlamConfig(seed=3))
    for record0, record1 in zip(first.frames, second.frames, strict=True):
        assert without_poses(record0) == without_poses(record1)
        np.testing.assert_array_equal(known(record0.T_world_cam), known(record1.T_world_cam))
        assert (record0.covariance is None) == (record1.covariance is None)
        if record0.covariance is not None and record1.covariance is not None:
            np.testing.assert_array_equal(record0.covariance, record1.covariance)


def test_every_and_max_frames_and_progress() -> None:
    world = PointWorld(walk(12))
    seen: list[int] = []
    result = run(world, every=3, max_frames=3, progress=lambda record: seen.append(record.index))
    assert seen == [0, 3, 6] == [record.index for record in result.frames]
    assert result.tracked == 3
    with pytest.raises(ConfigError, match="every"):
        run(world, every=0)


def test_interrupt_keeps_what_was_done() -> None:
    world = PointWorld(walk(12))

    def stop_at_five(index: int) -> None:
        if index == 5:
            raise KeyboardInterrupt

    with pytest.raises(SlamInterrupted) as caught:
        run_slam(world, PointExtractor(world, before=stop_at_five))
    assert caught.value.result.interrupted
    assert len(caught.value.result.frames) == 5


def test_inputs_that_slam_cannot_use() -> None:
    world = PointWorld(walk(3))
    world.has_depth = False
    with pytest.raises(DatasetError, match="rgbd"):
        run_slam(world, PointExtractor(world), sensor="rgbd")
    with pytest.raises(DatasetError, match="stereo"):
        run_slam(world, PointExtractor(world), sensor="stereo")
    world = PointWorld(walk(3))
    world.camera = None
    with pytest.raises(ConfigError, match="--camera"):
        run(world)


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_sigma": 0},
        {"min_depth": 2, "max_depth": 1},
        {"min_inliers": 3},
        {"keyframe_tracked_share": 1.5},
        {"max_search_radius_px": 1},
    ],
)
def test_bad_settings_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        TrackingConfig(**change)


def test_constant_velocity_follows_the_clock() -> None:
    def predicted(timestamp: float) -> np.ndarray:
        prediction = motion.predict(timestamp)
        assert prediction is not None
        return prediction.T_world_cam

    motion = ConstantVelocity()
    step = walk(2, step=(0.1, 0, 0, 0, 0.1, 0))[1]
    assert motion.predict(0.0) is None
    motion.update(0.0, np.eye(4))
    assert motion.predict(0.1) is None
    motion.update(0.1, step)
    np.testing.assert_allclose(predicted(0.2), step @ step, atol=1e-9)
    np.testing.assert_allclose(predicted(0.3), step @ step @ step, atol=1e-9)
    np.testing.assert_allclose(predicted(0.1), step @ step, atol=1e-9)
    assert np.linalg.norm(predicted(100.0)[:3, 3]) < 0.5, "a long gap is not extrapolated"
    soon, later = motion.predict(0.2), motion.predict(0.4)
    assert soon is not None
    assert later is not None
    assert later.rotation_sigma == pytest.approx(3 * soon.rotation_sigma)
    assert later.translation_sigma == pytest.approx(3 * soon.translation_sigma)
    motion.lose()
    assert motion.predict(0.3) is None
    np.testing.assert_array_equal(known(motion.last_pose), step)


def test_stages_inside_stages_are_not_counted_twice() -> None:
    timer = StageTimer()
    start = time.perf_counter()
    with timer.stage("outer"):
        time.sleep(0.01)
        with timer.stage("inner"):
            time.sleep(0.03)
    elapsed = time.perf_counter() - start
    assert timer.seconds["inner"] >= 0.03
    assert timer.seconds["outer"] >= 0.01
    assert timer.seconds["inner"] + timer.seconds["outer"] <= elapsed
