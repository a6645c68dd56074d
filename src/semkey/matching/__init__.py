"""Matching features between images, and robust geometry from the matches."""

from semkey.matching.alignment import AlignmentConfig, RefinedMatches, refine
from semkey.matching.guided import match_guided
from semkey.matching.matchers import PairMatcher, create_matcher
from semkey.matching.mutual import Matches
from semkey.matching.pairs import match

__all__ = [
    "AlignmentConfig",
    "Matches",
    "PairMatcher",
    "RefinedMatches",
    "create_matcher",
    "match",
    "match_guided",
    "refine",
]
