"""Frames prepared ahead of tracking: order, errors, Ctrl-C, and frames dropped in real time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

from semkey.datasets import BrokenFrame, EndOfSequence, Frame, FrameSequence
from semkey.errors import ConfigError, DatasetError, InputError
from semkey.slam import SlamInterrupted, run_slam
from semkey.slam.pipeline import FramePipeline
from semkey.slam.timing import StageTimer
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk


class Numbers(FrameSequence):
    """Frames whose image holds their index; some cannot be read."""

    def __init__(
        self,
        count: int,
        *,
        interval: float = 0.1,
        broken: Sequence[int] = (),
        ends_at: int | None = None,
        on_read: Callable[[int], None] = lambda index: None,
    ) -> None:
        super().__init__(
            name="numbers",
            format="tum",
            camera=CAMERA,
            has_depth=False,
            timestamps=5.0 + interval * np.arange(count, dtype=np.float64),
            ground_truth=[None] * count,
        )
        self.is_live = ends_at is not None
        self.read_frames: list[int] = []
        self._broken, self._ends_at, self._on_read = set(broken), ends_at, on_read

    def _load(self, index: int) -> Frame:
        self._on_read(index)
        self.read_frames.append(index)
        if index == self._ends_at:
            raise EndOfSequence("the camera is gone")
        if index in self._broken:
            raise DatasetError(f"{index}.png: cannot be read")
        image = np.full((4, 4, 3), index % 256, np.uint8)
        return Frame(index=index, timestamp=float(self.timestamps[index]), image=image)


def value(frame: Frame, timer: StageTimer) -> int:
    with timer.stage("extract"):
        return int(frame.image[0, 0, 0])


@contextmanager
def no_threads_left() -> Generator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_frames_come_in_order_with_what_was_made_of_them(ahead: int) -> None:
    with no_threads_left(), FramePipeline(Numbers(20), value, range(1, 20, 3), ahead=ahead) as frames:
        prepared = list(frames)
    assert [item.frame.index for item in prepared] == list(range(1, 20, 3))
    assert [item.observed for item in prepared] == list(range(1, 20, 3))
    assert all(set(item.stage_seconds) == {"read", "extract"} and item.dropped == 0 for item in prepared)


@pytest.mark.parametrize("ahead", [0, 1])
def test_broken_frames_are_handed_over_and_the_rest_goes_on(ahead: int) -> None:
    def observe(frame: Frame, timer: StageTimer) -> int:
        if frame.index == 4:
            raise InputError("too small")
        return frame.index

    with FramePipeline(Numbers(6, broken=[2]), observe, ahead=ahead) as frames:
        prepared = list(frames)
    assert [item.observed for item in prepared] == [0, 1, None, 3, None, 5]
    broken = [item.frame for item in prepared if isinstance(item.frame, BrokenFrame)]
    assert [(frame.index, str(frame.error)) for frame in broken] == [(2, "2.png: cannot be read"), (4, "too small")]


@pytest.mark.parametrize("ahead", [0, 1])
def test_any_other_exception_is_raised_at_its_frame(ahead: int) -> None:
    def observe(frame: Frame, timer: StageTimer) -> int:
        return 1 // (frame.index - 3)

    with no_threads_left(), FramePipeline(Numbers(9), observe, ahead=ahead) as frames:
        prepared = iter(frames)
        assert [next(prepared).observed for _ in range(3)] == [-1, -1, -1]
        with pytest.raises(ZeroDivisionError):
            next(prepared)


def test_nobody_runs_further_ahead_than_the_queues_hold() -> None:
    sequence = Numbers(100)
    with no_threads_left(), FramePipeline(sequence, value, ahead=2) as frames:
        next(iter(frames))
        time.sleep(0.3)
        # One taken, two waiting on either side, one in the hands of each thread.
        assert len(sequence.read_frames) <= 1 + 2 + 1 + 2 + 1
    assert len(sequence.read_frames) < 100


def test_reading_and_observing_overlap_with_the_caller() -> None:
    """The caller holds frame 0, frame 1 is being observed and frame 2 read: each waits for the other two."""
    together = threading.Barrier(3)

    def read(index: int) -> None:
        if index == 2:
            together.wait(timeout=30)

    def observe(frame: Frame, timer: StageTimer) -> int:
        if frame.index == 1:
            together.wait(timeout=30)
        return frame.index

    with FramePipeline(Numbers(12, on_read=read), observe) as frames:
        for index, _ in enumerate(frames):
            if index == 0:
                together.wait(timeout=30)
    assert not together.broken


def test_leaving_early_stops_the_threads_although_they_wait() -> None:
    with no_threads_left(), FramePipeline(Numbers(50), value, ahead=1) as frames:
        for item in frames:
            if item.frame.index == 3:
                break


def test_a_live_source_ends_where_it_ends() -> None:
    with FramePipeline(Numbers(50, ends_at=7), value) as frames:
        assert [item.frame.index for item in frames] == list(range(7))


def test_a_negative_number_of_frames_ahead_is_refused() -> None:
    with pytest.raises(ConfigError, match="ahead"):
        FramePipeline(Numbers(1), value, ahead=-1)


# -- real time --------------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


def test_in_real_time_the_newest_frame_is_taken_and_older_ones_are_counted() -> None:
    clock = Clock()
    sequence = Numbers(10, interval=0.1)
    seen = []
    frames = FramePipeline(sequence, value, ahead=0, realtime=True, clock=clock, sleep=clock.pass_time)
    with frames:
        for item in frames:
            seen.append((item.frame.index, item.dropped, round(clock.now - 100.0, 6)))
            clock.pass_time(0.25)  # tracking takes two and a half frame times
    # At 0.25 s frame 2 (0.2 s) is the newest, at 0.5 s frame 5, at 0.75 s frame 7, at 1.0 s the last one.
    assert seen == [(0, 0, 0.0), (2, 1, 0.25), (5, 2, 0.5), (7, 1, 0.75), (9, 1, 1.0)]
    assert sequence.read_frames == [0, 2, 5, 7, 9]


def test_in_real_time_a_fast_tracker_waits_for_the_camera_and_drops_nothing() -> None:
    clock = Clock()
    seen = []
    frames = FramePipeline(Numbers(5), value, ahead=0, realtime=True, clock=clock, sleep=clock.pass_time)
    with frames:
        for item in frames:
            seen.append((item.frame.index, item.dropped, round(clock.now - 100.0, 6)))
            clock.pass_time(0.02)
    assert seen == [(0, 0, 0.0), (1, 0, 0.1), (2, 0, 0.2), (3, 0, 0.3), (4, 0, 0.4)]


def test_a_running_camera_drops_what_nobody_has_time_for() -> None:
    """The caller takes as long for a frame as the camera for six, however fast either is."""
    sequence = Numbers(1000, ends_at=60, on_read=lambda index: time.sleep(0.002))
    seen = []
    deadline = time.monotonic() + 60
    with FramePipeline(sequence, value, ahead=1, realtime=True) as frames:
        for item in frames:
            seen.append((item.frame.index, item.dropped))
            read = min(len(sequence.read_frames) + 6, 60)
            while len(sequence.read_frames) < read and time.monotonic() < deadline:
                time.sleep(0.001)
    assert len(seen) < 20
    assert sum(dropped for _, dropped in seen) > 25
    for (before, _), (index, dropped) in pairwise(seen):
        assert index == before + dropped + 1


def test_a_run_in_real_time_counts_what_it_dropped() -> None:
    world = PointWorld(walk(40))
    world.timestamps = world.timestamps / 50  # 500 frames per second
    result = run_slam(world, PointExtractor(world), realtime=True)
    assert result.dropped > 0
    assert len(result.frames) + result.dropped == 40
    assert result.frames[-1].index == 39


# -- the same poses ----------------------------------------------------------------------------------------------------


def test_overlap_changes_no_pose() -> None:
    world = PointWorld(walk(25), pixel_noise=0.5, depth_noise=1.0, outlier_share=0.2)
    one, other = (run_slam(world, PointExtractor(world), overlap=overlap) for overlap in (True, False))
    np.testing.assert_array_equal(one.trajectory().poses, other.trajectory().poses)
    assert [record.method for record in one.frames] == [record.method for record in other.frames]
    for result in (one, other):
        assert {"read", "extract", "depth", "wait", "match", "pose", "map"} <= set(result.stage_seconds)


def test_an_interrupt_while_frames_are_prepared_ends_cleanly() -> None:
    world = PointWorld(walk(20))

    def interrupt(index: int) -> None:
        if index == 9:
            raise KeyboardInterrupt

    with no_threads_left(), pytest.raises(SlamInterrupted) as caught:
        run_slam(world, PointExtractor(world, before=interrupt))
    assert [record.index for record in caught.value.result.frames] == list(range(9))
