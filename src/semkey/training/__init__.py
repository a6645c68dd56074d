"""Training: ``fit(config, out)`` from pairs of views to weights that :func:`semkey.load` reads."""

from semkey.training.config import TrainConfig
from semkey.training.fit import FitResult, TrainingEvents, TrainingInterrupted, fit

__all__ = ["FitResult", "TrainConfig", "TrainingEvents", "TrainingInterrupted", "fit"]
