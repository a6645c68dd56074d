"""What an evaluation yields, for every kind alike: metrics, curves and rows per method and set; JSON in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from semkey.errors import InputError
from semkey.files import atomic_write_text
from semkey.schema import check_type
from semkey.untrusted import one_line, read_json

FORMAT = "semkey-eval-1"
_MOST_DIGITS = 12

Row = dict[str, Any]
"""Measures of one pair (corner, round): names to numbers, strings or lists of numbers; a failure is ``inf``."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a number is to be read.

    Attributes:
        name: key in :attr:`SetResult.metrics`.
        label: heading of its column, with the unit.
        higher_is_better: None where neither is (a count).
        digits: decimals to print.
        percent: printed times 100.
        headline: one_line in the terminal's table too, not only in the report.
    """

    name: str
    label: str
    higher_is_better: bool | None = True
    digits: int = 1
    percent: bool = False
    headline: bool = False


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line to plot, such as MMA over the threshold; ``x`` and ``y`` have the same length."""

    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """One method on one set.

    Attributes:
        count: pairs (corners, rounds) measured.
        failures: how many of them failed, by the kind's failure rule; they are in the metrics as such.
        metrics: name to value; NaN where undefined.
        intervals: name to (low, high), the 95 % bootstrap interval over the pairs, for some metrics.
        groups: metrics of parts of the set, by the part's name.
        curves: name to curve.
        rows: per pair, in the set's order; every row has ``name``, and ``error`` where rows can be ranked.
    """

    count: int
    failures: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    rows: Sequence[Row] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A whole run.

    Attributes:
        kind: such as ``planar``.
        options: everything the protocol was run with, seeds included.
        environment: versions, machine, threads, device.
        methods: per method what identifies it (weights' SHA-256, keypoints, ...).
        sets: per set its ``description`` and number of ``pairs``.
        metrics: how to read the numbers, in the order of the tables.
        results: by method, then by set.
        curve_labels: per curve name the labels of its axes.
    """

    kind: str
    options: Mapping[str, Any]
    environment: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    sets: Mapping[str, Mapping[str, Any]]
    metrics: Sequence[Metric]
    results: Mapping[str, Mapping[str, SetResult]]
    curve_labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def write(self, path: str | Path) -> None:
        """Write ``results.json`` atomically; infinities become the string ``"inf"``, NaN becomes null."""
        text = json.dumps({"format": FORMAT, **plain(asdict(self))}, indent=1, allow_nan=False)
        atomic_write_text(path, text + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Evaluation:
        """Read what :meth:`write` wrote.

        Raises:
            InputError: the file is missing, or no evaluation of this format.
        """
        stored = read_json(path)
        if not isinstance(stored, dict) or stored.pop("format", None) != FORMAT:
            raise InputError(f"{path}: not an evaluation of format {FORMAT}")
        try:
            stored = _numbers(stored)
            stored["metrics"] = [Metric(**metric) for metric in stored["metrics"]]
            stored["results"] = {
                method: {name: _set_result(values) for name, values in sets.items()}
                for method, sets in stored["results"].items()
            }
            stored["curve_labels"] = {name: tuple(labels) for name, labels in stored["curve_labels"].items()}
            evaluation = cls(**stored)
            _check(evaluation)
        except (AttributeError, KeyError, TypeError, ValueError, InputError) as error:
            raise InputError(f"{path}: damaged evaluation ({one_line(str(error))})") from None
        return evaluation


def _check(evaluation: Evaluation) -> None:
    """Refuse what no evaluation writes.

    Raises:
        InputError: a value of another type, names that are not those of the results, or curves of unequal lengths.
    """
    check_type(evaluation, Evaluation, "the evaluation")
    names = [metric.name for metric in evaluation.metrics]
    if len(set(names)) < len(names) or any(not 0 <= metric.digits <= _MOST_DIGITS for metric in evaluation.metrics):
        raise InputError("metrics have one name twice, or digits out of range")
    if set(evaluation.methods) != set(evaluation.results):
        raise InputError("methods and results have other names")
    for method, sets in evaluation.results.items():
        for name, result in sets.items():
            if name not in evaluation.sets:
                raise InputError(f"results of {method} are of a set '{name}' that is not there")
            if not result.intervals.keys() <= result.metrics.keys():
                raise InputError(f"results of {method} have an interval without its metric")
            for curve_name, curve in result.curves.items():
                if len(curve.x) != len(curve.y) or curve_name not in evaluation.curve_labels:
                    raise InputError(f"curve '{curve_name}' has no labels, or x and y of unequal lengths")


def _set_result(stored: Mapping[str, Any]) -> SetResult:
    metrics = {name: math.nan if value is None else value for name, value in stored["metrics"].items()}
    groups = {
        group: {name: math.nan if value is None else value for name, value in values.items()}
        for group, values in stored["groups"].items()
    }
    curves = {
        name: Curve(x=_row_value(curve["x"]), y=_row_value(curve["y"])) for name, curve in stored["curves"].items()
    }
    return SetResult(
        count=stored["count"],
        failures=stored["failures"],
        metrics=metrics,
        intervals={name: (_row_value(low), _row_value(high)) for name, (low, high) in stored["intervals"].items()},
        groups=groups,
        curves=curves,
        rows=[row_from_json(row) for row in stored["rows"]],
    )


def plain(value: Any) -> Any:
    """A value ready for JSON: numpy scalars and arrays to Python's, infinities to strings, NaN to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    elif hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def row_from_json(stored: Mapping[str, Any]) -> Row:
    """A row from what :func:`plain` made of it: infinities are numbers again, None is NaN."""
    return {name: _row_value(value) for name, value in stored.items()}


def _row_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_row_value(item) for item in value]
    return math.nan if value is None else _numbers(value)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if value in ("inf", "-inf") else value
