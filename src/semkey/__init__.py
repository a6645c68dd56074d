"""semkey: semantic keypoints for visual SLAM.

    import semkey
    detector = semkey.load("nano")                     # compact, orb, sift, aliked-n16, xfeat, a checkpoint, ...
    features0, features1 = detector.extract("a.jpg"), detector.extract("b.jpg")
    matches = semkey.match(features0, features1)
    semkey.draw_matches("a.jpg", "b.jpg", features0, features1, matches).save("matches.png")
    result = semkey.run_slam("rgbd_dataset_freiburg3_cabinet", detector, out="run")

Everything here is imported on first use, so ``import semkey`` and ``semkey --help`` are quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semkey.errors import CheckpointError as CheckpointError
from semkey.errors import ConfigError as ConfigError
from semkey.errors import DatasetError as DatasetError
from semkey.errors import InputError as InputError
from semkey.errors import SemkeyError as SemkeyError
from semkey.lazy import lazy_exports

if TYPE_CHECKING:
    from semkey.datasets import Frame as Frame
    from semkey.datasets import FrameSequence as FrameSequence
    from semkey.datasets import open_sequence as open_sequence
    from semkey.extractors import Detector as Detector
    from semkey.extractors import load as load
    from semkey.geometry.camera import PinholeCamera as PinholeCamera
    from semkey.geometry.trajectories import Trajectory as Trajectory
    from semkey.matching import Matches as Matches
    from semkey.matching import RefinedMatches as RefinedMatches
    from semkey.matching import match as match
    from semkey.matching import refine as refine
    from semkey.model.features import Features as Features
    from semkey.slam import Slam as Slam
    from semkey.slam import SlamConfig as SlamConfig
    from semkey.slam import SlamResult as SlamResult
    from semkey.slam import TrackedFrame as TrackedFrame
    from semkey.slam import run_slam as run_slam
    from semkey.visualization import Picture as Picture
    from semkey.visualization import draw_keypoints as draw_keypoints
    from semkey.visualization import draw_matches as draw_matches

__version__ = "0.1.0"

if not TYPE_CHECKING:  # a type checker takes __getattr__ for a promise that every name exists
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
