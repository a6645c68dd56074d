"""Detectors behind one interface: semkey's own, and those they are compared with."""

from semkey.extractors.classical import ClassicalExtractor, OrbExtractor, RootSiftExtractor
from semkey.extractors.detector import Detector, Extractor
from semkey.extractors.points import DescribingExtractor, extract_and_describe
from semkey.extractors.registry import as_detector, create_extractor, create_stored_extractor, extractor_names, load

__all__ = [
    "ClassicalExtractor",
    "DescribingExtractor",
    "Detector",
    "Extractor",
    "OrbExtractor",
    "RootSiftExtractor",
    "as_detector",
    "create_extractor",
    "create_stored_extractor",
    "extract_and_describe",
    "extractor_names",
    "load",
]
