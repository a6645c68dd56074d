"""Features for ``semkey eval slam`` from a cache, since every run of a method on a sequence extracts the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semkey.evaluation.running.feature_cache import FeatureCache
from semkey.evaluation.running.methods import Method
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike, load_pixels


class CachedExtractor:
    """An extractor whose features are kept on disk.

    Args:
        method: extracts.
        folder: where features are kept.
        read: whether features that are there are taken; without, everything is extracted, and kept for later runs.

    Attributes:
        name: the method's.
        settings: of its extractor.
    """

    def __init__(self, method: Method, folder: Path, *, read: bool) -> None:
        self.name = method.extractor.name
        self.settings: dict[str, Any] = dict(getattr(method.extractor, "settings", {}))
        self._method = method
        # Nothing is held in memory: no frame of a run comes twice, and memory is measured.
        self._cache = FeatureCache(folder, images_in_memory=0, read=read)

    @property
    def hits(self) -> int:
        """Images whose features were there."""
        return self._cache.hits

    def extract(self, image: ImageLike) -> Features:
        """Features of one image.

        Raises:
            InputError: see :meth:`semkey.evaluation.running.feature_cache.FeatureCache.features`.
        """
        pixels = load_pixels(image)
        if not isinstance(pixels, np.ndarray):  # a tensor, which no data set gives
            return self._method.extractor.extract(pixels)
        return self._cache.features(self._method, pixels)
