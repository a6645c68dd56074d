"""Inputs: RGB-D data sets, videos and image folders, all as sequences of frames."""

from __future__ import annotations

from semkey.datasets.calibration import CameraArgument, parse_camera
from semkey.datasets.opening import FORMATS, open_sequence
from semkey.datasets.sequence import BrokenFrame, EndOfSequence, Frame, FrameSequence, Sensor, SequenceFault

__all__ = [
    "FORMATS",
    "BrokenFrame",
    "CameraArgument",
    "EndOfSequence",
    "Frame",
    "FrameSequence",
    "Sensor",
    "SequenceFault",
    "open_sequence",
    "parse_camera",
]
