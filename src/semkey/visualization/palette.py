"""Colours that mean the same in every picture: ground truth, estimate, what is lost."""

from __future__ import annotations

TRUTH = "#8a94a0"
"""Ground truth: grey, seen on white pages and in dark viewers."""
TRUTH_WIDTH, TRUTH_ALPHA = 5.0, 0.55
"""Below an estimate that lies on it, ground truth is seen as a broad band."""
ESTIMATE, LIVE, LOST = "#2563eb", "#e69f00", "#dc2626"
START, END, LOOP = "#16a34a", "#111827", "#cc79a7"


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of ``#rrggbb``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
