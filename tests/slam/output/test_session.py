"""Saving, loading, continuing and resuming a map of a world of points."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semkey.errors import ConfigError, InputError
from semkey.model.presets import Preset
from semkey.slam import SlamConfig, SlamInterrupted, SlamResult, run_slam
from semkey.slam.events import FrameEvent, SlamListener
from semkey.slam.output.colors import LandmarkColors
from semkey.slam.output.line_arrays import LINE_SPECS
from semkey.slam.output.map_arrays import SPECS
from semkey.slam.output.map_file import MapFile, check_arrays, write_map_file
from semkey.slam.output.session import (
    Autosave,
    Session,
    check_continuable,
    check_features,
    check_resumable,
    load_session,
    save_session,
    session_content,
)
from semkey.slam.records import LoopRecord
from slam_runs import StopAt
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk

DOCS = Path(__file__).parents[3] / "docs"


def run(world: PointWorld, **options: Any) -> SlamResult:
    return run_slam(world, PointExtractor(world), **options)


def noisy_world(frames: int = 24, **options: Any) -> PointWorld:
    return PointWorld(walk(frames), pixel_noise=0.5, depth_noise=1.0, **options)


def assert_same_map(first: Session, second: Session) -> None:
    one, other = session_content(first), session_content(second)
    assert one.header == other.header
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def test_round_trip_keeps_every_array_and_number(tmp_path: Path) -> None:
    result = run(noisy_world(blank=[5, 6]))
    result.loops.append(LoopRecord(kind="loop", frame_index=7, keyframe_id=2, matched_keyframe_id=0, inliers=33))
    assert result.slam_map is not None
    result.slam_map.loop_links.append((0, 2, 33))
    ids = [keyframe.id for keyframe in result.slam_map.keyframes.values() if keyframe.parent is not None]
    result.slam_map.remove_keyframe(ids[0])
    colors = np.random.default_rng(0).integers(0, 256, (len(result.slam_map.landmarks), 3)).astype(np.uint8)
    session = Session(result=result, feature_settings={"weights": "x"}, every=3, colors=colors)
    save_session(tmp_path / "room.semkey", session)
    loaded = load_session(tmp_path / "room.semkey")
    assert_same_map(session, loaded)
    assert loaded.result.config == result.config
    assert loaded.result.camera == result.camera
    assert loaded.result.loops == result.loops
    assert loaded.result.lost_events == result.lost_events
    # Frames that hung on the removed keyframe are still placed.
    np.testing.assert_array_equal(loaded.result.trajectory().poses, result.trajectory().poses)
    np.testing.assert_array_equal(loaded.result.live_trajectory().poses, result.live_trajectory().poses)
    np.testing.assert_array_equal(loaded.result.ground_truth_trajectory().poses, result.ground_truth_trajectory().poses)


def test_every_array_is_specified_and_documented(tmp_path: Path) -> None:
    result = run(noisy_world(6))
    assert result.slam_map is not None
    content = session_content(Session(result=result, colors=LandmarkColors().colors(len(result.slam_map.landmarks))))
    assert set(content.arrays) == set(SPECS)
    check_arrays("x", content.arrays, SPECS)
    text = (DOCS / "map-format.md").read_text()
    for name, spec in {**SPECS, **LINE_SPECS}.items():
        shape = ", ".join(map(str, spec.shape))
        assert f"| `{name}` | {spec.dtype} | ({shape}) |" in text, name


def test_a_loaded_map_behaves_as_the_original(tmp_path: Path) -> None:
    result = run(noisy_world())
    save_session(tmp_path / "room.semkey", Session(result=result))
    restored = load_session(tmp_path / "room.semkey").slam_map
    original = result.slam_map
    assert original is not None
    for keyframe in original.keyframes:
        assert restored.covisibility.neighbours(keyframe) == original.covisibility.neighbours(keyframe)
    ids = original.landmarks.ids
    found, expected = (each.covisibility.local_landmarks(ids[:50]) for each in (restored, original))
    np.testing.assert_array_equal(found, expected)
    newest = original.tree.newest.id
    for slam_map in (original, restored):
        slam_map.remove_landmarks(ids[::7])
        slam_map.set_poses({newest: np.eye(4)})
    np.testing.assert_array_equal(restored.landmarks.positions, original.landmarks.positions)
    np.testing.assert_array_equal(restored.tree.newest.landmark_ids, original.tree.newest.landmark_ids)


def test_a_new_sequence_is_found_in_a_loaded_map_and_continues_it(tmp_path: Path) -> None:
    poses = walk(40)
    first = PointWorld(poses[:20], seed=3)
    save_session(tmp_path / "room.semkey", Session(result=run(first)))
    session = load_session(tmp_path / "room.semkey")
    before = max(session.slam_map.keyframes)
    second = PointWorld(poses[15:], seed=3)
    result = run(second, slam_map=session.slam_map)
    assert result.tracked == len(second)
    assert result.frames[0].method == "relocalised"
    assert max(session.slam_map.keyframes) > before
    # The poses are in the world of the first run.
    np.testing.assert_allclose(result.trajectory().poses, np.stack(poses[15:]), atol=0.01)


def test_another_place_than_the_loaded_map_gets_a_submap_of_its_own() -> None:
    first = noisy_world(8)
    slam_map = run(first).slam_map
    other = PointWorld(walk(30), elsewhere=range(30))
    result = run(other, slam_map=slam_map)
    assert {record.submap for record in result.frames if record.T_world_cam is not None} == {1}
    assert result.tracked >= 10


@pytest.mark.parametrize("stop", [3, 11, 14])
def test_a_run_resumed_from_its_last_save_ends_like_one_in_a_piece(tmp_path: Path, stop: int) -> None:
    whole = run(noisy_world(blank=[13, 14]))
    path = tmp_path / "autosave.semkey"
    with pytest.raises(SlamInterrupted):
        run(noisy_world(blank=[13, 14]), listeners=[StopAt(stop), Autosave(path)])
    part = load_session(path).result
    assert [record.index for record in part.frames] == list(range(stop + 1))
    seconds, reading = part.seconds, len(part.stage_samples["read"])
    result = run(noisy_world(blank=[13, 14]), resume=part)
    assert [record.index for record in result.frames] == [record.index for record in whole.frames]
    assert result.tracked == whole.tracked
    assert result.seconds > seconds > 0
    assert len(result.stage_samples["read"]) == reading + len(result.frames) - stop - 1
    assert not result.interrupted
    np.testing.assert_allclose(result.trajectory().positions, whole.trajectory().positions, atol=0.02)
    truth = result.ground_truth_trajectory().positions
    assert len(truth) == len(result.frames)


def test_automatic_saves_come_by_keyframes_and_by_time(tmp_path: Path) -> None:
    path = tmp_path / "a.semkey"
    seen: list[int] = []

    class Look(SlamListener):
        def on_frame(self, event: FrameEvent) -> None:
            if path.exists():
                seen.append(event.record.index)

    run(noisy_world(), listeners=[Autosave(path, seconds=1e6, keyframes=2), Look()])
    assert seen
    assert len(load_session(path).result.frames) == 24, "the last save covers all"
    seen.clear()
    path.unlink()
    run(noisy_world(), listeners=[Autosave(path, seconds=1e6), Look()])
    assert not seen
    assert path.exists()
    with pytest.raises(ConfigError, match="positive"):
        Autosave(path, seconds=0)


def test_an_automatic_save_that_fails_is_logged_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        result = run(noisy_world(6), listeners=[Autosave(tmp_path / "file" / "a.semkey", keyframes=1)])
    assert result.tracked == 6
    assert "automatic save failed, the run goes on: cannot write" in caplog.text


def test_nothing_tracked_is_nothing_to_save(tmp_path: Path) -> None:
    result = run(noisy_world(3, blank=range(3)), listeners=[Autosave(tmp_path / "a.semkey")])
    assert not (tmp_path / "a.semkey").exists()
    with pytest.raises(InputError, match="no frame was tracked"):
        save_session(tmp_path / "room.semkey", Session(result=result))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("keyframes/id", 1, 0, "keyframes/id does not increase"),
        ("keyframes/keypoints", 0, 5, "keyframes/keypoints does not add up"),
        ("keyframes/parent", 1, 77, "keyframes/parent names no keyframe"),
        ("keypoints/landmark", 0, 10**6, "keypoints/landmark names no landmark"),
        ("landmarks/reference", slice(None), 99, "landmarks/reference names no keyframe"),
        ("frames/reference_keyframe", 0, 99, "frames/reference_keyframe names no keyframe"),
    ],
)
def test_a_map_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, row: Any, value: int, message: str
) -> None:
    content = session_content(Session(result=run(noisy_world(8))))
    arrays = dict(content.arrays) | {name: content.arrays[name].copy()}
    arrays[name][row] = value
    write_map_file(tmp_path / "x.semkey", MapFile(header=content.header, arrays=arrays))
    with pytest.raises(InputError, match=message):
        load_session(tmp_path / "x.semkey")


def test_a_map_of_before_covariances_is_isotropic(tmp_path: Path) -> None:
    """Version 0.1.0 kept one standard deviation for all keypoints; its maps open, and it is theirs."""
    content = session_content(Session(result=run(noisy_world(8))))
    arrays = {name: array for name, array in content.arrays.items() if name != "keypoints/covariance"}
    write_map_file(tmp_path / "x.semkey", MapFile(header={**content.header, "pixel_sigma": 1.5}, arrays=arrays))
    for keyframe in load_session(tmp_path / "x.semkey").slam_map.keyframes.values():
        np.testing.assert_array_equal(keyframe.frame.covariances, [2.25 * np.eye(2)] * len(keyframe.frame))


def test_patches_of_keyframes_are_kept(tmp_path: Path) -> None:
    session = Session(result=run(noisy_world(8)))
    save_session(tmp_path / "with.semkey", session)
    loaded = load_session(tmp_path / "with.semkey").slam_map.keyframes
    for number, keyframe in session.slam_map.keyframes.items():
        assert keyframe.frame.patches is not None
        assert loaded[number].frame.patches is not None
        np.testing.assert_array_equal(loaded[number].frame.patches, keyframe.frame.patches)
        np.testing.assert_array_equal(loaded[number].frame.keypoints, keyframe.frame.keypoints)
    content = session_content(session)
    arrays = {name: array for name, array in content.arrays.items() if name != "keypoints/patch"}
    write_map_file(tmp_path / "without.semkey", MapFile(header=content.header, arrays=arrays))
    without = load_session(tmp_path / "without.semkey").slam_map.keyframes
    assert all(keyframe.frame.patches is None for keyframe in without.values())


@pytest.mark.parametrize("key", ["camera", "config", "run", "features", "counters", "pixel_sigma"])
def test_a_header_without_something_is_refused(tmp_path: Path, key: str) -> None:
    content = session_content(Session(result=run(noisy_world(3))))
    header = {name: value for name, value in content.header.items() if name != key}
    write_map_file(tmp_path / "x.semkey", MapFile(header=header, arrays=content.arrays))
    with pytest.raises(InputError, match=r"x\.semkey: the map's header cannot be used"):
        load_session(tmp_path / "x.semkey")


def test_maps_of_earlier_weights_with_the_same_descriptors_stay_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"points": Preset(name="points", summary="", sha256="cc", same_descriptors=("aa", "bb"))}
    monkeypatch.setattr("semkey.model.presets.presets", lambda: known)
    session = Session(result=run(noisy_world(3)), feature_settings={"weights_sha256": "aa"})
    for sha256 in ("bb", "cc"):
        check_features(session, "room.semkey", "points", {"weights_sha256": sha256})
    with pytest.raises(ConfigError, match="other weights"):
        check_features(session, "room.semkey", "points", {"weights_sha256": "dd"})
    with pytest.raises(ConfigError, match="other weights"):
        check_features(session, "room.semkey", "points", {})


def test_features_and_settings_must_be_those_of_the_map() -> None:
    result = run(noisy_world(3))
    session = Session(result=result, feature_settings={"weights_sha256": "aa"})
    check_features(session, "room.semkey", "points", {"weights_sha256": "aa"})
    with pytest.raises(ConfigError, match=r"room\.semkey.*--features points, not orb"):
        check_features(session, "room.semkey", "orb", {})
    with pytest.raises(ConfigError, match="other weights"):
        check_features(session, "room.semkey", "points", {"weights_sha256": "bb"})
    check_features(session, "room.semkey", "another/name.safetensors", {"weights_sha256": "aa"})

    world, config = noisy_world(3), SlamConfig()
    check_resumable(session, "x", world, config, every=1)
    check_continuable(session, "x", world)
    with pytest.raises(ConfigError, match="--every 1, not 2"):
        check_resumable(session, "x", world, config, every=2)
    with pytest.raises(ConfigError, match=r"other settings \(seed\)"):
        check_resumable(session, "x", world, SlamConfig(seed=5), every=1)
    world.name = "other"
    with pytest.raises(ConfigError, match="input points, not other"):
        check_resumable(session, "x", world, config, every=1)
    world.camera = CAMERA.resized(640, 480)
    with pytest.raises(ConfigError, match="continued with the camera"):
        check_continuable(session, "x", world)
