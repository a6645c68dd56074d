"""Training of LightGlue on any features: cached pairs, deep supervision, resumable."""

from semkey.training.matcher.config import MatcherTrainConfig
from semkey.training.matcher.fit import MatcherEvents, fit_matcher

__all__ = ["MatcherEvents", "MatcherTrainConfig", "fit_matcher"]
