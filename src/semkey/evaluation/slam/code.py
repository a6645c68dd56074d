"""Which code decides what a run of ``semkey eval slam`` finds out, as a hash: rows are kept until that changes."""

from __future__ import annotations

from semkey.evaluation.running.code import code_hash
from semkey.evaluation.running.methods import NETWORK_SOURCES
from semkey.evaluation.slam.methods import SlamMethod

OUTPUT_ONLY = ("slam/output", "slam/tracking/localize.py")
"""Folders and files that a run of the evaluation does not use: they save and show, or place single photos."""

_MEASURING = ("datasets", "geometry", "metrics", "settings.py")
_MEASURING += (
    "evaluation/running/memory.py",
    "evaluation/running/question.py",
    "evaluation/slam/child.py",
    "evaluation/slam/map_measures.py",
    "evaluation/slam/measures.py",
    "evaluation/slam/uncertainty.py",
)
_OPENCV = ("evaluation/slam/cv2_odometry.py",)
_BACK_END = ("matching", "slam")


def code_of(method: SlamMethod) -> str:
    """A hash (hex) of the code that a method's rows depend on; that of extraction is in its fingerprint."""
    return code_hash((*_MEASURING, *(_OPENCV if method.is_opencv else _BACK_END)), left_out=OUTPUT_ONLY)


def code_now() -> str:
    """A hash (hex) of all code that any run of the evaluation executes, as it lies on the disk now."""
    return code_hash((*_MEASURING, *_OPENCV, *_BACK_END, *NETWORK_SOURCES), left_out=OUTPUT_ONLY)
