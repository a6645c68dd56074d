"""A report on training data: pairs of every source, drawn and measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from semkey.training.data.config import DataConfig, LightConfig
from semkey.training.data.opening import open_data
from semkey.training.data.pair import Pair
from semkey.training.data.photos import Progress, Split
from semkey.training.data.pictures import PairFigures, draw_pair, flicker_frames, measure_pair, overlay
from semkey.visualization.animation import animated_png
from semkey.visualization.html import Block, Paragraph, Picture, Section, Table, html_report

FLICKER_MS = 600

_EXPLANATIONS = {
    "photos": "A photo seen through two random homographies.",
    "shapes": "A drawn picture with exact corners and centres, which are its targets.",
    "rooms": "Two views of a rendered room, photos on its walls and furniture; correspondences from exact depth.",
    "clips": "The first and the last frame of a clip; correspondences by optical flow, which is right but for a pixel.",
    "posed": "Two posed photos; correspondences and targets are points of structure from motion, and nothing between.",
    "sequences": "Two frames of an RGB-D sequence; correspondences from depth and poses, so their errors show here.",
}


@dataclass(frozen=True, kw_only=True)
class ShownPair:
    """A pair of the report.

    Attributes:
        source: where it comes from.
        index: of the pair.
        pair: as training sees it.
        figures: measured on the same pair without photometric change.
        milliseconds: that making it took, of computing time.
    """

    source: str
    index: int
    pair: Pair
    figures: PairFigures
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class SourceSummary:
    """Means over the shown pairs of a source; the times are medians, in milliseconds."""

    source: str
    pairs: int
    agreement: float
    lowest_agreement: float
    seen: float
    targets: float
    milliseconds: float


def collect_pairs(
    config: DataConfig, *, split: Split, seed: int, count: int, progress: Progress | None = None
) -> list[ShownPair]:
    """The first ``count`` pairs of every source that has a share; arguments as of :func:`.open_data`."""
    lit = open_data(config, split=split, seed=seed, progress=progress)
    plain = open_data(replace(config, light=LightConfig.off()), split=split, seed=seed)
    shown: list[ShownPair] = []
    total = count * len(lit.sources)
    for name, source in lit.sources.items():
        for index in range(count):
            started = time.process_time()
            pair = source[index]
            spent = 1000.0 * (time.process_time() - started)
            # Photometric change is drawn last: without it the geometry of a pair is the same.
            figures = measure_pair({**plain.sources[name][index], "targets0": pair["targets0"]})
            shown.append(ShownPair(source=name, index=index, pair=pair, figures=figures, milliseconds=spent))
            if progress is not None:
                progress(len(shown), total, "making pairs")
    return shown


def summarise(shown: Sequence[ShownPair]) -> list[SourceSummary]:
    """One row per source, in the order of the pairs."""
    rows = []
    for name in dict.fromkeys(item.source for item in shown):
        items = [item for item in shown if item.source == name]
        agreements = [item.figures.agreement for item in items]
        rows.append(
            SourceSummary(
                source=name,
                pairs=len(items),
                agreement=float(np.mean(agreements)),
                lowest_agreement=float(np.min(agreements)),
                seen=float(np.mean([item.figures.seen for item in items])),
                targets=float(np.mean([item.figures.targets for item in items])),
                milliseconds=float(np.median([item.milliseconds for item in items])),
            )
        )
    return rows


def data_report(shown: Sequence[ShownPair], config: DataConfig, *, title: str, subtitle: str) -> str:
    """The report as one self-contained HTML page."""
    rows = [
        [row.source, row.pairs, row.agreement, row.lowest_agreement, row.seen, row.targets, row.milliseconds]
        for row in summarise(shown)
    ]
    header = ["source", "pairs", "agreement", "lowest", "seen in both", "targets", "ms per pair"]
    summary: list[Block] = [
        Table(header=header, rows=rows),
        Paragraph(
            "Agreement is the correlation of the two views where both see the same place, before photometric change: "
            "1 if they agree exactly. It falls a little where one view is coarser than the other, and clearly where "
            "correspondences are wrong."
        ),
        Paragraph(
            "For each pair: corresponding points (a few of them) joined by lines, detection targets as yellow circles; "
            "then view 0 taking turns with view 1 brought into view 0, where nothing may move; then both at once, view "
            "0 red and view 1 cyan, where colour fringes along edges mean that correspondences are off."
        ),
    ]
    sections = [Section("Sources", summary)]
    for name in dict.fromkeys(item.source for item in shown):
        blocks: list[Block] = [Paragraph(_EXPLANATIONS[name])]
        for item in (item for item in shown if item.source == name):
            blocks += _pair_blocks(item)
        sections.append(Section(name.capitalize(), blocks))
    size = f"{config.width}x{config.height}"
    return html_report(title, sections, subtitle=subtitle, footer=f"Views of {size} pixels, {config.points} points.")


def pair_pictures(item: ShownPair) -> dict[str, bytes]:
    """PNG files of a pair by what they show: ``points``, ``flicker``, ``overlay``."""
    return {
        "points": _png(draw_pair(item.pair)),
        "flicker": animated_png(flicker_frames(item.pair), FLICKER_MS),
        "overlay": _png(overlay(item.pair)),
    }


def _pair_blocks(item: ShownPair) -> list[Block]:
    figures, flicker = item.figures, animated_png(flicker_frames(item.pair), FLICKER_MS)
    about = f"Pair {item.index}: agreement {figures.agreement:.3f}, {100 * figures.seen:.0f} % seen in both"
    return [
        Picture(_jpeg(draw_pair(item.pair)), f"{about}, {figures.targets} targets"),
        Picture(flicker, f"Pair {item.index}: view 0 and view 1 brought into view 0, in turn"),
        Picture(_jpeg(overlay(item.pair)), f"Pair {item.index}: view 0 red, view 1 cyan"),
    ]


def _png(picture: np.ndarray) -> bytes:
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def _jpeg(picture: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return encoded.tobytes()
