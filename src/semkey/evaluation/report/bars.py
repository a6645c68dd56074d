"""Bars per sequence and method for the report of ``semkey eval slam``."""

from __future__ import annotations

import io
import math
import textwrap
from typing import TYPE_CHECKING

from semkey.evaluation.report.curves import line_styles
from semkey.evaluation.report.tables import format_value
from semkey.evaluation.running.results import Evaluation, SetResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_INCHES = 10.8
_DOTS_PER_INCH = 110
_COLUMNS = 3
# A bar longer than so many times the median one is cut off, or it would shrink all others to nothing.
_LONGEST = 3.0


def bars_figure(evaluation: Evaluation, metric: str, spread: tuple[str, str] | None = None) -> bytes | None:
    """One metric as bars: a panel per sequence, a bar per method with its value beside it.

    A bar that is much longer than the others is cut off, which its value shows; failures have their word and no bar.

    Args:
        evaluation: of any kind.
        metric: its name.
        spread: names of the metrics from which to which a line over the bar goes; None draws none.

    Returns:
        PNG of 1188 pixels' width, None where nobody has the metric.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        name: {
            method: sets[name]
            for method, sets in evaluation.results.items()
            if name in sets and not math.isnan(sets[name].metrics.get(metric, math.nan))
        }
        for name in evaluation.sets
    }
    panels = {name: results for name, results in panels.items() if results}
    if not panels:
        return None
    columns = min(_COLUMNS, max(2, len(panels)))
    rows = math.ceil(len(panels) / columns)
    height = rows * (0.85 + 0.24 * len(evaluation.methods))
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DOTS_PER_INCH, layout="constrained")
    for number, (name, results) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        _draw(axes, evaluation, metric, spread, results)
        axes.set_title(textwrap.fill(name, 38), fontsize=10)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _draw(
    axes: Axes, evaluation: Evaluation, name: str, spread: tuple[str, str] | None, results: dict[str, SetResult]
) -> None:
    metric = next(one for one in evaluation.metrics if one.name == name)
    styles = line_styles(list(evaluation.methods))
    values = {method: result.metrics[name] for method, result in results.items()}
    known = sorted(value for value in values.values() if math.isfinite(value))
    limit = min(known[-1], _LONGEST * known[len(known) // 2]) * 1.05 if known and known[-1] > 0 else 1.0
    for row, (method, value) in enumerate(values.items()):
        if math.isfinite(value):
            axes.barh(row, min(value, limit), color=styles[method].colour, alpha=0.75, height=0.7)
        if math.isfinite(value) and spread is not None:
            low, high = (results[method].metrics.get(end, value) for end in spread)
            axes.plot([low, min(high, limit)], [row, row], color="black", linewidth=1.4, marker="|", markersize=5)
        text = format_value(metric, value) if math.isfinite(value) else "failed"
        axes.annotate(
            text, (1.02, row), xycoords=("axes fraction", "data"), fontsize=8, va="center", annotation_clip=False
        )
    axes.set_yticks(range(len(values)), list(values), fontsize=8)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(0, limit)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(metric.label, fontsize=9)
    axes.grid(alpha=0.3, axis="x")
