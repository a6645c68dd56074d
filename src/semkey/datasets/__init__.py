"""Inputs: RGB-D data sets, videos and image folders, all as sequences of frames."""

from __future__ import annotations

from semkey.datasets.calibration import CameraArgument, parse_camera
from semkey.datasets.opening import FORMATS, open_sequence
from semkey.datasets.sequence import Frame, FrameSequence

__all__ = ["FORMATS", "CameraArgument", "Frame", "FrameSequence", "open_sequence", "parse_camera"]
