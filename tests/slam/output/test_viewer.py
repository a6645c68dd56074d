"""What a run sends to Rerun, read back from a recording with Rerun's own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import Frame
from semkey.errors import ConfigError, InputError
from semkey.extractors import create_extractor
from semkey.slam import SlamConfig, run_slam
from semkey.slam.config import LineConfig
from semkey.slam.events import FrameEvent, LoopEvent, SlamListener
from semkey.slam.output.colors import LandmarkColors
from semkey.slam.output.viewer import RerunListener, frustum_lines
from semkey.slam.records import LoopRecord
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk

rerun = pytest.importorskip("rerun", reason="needs the extra 'viewer'")


class PretendLoop(SlamListener):
    """Reports a loop between the first and the newest keyframe at a frame."""

    def __init__(self, told: SlamListener, index: int) -> None:
        self._told, self._index = told, index

    def on_start(self, result, slam_map) -> None:
        self._result = result

    def on_frame(self, event: FrameEvent) -> None:
        if event.record.index == self._index:
            newest, oldest = event.slam_map.tree.newest.id, next(iter(event.slam_map.keyframes))
            loop = LoopRecord(
                kind="loop", frame_index=self._index, keyframe_id=newest, matched_keyframe_id=oldest, inliers=40
            )
            self._result.loops.append(loop)
            self._told.on_loop(LoopEvent(loop=loop, slam_map=event.slam_map))


def rows(path: Path, entity: str, component: str) -> dict[int, list]:
    """The values of a component by frame number."""
    found: dict[int, list] = {}
    for chunk in rerun.chunk.RrdReader(path).stream():
        if chunk.entity_path != entity:
            continue
        table = chunk.to_record_batch()
        names = [name for name in table.schema.names if name.endswith(component)]
        for name in names:
            frames = table.column("frame").to_pylist() if "frame" in table.schema.names else [-1] * table.num_rows
            values = table.column(name).to_pylist()
            found |= {frame: value for frame, value in zip(frames, values, strict=True) if value is not None}
    return found


def test_a_recording_has_all_that_happened(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.rrd"
    world = PointWorld(walk(16), blank=[7, 8])
    observer = RerunListener(record=path)
    result = run_slam(world, PointExtractor(world), listeners=[observer, PretendLoop(observer, 12)])
    assert result.slam_map is not None

    poses = rows(path, "/world/camera", "Transform3D:translation")
    assert sorted(poses) == [record.index for record in result.frames if record.T_world_cam is not None]
    for record in result.frames:
        if record.T_world_cam is not None:
            np.testing.assert_allclose(poses[record.index][0], record.T_world_cam[:3, 3], atol=1e-5)

    (matrix,) = rows(path, "/world/camera/image", "Pinhole:image_from_camera").values()
    np.testing.assert_allclose(np.reshape(matrix[0], (3, 3)).T, CAMERA.matrix)
    assert sorted(rows(path, "/world/camera/image", "EncodedImage:blob")) == list(range(16))

    tracked = rows(path, "/world/camera/image/tracked", "Points2D:positions")
    untracked = rows(path, "/world/camera/image/untracked", "Points2D:positions")
    for record in result.frames:
        assert len(tracked[record.index]) + len(untracked[record.index]) == record.keypoints
    guided = next(record for record in result.frames if record.method == "guided" and not record.is_keyframe)
    assert len(tracked[guided.index]) == guided.inliers
    assert 0 < len(rows(path, "/world/camera/image/matches", "LineStrips2D:strips")[guided.index]) <= guided.inliers

    points = rows(path, "/world/points", "Points3D:positions")
    alive = result.slam_map.landmarks.positions[result.slam_map.landmarks.alive]
    np.testing.assert_allclose(points[max(points)], alive, atol=1e-5)
    frustums = rows(path, "/world/keyframes", "LineStrips3D:strips")
    assert len(frustums[max(frustums)]) == 3 * len(result.slam_map.keyframes)
    loops = rows(path, "/world/loops", "LineStrips3D:strips")
    assert len(loops[min(loops)]) == 0
    assert len(loops[max(loops)]) == 1
    lines = rows(path, "/world/trajectory", "LineStrips3D:strips")
    np.testing.assert_allclose(lines[max(lines)][0], result.trajectory().positions, atol=1e-5)
    # The truth is laid on the first frame, and the world of points has no noise.
    truth = rows(path, "/world/ground_truth", "LineStrips3D:strips")
    np.testing.assert_allclose(truth[max(truth)][0], np.stack(walk(16))[:, :3, 3], atol=0.02)

    inliers = rows(path, "/plots/inliers", "Scalars:scalars")
    assert [int(inliers[record.index][0]) for record in result.frames] == [r.inliers for r in result.frames]
    said = " ".join(str(text) for text in rows(path, "/log", "TextLog:text").values())
    assert "lost at frame 7" in said
    assert "tracking again at frame 9" in said
    assert "loop closed" in said


def test_lines_are_shown_where_they_are_used(tmp_path: Path) -> None:
    # A dark rectangle on a bright wall: four edges for a line detector, and texture for points elsewhere.
    image = np.full((240, 320, 3), 200, dtype=np.uint8)
    image[60:180, 80:240] = 40
    rng = np.random.default_rng(0)
    image[190:, :] = rng.integers(0, 256, (50, 320, 1))
    image[:50, :] = rng.integers(0, 256, (50, 320, 1))
    world = OnePicture(image)
    config = SlamConfig(lines=LineConfig(enabled=True))
    extractor = create_extractor("orb", max_keypoints=500, device="cpu")
    result = run_slam(world, extractor, config, listeners=[RerunListener(record=tmp_path / "run.rrd")])
    assert result.slam_map is not None
    assert result.slam_map.lines is not None
    segments = rows(tmp_path / "run.rrd", "/world/camera/image/lines", "LineStrips2D:strips")
    assert sorted(segments) == [0, 1, 2]
    assert len(segments[0]) >= 4
    lines = rows(tmp_path / "run.rrd", "/world/lines", "LineStrips3D:strips")
    ends = result.slam_map.lines.points_world()
    assert len(ends) >= 4
    np.testing.assert_allclose(lines[max(lines)], ends, atol=1e-5)


class OnePicture(PointWorld):
    """Three times the same picture, at a distance of 2 m."""

    def __init__(self, image: np.ndarray) -> None:
        super().__init__([np.eye(4)] * 3)
        self._image = image

    def _load(self, index: int) -> Frame:
        depth = np.full(self._image.shape[:2], 2.0, dtype=np.float32)
        return Frame(index=index, timestamp=float(self.timestamps[index]), image=self._image, depth=depth)


class BrokenWorld(PointWorld):
    """A world of which one frame cannot be read."""

    def _load(self, index: int) -> Frame:
        if index == 3:
            raise InputError("frame-3.png: cannot be read")
        return super()._load(index)


def test_a_frame_that_cannot_be_read_is_shown_as_lost(tmp_path: Path) -> None:
    world = BrokenWorld(walk(6))
    run_slam(world, PointExtractor(world), listeners=[RerunListener(record=tmp_path / "run.rrd"), LandmarkColors()])
    assert sorted(rows(tmp_path / "run.rrd", "/world/camera/image", "EncodedImage:blob")) == [0, 1, 2, 4, 5]
    assert rows(tmp_path / "run.rrd", "/world/camera/image/tracked", "Points2D:positions")[3] == []
    assert int(rows(tmp_path / "run.rrd", "/plots/inliers", "Scalars:scalars")[3][0]) == 0


def test_frustums_are_the_image_at_the_given_depth() -> None:
    lines = frustum_lines(CAMERA, 2.0)
    corners = lines[0][:4]
    np.testing.assert_allclose(corners[:, 2], 2.0)
    expected = [(-0.5, -0.5), (319.5, -0.5), (319.5, 239.5), (-0.5, 239.5)]
    np.testing.assert_allclose(CAMERA.project(corners), expected, atol=1e-9)
    np.testing.assert_array_equal(lines[1][1], 0)


def test_what_cannot_be_shown_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        RerunListener(record=tmp_path / "file" / "run.rrd")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ConfigError, match=r"no screen.*--record"):
        RerunListener(live=True)
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigError, match="rerun-sdk"):
        RerunListener(record=tmp_path / "run.rrd")
