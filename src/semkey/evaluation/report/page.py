"""``report.html`` of an evaluation: tables with the best marked, curves, pictures of pairs, and how it was run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semkey import __version__
from semkey.evaluation.report.curves import curve_figure, curve_names, interval_figure
from semkey.evaluation.report.pictures import ReportPicture
from semkey.evaluation.report.tables import (
    Mark,
    column,
    format_interval,
    format_value,
    known_metrics,
    mark_best,
    overview,
)
from semkey.evaluation.running.results import Evaluation, Metric, SetResult
from semkey.files import atomic_write_text
from semkey.visualization.html import (
    Block,
    Cell,
    Code,
    Folded,
    KeyFigures,
    Paragraph,
    Picture,
    Section,
    Table,
    html_report,
)

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

TITLES = {
    "planar": "Planar pairs",
    "posed-pairs": "Relative pose",
    "homographies": "Random homographies",
    "reliability": "Reliability",
    "localisation": "Localisation on synthetic patterns",
    "shift": "Shifted photos",
    "negatives": "Images of nothing",
    "speed": "Speed and memory",
    "slam": "SLAM",
    "trajectory": "Trajectories",
}
"""Heading by kind; another kind is headed by its name."""

COUNTED = {
    "localisation": "Patterns",
    "shift": "Crops",
    "negatives": "Images",
    "speed": "Measurements",
    "trajectory": "Poses",
    "slam": "Runs",
}
"""What the counts are of, by kind; pairs elsewhere."""

OVERVIEWS = {"slam": "ate_rmse_m"}
"""Metric by kind that one table shows over all sets."""

_BEST = "The best value of each metric is bold on green."
_CLOSE = (
    "A paler green marks values whose 95 % interval overlaps that of the best: the data do not tell them apart. "
    "Intervals are printed below the values where there are some."
)


def write_report(evaluation: Evaluation, out: str | Path, pictures: Sequence[ReportPicture] = ()) -> Path:
    """Write ``report.html`` into a folder, atomically; one file that needs nothing else.

    Args:
        evaluation: of any kind.
        out: the folder.
        pictures: shown after the curves, grouped by their section.

    Returns:
        The path of the file.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = Path(out) / REPORT_FILE
    atomic_write_text(path, report_html(evaluation, pictures))
    return path


def report_html(evaluation: Evaluation, pictures: Sequence[ReportPicture] = ()) -> str:
    """The page that :func:`write_report` writes."""
    sections = [
        _results(evaluation),
        *_curve_sections(evaluation),
        *_picture_sections(pictures),
        *(section for name in evaluation.sets if (section := _details(evaluation, name)).blocks),
        _setup(evaluation),
    ]
    title = TITLES.get(evaluation.kind, evaluation.kind)
    subtitle = f"semkey eval {evaluation.kind}: {', '.join(evaluation.methods)}"
    started = evaluation.environment.get("started")
    footer = f"semkey {evaluation.environment.get('semkey', __version__)}" + (f", {started}" if started else "")
    return html_report(title, sections, subtitle=subtitle, footer=footer)


def _results(evaluation: Evaluation) -> Section:
    """The headline metrics of every set."""
    counts = [
        max((sets[name].count for sets in evaluation.results.values() if name in sets), default=0)
        for name in evaluation.sets
    ]
    counted = COUNTED.get(evaluation.kind, "Pairs")
    figures = {"Methods": str(len(evaluation.methods)), "Sets": str(len(evaluation.sets)), counted: str(sum(counts))}
    for option, label in (("keypoints", "Keypoints"), ("estimator", "Estimator"), ("seed", "Seed")):
        if option in evaluation.options:
            figures[label] = str(evaluation.options[option])
    blocks: list[Block] = [KeyFigures(figures)]
    if len(evaluation.methods) > 1:
        has_intervals = any(result.intervals for sets in evaluation.results.values() for result in sets.values())
        blocks.append(Paragraph(f"{_BEST} {_CLOSE}" if has_intervals else _BEST))
    if len(evaluation.methods) > 1 and len(evaluation.sets) > 1:
        shown = OVERVIEWS.get(evaluation.kind)
        blocks += [_overview(evaluation, metric) for metric in evaluation.metrics if metric.name == shown]
    for name in evaluation.sets:
        results = _of_set(evaluation, name)
        metrics = known_metrics(evaluation.metrics, [result.metrics for result in results.values()])
        headline = [metric for metric in metrics if metric.headline]
        if not headline:
            continue
        blocks.append(_headline_table(evaluation, name, results, headline))
        figure = interval_figure(evaluation, name, headline)
        if figure is not None:
            blocks.append(Picture(figure, f"{name}: values with their 95 % bootstrap intervals"))
    return Section("Results", blocks)


def _overview(evaluation: Evaluation, metric: Metric) -> Table:
    header, rows, marks = overview(evaluation, metric)
    cells = [
        [row[0], *(Cell(text, mark=mark) for text, mark in zip(row[1:], of_row[1:], strict=True))]
        for row, of_row in zip(rows, marks, strict=True)
    ]
    return Table(header, cells, caption=f"{metric.label} on all sets")


def _details(evaluation: Evaluation, set_name: str) -> Section:
    """All other metrics of a set, and those of its groups."""
    results = _of_set(evaluation, set_name)
    values = {name: result.metrics for name, result in results.items()}
    intervals = {name: result.intervals for name, result in results.items()}
    rest = [metric for metric in known_metrics(evaluation.metrics, list(values.values())) if not metric.headline]
    blocks: list[Block] = []
    if rest:
        blocks.append(_metric_table(rest, values, intervals, "All other metrics"))
    for group in dict.fromkeys(group for result in results.values() for group in result.groups):
        of_group = {name: result.groups.get(group, {}) for name, result in results.items()}
        shown = known_metrics(evaluation.metrics, list(of_group.values()))
        blocks.append(Folded(f"Group {group}", [_metric_table(shown, of_group, {}, f"{set_name}, {group}")]))
    return Section(f"Details: {set_name}", blocks)


def _of_set(evaluation: Evaluation, set_name: str) -> dict[str, SetResult]:
    return {method: sets[set_name] for method, sets in evaluation.results.items() if set_name in sets}


def _headline_table(
    evaluation: Evaluation, set_name: str, results: Mapping[str, SetResult], metrics: Sequence[Metric]
) -> Table:
    """A row per method with the intervals below the values."""
    columns = [column(evaluation, set_name, metric) for metric in metrics]
    rows: list[Sequence[Any]] = []
    for index, method in enumerate(evaluation.methods):
        if method not in results:
            continue
        result = results[method]
        cells = [
            _cell(metric, values[index], marks[index], format_interval(metric, result.intervals.get(metric.name)))
            for metric, (values, marks) in zip(metrics, columns, strict=True)
        ]
        rows.append([method, *cells, Cell(f"{result.failures} of {result.count}")])
    caption = f"{set_name}: {evaluation.sets[set_name].get('description', '')}"
    return Table(["method", *(_label(metric) for metric in metrics), "failed"], rows, caption=caption)


def _metric_table(
    metrics: Sequence[Metric],
    values: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
    caption: str,
) -> Table:
    """A row per metric, a column per method."""
    rows: list[Sequence[Any]] = []
    for metric in metrics:
        found = [values[method].get(metric.name) for method in values]
        ranges = [intervals.get(method, {}).get(metric.name) for method in values]
        cells = (
            _cell(metric, value, mark) for value, mark in zip(found, mark_best(metric, found, ranges), strict=True)
        )
        rows.append([_label(metric), *cells])
    return Table(["", *values], rows, caption=caption)


def _cell(metric: Metric, value: float | None, mark: Mark, note: str = "") -> Cell:
    return Cell(format_value(metric, value), mark=mark, note=note)


def _label(metric: Metric) -> str:
    """The heading of a metric with an arrow to where better is."""
    if metric.higher_is_better is None:
        return metric.label
    # A no-break space, or the arrow would stand alone on a line.
    return f"{metric.label}\u00a0{'↑' if metric.higher_is_better else '↓'}"


def _curve_sections(evaluation: Evaluation) -> list[Section]:
    names = curve_names(evaluation)
    if not names:
        return []
    return [
        Section("Curves", [Picture(curve_figure(evaluation, name), _curve_caption(evaluation, name)) for name in names])
    ]


def _curve_caption(evaluation: Evaluation, name: str) -> str:
    x_label, y_label = evaluation.curve_labels.get(name, ("", name))
    return f"{y_label} over {x_label}" if x_label else y_label


def _picture_sections(pictures: Sequence[ReportPicture]) -> list[Section]:
    headings = list(dict.fromkeys(picture.section for picture in pictures))
    return [
        Section(heading, [Picture(one.data, one.caption) for one in pictures if one.section == heading])
        for heading in headings
    ]


def _setup(evaluation: Evaluation) -> Section:
    environment = {name: value for name, value in evaluation.environment.items() if name != "command"}
    blocks: list[Block] = []
    command = evaluation.environment.get("command")
    if command:
        blocks.append(Code(str(command)))
    blocks += [
        Table(["option", "value"], _setting_rows(evaluation.options)),
        Table(["environment", "value"], _setting_rows(environment)),
    ]
    for method, details in evaluation.methods.items():
        blocks.append(Folded(f"{method}: what identifies it", [Table(["", "value"], _setting_rows(details))]))
    return Section("How it was run", blocks)


def _setting_rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[str(name), _setting(value)] for name, value in values.items()]


def _setting(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)
