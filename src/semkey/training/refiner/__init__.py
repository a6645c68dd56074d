"""Training of the learned refinement of matches, for any features: cached patches, resumable."""

from semkey.training.refiner.config import RefinerTrainConfig
from semkey.training.refiner.fit import fit_refiner

__all__ = ["RefinerTrainConfig", "fit_refiner"]
