"""Training of LightGlue on any features: cached pairs, deep supervision, resumable."""

from semkey.training.matcher.config import MatcherTrainConfig
from semkey.training.matcher.fit import fit_matcher

__all__ = ["MatcherTrainConfig", "fit_matcher"]
