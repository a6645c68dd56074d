"""Matched keypoints to a fraction of a pixel: what the two images around them have in common decides."""

from semkey.matching.alignment.lucas_kanade import AlignmentConfig
from semkey.matching.alignment.refined import RefinedMatches, refine

__all__ = ["AlignmentConfig", "RefinedMatches", "refine"]
