"""LightGlue: released weights for two peers, and own ones for semkey's features."""

from semkey.matching.lightglue.matcher import LightGlueMatcher

__all__ = ["LightGlueMatcher"]
