"""Pictures for the report of ``semkey eval slam``: per sequence, the paths of all methods over the true one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semkey.errors import SemkeyError
from semkey.evaluation.report.bars import bars_figure
from semkey.evaluation.report.curves import line_styles
from semkey.evaluation.report.pictures import ReportPicture
from semkey.evaluation.running.results import Evaluation
from semkey.evaluation.slam.run import trajectory_file
from semkey.evaluation.slam.sets import SlamSet
from semkey.evaluation.slam.summary import median_run
from semkey.geometry.trajectories import Trajectory, read_tum_trajectory
from semkey.metrics.trajectory import absolute_trajectory_error
from semkey.visualization.palette import TRUTH, TRUTH_ALPHA, TRUTH_WIDTH

_BARS = (
    (
        "ate_rmse_m",
        ("ate_lowest_m", "ate_highest_m"),
        "ATE: median of the runs, and the range from the best to the worst",
    ),
    ("fps", None, "Frames per second: median of the runs"),
)
_WIDTH_INCHES = 10.8
_DOTS_PER_INCH = 110
# A line is not drawn across so many median steps of time: the camera was lost there.
_GAP = 2.5


def slam_pictures(evaluation: Evaluation, sets: Sequence[SlamSet], out: str | Path) -> list[ReportPicture]:
    """Bars of errors and speed, and per sequence the paths of each method's median run, aligned with the true path.

    Paths are seen from above and from the side. Methods without a trajectory (failed, or its file is gone) are left
    out, and sequences without ground truth.
    """
    pictures = []
    for metric, spread, title in _BARS:
        data = bars_figure(evaluation, metric, spread)
        if data is not None:
            pictures.append(ReportPicture(section="Bars", caption=title, data=data))
    for slam_set in sets:
        truth = _true_trajectory(slam_set, evaluation.options.get("max_frames"))
        if len(truth) < 3:
            continue
        paths: dict[str, Trajectory] = {}
        for method, results in evaluation.results.items():
            if slam_set.name not in results:
                continue
            rows = results[slam_set.name].rows
            row = rows[median_run(rows)]
            try:
                seed = int(str(row["name"]).removeprefix("seed-"))
                estimate = read_tum_trajectory(trajectory_file(Path(out), method, slam_set.name, seed))
                error = absolute_trajectory_error(estimate, truth, alignment=row.get("alignment", "se3"))
            except SemkeyError:
                continue
            paths[method] = estimate.mapped(error.similarity)
        if paths:
            data = _draw(slam_set.name, truth, paths, list(evaluation.methods))
            caption = f"{slam_set.name}: median run of each method, aligned; grey is ground truth, crosses are ends"
            pictures.append(ReportPicture(section="Paths", caption=caption, data=data))
    return pictures


def _true_trajectory(slam_set: SlamSet, max_frames: int | None) -> Trajectory:
    """Of the frames that a run uses."""
    sequence = slam_set.sequence
    used = range(0, len(sequence), slam_set.every)[:max_frames]
    known = [index for index in used if sequence.ground_truth[index] is not None]
    poses = np.array([sequence.ground_truth[index] for index in known], dtype=np.float64).reshape(-1, 4, 4)
    return Trajectory(sequence.timestamps[known], poses)


def _draw(name: str, truth: Trajectory, paths: dict[str, Trajectory], methods: list[str]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The world axis nearest to the cameras' "down" is vertical; cameras are mostly held upright.
    vertical = int(np.argmax(np.abs(truth.poses[:, :3, 1].mean(axis=0))))
    extent = np.ptp(truth.positions, axis=0)
    across, along = sorted((axis for axis in range(3) if axis != vertical), key=lambda axis: -extent[axis])
    styles = line_styles(methods)
    figure = Figure(figsize=(_WIDTH_INCHES, 4.6), dpi=_DOTS_PER_INCH, layout="constrained")
    figure.suptitle(name, fontsize=11)
    margin = 0.15 * float(extent.max()) + 0.02
    for column, (title, upward) in enumerate((("from above", along), ("from the side", vertical))):
        axes = figure.add_subplot(1, 2, column + 1)
        true_places = truth.positions[:, [across, upward]].T
        axes.plot(*true_places, color=TRUTH, linewidth=TRUTH_WIDTH, alpha=TRUTH_ALPHA, label="ground truth")
        for method, path in paths.items():
            style = styles[method]
            line = _broken(path)[:, [across, upward]]
            axes.plot(*line.T, color=style.colour, linestyle=style.dashes, linewidth=1.2, label=method)
            axes.plot(*path.positions[-1, [across, upward]], marker="x", color=style.colour, markersize=6)
        # A path that went astray must not shrink all others to a dot.
        low, high = truth.positions.min(axis=0) - margin, truth.positions.max(axis=0) + margin
        axes.set_xlim(low[across], high[across])
        axes.set_ylim(low[upward], high[upward])
        axes.set_aspect("equal", adjustable="box")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(f"{'xyz'[across]}, m", fontsize=9)
        axes.set_ylabel(f"{'xyz'[upward]}, m", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), fontsize=9)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _broken(path: Trajectory) -> np.ndarray:
    """Positions with a row of NaN where time jumps."""
    steps = np.diff(path.timestamps)
    if len(steps) == 0:
        return path.positions
    return np.insert(path.positions, np.flatnonzero(steps > _GAP * np.median(steps)) + 1, np.nan, axis=0)
