"""Feature extractors behind one interface: semkey's own, and those they are compared with."""

from semkey.extractors.classical import ClassicalExtractor, OrbExtractor, RootSiftExtractor
from semkey.extractors.registry import Extractor, create_extractor, extractor_names

__all__ = [
    "ClassicalExtractor",
    "Extractor",
    "OrbExtractor",
    "RootSiftExtractor",
    "create_extractor",
    "extractor_names",
]
