"""The cases: a rendered room with a fault in it, and what is right to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from semkey.datasets import FrameSequence
from semkey.evaluation.slam.torture import faults
from semkey.evaluation.slam.torture.edited import Edit, EditedSequence, Step
from semkey.evaluation.slam.torture.wallpaper import WallpaperSequence

ROOM = "room-normal"
ROOM_FRAMES = 90
"""Which rendered room the cases are made from (:data:`semkey.evaluation.slam.rooms.ROOMS`), and how much of it."""

_LENGTH = 60
_ONSET = 20
_FPS = 15.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that can go wrong.

    Attributes:
        name: unique.
        right: what a system that knows what it sees does.
        make: the sequence from the sources: the room, or a kitchen and a cabinet.
        real: whether it is made from real sequences instead of the room.
        depth_only: the images are those of the room: nothing for a camera without depth.
    """

    name: str
    right: str
    make: Callable[[Sequence[FrameSequence]], EditedSequence]
    real: bool = False
    depth_only: bool = False


def _case(
    name: str,
    right: str,
    edit: Callable[[int], Edit | None],
    *,
    trackable: Callable[[int], bool] = lambda number: True,
    turned: Callable[[int], bool] = lambda number: False,
    order: Callable[[int], int] = lambda number: number,
    frames: int = _LENGTH,
    fps: float = _FPS,
    depth_only: bool = False,
) -> Case:
    """A case whose frame ``k`` is frame ``order(k)`` of the room with ``edit(k)`` done to it."""

    def make(sources: Sequence[FrameSequence]) -> EditedSequence:
        steps = [Step(source=order(k), edit=edit(k), turned=turned(k), trackable=trackable(k)) for k in range(frames)]
        return EditedSequence(name, sources, steps, fps=fps)

    return Case(name=name, right=right, make=make, depth_only=depth_only)


def _from(first: int, edit: Edit, last: int = 10**6) -> Callable[[int], Edit | None]:
    return lambda number: edit if first <= number <= last else None


def _within(first: int, last: int = 10**6) -> Callable[[int], bool]:
    return lambda number: not first <= number <= last


def _always(edit: Edit) -> Callable[[int], Edit | None]:
    return lambda number: edit


def _nothing(number: int) -> None:
    return None


def _never(number: int) -> bool:
    return False


def _shuffled(number: int) -> int:
    return int(np.random.default_rng(11).permutation(_LENGTH)[number])


def _there_and_back(number: int) -> int:
    """25 frames ahead, 45 during which the camera goes on and comes back, and 20 back to the start."""
    return number if number <= 47 else max(95 - number, 0)


def _moving(share: float) -> Callable[[int], Edit | None]:
    """A thing comes in from the left, goes to and fro, and stays in view."""

    def edit(number: int) -> Edit | None:
        if number < _ONSET:
            return None
        time = (number - _ONSET) / _FPS
        x = -0.9 * max(0.0, 1 - 2 * time) + 0.15 * np.sin(3.0 * time)
        return faults.occluded(share, shift=(float(x), 0.08 * float(np.sin(2.1 * time))))

    return edit


def _wallpaper(name: str, right: str, first: int, last: int) -> Case:
    def make(sources: Sequence[FrameSequence]) -> EditedSequence:
        camera = sources[0].camera
        assert camera is not None
        steps = [
            Step(source=k, edit=faults.black if first <= k <= last else None, trackable=False) for k in range(_LENGTH)
        ]
        return EditedSequence(name, [WallpaperSequence(camera, _LENGTH)], steps, fps=_FPS)

    return Case(name=name, right=right, make=make)


def _foreign(name: str, right: str, parts: Sequence[tuple[int, range]]) -> Case:
    """Real frames of two places, one after the other."""

    def make(sources: Sequence[FrameSequence]) -> EditedSequence:
        steps = [
            Step(source=k, place=place, trackable=place == parts[0][0])
            for place, frames in parts
            for k in frames
            if k < len(sources[place])
        ]
        return EditedSequence(name, sources, steps, fps=None)

    return Case(name=name, right=right, make=make, real=True)


CASES: tuple[Case, ...] = (
    _case("untouched", "all tracked", _nothing),
    _case(
        "black for 3 s",
        "lost, then relocalised",
        _from(25, faults.black, 69),
        trackable=_within(25, 69),
        order=_there_and_back,
        frames=ROOM_FRAMES,
    ),
    _case("frames 20 to 39 black", "40 tracked, one map", _from(20, faults.black, 39), trackable=_within(20, 39)),
    _case("dark noise", "lost, then relocalised", _from(25, faults.noise(21), 34), trackable=_within(25, 34)),
    _case("full noise", "lost, then relocalised", _from(25, faults.noise(256), 34), trackable=_within(25, 34)),
    _case(
        "half covered",
        "right by the other half, or lost",
        _always(faults.covered(0.5, textured=False)),
        trackable=_never,
    ),
    _case(
        "half covered by a picture",
        "right by the other half, or lost",
        _always(faults.covered(0.5, textured=True)),
        trackable=_never,
    ),
    _case(
        "half covered later",
        "right by the other half, or lost",
        _from(_ONSET, faults.covered(0.5, textured=False)),
        trackable=_within(_ONSET),
    ),
    _case(
        "half covered later by a picture",
        "right by the other half, or lost",
        _from(_ONSET, faults.covered(0.5, textured=True)),
        trackable=_within(_ONSET),
    ),
    _case("moving thing 40 %", "right by the room, or lost", _moving(0.4), trackable=_within(_ONSET)),
    _case("moving thing 60 %", "right by the room, or lost", _moving(0.6), trackable=_within(_ONSET)),
    _case(
        "standing thing 40 %",
        "right by the room, or lost",
        _from(_ONSET, faults.occluded(0.4)),
        trackable=_within(_ONSET),
    ),
    _case(
        "standing thing 60 %",
        "right by the room, or lost",
        _from(_ONSET, faults.occluded(0.6)),
        trackable=_within(_ONSET),
    ),
    _case("exposure x8", "right, or lost", _always(faults.exposure(8.0)), trackable=_never),
    _case(
        "every second exposure x8",
        "right, or lost",
        lambda number: faults.exposure(8.0) if number % 2 else None,
        trackable=lambda number: number % 2 == 0,
    ),
    _case("exposure / 8", "right", _always(faults.exposure(0.125))),
    _wallpaper("wallpaper", "right, or lost where it cannot be told", 1000, 1000),
    _wallpaper("wallpaper with 1 s black", "right, or lost where it cannot be told", 20, 34),
    _case(
        "depth always 2 m",
        "lost, and said",
        _always(faults.depth_becomes(lambda depth, rng: np.full_like(depth, 2.0))),
        depth_only=True,
        trackable=_never,
    ),
    _case(
        "depth doubles",
        "right without depth, or lost, and said",
        _from(30, faults.depth_becomes(lambda depth, rng: 2.0 * depth)),
        depth_only=True,
        trackable=_within(30),
    ),
    _case(
        "no depth at all",
        "lost, and said",
        _always(faults.depth_becomes(lambda depth, rng: np.zeros_like(depth))),
        depth_only=True,
        trackable=_never,
    ),
    _case(
        "no depth later",
        "right while the map is in view",
        _from(30, faults.depth_becomes(lambda depth, rng: np.zeros_like(depth))),
        depth_only=True,
        trackable=_within(45),
    ),
    _case(
        "depth with 50 % noise",
        "right, or lost",
        _always(faults.depth_becomes(lambda depth, rng: depth * (1 + 0.5 * rng.standard_normal(depth.shape)))),
        depth_only=True,
        trackable=_never,
    ),
    _case(
        "depth half NaN",
        "right",
        _always(
            faults.depth_becomes(lambda depth, rng: np.where(rng.random(depth.shape) < 0.5, np.float32(np.nan), depth))
        ),
        depth_only=True,
    ),
    _case(
        "every second upside down",
        "right, or lost",
        _nothing,
        turned=lambda number: number % 2 == 1,
        trackable=lambda number: number % 2 == 0,
    ),
    _case("standing still", "right", _nothing, order=lambda number: 10, frames=ROOM_FRAMES),
    _case("10 % salt noise", "right", _always(faults.salt(0.1))),
    _case("random order", "right", _nothing, order=_shuffled),
    _case("one frame a second", "right", _nothing, order=lambda number: 15 * number, frames=ROOM_FRAMES // 15, fps=1.0),
    _case("letterbox", "right", _always(faults.letterbox(0.3))),
    _foreign(
        "kitchen-cabinet-kitchen",
        "the foreign frames lost or a map of their own, then relocalised",
        [(0, range(60)), (1, range(25)), (0, range(30, 60))],
    ),
    _foreign(
        "cabinet-kitchen-cabinet",
        "the foreign frames lost or a map of their own, then relocalised",
        [(1, range(40)), (0, range(25)), (1, range(20, 40))],
    ),
)
"""All cases; those that are ``real`` need a kitchen and a cabinet."""


def cases_named(names: Sequence[str] | None = None) -> list[Case]:
    """Cases by name, in their order; None for all.

    Raises:
        ConfigError: there is no such case.
    """
    from semkey.errors import ConfigError

    if names is None:
        return list(CASES)
    unknown = next((name for name in names if name not in {case.name for case in CASES}), None)
    if unknown is not None:
        raise ConfigError(f"there is no case '{unknown}'; choose among {', '.join(case.name for case in CASES)}")
    return [case for case in CASES if case.name in names]
