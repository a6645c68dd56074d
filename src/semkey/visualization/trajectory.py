"""A trajectory as one picture: views from above and from the side, errors, inliers and evidence over time."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.trajectories import Trajectory, pose_at
from semkey.metrics.trajectory import Alignment, TrajectoryError, absolute_trajectory_error
from semkey.visualization.palette import END, ESTIMATE, LIVE, LOOP, LOST, START, TRUTH, TRUTH_ALPHA, TRUTH_WIDTH
from semkey.visualization.panels_over_time import draw_errors, draw_evidence, draw_inliers, error_unit, finish_panel
from semkey.visualization.poses_over_time import draw_poses_over_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 110
_TITLE_LETTERS = 110
# Colours of errors: one outlier must not make all others blue.
_ERROR_PERCENTILE = 98.0


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Which world axes to look along: indices into x, y, z, and whether up is the positive direction."""

    right: int
    forward: int
    vertical: int
    up_is_positive: bool

    @property
    def forward_is_up_the_page(self) -> bool:
        """Whether (right, forward, up) is right-handed; if not, forward goes down the page, or it were mirrored."""
        cyclic = (self.forward - self.right) % 3 == 1
        return cyclic == self.up_is_positive


def trajectory_figure(
    estimated: Trajectory,
    ground_truth: Trajectory | None = None,
    *,
    live: Trajectory | None = None,
    loop_timestamps: ArrayLike | None = None,
    frame_timestamps: ArrayLike | None = None,
    lost_mask: ArrayLike | None = None,
    inlier_counts: ArrayLike | None = None,
    log10_nfa: ArrayLike | None = None,
    evidence_threshold: float | None = None,
    alignment: Alignment = "se3",
    title: str = "",
) -> bytes:
    """Draw a trajectory as PNG.

    Views from above and from the side with equal axes, start and end marked, broken where frames were lost and, with
    ground truth, coloured by the error; below them position and orientation over time and, where they are known,
    the position error, the number of inliers and the evidence for each pose, lost frames in red. With ground truth the
    estimate is aligned to it first; if too few poses have a partner in time for that, both are drawn as they are. A
    single camera without ground truth has no metres: lengths are in units then.

    Args:
        estimated: poses of the tracked frames, possibly none.
        ground_truth: reference poses, or None.
        live: the poses as they were first estimated, before later corrections; drawn beside the others, with its own
            error. None draws nothing.
        loop_timestamps: (M, 2) seconds, pairs of frames in ``estimated`` that were recognised as the same place; pairs
            that are not there are left out.
        frame_timestamps: (N,) seconds of all frames, lost ones too, increasing; default those of ``estimated``.
        lost_mask: (N,) bool, frames without a pose; default none.
        inlier_counts: (N,) inlier matches per frame; default unknown.
        log10_nfa: (N,) logarithm of the number of false alarms of each pose, NaN for none; default unknown.
        evidence_threshold: poses with a higher logarithm are not believed; drawn as a line.
        alignment: see :func:`absolute_trajectory_error`.
        title: a heading.

    Returns:
        The bytes of a PNG file, 1320 pixels wide.

    Raises:
        InputError: ``lost_mask``, ``inlier_counts`` or ``log10_nfa`` has another length than ``frame_timestamps``.
    """
    # matplotlib takes 0.3 s to import, and the command line must start without it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stamps = np.asarray(estimated.timestamps if frame_timestamps is None else frame_timestamps, dtype=np.float64)
    lost = np.zeros(len(stamps), dtype=bool) if lost_mask is None else np.asarray(lost_mask, dtype=bool)
    inliers = None if inlier_counts is None else np.asarray(inlier_counts)
    evidence = None if log10_nfa is None else np.asarray(log10_nfa, dtype=np.float64)
    if any(given is not None and given.shape != stamps.shape for given in (lost, inliers, evidence)):
        raise InputError("lost_mask, inlier_counts and log10_nfa must have one value per frame timestamp")

    error = _error_or_none(estimated, ground_truth, alignment)
    drawn = estimated if error is None else estimated.mapped(error.similarity)
    live_error = None if live is None else _error_or_none(live, ground_truth, alignment)
    # Both lie in one world frame; where there is no truth to align to, they are drawn in it.
    drawn_live = live if live is None or live_error is None else live.mapped(live_error.similarity)
    loops = _loop_places(drawn, loop_timestamps)
    lost_stamps = stamps[lost]
    known_panels = (("error", error), ("inliers", inliers), ("evidence", evidence))
    panels = [name for name, known in known_panels if known is not None]
    unit = "units" if alignment == "sim3" and error is None else "m"

    # The object interface: pyplot would keep every figure alive and change the caller's global state.
    figure = Figure(figsize=(12.0, 9.2 + 2.3 * len(panels)), dpi=_DOTS_PER_INCH, layout="constrained")
    grid = figure.add_gridspec(2 + len(panels), 2, height_ratios=[4.6, 4.0, *[2.0] * len(panels)])
    _write_title(figure, title)
    view = choose_view(ground_truth if ground_truth is not None and len(ground_truth) else drawn)
    for column, (name, across, upward) in enumerate(
        (("from above", view.right, view.forward), ("from the side", view.right, view.vertical))
    ):
        axes = figure.add_subplot(grid[0, column])
        _draw_live(axes, drawn_live, lost_stamps, across, upward)
        _draw_view(axes, drawn, ground_truth, lost_stamps, across, upward, unit)
        if error is not None:
            _color_by_error(axes, drawn, error, across, upward, with_scale=column == 1)
        _draw_loops(axes, loops, across, upward)
        axes.set_title(name, fontsize=11)
        if not (view.up_is_positive if upward == view.vertical else view.forward_is_up_the_page):
            axes.invert_yaxis()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.axes[0].legend(handles, labels, fontsize=9, loc="best", framealpha=0.85)

    start = float(stamps[0]) if len(stamps) else 0.0
    reference = None if error is None and alignment == "sim3" else ground_truth
    draw_poses_over_time(figure, grid[1, :], drawn, reference, start, lost=lost_stamps, unit=unit)
    times = stamps - start
    for row, name in enumerate(panels, start=2):
        axes = figure.add_subplot(grid[row, :])
        if name == "error" and error is not None:
            draw_errors(axes, error, live_error, lost_stamps, start)
        elif name == "inliers" and inliers is not None:
            draw_inliers(axes, times, inliers, lost)
        elif evidence is not None:
            draw_evidence(axes, times, evidence, lost, evidence_threshold)
        finish_panel(axes, times, lost)
    figure.axes[-1].set_xlabel("time from the first frame (s)")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _write_title(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle("\n".join(textwrap.wrap(title, _TITLE_LETTERS)), fontsize=13)


def _color_by_error(
    axes: Axes, drawn: Trajectory, error: TrajectoryError, across: int, upward: int, *, with_scale: bool
) -> None:
    """Colour the estimate by its position error, where that is known."""
    indices = np.searchsorted(drawn.timestamps, error.timestamps).clip(0, max(0, len(drawn) - 1))
    places = drawn.positions[indices]
    highest = max(float(np.percentile(error.errors, _ERROR_PERCENTILE)), 1e-9)
    scale, unit = error_unit(highest)
    colors = scale * error.errors
    shades = axes.scatter(
        places[:, across], places[:, upward], c=colors, cmap="turbo", vmin=0, vmax=scale * highest, s=9, zorder=3
    )
    if with_scale and axes.figure is not None:
        axes.figure.colorbar(shades, ax=axes, label=f"position error ({unit})", shrink=0.85, pad=0.02)


def _draw_live(axes: Axes, live: Trajectory | None, lost_stamps: NDArray[Any], across: int, upward: int) -> None:
    """The poses as they were first estimated, where they are known."""
    if live is not None and len(live):
        line = _break_where_lost(live, lost_stamps)
        axes.plot(line[:, across], line[:, upward], color=LIVE, linewidth=1.0, label="as first estimated")


def _draw_loops(axes: Axes, loops: Sequence[tuple[NDArray[Any], NDArray[Any]]], across: int, upward: int) -> None:
    """Lines between places that were recognised as the same."""
    for number, (place0, place1) in enumerate(loops):
        ends = np.stack([place0, place1])[:, [across, upward]]
        name_once = "loop" if number == 0 else None
        axes.plot(*ends.T, color=LOOP, marker="D", markersize=4, linewidth=1.5, zorder=4, label=name_once)


def _error_or_none(
    estimated: Trajectory, ground_truth: Trajectory | None, alignment: Alignment
) -> TrajectoryError | None:
    if ground_truth is None:
        return None
    try:
        return absolute_trajectory_error(estimated, ground_truth, alignment=alignment)
    except InputError:
        # Too few pairs: a short run is still worth a picture.
        return None


def choose_view(trajectory: Trajectory) -> View:
    """The world axis nearest to the mean "down" of the cameras is vertical; the longer of the others goes right.

    Worlds differ in which axis points up (z in TUM RGB-D, -y where the first camera is the world), but cameras are
    mostly held upright.
    """
    if len(trajectory) == 0:
        return View(right=0, forward=2, vertical=1, up_is_positive=False)
    mean_down = trajectory.poses[:, :3, 1].mean(axis=0)
    vertical = int(np.argmax(np.abs(mean_down)))
    extent = np.ptp(trajectory.positions, axis=0)
    first, second = (axis for axis in range(3) if axis != vertical)
    right, forward = (first, second) if extent[first] >= extent[second] else (second, first)
    return View(right=right, forward=forward, vertical=vertical, up_is_positive=bool(mean_down[vertical] < 0))


def _draw_view(
    axes: Axes,
    estimated: Trajectory,
    ground_truth: Trajectory | None,
    lost_stamps: NDArray[np.float64],
    across: int,
    upward: int,
    unit: str,
) -> None:
    if ground_truth is not None and len(ground_truth):
        truth = ground_truth.positions
        axes.plot(
            truth[:, across],
            truth[:, upward],
            color=TRUTH,
            linewidth=TRUTH_WIDTH,
            alpha=TRUTH_ALPHA,
            label="ground truth",
        )
    if len(estimated):
        line = _break_where_lost(estimated, lost_stamps)
        axes.plot(
            line[:, across],
            line[:, upward],
            color=ESTIMATE,
            linewidth=1.2,
            marker=".",
            markersize=3,
            label="estimate",
        )
        first, last = estimated.positions[0], estimated.positions[-1]
        axes.plot(*first[[across, upward]], linestyle="none", marker="o", color=START, markersize=9, label="start")
        axes.plot(*last[[across, upward]], linestyle="none", marker="s", color=END, markersize=8, label="end")
    else:
        axes.text(0.03, 0.94, "no frame was tracked", transform=axes.transAxes, color=LOST)
    places = _places_of_lost(estimated, ground_truth, lost_stamps)
    if len(lost_stamps):
        axes.plot(
            places[:, across],
            places[:, upward],
            linestyle="none",
            marker="x",
            color=LOST,
            markersize=7,
            label=f"lost ({len(lost_stamps)} frames)",
        )
    axes.set_xlabel(f"{'xyz'[across]} ({unit})")
    axes.set_ylabel(f"{'xyz'[upward]} ({unit})")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)


def _break_where_lost(estimated: Trajectory, lost_stamps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (M, 3) with a row of NaN wherever lost frames lie between two poses, so that no line bridges them."""
    lost_before = np.searchsorted(np.sort(lost_stamps), estimated.timestamps)
    gaps = np.flatnonzero(np.diff(lost_before)) + 1
    return np.insert(estimated.positions, gaps, np.nan, axis=0)


def _places_of_lost(
    estimated: Trajectory, ground_truth: Trajectory | None, lost_stamps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where to mark lost frames (L, 3): at their ground truth if there is one, else at the last pose before."""
    places = []
    for stamp in lost_stamps.tolist():
        truth = None if ground_truth is None or not len(ground_truth) else pose_at(ground_truth, stamp)
        before = int(np.searchsorted(estimated.timestamps, stamp)) - 1
        if truth is not None:
            places.append(truth[:3, 3])
        elif len(estimated):
            places.append(estimated.positions[max(before, 0)])
    return np.array(places, dtype=np.float64).reshape(-1, 3)


def _loop_places(
    trajectory: Trajectory, loop_timestamps: ArrayLike | None
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Where the two frames of every loop lie, for those that are in the trajectory."""
    if loop_timestamps is None or not len(trajectory):
        return []
    places = {stamp: place for stamp, place in zip(trajectory.timestamps.tolist(), trajectory.positions, strict=True)}
    pairs = np.asarray(loop_timestamps, dtype=np.float64).reshape(-1, 2).tolist()
    return [(places[first], places[second]) for first, second in pairs if first in places and second in places]
