"""Slam driven as a camera would drive it: frame by frame, saved, loaded, and given what it cannot use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from semkey.datasets import Frame, open_sequence
from semkey.errors import ConfigError, InputError, SemkeyError
from semkey.slam import MapConfig, Slam, SlamConfig, SlamListener, TrackedFrame, run_slam
from semkey.slam.events import FrameEvent
from slam_runs import StopAt
from synthetic_world import CAMERA, HEIGHT, WIDTH, PointExtractor, PointWorld, walk
from tum_folder import FOCAL, write_tum

# Starting a process for a handful of frames takes longer than tracking them.
QUICK = SlamConfig(map=MapConfig(adjustment="none"))


def drive(slam: Slam, frames: list[Frame]) -> list[TrackedFrame]:
    return [slam.track(frame.image, frame.depth, timestamp=frame.timestamp) for frame in frames]


def frames_of(world: PointWorld) -> list[Frame]:
    return [world[index] for index in range(len(world))]


def noisy_world(frames: int = 16, **options: Any) -> PointWorld:
    return PointWorld(walk(frames), pixel_noise=0.5, depth_noise=1.0, **options)


def test_frame_by_frame_equals_a_run_over_the_sequence() -> None:
    world = noisy_world(blank=[9])
    whole = run_slam(world, PointExtractor(world))
    with Slam(CAMERA, PointExtractor(world)) as slam:
        tracked = drive(slam, frames_of(world))
        slam.finish()
    for frame, record in zip(tracked, whole.frames, strict=True):
        assert (frame.index, frame.is_keyframe, frame.inliers) == (record.index, record.is_keyframe, record.inliers)
        if record.T_world_cam is None:
            assert frame.T_world_cam is None
        else:
            np.testing.assert_array_equal(frame.T_world_cam, record.T_world_cam)
    np.testing.assert_array_equal(slam.trajectory().poses, whole.trajectory().poses)
    assert whole.slam_map is not None
    np.testing.assert_array_equal(slam.points(), whole.slam_map.landmarks.positions[whole.slam_map.landmarks.ids])


def test_real_frames_from_paths_and_grey_images_equal_a_run(shared: Path, tmp_path: Path) -> None:
    """Ten frames of a real recording; ORB sees the same in grey images, colours or files."""
    sequence = open_sequence(shared / "data" / "tum" / "rgbd_dataset_freiburg3_cabinet_subsampled")
    whole = run_slam(sequence, "orb", QUICK, max_frames=10)
    assert whole.tracked == 10
    assert sequence.camera is not None
    with Slam(sequence.camera, "orb", config=QUICK) as slam:
        for frame in (sequence[index] for index in range(10)):
            image: Any = frame.image
            if frame.index % 3 == 1:
                image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY).astype(np.uint8)
            elif frame.index % 3 == 2:
                image = tmp_path / f"{frame.index}.png"
                cv2.imwrite(str(image), frame.image[..., ::-1])
            slam.track(image, frame.depth, timestamp=frame.timestamp)
    np.testing.assert_allclose(slam.trajectory().poses, whole.trajectory().poses, atol=1e-9)


def test_a_single_camera_frame_by_frame_equals_a_run_and_places_late_what_came_before_the_map() -> None:
    world = noisy_world(20)
    whole = run_slam(world, PointExtractor(world), QUICK, sensor="mono")
    with Slam(CAMERA, PointExtractor(world), sensor="mono", config=QUICK) as slam:
        tracked = [slam.track(frame.image, timestamp=frame.timestamp) for frame in frames_of(world)]
    began = next(frame for frame in tracked if frame.status == "tracking")
    assert began.index > 1
    assert {frame.status for frame in tracked[: began.index]} == {"initialising"}
    assert [record.index for record in began.late] == list(range(began.index))
    assert slam.result.alignment == "sim3"
    assert len(slam.trajectory()) == len(tracked)
    np.testing.assert_array_equal(slam.trajectory().poses, whole.trajectory().poses)


def test_each_frame_says_what_became_of_it() -> None:
    world = noisy_world(blank=[0, 8, 9])
    with Slam(CAMERA, PointExtractor(world), config=QUICK) as slam:
        assert slam.points().shape == (0, 3)
        assert slam.keyframes() == []
        tracked = drive(slam, frames_of(world))
    statuses = [frame.status for frame in tracked]
    assert statuses == ["initialising", *["tracking"] * 7, "lost", "lost", "relocalised", *["tracking"] * 5]
    np.testing.assert_array_equal(cast(Any, tracked[1].T_world_cam), np.eye(4))
    for frame, status in zip(tracked, statuses, strict=True):
        assert (frame.T_world_cam is None) == (status in ("lost", "initialising"))
        assert (frame.inliers > 12) == (status in ("tracking", "relocalised") and frame.index != 1)
        assert frame.loop is None
    kept = slam.keyframes()
    assert [keyframe.index for keyframe in kept] == [frame.index for frame in tracked if frame.is_keyframe]
    assert all(keyframe.landmarks > 12 for keyframe in kept)
    assert slam.points().dtype == np.float64
    assert len(slam.trajectory()) == 13


def test_a_saved_map_is_continued_where_the_camera_comes_back(tmp_path: Path) -> None:
    poses = walk(30)
    first, second = PointWorld(poses[:18], seed=3), PointWorld(poses[14:], seed=3)
    with Slam(CAMERA, PointExtractor(first), config=QUICK) as slam:
        drive(slam, frames_of(first))
        slam.save(tmp_path / "room.semkey")
        known = len(slam.keyframes())
    with Slam.load(tmp_path / "room.semkey", PointExtractor(second)) as slam:
        assert len(slam.keyframes()) == known
        tracked = drive(slam, frames_of(second))
        assert len(slam.keyframes()) > known
        np.testing.assert_allclose(slam.trajectory().poses, np.stack(poses[14:]), atol=0.01)
    assert [frame.index for frame in tracked] == list(range(16))
    assert [frame.status for frame in tracked] == ["relocalised", *["tracking"] * 15]


def test_a_map_of_other_features_is_refused(tmp_path: Path) -> None:
    world = noisy_world(4)
    with Slam(CAMERA, PointExtractor(world), config=QUICK) as slam:
        with pytest.raises(InputError, match="no frame was tracked"):
            slam.save(tmp_path / "room.semkey")
        drive(slam, frames_of(world))
        slam.save(tmp_path / "room.semkey")
    with pytest.raises(ConfigError, match="--features points, not orb"):
        Slam.load(tmp_path / "room.semkey", "orb")
    with pytest.raises(InputError, match="no such file"):
        Slam.load(tmp_path / "hall.semkey", "orb")


IMAGE = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
DEPTH = np.ones((HEIGHT, WIDTH), dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": IMAGE.astype(np.float32)}, "dtype float32: pass uint8"),
        ({"image": IMAGE[None]}, "one image at a time"),
        ({"image": np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)}, "fourth channel"),
        ({"image": IMAGE[:100]}, r"has shape \(100, 320, 3\), the camera's images are 320x240"),
        ({"image": "nowhere.png"}, "nowhere.png"),
        ({"image": None}, "is a NoneType"),
        ({"depth": None}, "no depth, which the sensor 'rgbd' needs"),
        ({"depth": DEPTH[:, :100]}, r"the depth has shape \(240, 100\)"),
        ({"depth": (DEPTH * 1000).astype(np.uint16)}, "depth / 1000.0"),
        ({"depth": DEPTH * 1500}, "metres, not millimetres"),
        ({"right": IMAGE}, "does not use: leave it out"),
        ({"timestamp": -1.0}, "not negative"),
        ({"timestamp": float("nan")}, "timestamp is nan"),
        ({"timestamp": "now"}, "timestamp is 'now'"),
        ({"timestamp": 0.0}, "not after that of the last frame"),
        ({"mask": DEPTH}, "mask is float32 .*: a mask is uint8"),
        ({"mask": IMAGE}, "a mask is uint8"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error_and_changes_nothing(change: dict[str, Any], message: str) -> None:
    world = noisy_world(2)
    first, second = frames_of(world)
    with Slam(CAMERA, PointExtractor(world), config=QUICK) as slam:
        drive(slam, [first])
        given: dict[str, Any] = {"image": IMAGE, "depth": DEPTH, "timestamp": 1.0} | change
        with pytest.raises(SemkeyError, match=message) as caught:
            slam.track(**given)
        assert "\n" not in str(caught.value)
        assert len(slam.result.frames) == 1
        assert drive(slam, [second])[0].status == "tracking"


def test_a_camera_or_sensor_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="baseline"):
        Slam(CAMERA, "orb", sensor="stereo")
    with pytest.raises(ConfigError, match="unknown sensor 'radar'"):
        Slam(CAMERA, "orb", sensor=cast(Any, "radar"))
    with pytest.raises(ConfigError, match="pass a PinholeCamera"):
        Slam(cast(Any, (525, 525, 319.5, 239.5)), "orb")
    with pytest.raises(ConfigError, match="unknown features"):
        Slam(CAMERA, "orbit")
    slam = Slam(CAMERA, "orb", sensor="mono", config=QUICK)
    slam.close()
    with pytest.raises(InputError, match="closed"):
        slam.track(IMAGE, timestamp=0.0)


def test_nothing_comes_from_masked_pixels() -> None:
    world = noisy_world(6)
    mask = np.ones((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:, : WIDTH // 2] = 0
    with Slam(CAMERA, PointExtractor(world), config=QUICK) as slam:
        for frame in frames_of(world):
            tracked = slam.track(frame.image, frame.depth, timestamp=frame.timestamp, mask=mask)
            assert tracked.T_world_cam is not None
        for keyframe in slam.slam_map.keyframes.values():
            assert len(keyframe.frame) > 20
            assert keyframe.frame.keypoints[:, 0].min() > WIDTH // 2 - 1


def test_a_resumed_run_leaves_the_given_result_as_it_was() -> None:
    world = noisy_world()
    whole = run_slam(world, PointExtractor(world), QUICK)
    part = run_slam(world, PointExtractor(world), QUICK, max_frames=7)
    assert part.slam_map is not None
    before = part.trajectory().poses.copy(), part.slam_map.landmarks.positions.copy(), list(part.slam_map.keyframes)
    result = run_slam(world, PointExtractor(world), QUICK, resume=part)
    assert result is not part
    assert len(part.frames) == 7
    np.testing.assert_array_equal(part.trajectory().poses, before[0])
    np.testing.assert_array_equal(part.slam_map.landmarks.positions, before[1])
    assert list(part.slam_map.keyframes) == before[2]
    assert len(result.frames) == len(whole.frames)
    assert result.slam_map is not None
    assert len(result.slam_map.keyframes) > len(before[2])
    np.testing.assert_allclose(result.trajectory().positions, whole.trajectory().positions, atol=0.02)


def test_a_listener_that_fails_or_stops_still_hears_the_end() -> None:
    world = noisy_world(6)
    heard: list[int] = []

    class Counting(SlamListener):
        def on_frame(self, event: FrameEvent) -> None:
            heard.append(event.record.index)

        def on_end(self, result: Any, slam_map: Any) -> None:
            heard.append(-1)

    with pytest.raises(KeyboardInterrupt):
        run_slam(world, PointExtractor(world), QUICK, listeners=[Counting(), StopAt(3)])
    assert heard == [0, 1, 2, 3, -1]


def test_a_folder_and_a_name_are_enough_and_the_files_are_those_of_the_command_line(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "room")
    (folder / "camera.txt").write_text(f"{FOCAL} {FOCAL} {(WIDTH - 1) / 2} {(HEIGHT - 1) / 2}\n")
    result = run_slam(folder, "orb", QUICK, out=tmp_path / "run")
    assert result.features == "orb"
    written = {path.name for path in (tmp_path / "run").iterdir()}
    trajectories = {"trajectory.txt", "trajectory_live.txt", "trajectory_covariance.csv"}
    assert written == trajectories | {"report.json", "report.html", "trajectory.png"}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        run_slam(folder, "orb", QUICK, out=tmp_path / "file")


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "slam.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    folder = write_tum(tmp_path / "rgbd_dataset_freiburg3_cabinet")
    (folder / "camera.txt").write_text(f"{FOCAL} {FOCAL} {(WIDTH - 1) / 2} {(HEIGHT - 1) / 2}\n")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/slam.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("tracking ") == 8
    assert "Trajectory" in printed
