"""Maps over sessions: finding frames in a map that stays as it is, several recordings in one map, merging, cutting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command_line import Run
from semkey.errors import ConfigError, InputError
from semkey.extractors import OrbExtractor
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.interop.map_editing import crop_map, merge_maps
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.output.map_arrays import map_arrays
from semkey.slam.output.session import load_session
from tum_folder import CAMERA, DISTANCE, FOCAL, HEIGHT, WIDTH, write_tum

ORB = ("--features", "orb", *CAMERA, "--autosave", 0)
FRAMES = 44
STEP = 9 * DISTANCE / FOCAL


def part(wall: Path, folder: Path, numbers: range) -> Path:
    """A recording of some frames of the wall."""
    folder.mkdir()
    for name in ("rgb", "depth", "groundtruth"):
        rows = (wall / f"{name}.txt").read_text().splitlines()
        (folder / f"{name}.txt").write_text("\n".join(rows[k].replace(" rgb/", " ../wall/rgb/").replace(
            " depth/", " ../wall/depth/") for k in numbers))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of a long wall: ``left`` and ``right``, which share nothing, and ``all`` of it."""
    folder = tmp_path_factory.mktemp("sessions")
    write_tum(folder / "wall", frames=FRAMES)
    part(folder / "wall", folder / "left", range(10))
    part(folder / "wall", folder / "right", range(FRAMES - 1, FRAMES - 11, -1))
    part(folder / "wall", folder / "all", range(FRAMES))
    return folder


@pytest.fixture(scope="module")
def maps(wall: Path) -> Path:
    from semkey.slam import run_slam
    from semkey.slam.output.session import Session, save_session

    for name in ("left", "right", "all"):
        from semkey.datasets import open_sequence

        camera = (FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
        detector = OrbExtractor()
        result = run_slam(open_sequence(wall / name, camera=camera), detector)
        save_session(wall / f"{name}.semkey", Session(result=result, feature_settings=detector.settings))
    return wall


def arrays_of(slam_map: SlamMap) -> dict[str, np.ndarray]:
    return map_arrays(slam_map)


def test_localising_leaves_the_map_as_it_is(run: Run, maps: Path, tmp_path: Path) -> None:
    before = (maps / "left.semkey").read_bytes()
    # Frames of the left part, and beyond it, where the map has nothing to say.
    outcome = run("slam", maps / "all", "--out", tmp_path / "out", *ORB, "--load-map", maps / "left.semkey",
                  "--localize-only", "--every", 2)  # fmt: skip
    assert outcome.code in (0, 3), outcome.err
    assert (maps / "left.semkey").read_bytes() == before
    found = read_tum_trajectory(tmp_path / "out/trajectory.txt")
    assert 8 <= len(found.timestamps) < 22
    # The world is that of the map: the camera of its first frame.
    x = (found.timestamps - 100.0) / 0.1 * STEP
    np.testing.assert_allclose(found.poses[:, :3, 3], np.stack([x, 0 * x, 0 * x], axis=1), atol=0.01)


def test_a_fixed_map_is_not_even_counted_in(maps: Path) -> None:
    from semkey.datasets import open_sequence
    from semkey.slam import run_slam

    session = load_session(maps / "left.semkey")
    before = arrays_of(session.slam_map)
    camera = (FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    result = run_slam(
        open_sequence(maps / "all", camera=camera),
        OrbExtractor(),
        slam_map=session.slam_map,
        localize_only=True,
        max_frames=20,
    )
    after = arrays_of(session.slam_map)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert result.tracked >= 10
    assert not any(record.is_keyframe for record in result.frames)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--localize-only needs a map"),
        (["--load-map", "left.semkey", "--save-map", "b.semkey"], "nothing is there for --save-map"),
    ],
)
def test_localize_only_options(run: Run, maps: Path, tmp_path: Path, options: list[str], message: str) -> None:
    given = [maps / word if word.endswith(".semkey") else word for word in options]
    outcome = run("slam", maps / "all", "--out", tmp_path / "out", *ORB, "--localize-only", *given)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_submaps_of_three_recordings_join_where_they_meet(run: Run, maps: Path, tmp_path: Path) -> None:
    """Left, then right, which meets nothing; then all of the wall, which connects them."""
    second, third = tmp_path / "b.semkey", tmp_path / "c.semkey"
    options = [*ORB, "--set", "loops.new_submap_seconds=0.2"]
    outcome = run("slam", maps / "right", "--out", tmp_path / "o1", *options, "--load-map", maps / "left.semkey",
                  "--save-map", second)  # fmt: skip
    assert outcome.code in (0, 3), outcome.err
    assert len(load_session(second).slam_map.tree.submaps) == 2
    outcome = run("slam", maps / "all", "--out", tmp_path / "o2", *options, "--load-map", second, "--save-map", third)
    assert outcome.code == 0, outcome.err
    joined = load_session(third).slam_map
    assert len(joined.tree.submaps) == 1
    x = np.array([keyframe.T_world_cam[0, 3] for keyframe in joined.keyframes.values()])
    assert np.ptp(x) == pytest.approx((FRAMES - 1) * STEP, abs=0.05)


def test_merging_joins_what_meets(run: Run, maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "house.semkey"
    outcome = run("map", "merge", maps / "all.semkey", maps / "left.semkey", maps / "right.semkey", "-o", out)
    assert outcome.code == 0, outcome.err
    merged = load_session(out).slam_map
    assert merged.tree.submaps == [0]
    assert "2 times joined, 1 submap" in outcome.out
    # Positions of keyframes are those of the frames that they are, whichever map they came from.
    for keyframe in merged.keyframes.values():
        x = (keyframe.frame.timestamp - 100.0) / 0.1 * STEP
        np.testing.assert_allclose(keyframe.T_world_cam[:3, 3], [x, 0, 0], atol=0.02)
    # And it is a map to work with.
    frame = sorted((maps / "wall/rgb").iterdir())[20]
    found = run("localize", out, frame, "--out", tmp_path / "found")
    assert "1 of 1 found" in found.out


def test_maps_that_meet_nowhere_stay_apart(maps: Path) -> None:
    names = [maps / "left.semkey", maps / "right.semkey"]
    sessions = [load_session(name) for name in names]
    merged = merge_maps(sessions, names)
    slam_map = merged.session.slam_map
    assert (len(slam_map.tree.submaps), merged.meetings) == (2, ())
    assert len(slam_map.landmarks.ids) == sum(len(session.slam_map.landmarks.ids) for session in sessions)
    kept = [keyframe for session in sessions for keyframe in session.slam_map.keyframes.values()]
    for keyframe, old in zip(slam_map.keyframes.values(), kept, strict=True):
        np.testing.assert_array_equal(keyframe.T_world_cam, old.T_world_cam)
        assert len(keyframe.observed) == len(old.observed)
    with pytest.raises(ConfigError, match="two maps or more"):
        merge_maps(sessions[:1], names[:1])
    sessions[1].result.camera = sessions[1].result.camera.resized(640, 480)
    with pytest.raises(ConfigError, match="another camera"):
        merge_maps(sessions, names)


def test_cropping_keeps_a_region_that_works(run: Run, maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "piece.semkey"
    outcome = run("map", "crop", maps / "all.semkey", "-o", out, "--box", "2.5,9,-9,9,0,9")
    assert outcome.code == 0, outcome.err
    whole, piece = load_session(maps / "all.semkey").slam_map, load_session(out).slam_map
    points = piece.landmarks.positions[piece.landmarks.ids]
    assert len(points) > 50
    assert points[:, 0].min() >= 2.5
    assert 0 < len(piece.keyframes) < len(whole.keyframes)
    for key, keyframe in piece.keyframes.items():
        np.testing.assert_array_equal(keyframe.T_world_cam, whole.keyframes[key].T_world_cam)
    assert sum(keyframe.parent is None for keyframe in piece.keyframes.values()) == 1
    outcome = run("slam", maps / "all", "--out", tmp_path / "out", *ORB, "--load-map", out, "--save-map",
                  tmp_path / "grown.semkey", "--max-frames", 30)  # fmt: skip
    assert outcome.code in (0, 3), outcome.err
    session = load_session(maps / "all.semkey")
    with pytest.raises(InputError, match="nothing is left"):
        crop_map(session, lambda points: points[:, 0] > 99, 0)
    with pytest.raises(InputError, match="there is no submap 3"):
        crop_map(session, lambda points: points[:, 0] > 0, 3)
    outcome = run("map", "crop", maps / "all.semkey", "-o", tmp_path / "x.semkey", "--box", "1,0,0,1,0,1")
    assert (outcome.code, "each lower limit" in outcome.err) == (2, True)


def test_info_of_a_map(run: Run, maps: Path) -> None:
    for command in (("map", "info"), ("info",)):
        outcome = run(*command, maps / "left.semkey")
        assert outcome.code == 0
        rows = {row[0]: row[1:] for row in (line.split("\t") for line in outcome.out.splitlines())}
        assert rows["features"] == ["orb"]
        assert rows["unit"] == ["metres"]
        assert rows["0"][0] == str(len(load_session(maps / "left.semkey").slam_map.keyframes))
