"""Extractors from outside semkey: ``module:function``, or an entry point of an installed package."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn

from semkey.errors import ConfigError
from semkey.extractors.detector import Detector, MaskLike
from semkey.extractors.points import extract_masked
from semkey.images import read_image
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike

ENTRY_POINT_GROUP = "semkey.extractors"


def entry_point_names() -> list[str]:
    """Names that installed packages registered under ``semkey.extractors``."""
    return sorted({point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)})


def create_from_entry_point(name: str, *, max_keypoints: int, device: str) -> PluginExtractor | None:
    """The extractor that an installed package registered under ``name``; None where there is none.

    Raises:
        ConfigError: several packages registered the name, or as :func:`create_from_function`.
    """
    points = list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name))
    if not points:
        return None
    packages = [point.dist.name if point.dist else point.value for point in points]
    if len(points) > 1:
        raise ConfigError(f"features '{name}' are registered by several packages ({', '.join(packages)}): remove one")
    try:
        function = points[0].load()
    except Exception as error:  # whatever the module raises while it is imported
        raise ConfigError(f"features '{name}' of {packages[0]} cannot be loaded ({_reason(error)})") from error
    extractor = _create(name, function, max_keypoints=max_keypoints, device=device)
    if points[0].dist:
        extractor.settings["package"] = f"{points[0].dist.name} {points[0].dist.version}"
    return extractor


def create_from_function(name: str, *, max_keypoints: int, device: str) -> PluginExtractor:
    """The extractor that ``module:function`` returns; the current folder is searched for the module, too.

    The function is called with the keywords ``max_keypoints`` and ``device`` and returns an object with a ``name`` and
    ``extract(image) -> Features``. It should have ``settings``, a mapping that JSON can hold with everything results
    depend on (such as the SHA-256 of its weights), because cached features are found by it; the bytes of the
    module that defines the function count as well.

    Raises:
        ConfigError: no such module or function, it raises, or what it returns is no extractor.
    """
    module_name, _, function_name = name.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # a command's own folder is searched, not the one it is called in
        sys.path.append(here)
    try:
        function: Any = importlib.import_module(module_name)
        for part in function_name.split("."):
            function = getattr(function, part)
    except Exception as error:  # whatever the module raises while it is imported
        raise ConfigError(f"features '{name}' cannot be loaded as module:function ({_reason(error)})") from error
    return _create(name, function, max_keypoints=max_keypoints, device=device)


def _create(name: str, function: Callable[..., Any], *, max_keypoints: int, device: str) -> PluginExtractor:
    if not callable(function):
        raise ConfigError(f"features '{name}': {function!r} is no function")
    try:
        extractor = function(max_keypoints=max_keypoints, device=device)
    except TypeError as error:
        raise ConfigError(f"features '{name}': called with max_keypoints=, device=: {_reason(error)}") from error
    if not callable(getattr(extractor, "extract", None)) or not isinstance(getattr(extractor, "name", None), str):
        raise ConfigError(
            f"features '{name}': needs a name (str) and extract(image), {type(extractor).__name__} lacks it"
        )
    settings = getattr(extractor, "settings", {})
    try:
        if not isinstance(settings, Mapping):
            raise TypeError(f"not {type(settings).__name__}")
        json.dumps(dict(settings), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"features '{name}': its settings must be a mapping that JSON can hold ({error})") from error
    return PluginExtractor(name, extractor, function, max_keypoints=max_keypoints, device=device)


class PluginExtractor(Detector):
    """A foreign extractor under the name the user gave, with what is known of its origin in ``settings``."""

    def __init__(
        self, name: str, extractor: Any, function: Callable[..., Any], *, max_keypoints: int, device: str
    ) -> None:
        self.name, self.max_keypoints = name, max_keypoints
        self.device = torch.device(device)
        self._extractor = extractor
        self.settings: dict[str, Any] = {
            **dict(getattr(extractor, "settings", {})),
            "kind": "plugin",
            "class": f"{type(extractor).__module__}.{type(extractor).__qualname__}",
            "source_sha256": _source_sha256(function),
        }

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> Features:
        """What the foreign extractor finds; one that takes no ``mask`` loses its keypoints on masked pixels.

        A path is read here: foreign extractors take pixels, uint8 (H, W, 3) RGB.
        """
        pixels = read_image(image) if isinstance(image, str | Path) else image
        return self._named(extract_masked(self._extractor, pixels, mask))

    def describe(self, image: ImageLike, points: ArrayLike | torch.Tensor) -> Features:
        """What the foreign extractor's ``describe(image, points)`` gives, where it has one.

        Raises:
            ConfigError: it has none.
        """
        if not callable(getattr(self._extractor, "describe", None)):
            return super().describe(image, points)
        return self._named(self._extractor.describe(image, points))

    @property
    def network(self) -> nn.Module:
        """The foreign extractor's ``network``, where it has one.

        Raises:
            ConfigError: it has none.
        """
        network = getattr(self._extractor, "network", None)
        return network if isinstance(network, nn.Module) else super().network

    def _named(self, features: Features) -> Features:
        if not isinstance(features, Features):
            raise ConfigError(f"features '{self.name}': extract gave {type(features).__name__}, not semkey.Features")
        return replace(features, method=self.name)


def _source_sha256(function: Callable[..., Any]) -> str | None:
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # built in
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path and Path(path).is_file() else None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
