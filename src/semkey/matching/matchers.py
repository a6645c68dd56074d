"""Matchers by name: nearest neighbours, dual softmax, LightGlue with released or own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from semkey.downloads import file_sha256
from semkey.errors import CheckpointError, ConfigError
from semkey.extractors.peer_weights import find_weights, load_weights_file
from semkey.matching.dual_softmax import TEMPERATURE, THRESHOLD, match_dual_softmax
from semkey.matching.lightglue import LightGlueMatcher
from semkey.matching.lightglue.trained import TrainedLightGlue
from semkey.matching.mutual import Matches, check_finite, check_pair, check_thresholds
from semkey.matching.semantic import match_by_guide
from semkey.model.features import Features
from semkey.settings import did_you_mean

MATCHERS = ("mnn", "ratio", "dual-softmax", "lightglue")
"""Names of matchers; the path of a file that ``semkey train-matcher`` wrote is one as well."""
DEFAULT_RATIO = 0.9
"""Of Lowe's test where the matcher ``ratio`` is asked for without one."""
RELEASED_LIGHTGLUE = {"aliked-n16": "aliked_lightglue.pth", "disk": "disk_lightglue.pth"}
"""LightGlue is trained for one kind of features; these are the ones with released, freely licensed weights."""
_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class PairMatcher:
    """Finds matches between two images' features.

    Attributes:
        name: as it was asked for.
        find: features of image 0 and 1 in, matches out.
        settings: everything that matches depend on besides the features; JSON-ready.
        parameters: of its network; 0 without one.
    """

    name: str
    find: Callable[[Features, Features], Matches] = field(repr=False)
    settings: Mapping[str, Any]
    parameters: int = 0

    def match(self, features0: Features, features1: Features) -> Matches:
        """Matches of two images' features, on the device of the features.

        Raises:
            InputError: features of different kinds or on different devices, or values that are not finite.
        """
        check_pair(features0, features1)
        check_finite(features0, features1)
        found = self.find(features0, features1)
        device = features0.keypoints.device
        return Matches(indices=found.indices.to(device), scores=found.scores.to(device))


def create_matcher(
    name: str | Path = "mnn",
    *,
    features: str = "",
    min_similarity: float | None = None,
    ratio: float | None = None,
    device: torch.device | str = "cpu",
    weights: Sequence[Path] = (),
) -> PairMatcher:
    """A matcher by name.

    Args:
        name: one of :data:`MATCHERS`, or a file of ``semkey train-matcher``.
        features: name of the features, which decides the weights of ``lightglue``.
        min_similarity: smallest cosine of nearest neighbours, in [-1, 1].
        ratio: of Lowe's test on nearest neighbours; ``ratio`` takes 0.9 without it.
        device: where networks run.
        weights: folders where released weights are looked for first.

    Raises:
        ConfigError: unknown name, options that the matcher has not, no weights for these features, or kornia is
            missing.
        CheckpointError: a file that is missing, damaged or of another kind.
        InputError: a threshold out of its range.
    """
    check_thresholds(min_similarity, ratio)
    text = str(name)
    if text in ("mnn", "ratio"):
        used = DEFAULT_RATIO if text == "ratio" and ratio is None else ratio
        return PairMatcher(
            name=text,
            find=partial(match_by_guide, min_similarity=min_similarity, ratio=used),
            settings={"matcher": "mutual nearest neighbours", "min_similarity": min_similarity, "ratio": used},
        )
    is_file = isinstance(name, Path) or text.endswith(_SUFFIX)
    if text not in MATCHERS and not is_file:
        hint = did_you_mean(text, MATCHERS)
        raise ConfigError(
            f"unknown matcher '{text}': choose one of {', '.join(MATCHERS)} or a file of semkey train-matcher"
            + (f" ({hint})" if hint else "")
        )
    if min_similarity is not None or ratio is not None:
        raise ConfigError(f"min_similarity and ratio are of nearest neighbours; the matcher '{text}' has neither")
    if text == "dual-softmax":
        settings = {"matcher": text, "temperature": TEMPERATURE, "threshold": THRESHOLD}
        return PairMatcher(name=text, find=match_dual_softmax, settings=settings)
    if not is_file and features in RELEASED_LIGHTGLUE:
        return _released(text, find_weights(RELEASED_LIGHTGLUE[features], weights), torch.device(device))
    return _trained(text, Path(name) if is_file else _shipped(features), torch.device(device))


def _released(name: str, path: Path, device: torch.device) -> PairMatcher:
    network = _load_released(path, device)
    return PairMatcher(
        name=name,
        find=network.match,
        settings={"matcher": "lightglue", **_identity(path), "parameters": network.parameters, **network.settings},
        parameters=network.parameters,
    )


def _trained(name: str, path: Path, device: torch.device) -> PairMatcher:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of a matcher (semkey train-matcher writes one)")
    network = _load_trained(path, path.stat().st_mtime_ns, device)
    return PairMatcher(
        name=name,
        find=network.match,
        settings={"matcher": "lightglue", **_identity(path), "parameters": network.parameters, **network.settings},
        parameters=network.parameters,
    )


def _shipped(features: str) -> Path:
    """The matcher that comes with semkey for these features."""
    folder = Path(str(files("semkey"))) / "weights"
    path = folder / f"lightglue-{features}{_SUFFIX}"
    if features and path.is_file():
        return path
    known = [*RELEASED_LIGHTGLUE, *(file.stem.removeprefix("lightglue-") for file in folder.glob("lightglue-*"))]
    raise ConfigError(
        f"LightGlue has no weights for the features '{features}', only for {', '.join(sorted(known))}: train some with "
        "semkey train-matcher and give the file as matcher"
    )


# A matcher is asked for with every pair of images: its weights are read once.
@lru_cache(maxsize=4)
def _load_trained(path: Path, _modified: int, device: torch.device) -> TrainedLightGlue:
    return TrainedLightGlue(path, device)


@lru_cache(maxsize=4)
def _load_released(path: Path, device: torch.device) -> LightGlueMatcher:
    return LightGlueMatcher(load_weights_file(path), path, device)


def _identity(path: Path) -> dict[str, Any]:
    return {"weights": path.name, "weights_sha256": file_sha256(path), "weights_bytes": path.stat().st_size}
