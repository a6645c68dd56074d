"""Inputs: RGB-D, stereo and single-camera data sets, videos and image folders, all as sequences of frames."""

from __future__ import annotations

from semkey.datasets.cameras.calibration import CameraArgument, parse_camera
from semkey.datasets.cameras.formats.reading import read_calibration
from semkey.datasets.cameras.lens import Calibration, Lens
from semkey.datasets.opening import FORMATS, open_sequence
from semkey.datasets.sequence import BrokenFrame, EndOfSequence, Frame, FrameSequence, ImuSamples, Sensor, SequenceFault

__all__ = [
    "FORMATS",
    "BrokenFrame",
    "Calibration",
    "CameraArgument",
    "EndOfSequence",
    "Frame",
    "FrameSequence",
    "ImuSamples",
    "Lens",
    "Sensor",
    "SequenceFault",
    "open_sequence",
    "parse_camera",
    "read_calibration",
]
