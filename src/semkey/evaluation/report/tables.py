"""Numbers of an evaluation as text, with the best of several methods marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from semkey.evaluation.running.results import Evaluation, Metric

Mark = Literal["", "best", "close"]
Interval = tuple[float, float]


def format_value(metric: Metric, value: float | None) -> str:
    """A metric's value as its :class:`Metric` says; a dash where it is undefined."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{100.0 * value if metric.percent else value:.{metric.digits}f}"
    # A small negative number must not print as minus zero.
    return text.removeprefix("-") if float(text) == 0.0 else text


def format_interval(metric: Metric, interval: Interval | None) -> str:
    """``low to high``, or nothing where there is no interval."""
    if interval is None or any(math.isnan(end) for end in interval):
        return ""
    return " to ".join(format_value(metric, end) for end in interval)


def mark_best(
    metric: Metric, values: Sequence[float | None], intervals: Sequence[Interval | None] | None = None
) -> list[Mark]:
    """Which of several methods' values is the best, and which cannot be told from it.

    Args:
        metric: says whether higher is better; where neither is, nothing is marked.
        values: one per method, NaN or None where undefined.
        intervals: the 95 % intervals of the values, None where there is none.

    Returns:
        ``best`` for the best value and what prints the same, ``close`` for values whose interval overlaps that of the
        best. Nothing is marked unless there are two values that print differently.
    """
    marks: list[Mark] = ["" for _ in values]
    known = [index for index, value in enumerate(values) if value is not None and not math.isnan(value)]
    if metric.higher_is_better is None or len(known) < 2:
        return marks
    sign = 1.0 if metric.higher_is_better else -1.0
    best = max(known, key=lambda index: sign * (values[index] or 0.0))
    if values[best] == -sign * math.inf:  # all have failed
        return marks
    if len({format_value(metric, values[index]) for index in known}) == 1:
        return marks
    range_of_best = None if intervals is None else intervals[best]
    for index in known:
        if format_value(metric, values[index]) == format_value(metric, values[best]):
            marks[index] = "best"
        elif intervals is not None and _overlap(intervals[index], range_of_best):
            marks[index] = "close"
    return marks


def column(evaluation: Evaluation, set_name: str, metric: Metric) -> tuple[list[float | None], list[Mark]]:
    """One metric of all methods on one set, in the order of the methods, with their marks."""
    results = [evaluation.results[method].get(set_name) for method in evaluation.methods]
    values = [None if result is None else result.metrics.get(metric.name) for result in results]
    intervals = [None if result is None else result.intervals.get(metric.name) for result in results]
    return values, mark_best(metric, values, intervals)


def known_metrics(metrics: Sequence[Metric], values: Sequence[Mapping[str, float]]) -> list[Metric]:
    """The metrics that at least one of the methods has a value for."""
    return [
        metric
        for metric in metrics
        if any(metric.name in found and not math.isnan(found[metric.name]) for found in values)
    ]


def headline_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]], list[list[Mark]]]:
    """The short table: a row per set and method, the headline metrics in columns.

    Returns:
        Column names, rows of text, and the marks of the rows' cells.
    """
    everywhere = [result.metrics for sets in evaluation.results.values() for result in sets.values()]
    headline = known_metrics([metric for metric in evaluation.metrics if metric.headline], everywhere)
    header = ["set", "method", *(metric.label for metric in headline), "failed"]
    rows: list[list[str]] = []
    marks: list[list[Mark]] = []
    for set_name in evaluation.sets:
        columns = [column(evaluation, set_name, metric) for metric in headline]
        for index, method in enumerate(evaluation.methods):
            result = evaluation.results[method].get(set_name)
            if result is None:
                continue
            cells = [format_value(metric, values[index]) for metric, (values, _) in zip(headline, columns, strict=True)]
            rows.append([set_name, method, *cells, f"{result.failures} of {result.count}"])
            marks.append(["", "", *(column_marks[index] for _, column_marks in columns), ""])
    return header, rows, marks


def overview(evaluation: Evaluation, metric: Metric) -> tuple[list[str], list[list[str]], list[list[Mark]]]:
    """One metric over all sets: a row per set, a column per method; below, how often and by how much methods win.

    The last two rows say on how many sets a method's value is the best (what prints the same counts as well), and how
    far it is from the best where it is farthest, in percent of the best.

    Args:
        evaluation: of any kind.
        metric: one for which lower is better, and positive.

    Returns:
        As :func:`headline_table`.
    """
    methods = list(evaluation.methods)
    header = ["set", *methods]
    rows: list[list[str]] = []
    marks: list[list[Mark]] = []
    wins, farthest = dict.fromkeys(methods, 0), dict.fromkeys(methods, 0.0)
    compared = 0
    for name in evaluation.sets:
        values, of_set = column(evaluation, name, metric)
        if not known_metrics([metric], [{} if value is None else {metric.name: value} for value in values]):
            continue
        rows.append([name, *(format_value(metric, value) for value in values)])
        marks.append(["", *of_set])
        best = min((value for value in values if value is not None and math.isfinite(value)), default=math.nan)
        compared += not math.isnan(best)
        for method, value, mark in zip(methods, values, of_set, strict=True):
            wins[method] += mark == "best"
            if value is not None and not math.isnan(value) and best > 0:
                farthest[method] = max(farthest[method], 100.0 * (value / best - 1.0))
    rows.append([f"best of {compared}", *(str(wins[method]) for method in methods)])
    excess = [farthest[method] for method in methods]
    rows.append(["farthest behind the best, %", *("inf" if math.isinf(value) else f"{value:.0f}" for value in excess)])
    marks += [[""] * len(header), [""] * len(header)]
    return header, rows, marks


def _overlap(first: Interval | None, second: Interval | None) -> bool:
    if first is None or second is None:
        return False
    return first[0] <= second[1] and second[0] <= first[1]
