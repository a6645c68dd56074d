"""Sequences with faults: frames of other sequences in an order of their own, changed when they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from semkey.datasets import Frame, FrameSequence

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]
Edit = Callable[[Image, Depth, np.random.Generator], tuple[Image, Depth]]
"""Takes copies of an image (H, W, 3) and its depth (H, W) in metres, which it may change, and gives what is shown."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One frame of a sequence with faults.

    Attributes:
        source: index of the frame it is made from.
        place: which of the sources it is from, from 0.
        edit: what is done to it; None shows it as it is.
        turned: the camera is held upside down: the picture is turned by 180 degrees, and the pose with it.
        trackable: the frame shows enough to be placed; losing it is a failure.
    """

    source: int
    place: int = 0
    edit: Edit | None = None
    turned: bool = False
    trackable: bool = True


class EditedSequence(FrameSequence):
    """Frames of one or several sequences of the same size, changed.

    Args:
        name: of the case.
        sources: with depth, and all with the camera of the first.
        steps: its frames.
        fps: frames per second of its clock; None goes on as the clocks of the sources do.
        seed: of random faults; a frame's noise does not depend on the frames before it.
    """

    def __init__(
        self,
        name: str,
        sources: Sequence[FrameSequence],
        steps: Sequence[Step],
        *,
        fps: float | None = 15.0,
        seed: int = 0,
    ) -> None:
        self.steps = tuple(steps)
        self._sources = tuple(sources)
        self._seed = seed
        truth = [_shown_pose(sources[step.place].ground_truth[step.source], step) for step in self.steps]
        super().__init__(
            name=name,
            format="torture",
            camera=sources[0].camera,
            has_depth=True,
            timestamps=np.arange(len(self.steps)) / fps if fps is not None else _clock(sources, self.steps),
            ground_truth=truth,
        )

    def _load(self, index: int) -> Frame:
        step = self.steps[index]
        frame = self._sources[step.place][step.source]
        image, depth = frame.image, frame.depth
        assert depth is not None
        if step.edit is not None:
            image, depth = step.edit(image.copy(), depth.copy(), np.random.default_rng([self._seed, 7, index]))
        if step.turned:
            image, depth = image[::-1, ::-1].copy(), depth[::-1, ::-1].copy()
        return Frame(
            index=index,
            timestamp=float(self.timestamps[index]),
            image=image,
            depth=depth,
            T_world_cam=self.ground_truth[index],
        )


def _clock(sources: Sequence[FrameSequence], steps: Sequence[Step]) -> NDArray[np.float64]:
    """Times since the first frame (N,): as much passes as between the two frames of the source.

    Where the source changes, or goes back, a tenth of a second.
    """
    passed = [0.0]
    for before, after in pairwise(steps):
        stamps = sources[after.place].timestamps
        gap = float(stamps[after.source] - stamps[before.source]) if before.place == after.place else -1.0
        passed.append(gap if gap > 0 else 0.1)
    return np.cumsum(passed)


def _shown_pose(pose: NDArray[np.float64] | None, step: Step) -> NDArray[np.float64] | None:
    """The pose of the camera that would have taken what is shown; exact where the principal point is the middle."""
    if pose is None or not step.turned:
        return pose
    return pose @ np.diag([-1.0, -1.0, 1.0, 1.0])


__all__ = ["Depth", "Edit", "EditedSequence", "Image", "Step"]
