"""semkey: semantic keypoints for visual SLAM.

    import semkey
    detector = semkey.load("compact", max_keypoints=1024)
    features0, features1 = detector.extract("a.jpg"), detector.extract("b.jpg")
    matches = semkey.match(features0, features1)

Everything here is imported on first use, so ``import semkey`` and ``semkey --help`` are quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semkey.errors import CheckpointError, ConfigError, DatasetError, InputError, SemkeyError
from semkey.lazy import lazy_names

if TYPE_CHECKING:
    from semkey.matching.mutual import Matches, match
    from semkey.model.features import Features
    from semkey.model.presets import load
    from semkey.model.semantic_detector import SemanticKeypointDetector

__version__ = "0.1.0"

_LAZY = {
    "Features": "semkey.model.features",
    "Matches": "semkey.matching.mutual",
    "SemanticKeypointDetector": "semkey.model.semantic_detector",
    "load": "semkey.model.presets",
    "match": "semkey.matching.mutual",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "Features",
    "InputError",
    "Matches",
    "SemanticKeypointDetector",
    "SemkeyError",
    "__version__",
    "load",
    "match",
]

__getattr__ = lazy_names(__name__, _LAZY)
