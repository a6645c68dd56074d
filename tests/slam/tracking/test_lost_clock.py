"""Patience with a lost camera."""

from __future__ import annotations

from semkey.slam.tracking.lost_clock import LostClock


def test_a_new_submap_starts_after_a_second_but_not_sooner_than_three_frames() -> None:
    clock = LostClock(1.0)
    for _ in range(20):
        clock.tracked()
    verdicts = []
    for k in range(12):
        clock.lost(0.1 * k)
        verdicts.append(clock.gives_up(0.1 * k))
    assert verdicts == [False] * 10 + [True] * 2
    clock.tracked()
    assert clock.lost_frames == 0
    assert not clock.gives_up(99.0)
    slow = LostClock(1.0)
    for _ in range(20):
        slow.tracked()
    verdicts = []
    for second in range(4):
        slow.lost(2.0 * second)
        verdicts.append(slow.gives_up(2.0 * second))
    assert verdicts == [False, False, True, True]
    fresh = LostClock(1.0)
    fresh.started()
    fresh.lost(0.0)
    assert not fresh.gives_up(0.0)
    fresh.lost(0.1)
    assert fresh.gives_up(0.1), "a map of one frame is waited for no longer than one frame"
    resumed = LostClock(1.0)
    resumed.resume(lost_frames=1, tracked_frames=0)
    assert resumed.lost_frames == 1
    verdicts = []
    for k in range(12):
        resumed.lost(0.1 * k)
        verdicts.append(resumed.gives_up(0.1 * k))
    assert verdicts == [False] * 10 + [True] * 2, "a loaded map is looked for as long as any other"
