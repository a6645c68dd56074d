"""What is drawn over time below a trajectory: errors, inliers, evidence, and where frames were lost."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.metrics.trajectory import TrajectoryError
from semkey.visualization.palette import ESTIMATE, LIVE, LOST, TRUTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOTS_PER_INCH = 110
# Decades of evidence up to here are drawn to scale, more of them logarithmically.
_LINEAR_DECADES = 10.0
_MILLIMETRES_BELOW = 0.1


def evidence_strip(
    timestamps: ArrayLike, log10_nfa: ArrayLike, lost_mask: ArrayLike, *, threshold: float | None = None
) -> bytes:
    """Draw what spoke for the pose of each frame over time, lost frames red, as PNG.

    Args:
        timestamps: (N,) seconds, increasing.
        log10_nfa: (N,) logarithms of numbers of false alarms; NaN where there is none.
        lost_mask: (N,) bool, frames without a pose.
        threshold: poses with a higher logarithm are not believed; None draws no line.

    Returns:
        The bytes of a PNG file, 1320 pixels wide.

    Raises:
        InputError: the lengths differ.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stamps, values = np.asarray(timestamps, dtype=np.float64), np.asarray(log10_nfa, dtype=np.float64)
    lost = np.asarray(lost_mask, dtype=bool)
    if values.shape != stamps.shape or lost.shape != stamps.shape:
        raise InputError("log10_nfa and lost_mask must have one value per timestamp")
    figure = Figure(figsize=(12.0, 1.8), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    times = stamps - stamps[0] if len(stamps) else stamps
    draw_evidence(axes, times, values, lost, threshold)
    finish_panel(axes, times, lost, red=0.5)
    axes.set_xlabel("time from the first frame (s)")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def draw_evidence(
    axes: Axes,
    times: NDArray[np.float64],
    log10_nfa: NDArray[np.float64],
    lost: NDArray[np.bool_],
    threshold: float | None,
) -> None:
    """Decades by which chance is ruled out, over time (N,) seconds; see :func:`evidence_strip`."""
    decades = np.where(lost, np.nan, -log10_nfa)
    axes.fill_between(times, np.maximum(decades, 0.0), color=ESTIMATE, alpha=0.25, linewidth=0)
    axes.plot(times, decades, color=ESTIMATE, linewidth=1.0, marker=".", markersize=3)
    if threshold is not None:
        label = f"believed from {-threshold:g} on"
        axes.axhline(-threshold, color=TRUTH, linestyle="--", linewidth=1.0, label=label)
        axes.legend(fontsize=9, loc="lower right", framealpha=0.85)
    axes.set_yscale("symlog", linthresh=_LINEAR_DECADES, linscale=1.0)
    axes.yaxis.set_major_formatter("{x:g}")
    known = decades[np.isfinite(decades)]
    axes.set_ylim(min(0.0, float(known.min(initial=0.0))), 1.3 * max(_LINEAR_DECADES, float(known.max(initial=0.0))))
    axes.set_ylabel("evidence (decades)")


def draw_inliers(axes: Axes, seconds: NDArray[Any], inliers: NDArray[Any], lost: NDArray[np.bool_]) -> None:
    """Number of inliers over time, lost frames marked."""
    axes.plot(seconds, inliers, color=ESTIMATE, linewidth=1.0)
    axes.plot(seconds[lost], inliers[lost], linestyle="none", marker="x", color=LOST, markersize=5)
    axes.set_ylabel("inliers")
    axes.set_ylim(0, 1.05 * max(1.0, float(np.max(inliers, initial=0))))


def _broken_error(
    error: TrajectoryError, lost_stamps: NDArray[np.float64], start: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and errors with NaN where frames were lost in between."""
    lost_before = np.searchsorted(np.sort(lost_stamps), error.timestamps)
    gaps = np.flatnonzero(np.diff(lost_before)) + 1
    return np.insert(error.timestamps - start, gaps, np.nan), np.insert(error.errors, gaps, np.nan)


def draw_errors(
    axes: Axes, error: TrajectoryError, live: TrajectoryError | None, lost_stamps: NDArray[Any], start: float
) -> None:
    """Position errors over time, with those of poses as first estimated where these are known."""
    highest = max(one.statistics.max for one in (error, live) if one is not None)
    scale, unit = error_unit(highest)
    if live is not None:
        times, values = _broken_error(live, lost_stamps, start)
        label = f"as first estimated, RMSE {scale * live.statistics.rmse:.3g} {unit}"
        axes.plot(times, scale * values, color=LIVE, linewidth=1.0, label=label)
    times, values = _broken_error(error, lost_stamps, start)
    axes.plot(times, scale * values, color=ESTIMATE, linewidth=1.2, marker=".", markersize=3)
    rmse = scale * error.statistics.rmse
    axes.axhline(rmse, color=TRUTH, linestyle="--", linewidth=1.0, label=f"RMSE {rmse:.3g} {unit}")
    axes.legend(fontsize=9, loc="upper right", framealpha=0.85)
    axes.set_ylabel(f"position error ({unit})")
    # Room above the line for the legend; a perfect trajectory still gets an axis.
    axes.set_ylim(0, 1.3 * max(scale * highest, 1e-6))


def error_unit(highest: float) -> tuple[float, str]:
    """In what errors of at most so many metres are read without counting zeros: the factor, and the unit's name."""
    return (1000.0, "mm") if highest < _MILLIMETRES_BELOW else (1.0, "m")


def _mark_lost(axes: Axes, times: NDArray[np.float64], lost: NDArray[np.bool_], alpha: float) -> None:
    """Red bands over the stretches of lost frames, half a frame wider on each side so that single ones are seen."""
    if not lost.any():
        return
    half = float(np.median(np.diff(times))) / 2 if len(times) > 1 else 0.5
    edges = np.diff(np.concatenate([[False], lost, [False]]).astype(np.int8))
    for first, behind in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        axes.axvspan(times[first] - half, times[behind - 1] + half, color=LOST, alpha=alpha, linewidth=0)


def finish_panel(axes: Axes, times: NDArray[np.float64], lost: NDArray[np.bool_], *, red: float = 0.15) -> None:
    """Mark lost frames with that share of red, and show the whole time (N,) seconds, from 0 on, with a little room."""
    _mark_lost(axes, times, lost, red)
    axes.grid(alpha=0.3)
    if len(times) > 1:
        axes.set_xlim(-0.01 * times[-1], 1.01 * times[-1])
