"""Figures and page of a run: corrected and live errors, submaps now, losses with pictures, loops, times."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.geometry.trajectories import read_tum_trajectory
from semkey.geometry.transforms import compose, se3_exp
from semkey.slam import SlamResult, run_slam
from semkey.slam.output.lost_pictures import LostFramePictures
from semkey.slam.output.report import summarise, write_report
from semkey.slam.records import LoopRecord
from semkey.slam.timing import StageTimer
from semkey.visualization.map_picture import draw_reprojections, grouped_labels, map_figure
from semkey.visualization.palette import ESTIMATE, START, rgb
from synthetic_world import PointExtractor, PointWorld, walk

PNG = b"\x89PNG"


def run(**options) -> tuple[SlamResult, LostFramePictures]:
    world, pictures = PointWorld(walk(16), **options), LostFramePictures()
    return run_slam(world, PointExtractor(world), listeners=[pictures]), pictures


def test_the_report_follows_corrections_and_keeps_what_was_estimated_first(tmp_path: Path) -> None:
    result, _ = run()
    slam_map = result.slam_map
    assert slam_map is not None
    before = summarise(result)
    assert before["ate_rmse_m"] == pytest.approx(before["live_ate_rmse_m"], abs=1e-3)
    # Half of the keyframes are moved by 20 cm: the frames that hang on them follow, the live trajectory stays.
    shift = se3_exp(np.array([0.2, 0, 0, 0, 0, 0]))
    late = [keyframe for keyframe in slam_map.keyframes.values() if keyframe.frame.index >= 8]
    slam_map.set_poses({keyframe.id: compose(shift, keyframe.T_world_cam) for keyframe in late})
    figures = write_report(result, tmp_path)
    assert figures["live_ate_rmse_m"] == pytest.approx(before["live_ate_rmse_m"])
    assert figures["ate_rmse_m"] > 0.03
    corrected = read_tum_trajectory(tmp_path / "trajectory.txt")
    live = read_tum_trajectory(tmp_path / "trajectory_live.txt")
    np.testing.assert_allclose(live.poses, result.live_trajectory().poses, atol=1e-8)
    np.testing.assert_allclose(corrected.poses, result.trajectory().poses, atol=1e-8)
    page = (tmp_path / "report.html").read_text()
    assert "ATE as first estimated" in page
    assert "poses the weakest has" in page
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(figures))


def test_a_single_camera_says_whose_units_its_lengths_are_and_what_loops_have_shown(tmp_path: Path) -> None:
    result, _ = run()
    assert summarise(result)["scale"] is None
    assert "units of length" not in _page(result, tmp_path)
    single = replace(result, sensor="mono")
    assert single.slam_map is not None
    assert summarise(single)["scale"] is None, "a single camera in a map that was made with depth"
    for keyframe in single.slam_map.keyframes.values():
        keyframe.frame = keyframe.frame.without_depth()
    scale = summarise(single)["scale"]
    assert (scale["maps"], scale["corrected_percent"]) == (1, None)
    assert "not metres" in scale["statement"]
    assert "no loop was closed" in scale["statement"]
    assert scale["statement"].capitalize() in _page(single, tmp_path)
    first = next(iter(single.slam_map.keyframes.values()))
    elsewhere = replace(first, id=1000, submap=1, frame=replace(first.frame, depth=np.ones(len(first.frame))))
    single.slam_map.keyframes[1000] = elsewhere
    assert "in 1 of 2 separate maps their own, not metres" in summarise(single)["scale"]["statement"]
    del single.slam_map.keyframes[1000]
    # The scale of a part that joins another says nothing of drift: its unit was its own.
    found = {"frame_index": 9, "keyframe_id": 3, "matched_keyframe_id": 0, "inliers": 50}
    loops = [LoopRecord(kind=kind, scale=by, **found) for kind, by in (("loop", 1.02), ("loop", 0.96), ("merge", 3.0))]
    scale = summarise(replace(single, loops=loops))["scale"]
    assert scale["corrected_percent"] == pytest.approx(100 * (1 / 0.96 - 1), abs=0.05)
    assert "drifted by up to 4.2 %" in scale["statement"]
    assert summarise(replace(single, slam_map=None, frames=[]))["scale"] is None


def _page(result: SlamResult, folder: Path) -> str:
    write_report(result, folder)
    return (folder / "report.html").read_text()


def test_losses_have_their_pictures(tmp_path: Path) -> None:
    result, pictures = run(blank=[4, 5, 6, 10])
    assert [(p.first_lost, p.index, p.role) for p in pictures.pictures] == [
        (4, 3, "last tracked"),
        (4, 4, "first lost"),
        (4, 6, "last lost"),
        (10, 9, "last tracked"),
        (10, 10, "first lost"),
    ]
    for picture in pictures.pictures:
        # The world of points writes the index of a frame into its red channel.
        assert picture.image is not None
        assert picture.image.shape == (180, 240, 3)
        assert (picture.image[..., 0] == picture.index).all()
    write_report(result, tmp_path, lost_pictures=pictures.pictures)
    page = (tmp_path / "report.html").read_text()
    assert page.count("image/jpeg") == 5
    assert page.count('class="gallery"') == 2
    assert "Frame 6: last lost, 0 keypoints" in page
    assert "relocalised" in page


def test_only_the_first_losses_have_pictures() -> None:
    world, pictures = PointWorld(walk(60), blank=range(2, 60, 4)), LostFramePictures()
    run_slam(world, PointExtractor(world), listeners=[pictures])
    assert len({picture.first_lost for picture in pictures.pictures}) == 12


def test_loops_and_submaps_are_those_of_the_end(tmp_path: Path) -> None:
    result, _ = run()
    slam_map = result.slam_map
    assert slam_map is not None
    result.loops.append(
        LoopRecord(
            kind="merge",
            frame_index=12,
            keyframe_id=slam_map.tree.newest.id,
            matched_keyframe_id=0,
            inliers=77,
            correction_m=0.25,
        )
    )
    # Frames that were in a submap of their own before it was merged count for the one that they are in now.
    result.frames[10:] = [replace(record, submap=1) for record in result.frames[10:]]
    figures = write_report(result, tmp_path)
    assert figures["submaps"] == [{"submap": 0, "first_frame": 0, "last_frame": 15, "tracked": 16}]
    assert figures["loops"][0]["inliers"] == 77
    assert figures["map"]["keyframes"] == len(slam_map.keyframes)
    assert figures["map"]["landmarks"] == len(slam_map.landmarks.ids)
    page = (tmp_path / "report.html").read_text()
    assert "submaps merged" in page
    assert "No loop was closed" not in page


def test_times_are_means_over_all_frames_and_medians_over_those_that_had_the_stage() -> None:
    result, _ = run()
    assert len(result.frames) == 16
    assert len(result.stage_samples["frame"]) == 16
    result.stage_samples = {"map": [0.001, 0.003, 0.002, 0.010], "read": [0.002] * 16}
    stages = summarise(result)["stage_ms"]
    assert stages["map"] == {"mean": 1.0, "median": 2.5, "p95": pytest.approx(8.95)}
    assert stages["read"] == {"mean": 2.0, "median": 2.0, "p95": 2.0}


def test_a_timer_keeps_samples_by_frame() -> None:
    timer = StageTimer()
    timer.add("read", 1.0)
    timer.add("read", 0.5)
    timer.end_frame()
    timer.add("pose", 2.0)
    timer.end_frame()
    timer.add("read", 0.25)
    assert timer.seconds == {"read": 1.75, "pose": 2.0}
    assert timer.samples["read"] == [1.5]
    assert timer.samples["pose"] == [2.0]
    assert len(timer.samples["frame"]) == 2
    again = StageTimer(timer.seconds, timer.samples)
    again.add("pose", 1.0)
    again.end_frame()
    assert timer.samples["pose"] == [2.0, 1.0]


def test_cameras_of_a_map_are_in_its_picture_however_far_from_the_points() -> None:
    """They are a handful among thousands of landmarks that all lie ahead of them."""
    points = np.random.default_rng(0).normal(size=(2000, 3)) + np.array([0, 0, 50])
    picture = cv2.imdecode(np.frombuffer(map_figure(points, None, walk(5), [("photo", walk(3)[2])]), np.uint8), 1)
    assert picture is not None
    for color in (rgb(START), rgb(ESTIMATE)):
        near = (np.abs(picture[..., ::-1].astype(int) - color).max(axis=2) < 12).nonzero()
        # More than the legend, which is in the corner at the top right.
        assert ((near[0] > 150) | (near[1] < 700)).sum() > 20


def test_labels_of_photos_taken_at_one_place_do_not_lie_on_each_other() -> None:
    spots = [("a", (0.0, 0.0)), ("b", (0.01, 0.0)), ("c", (5.0, 0.0)), ("d", (0.0, 0.02)), ("e", (0.0, 1.0))]
    labels = grouped_labels(spots, per_unit=20.0)
    assert labels == [("a and 2 more", (0.0, 0.0)), ("c", (5.0, 0.0)), ("e", (0.0, 1.0))]


def test_pictures_of_a_map_and_of_agreement() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 3))
    located = [("photo", walk(3)[2])]
    assert map_figure(points, None, walk(5), located, title="Map").startswith(PNG)
    assert map_figure(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), []).startswith(PNG)

    image = np.full((100, 500, 3), 50, dtype=np.uint8)
    drawn = draw_reprojections(image, np.array([[50.0, 40.0]]), np.array([[80.0, 40.0]]), "caption")
    assert drawn.shape[0] > 100
    red = (drawn[40, 60:78, 0] > 150).all() and (drawn[40, 60:78, 1] < 120).all()
    assert red, "a line to where the landmark should be"
    np.testing.assert_array_equal(image, 50)
