"""Matching features between images, and robust geometry from the matches."""

from semkey.matching.guided import match_guided
from semkey.matching.mutual import Matches, match

__all__ = ["Matches", "match", "match_guided"]
