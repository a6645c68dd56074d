"""Differences between methods that `semkey eval` measured on the same pairs or revisits, with their 95 % intervals.

    python benchmarks/differences.py OUT [OUT...] --base METHOD [--resamples N]

OUT is a folder of `semkey eval posed-pairs` or `places`. All its sets count as one. Pairs are drawn again for both
methods together, so that what makes a pair easy or hard for both falls out; what another run of training would have
given is not in an interval.
A method is named by its name or, a checkpoint, by its file's stem; a star stands where the interval does not hold 0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError, SemkeyError
from semkey.evaluation.kinds.places import TOGETHER
from semkey.evaluation.kinds.position_noise import NoiseCounts
from semkey.evaluation.running.pair_runner import ROWS_FOLDER
from semkey.evaluation.running.results import Evaluation, Row, row_from_json
from semkey.evaluation.running.row_store import file_name
from semkey.metrics.bootstrap import RESAMPLES, bootstrap_intervals
from semkey.metrics.two_view import area_under_curve

AUC_DEG = (5.0, 10.0, 20.0)
RANKS = (1, 5)


def main() -> None:
    """Read the arguments and print a table for each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outs", metavar="OUT", nargs="+", type=Path)
    parser.add_argument("--base", required=True, metavar="METHOD")
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    args = parser.parse_args()
    try:
        for out in args.outs:
            print("\n".join(table(out, args.base, args.resamples)))
    except SemkeyError as error:
        raise SystemExit(f"error: {error}") from None


def table(out: Path, base: str, resamples: int = RESAMPLES) -> list[str]:
    """Lines of a Markdown table: the base's numbers, then every other method's difference to them.

    Raises:
        InputError: no results of posed pairs or places, no such method, or rows that are not of the same pairs.
    """
    kind, rows = read_rows(out)
    if base not in rows:
        raise InputError(f"{out}: '{base}' was not measured; there are {', '.join(rows)}")
    other = next((method for method in rows if rows[method].keys() != rows[base].keys()), None)
    if other is not None:
        raise InputError(f"{out}: '{other}' and '{base}' were measured on different pairs")
    measures: type[PoseMeasures | PlaceMeasures] = PlaceMeasures if kind == "places" else PoseMeasures
    values = {method: measures([found[name] for name in rows[base]]) for method, found in rows.items()}
    count, labels = len(rows[base]), measures.labels
    what = "revisits" if kind == "places" else "pairs"
    lines = [f"\n{out.name} ({count} {what})\n", f"| method | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
    found = zip(values[base].metrics(np.arange(count)), measures.digits, strict=True)
    numbers = ["-" if np.isnan(number) else f"{number:.{digits}f}" for number, digits in found]
    lines.append(f"| {base} | {' | '.join(numbers)} |")
    others = {method: one for method, one in values.items() if method != base}
    return lines + [
        f"| {method} | {' | '.join(differences(one, values[base], count, resamples))} |"
        for method, one in others.items()
    ]


class PoseMeasures:
    """What is compared of a method's pairs; noise is pooled over the matches of the pairs."""

    labels = (*(f"pose AUC@{deg:g}°, %" for deg in AUC_DEG), "inliers", "noise, px", "noise off edges, px")
    digits = (1, 1, 1, 0, 3, 3)

    def __init__(self, rows: Sequence[Row]) -> None:
        self.errors = np.array([row["error"] for row in rows], np.float64)
        self.inliers = np.array([row["inliers"] for row in rows], np.float64)
        self.noise = NoiseCounts.of_rows(rows)

    def metrics(self, drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        """``labels`` over the pairs at ``drawn``; NaN where there is no depth to judge positions by."""
        areas = area_under_curve(self.errors[drawn], list(AUC_DEG))
        noise = self.noise.metrics(drawn)
        last = (self.inliers[drawn].mean(), noise["noise_px"], noise["noise_corners_px"])
        return np.array([*(100.0 * area for area in areas), *last])


class PlaceMeasures:
    """What is compared of a method's revisits."""

    labels = (*(f"recall@{k}, %" for k in RANKS), "elsewhere, %")
    digits = (1,) * (len(RANKS) + 1)

    def __init__(self, rows: Sequence[Row]) -> None:
        found = [[*(row["rank"] <= k for k in RANKS), row["elsewhere"]] for row in rows]
        self.found = 100.0 * np.array(found, np.float64)

    def metrics(self, drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        """``labels`` over the revisits at ``drawn``."""
        return np.asarray(self.found[drawn].mean(axis=0))


def differences(
    new: PoseMeasures | PlaceMeasures, base: PoseMeasures | PlaceMeasures, count: int, resamples: int
) -> list[str]:
    """Of each number the difference, and its interval over pairs drawn for both together."""

    def difference(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        return new.metrics(drawn) - base.metrics(drawn)

    ends = bootstrap_intervals(difference, count, resamples=resamples)
    texts = []
    for value, (low, high), digits in zip(difference(np.arange(count)), ends, new.digits, strict=True):
        star = "*" if low > 0 or high < 0 else ""
        text = f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}){star}"
        texts.append("-" if np.isnan(value) else text)
    return texts


def read_rows(out: Path) -> tuple[str, dict[str, dict[tuple[str, str], Row]]]:
    """The kind of an evaluation, and its rows by method, then by set and pair.

    Raises:
        InputError: there are none, they are of another kind, or two methods would have one name.
    """
    evaluation = Evaluation.read(out / "results.json")
    if evaluation.kind not in ("posed-pairs", "places"):
        raise InputError(f"{out}: results of {evaluation.kind}, not of posed-pairs or places")
    rows: dict[str, dict[tuple[str, str], Row]] = {}
    for method in evaluation.methods:
        is_file = method.endswith(".safetensors") and evaluation.kind == "posed-pairs"
        short = Path(method).stem if is_file else method
        if short in rows:
            raise InputError(f"{out}: two methods are called '{short}'; give one of their files another name")
        found = rows[short] = {}
        for name, pair_set in evaluation.sets.items():
            if evaluation.kind == "places":
                part = evaluation.results[method][name].rows if name != TOGETHER else ()
            else:
                part = _stored(out, method, name, pair_set["pairs"])
            found |= {(name, row["name"]): row for row in part}
    return evaluation.kind, rows


def _stored(out: Path, method: str, name: str, count: int) -> list[Row]:
    """Rows with what results.json leaves out."""
    path = out / ROWS_FOLDER / file_name(method) / f"{file_name(name)}.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        raise InputError(f"{path}: cannot be read; the evaluation wrote it beside results.json") from None
    if len(lines) != count:
        raise InputError(f"{path}: {len(lines)} rows of {count} pairs; evaluate again")
    return [row_from_json(json.loads(line)) for line in lines]


if __name__ == "__main__":
    main()
