"""Feature extractors behind one interface: semkey's own and the classical ones they are compared with."""

from semkey.extractors.classical import ClassicalExtractor, OrbExtractor, RootSiftExtractor
from semkey.extractors.registry import Extractor, create_extractor

__all__ = ["ClassicalExtractor", "Extractor", "OrbExtractor", "RootSiftExtractor", "create_extractor"]
