"""Which graph a file of ``semkey train-matcher`` or ``train-refiner`` becomes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from semkey.downloads import file_sha256
from semkey.export.graph import OnnxGraph
from semkey.export.metadata import LICENSE, UNKNOWN_LICENSE
from semkey.matching.alignment import network as refiner
from semkey.matching.lightglue import checkpoint as matcher
from semkey.matching.network_file import file_kind

_SUFFIX = ".safetensors"


def small_network(name: str) -> tuple[OnnxGraph, dict[str, Any]] | None:
    """The graph of a matcher or refiner, and what its file is to say of the weights; None for anything else.

    Args:
        name: a file, or ``lightglue-FEATURES`` or ``refiner-FEATURES`` where such weights come with semkey.

    Raises:
        CheckpointError: the file is damaged.
        ConfigError: kornia is not installed (matchers).
    """
    shipped = Path(str(files("semkey"))) / "weights" / f"{name}{_SUFFIX}"
    ships = name.startswith(("lightglue-", "refiner-")) and shipped.is_file()
    path = shipped if ships else Path(name)
    kind = file_kind(path) if path.suffix == _SUFFIX and path.is_file() else None
    said: dict[str, Any] = {"preset": name if ships else path.name, "license": LICENSE if ships else UNKNOWN_LICENSE}
    if kind == matcher.FORMAT:
        from semkey.matching.exporting.matcher_graph import MatcherGraph

        network, info = matcher.read_matcher(path)
        settings = {"features": info.features, "adaptive": False, "matcher": info.to_mapping()}
        return MatcherGraph(network, info), {**said, "weights_sha256": file_sha256(path), **settings}
    if kind == refiner.FORMAT:
        from semkey.matching.exporting.refiner_graph import RefinerGraph

        patches, about = refiner.read_refiner(path)
        settings = {"features": about.features, "refiner": about.to_mapping()}
        return RefinerGraph(patches, about), {**said, "weights_sha256": file_sha256(path), **settings}
    return None
