"""One comparison of any methods, from the results of benchmarks/features.sh.

    python benchmarks/compare.py OUT [OUT...] [--methods NAME,NAME]    all tables; later folders add methods
    python benchmarks/compare.py OUT [OUT...] --decide NEW OLD         where NEW is better, equal or worse than OLD

A value of NEW is worse where it lies beyond the 95 % interval of OLD's on the wrong side, better where it does on the
right side; without an interval (shift, negatives) any difference counts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from semkey.errors import SemkeyError
from semkey.evaluation.report.tables import format_value, mark_best
from semkey.evaluation.running.results import Evaluation, Metric

POSE = ("auc@5", "auc@10", "auc@20")
NOISE = ("noise_px", "noise_p90_px", "noise_along_px", "noise_across_px", "noise_corners_px", "on_edges")
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Planar pairs": (("planar",), ("auc_poselib@3", "auc_poselib@5", "auc_poselib@10", "localisation_error")),
    "Relative pose": (("redkitchen", "cabinet", "icl", "rooms"), POSE),
    "Posed photos": (("photos",), (*POSE, "epipolar@3", "epipolar_px")),
    "Position noise": (("icl", "rooms", "noise", "cabinet"), NOISE),
    "Shifted photos": (("shift",), ("median_px", "within", "worst_median_px", "worst_within", "cosine")),
    "Images of nothing": (("negatives",), ("keypoints", "most", "strong", "highest_score", "on_photos")),
    "Reliability": (
        ("reliability", "reliability-kitchen"),
        ("auroc_score", "auroc_reliability", "auroc_product", "auroc_match_reliability", "ece", "ece_match"),
    ),
}
"""Heading to the folders and the metrics of a table."""

CONSECUTIVE = ("-gap-1",)
"""Position noise is that of frames that follow each other."""

Found = dict[str, dict[str, tuple[Evaluation, str]]]
"""By folder and method: the evaluation that has the method, and the method's name there."""


def main() -> None:
    """Read the arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outs", metavar="OUT", nargs="+", type=Path)
    parser.add_argument("--methods", help="only these, between commas")
    parser.add_argument("--decide", nargs=2, metavar=("NEW", "OLD"))
    args = parser.parse_args()
    try:
        found = read(args.outs)
        wanted = args.methods.split(",") if args.methods else None
        if args.decide:
            decide(found, *args.decide)
        else:
            for heading, (folders, metrics) in TABLES.items():
                print_table(heading, found, folders, metrics, wanted)
    except SemkeyError as error:
        raise SystemExit(f"error: {error}") from None


def read(outs: Sequence[Path]) -> Found:
    """The results of all folders; of a method that several of them have, the last one counts."""
    found: Found = {}
    for folder in (folder for folders, _ in TABLES.values() for folder in folders):
        for out in outs:
            path = out / folder / "results.json"
            if path.is_file():
                evaluation = Evaluation.read(path)
                found.setdefault(folder, {}).update({method: (evaluation, method) for method in evaluation.methods})
    if not found:
        raise SystemExit(f"error: no results in {', '.join(map(str, outs))}; run benchmarks/features.sh first")
    return found


def values(
    found: Found, folder: str, method: str, set_name: str, metric: str
) -> tuple[float | None, tuple[float, float] | None]:
    """A metric with its interval; None where it was not measured."""
    evaluation, _ = found[folder].get(method, (None, ""))
    result = None if evaluation is None else evaluation.results[method].get(set_name)
    if result is None:
        return None, None
    value = result.metrics.get(metric)
    return (None if value is None or math.isnan(value) else value), result.intervals.get(metric)


def sets_of(found: Found, folder: str, heading: str) -> list[str]:
    """The sets of a folder in the order of its first evaluation."""
    names = list(dict.fromkeys(name for evaluation, _ in found[folder].values() for name in evaluation.sets))
    return [name for name in names if heading != "Position noise" or name.endswith(CONSECUTIVE)]


def print_table(
    heading: str, found: Found, folders: Sequence[str], metrics: Sequence[str], wanted: Sequence[str] | None
) -> None:
    """A Markdown table per set: methods in rows, metrics in columns, the best in bold."""
    for folder in (folder for folder in folders if folder in found):
        for set_name in sets_of(found, folder, heading):
            methods = [name for name in found[folder] if wanted is None or name in wanted]
            known = {metric.name: metric for evaluation, _ in found[folder].values() for metric in evaluation.metrics}
            shown = [known[name] for name in metrics if name in known]
            columns = [_column(found, folder, set_name, metric, methods) for metric in shown]
            filled = [any(text != "-" for text in column) for column in columns]
            if not any(filled):
                continue
            shown = [metric for metric, has_values in zip(shown, filled, strict=True) if has_values]
            columns = [column for column, has_values in zip(columns, filled, strict=True) if has_values]
            counts = {evaluation.sets[set_name]["pairs"] for evaluation, _ in found[folder].values()}
            print(f"\n{heading}: {folder}, {set_name} ({'/'.join(map(str, sorted(counts)))})\n")
            print("| method | " + " | ".join(metric.label for metric in shown) + " |")
            print("|" + "---|" * (1 + len(shown)))
            for index, method in enumerate(methods):
                print(f"| {Path(method).stem} | " + " | ".join(column[index] for column in columns) + " |")


def _column(found: Found, folder: str, set_name: str, metric: Metric, methods: Sequence[str]) -> list[str]:
    numbers = [values(found, folder, method, set_name, metric.name)[0] for method in methods]
    marks = mark_best(metric, numbers)
    texts = [format_value(metric, number) for number in numbers]
    return [f"**{text}**" if mark == "best" else text for text, mark in zip(texts, marks, strict=True)]


def decide(found: Found, new: str, old: str) -> None:
    """Every number of two methods with a verdict, and how many there are of each."""
    methods = dict.fromkeys(method for rows in found.values() for method in rows)
    for name in (new, old):
        if name not in methods:
            raise SystemExit(f"error: '{name}' was not measured here; there are {', '.join(methods)}")
    verdicts = {"better": 0, "equal": 0, "worse": 0}
    for heading, (folders, metrics) in TABLES.items():
        for folder in (folder for folder in folders if folder in found):
            known = {metric.name: metric for evaluation, _ in found[folder].values() for metric in evaluation.metrics}
            for set_name in sets_of(found, folder, heading):
                runs = [found[folder][method][0] for method in (old, new) if method in found[folder]]
                measured = [evaluation.sets.get(set_name) for evaluation in runs]
                if len(measured) == 2 and measured[0] != measured[1]:
                    raise SystemExit(f"error: {folder}/{set_name}: {new} and {old} were measured on different pairs")
                for metric in (known[name] for name in metrics if name in known):
                    before, interval = values(found, folder, old, set_name, metric.name)
                    after, _ = values(found, folder, new, set_name, metric.name)
                    if before is None or after is None or metric.higher_is_better is None:
                        continue
                    verdict = _verdict(metric, after, before, interval)
                    verdicts[verdict] += 1
                    texts = format_value(metric, before), format_value(metric, after)
                    print(f"{verdict:7} {folder}/{set_name}, {metric.label}: {texts[0]} -> {texts[1]}")
    print(f"\n{new} against {old}: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))


def _verdict(metric: Metric, after: float, before: float, interval: tuple[float, float] | None) -> str:
    low, high = interval or (before, before)
    if low <= after <= high:
        return "equal"
    return "better" if (after > high) == metric.higher_is_better else "worse"


if __name__ == "__main__":
    main()
