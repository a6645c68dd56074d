"""``report.html`` of a training run: losses, validation per stage, agreement of gradients, matches, calibration."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from semkey import __version__
from semkey.files import atomic_write_text
from semkey.training.config import TrainConfig
from semkey.training.history import History, Row
from semkey.training.validation import SampleMatches, Validation
from semkey.visualization.draw import draw_matches
from semkey.visualization.html import Block, Code, Folded, KeyFigures, Paragraph, Picture, Section, Table, html_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, distinct with every common form of colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DPI = 110
_WIDTH = 9.4
_JPEG_QUALITY = 85

_FIGURES = {
    "descriptor_accuracy": "descriptor accuracy",
    "matching_score": "matching score",
    "precision": "precision of matches",
    "matches": "right matches per pair",
    "repeatability": "repeatability at 3 px",
    "error_px": "mean error of right matches, px",
    "reliability_auroc": "AUROC of reliability",
    "reliability_ece": "calibration error (ECE)",
}
_SHARES = ("descriptor_accuracy", "matching_score", "precision", "repeatability", "reliability_auroc")


def write_report(path: Path, config: TrainConfig, history: History, validations: Mapping[str, Validation]) -> None:
    """Write the report, atomically; one file that needs nothing else.

    Args:
        path: of the file.
        config: of the run.
        history: what was logged.
        validations: the last validation of each stage that this process trained, for matches to draw.
    """
    found = (_losses(history), _validation(history), _cosines(history), _calibration(history))
    sections = [_summary(config, history), *(section for section in found if section is not None)]
    samples = [sample for validation in list(validations.values())[-1:] for sample in validation.samples]
    if samples:
        pictures = [_sample_picture(sample, index) for index, sample in enumerate(samples)]
        sections.append(Section("Matches on validation pairs", pictures))
    sections.append(
        Section("Configuration", [Folded("every setting", [Code(json.dumps(config.to_mapping(), indent=2))])])
    )
    page = html_report(
        f"Training of {config.name}",
        sections,
        subtitle=f"stages: {', '.join(history.stages) or 'none'}",
        footer=f"semkey {__version__}, torch {torch.__version__}",
    )
    atomic_write_text(path, page)


def _summary(config: TrainConfig, history: History) -> Section:
    train = history.of("train")
    seconds = sum(row["seconds"] for row in train)
    waiting = sum(row["seconds"] * row["waiting"] for row in train) / seconds if seconds else 0.0
    pairs = sum(row["steps"] for row in train) * config.optimizer.batch_pairs
    not_finite = sum(_last(history.of("train", stage), "not_finite") or 0 for stage in history.stages)
    figures = {
        "Pairs": f"{pairs:,}",
        "Training time": _duration(seconds),
        "Pairs per second": f"{pairs / seconds:.1f}" if seconds else "-",
        "Waiting for data": f"{100 * waiting:.0f} %",
        "Steps not finite": str(not_finite),
    }
    blocks: list[Block] = [KeyFigures(figures)]
    rows: list[list[Any]] = []
    for stage in history.stages:
        found = history.of("validation", stage)
        if found:
            rows.append([stage, *(found[-1]["figures"].get(name) for name in _FIGURES)])
    if rows:
        caption = f"Moving average of the weights at the end of each stage, on {config.validation.pairs} held-out pairs"
        blocks.append(Table(["stage", *_FIGURES.values()], rows, caption=caption))
    return Section("Summary", blocks)


def _losses(history: History) -> Section | None:
    blocks: list[Block] = []
    for stage in history.stages:
        rows = history.of("train", stage)
        names = list(dict.fromkeys(name for row in rows for name in row["losses"]))
        if not names:
            continue
        columns = min(3, len(names))
        figure, panels = _panels(len(names), columns, 1.9)
        for name, axes in zip(names, panels, strict=True):
            points = [(row["pairs"], row["losses"][name]) for row in rows if row["losses"].get(name) is not None]
            _line(axes, points, _COLOURS[0], name)
        blocks.append(Picture(_png(figure), f"stage {stage}: each loss, not weighted, over pairs seen"))
    return Section("Losses", blocks) if blocks else None


def _validation(history: History) -> Section | None:
    rows = history.of("validation")
    names = [name for name in _FIGURES if any(row["figures"].get(name) is not None for row in rows)]
    if not names:
        return None
    figure, panels = _panels(len(names), 3, 1.9)
    for name, axes in zip(names, panels, strict=True):
        start = 0.0
        for index, stage in enumerate(history.stages):
            own = history.of("validation", stage)
            points = [
                (start + row["step"], row["figures"][name]) for row in own if row["figures"].get(name) is not None
            ]
            _line(axes, points, _COLOURS[index], _FIGURES[name], marker="o", label=stage)
            start += max((row["step"] for row in history.rows if row["stage"] == stage), default=0)
        if name in _SHARES:
            axes.set_ylim(0, 1)
    panels[0].legend(fontsize=7)
    return Section("Validation", [Picture(_png(figure), "On held-out pairs over steps; a colour per stage")])


def _cosines(history: History) -> Section | None:
    stages = [stage for stage in history.stages if history.of("cosines", stage)]
    if not stages:
        return None
    text = (
        "Cosine between the gradients of every two losses over the weights that both train, mean over the stage. Below"
        " 0 two losses pull against each other; empty where they share no weights, so that they cannot."
    )
    figure, panels = _panels(len(stages), min(2, len(stages)), 3.4)
    for stage, axes in zip(stages, panels, strict=True):
        names, matrix = _mean_matrix(history.of("cosines", stage))
        axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu")
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_title(stage, fontsize=9)
        for i, j in np.ndindex(matrix.shape):
            if np.isfinite(matrix[i, j]):
                colour = "white" if abs(matrix[i, j]) > 0.6 else "black"
                axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    return Section("Do the losses fight?", [Paragraph(text), Picture(_png(figure), "Pairwise gradient cosines")])


def _mean_matrix(rows: list[Row]) -> tuple[list[str], np.ndarray]:
    """Mean cosine of every two losses over the measurements that have both; NaN where none has."""
    names = list(dict.fromkeys(name for row in rows for name in row["names"]))
    total, count = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    for row in rows:
        places = np.ix_(*[[names.index(name) for name in row["names"]]] * 2)
        values = np.array(row["matrix"], dtype=np.float64)
        total[places] += np.nan_to_num(values)
        count[places] += np.isfinite(values)
    return names, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _calibration(history: History) -> Section | None:
    rows = [row for row in history.of("validation") if row.get("calibration")]
    if not rows:
        return None
    figure, panels = _panels(1, 1, 3.4, width=4.6)
    axes = panels[0]
    axes.plot([0, 1], [0, 1], color="#9aa5b1", linewidth=1)
    stages = dict.fromkeys(row["stage"] for row in rows)
    for index, stage in enumerate(stages):
        last = [row for row in rows if row["stage"] == stage][-1]
        bins = [row for row in last["calibration"] if row[0] is not None and row[1] is not None]
        points = [(predicted, observed) for predicted, observed, _ in bins]
        _line(axes, points, _COLOURS[index], "", marker="o", label=stage)
    axes.set_xlabel("predicted probability that the match is right", fontsize=8)
    axes.set_ylabel("share of right matches", fontsize=8)
    axes.legend(fontsize=7)
    return Section(
        "Reliability", [Picture(_png(figure), "Calibration at the end of each stage; ideal is the diagonal")]
    )


def _sample_picture(sample: SampleMatches, index: int) -> Picture:
    count, right = len(sample.matches), int(sample.right.sum())
    caption = f"{count} mutual matches, {right} within 3 px of the truth (green)"
    drawn = draw_matches(
        sample.images[0],
        sample.images[1],
        sample.features[0],
        sample.features[1],
        sample.matches,
        sample.right,
        caption=caption,
    )
    _, code = cv2.imencode(
        ".jpg", cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    return Picture(code.tobytes(), f"Validation pair {index}: {caption}")


def _panels(count: int, columns: int, height: float, width: float = _WIDTH) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for unused in grid[count:]:
        unused.set_axis_off()
    return figure, list(grid[:count])


def _line(
    axes: Axes, points: list[tuple[float, float]], colour: str, title: str, *, marker: str = "", label: str = ""
) -> None:
    x, y = ([point[i] for point in points] for i in range(2))
    axes.plot(x, y, color=colour, marker=marker or None, markersize=3, linewidth=1.3, label=label or None)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _last(rows: list[Row], name: str) -> Any:
    return rows[-1].get(name) if rows else None


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{seconds / 60:.1f} min"
