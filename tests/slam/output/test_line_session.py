"""Lines in a saved map: kept exactly, gone on with, and absent from maps of before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semkey.errors import InputError
from semkey.slam import SlamConfig, SlamInterrupted, SlamResult, run_slam
from semkey.slam.config import LineConfig
from semkey.slam.events import FrameEvent, SlamListener
from semkey.slam.output.line_arrays import LINE_SPECS
from semkey.slam.output.map_arrays import SPECS
from semkey.slam.output.map_file import read_map_file, write_map_file
from semkey.slam.output.session import Autosave, Session, load_session, save_session, session_content
from synthetic_world import PointExtractor, walk
from wire_world import LINES, WireExtractor, WireWorld

CONFIG = SlamConfig(lines=LINES)


def wire_world(frames: int = 16) -> WireWorld:
    return WireWorld(walk(frames), noise=0.4, pixel_noise=0.5)


def run(world: WireWorld, **options) -> SlamResult:
    return run_slam(world, WireExtractor(world), CONFIG, **options)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(result=run(wire_world()))


def test_lines_survive_a_file_to_the_last_bit(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "room.semkey"
    save_session(path, session)
    before, after = session_content(session), session_content(load_session(path))
    assert before.header == after.header
    assert set(LINE_SPECS) < set(before.arrays)
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(array, after.arrays[name], err_msg=name)
    original, restored = session.slam_map.lines, load_session(path).slam_map.lines
    assert original is not None
    assert restored is not None
    assert len(restored) == len(original) > 20
    np.testing.assert_array_equal(restored.points_world(), original.points_world())
    # What bundle adjustment gets is the same, so the segments of the keyframes are there as well.
    keyframes = np.array(list(session.slam_map.keyframes))
    one, other = original.bundle(keyframes), restored.bundle(keyframes)
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.serials, other.serials)


def test_what_was_saved_is_not_changed_by_the_run_going_on(session: Session) -> None:
    content = session_content(session)
    assert session.slam_map.lines is not None
    lines = session.slam_map.lines
    kept = content.arrays["lines/visible"].copy()
    lines.count_views(np.arange(len(lines)), np.arange(len(lines)))
    np.testing.assert_array_equal(content.arrays["lines/visible"], kept)


class StopAt(SlamListener):
    """Interrupts a run behind a frame."""

    def __init__(self, index: int) -> None:
        self._index = index

    def on_frame(self, event: FrameEvent) -> None:
        if event.record.index == self._index:
            raise KeyboardInterrupt


def test_a_resumed_run_goes_on_with_its_lines(tmp_path: Path) -> None:
    whole = run(wire_world())
    path = tmp_path / "autosave.semkey"
    with pytest.raises(SlamInterrupted):
        run(wire_world(), listeners=[StopAt(9), Autosave(path)])
    part = load_session(path).result
    assert part.slam_map is not None
    assert part.slam_map.lines is not None
    made = part.slam_map.lines.made
    result = run(wire_world(), resume=part)
    assert result.tracked == whole.tracked
    assert result.slam_map is not None
    assert whole.slam_map is not None
    assert result.slam_map.lines is not None
    assert whole.slam_map.lines is not None
    arrays = result.slam_map.lines.to_arrays()
    assert (arrays["serial"] < made).any(), "lines of before the interruption are still there"
    # Lines that are seen again are the same lines: there are no more of them than without the interruption.
    assert abs(len(result.slam_map.lines) - len(whole.slam_map.lines)) <= 0.1 * len(whole.slam_map.lines)
    np.testing.assert_allclose(result.trajectory().positions, whole.trajectory().positions, atol=0.01)


def test_a_loaded_map_is_tracked_by_its_lines(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "room.semkey"
    save_session(path, session)
    slam_map = load_session(path).slam_map
    assert slam_map.lines is not None
    made, seen = slam_map.lines.made, slam_map.lines.to_arrays()["found"].sum()
    result = run(wire_world(), slam_map=slam_map)
    assert result.tracked == len(result.frames)
    assert slam_map.lines.made >= made
    again = slam_map.lines.to_arrays()
    old = again["serial"] < made
    assert old.sum() > 20
    assert again["found"][old].sum() > seen


def test_maps_without_lines_are_as_before(session: Session, tmp_path: Path) -> None:
    world = wire_world(6)
    plain = session_content(Session(result=run_slam(world, PointExtractor(world))))
    assert plain.version == 1
    assert not set(LINE_SPECS) & set(plain.arrays)
    assert "lines_made" not in plain.header["counters"]

    # A map of before lines were saved, of a run that used them.
    content = session_content(session)
    assert content.version == 2
    header = {**content.header, "counters": {k: v for k, v in content.header["counters"].items() if k != "lines_made"}}
    arrays = {name: array for name, array in content.arrays.items() if name not in LINE_SPECS}
    write_map_file(tmp_path / "old.semkey", replace(content, header=header, arrays=arrays, version=1))
    slam_map = load_session(tmp_path / "old.semkey").slam_map
    assert slam_map.lines is None
    result = run(wire_world(), slam_map=slam_map)
    assert result.tracked == len(result.frames)
    assert slam_map.lines is not None
    assert len(slam_map.lines) > 20


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lines/found", None, "'lines/found' is missing beside the other arrays of lines"),
        ("keyframes/segments", lambda counts: counts + 1, "keyframes/segments does not add up"),
        ("lines/serial", lambda serials: serials[::-1], "lines/serial does not increase"),
        ("lines/reference", lambda ids: ids + 1000, "lines/reference names no keyframe"),
        ("lines/last_seen", lambda ids: ids + 1000, "lines/last_seen names no keyframe"),
        ("lines/sighting", lambda rows: rows + np.array([10**6, 0, 0]), "lines/sighting names no line"),
        ("lines/sighting", lambda rows: rows + np.array([0, 1000, 0]), "lines/sighting names no keyframe"),
        ("lines/sighting", lambda rows: rows + np.array([0, 0, 1000]), "lines/sighting names no segment"),
    ],
)
def test_lines_that_contradict_the_map_are_refused(session: Session, tmp_path: Path, name, change, message) -> None:
    content = session_content(session)
    arrays = dict(content.arrays)
    array = arrays.pop(name)
    if change is not None:
        arrays[name] = change(array)
    path = tmp_path / "room.semkey"
    write_map_file(path, replace(content, arrays=arrays))
    assert read_map_file(path, {**SPECS, **LINE_SPECS}).version == 2
    with pytest.raises(InputError, match=message):
        load_session(path)


def test_settings_of_lines_may_change(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "room.semkey"
    save_session(path, session)
    slam_map = load_session(path).slam_map
    world = wire_world()
    other = SlamConfig(lines=LineConfig(enabled=True, pixel_sigma=2.0))
    result = run_slam(world, WireExtractor(world), other, slam_map=slam_map)
    assert result.tracked == len(result.frames)
    off = load_session(path).slam_map
    result = run_slam(world, PointExtractor(world), slam_map=off)
    assert result.tracked == len(result.frames)
    assert set(LINE_SPECS) < set(session_content(Session(result=result)).arrays), "lines are kept, not used"
