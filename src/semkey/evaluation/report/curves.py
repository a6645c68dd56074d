"""Curves of an evaluation as pictures: one line per method, the same colour for a method in every picture."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semkey.evaluation.running.results import Curve, Evaluation, Metric

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, which stays distinct with every common form of colour blindness; yellow is too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DOTS_PER_INCH = 110
_WIDTH_INCHES = 10.8
_INTERVAL_COLUMNS = 4
_MARKED_POINTS = 24
"""A line with more points than this has no marker at each of them."""
_CALIBRATION = "calibration"
"""Curves whose names begin so say how often what was promised comes true: right is the diagonal, which is drawn."""


@dataclass(frozen=True)
class LineStyle:
    """How one method is drawn everywhere."""

    colour: str
    dashes: str
    marker: str


def line_styles(methods: Sequence[str]) -> dict[str, LineStyle]:
    """A style per method by its place in the list; colours repeat after seven with other dashes."""
    return {
        name: LineStyle(
            _COLOURS[index % len(_COLOURS)],
            _DASHES[index // len(_COLOURS) % len(_DASHES)],
            _MARKERS[index % len(_MARKERS)],
        )
        for index, name in enumerate(methods)
    }


def curve_names(evaluation: Evaluation) -> list[str]:
    """The curves that some result has: those with labels first, in their order."""
    found = {name for sets in evaluation.results.values() for result in sets.values() for name in result.curves}
    labelled = [name for name in evaluation.curve_labels if name in found]
    return [*labelled, *sorted(found - set(labelled))]


def curve_figure(evaluation: Evaluation, name: str) -> bytes:
    """One curve of all methods, a panel per set, as PNG of 1188 pixels' width.

    Args:
        evaluation: has the curve for at least one method and set.
        name: of the curve.
    """
    styles = line_styles(list(evaluation.methods))
    panels: dict[str, dict[str, Curve]] = {}
    for set_name in evaluation.sets:
        lines = {
            method: sets[set_name].curves[name]
            for method, sets in evaluation.results.items()
            if set_name in sets and name in sets[set_name].curves
        }
        if lines:
            panels[set_name] = lines
    figure, axes_of = _panels(list(panels), height=3.1, columns=3)
    x_label, y_label = evaluation.curve_labels.get(name, ("", name))
    for set_name, lines in panels.items():
        axes = axes_of[set_name]
        if name.startswith(_CALIBRATION):
            axes.plot([0, 1], [0, 1], color="0.55", linewidth=1.0, zorder=1)
        for method, curve in lines.items():
            style = styles[method]
            axes.plot(
                curve.x,
                curve.y,
                color=style.colour,
                linestyle=style.dashes,
                marker=style.marker if len(curve.x) <= _MARKED_POINTS else None,
                markersize=4,
                linewidth=1.5,
                label=method,
            )
        axes.set_title(textwrap.fill(set_name, 38), fontsize=10)
        axes.set_xlabel(x_label, fontsize=9)
        axes.set_ylabel(y_label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    _legend(figure)
    return _png(figure)


def interval_figure(evaluation: Evaluation, set_name: str, metrics: Sequence[Metric]) -> bytes | None:
    """Metrics of one set with their 95 % intervals: a panel per metric, a row per method.

    Args:
        evaluation: of any kind.
        set_name: one of its sets.
        metrics: those without an interval are left out.

    Returns:
        PNG of 1188 pixels' width, None where no interval is known.
    """
    styles = line_styles(list(evaluation.methods))
    panels: dict[str, tuple[Metric, dict[str, tuple[float, float, float]]]] = {}
    for metric in metrics:
        bars = {
            method: (sets[set_name].metrics[metric.name], *sets[set_name].intervals[metric.name])
            for method, sets in evaluation.results.items()
            if set_name in sets and metric.name in sets[set_name].intervals
        }
        bars = {method: bar for method, bar in bars.items() if all(math.isfinite(value) for value in bar)}
        if bars:
            panels[metric.label] = (metric, bars)
    if not panels:
        return None
    columns = math.ceil(len(panels) / math.ceil(len(panels) / _INTERVAL_COLUMNS))
    figure, axes_of = _panels(list(panels), height=0.85 + 0.22 * len(evaluation.methods), columns=columns)
    rows = list(evaluation.methods)
    for number, (label, (metric, bars)) in enumerate(panels.items()):
        axes = axes_of[label]
        factor = 100.0 if metric.percent else 1.0
        for method, (value, low, high) in bars.items():
            row, style = rows.index(method), styles[method]
            axes.plot([factor * low, factor * high], [row, row], color=style.colour, linewidth=2.0)
            axes.plot([factor * value], [row], color=style.colour, marker=style.marker, markersize=6)
        axes.set_yticks(range(len(rows)), rows if number % columns == 0 else [""] * len(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(textwrap.fill(label, 30), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3, axis="x")
    return _png(figure)


def _panels(names: Sequence[str], *, height: float, columns: int) -> tuple[Figure, Mapping[str, Axes]]:
    """A figure with a panel per name, up to ``columns`` beside each other."""
    # The object interface: pyplot would keep every figure alive and change the caller's global state.
    from matplotlib.figure import Figure

    columns = min(columns, max(2, len(names)))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(_WIDTH_INCHES, height * rows + 0.5), dpi=_DOTS_PER_INCH, layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    places = {name: figure.add_subplot(grid[index // columns, index % columns]) for index, name in enumerate(names)}
    return figure, places


def _legend(figure: Figure) -> None:
    """One legend below all panels, with every method once."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=min(6, len(entries)), fontsize=9
    )


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
