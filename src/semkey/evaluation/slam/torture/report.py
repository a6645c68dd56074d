"""``torture.json``, ``report.html`` and the table of ``semkey eval slam --torture``."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semkey import __version__
from semkey.evaluation.slam.torture.judging import WRONG_DEG, WRONG_M, WRONG_REAL_M
from semkey.evaluation.slam.torture.run import CaseResult
from semkey.files import atomic_write_text
from semkey.visualization.html import Cell, KeyFigures, Paragraph, Picture, Section, Table, html_report
from semkey.visualization.palette import LOST

RESULTS_FILE = "torture.json"
REPORT_FILE = "report.html"
HEADER = ("case", "features", "frames", "tracked", "wrong", "worst, m", "lost", "maps", "right would be")

_COLOURS = {"ok": "#3a9d5d", "wrong": "#111111", "lost": LOST, "none": "#d9dee3"}
_SUMS = ("cases", "wrong_cases", "frames", "tracked", "wrong", "lost")
_LEGEND = "green: right, black: wrong, red: lost, grey: nothing to see"
_HELP = (
    f"Wrong are poses more than {100 * WRONG_M:g} cm ({100 * WRONG_REAL_M:g} cm in recordings, with measured truth) "
    f"or {WRONG_DEG:g} degrees from where the camera was, each map aligned with the truth by itself through frames "
    "without a fault. Lost are frames without a pose that could have had one: those of the fault itself "
    "may be lost, and so may those before a single camera has moved by 5 cm. A system that knows when it is lost has "
    "no wrong frame in any row."
)


def table_rows(results: Sequence[CaseResult]) -> list[list[str]]:
    """A row per case and features, for :data:`HEADER`, and one of sums per features where there are several cases."""
    rows = []
    for result in results:
        verdict = result.verdict
        worst = "other room" if np.isinf(verdict.worst_m) else f"{verdict.worst_m:.3f}" if verdict.tracked else "-"
        rows.append(
            [
                result.case,
                result.features,
                str(len(verdict.states)),
                str(verdict.tracked),
                str(verdict.count("wrong")),
                worst,
                str(verdict.count("lost")),
                str(result.submaps),
                result.right,
            ]
        )
    for name, sums in summary(results).items():
        if sums["cases"] > 1:
            keys = ("frames", "tracked", "wrong")
            rows.append(["all", name, *(str(sums[key]) for key in keys), "", str(sums["lost"]), "", ""])
    return rows


def summary(results: Sequence[CaseResult]) -> dict[str, dict[str, int]]:
    """Sums over all cases by features: cases, cases with wrong poses, frames, tracked, wrong, lost though trackable."""
    sums: dict[str, dict[str, int]] = {}
    for result in results:
        of = sums.setdefault(
            result.features, dict.fromkeys(("cases", "wrong_cases", "frames", "tracked", "wrong", "lost"), 0)
        )
        of["cases"] += 1
        of["wrong_cases"] += result.verdict.count("wrong") > 0
        of["frames"] += len(result.verdict.states)
        of["tracked"] += result.verdict.tracked
        of["wrong"] += result.verdict.count("wrong")
        of["lost"] += result.verdict.count("lost")
    return sums


def write_torture(results: Sequence[CaseResult], out: Path, *, environment: Mapping[str, Any]) -> None:
    """Write both files into a folder that exists, atomically.

    Raises:
        InputError: they cannot be written.
    """
    content = {
        "kind": "slam-torture",
        "environment": dict(environment),
        "summary": summary(results),
        "results": [result.to_json() for result in results],
    }
    atomic_write_text(out / RESULTS_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
    sums = summary(results)
    figures = {f"{name}: wrong": str(of["wrong"]) for name, of in sums.items()}
    figures |= {f"{name}: lost": str(of["lost"]) for name, of in sums.items()}
    remarks = [[result.case, result.features, remark] for result in results for remark in result.remarks[:3]]
    numbered = [[_number(cell) for cell in row] for row in table_rows(results)]
    sections = [
        Section("Verdicts", [KeyFigures(figures), Paragraph(_HELP), Table(HEADER, numbered)]),
        Section("Frame by frame", [Picture(strips(results), _LEGEND)]),
    ]
    if remarks:
        sections.append(Section("What was said", [Table(("case", "features", "remark"), remarks)]))
    page = html_report(
        "SLAM under faults", sections, subtitle="semkey eval slam --torture", footer=f"semkey {__version__}"
    )
    atomic_write_text(out / REPORT_FILE, page)


def _number(cell: str) -> str | Cell:
    """A cell as the page aligns it; what is not known is in columns of numbers."""
    return Cell(cell) if cell in ("", "-") or cell.replace(".", "", 1).isdecimal() else cell


def strips(results: Sequence[CaseResult]) -> bytes:
    """A PNG with one strip per run, a cell per frame."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    names = list(_COLOURS)
    longest = max(len(result.verdict.states) for result in results)
    cells = np.full((len(results), longest), np.nan)
    for row, result in enumerate(results):
        cells[row, : len(result.verdict.states)] = [names.index(state) for state in result.verdict.states]
    figure = Figure(figsize=(10.8, 0.6 + 0.22 * len(results)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(
        cells,
        aspect="auto",
        cmap=ListedColormap(list(_COLOURS.values())),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        interpolation="nearest",
    )
    axes.set_yticks(range(len(results)), [f"{result.case}, {result.features}" for result in results], fontsize=8)
    axes.set_xlabel("frame", fontsize=9)
    axes.hlines(np.arange(0.5, len(results) - 1), -0.5, longest - 0.5, color="white", linewidth=2)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
