"""Training data: pairs of views with exact correspondences from photos, drawn shapes, rendered rooms and RGB-D."""

from semkey.training.data.config import (
    DataConfig,
    LightConfig,
    RoomsConfig,
    SequencesConfig,
    SharesConfig,
    TeacherConfig,
    ViewConfig,
)
from semkey.training.data.depthless_config import ClipsConfig, PosedConfig
from semkey.training.data.mixture import Counter, PairMixture, tune_worker
from semkey.training.data.opening import cache_folder, open_data
from semkey.training.data.pair import MAX_TARGETS, Pair, PairSource

__all__ = [
    "MAX_TARGETS",
    "ClipsConfig",
    "Counter",
    "DataConfig",
    "LightConfig",
    "Pair",
    "PairMixture",
    "PairSource",
    "PosedConfig",
    "RoomsConfig",
    "SequencesConfig",
    "SharesConfig",
    "TeacherConfig",
    "ViewConfig",
    "cache_folder",
    "open_data",
    "tune_worker",
]
