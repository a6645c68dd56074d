"""Methods of an evaluation: an extractor and a matcher behind one interface, with everything that identifies them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.downloads import file_sha256
from semkey.errors import ConfigError, InputError
from semkey.evaluation.running.code import code_hash
from semkey.extractors.detector import Extractor
from semkey.extractors.peer_weights import find_weights, load_weights_file
from semkey.extractors.registry import CHECKPOINT_SUFFIX, create_extractor
from semkey.matching.lightglue import LightGlueMatcher
from semkey.matching.mutual import Matches, match
from semkey.model.features import Features
from semkey.runtime import select_device

MATCHER_SUFFIX = "+lightglue"
LIGHTGLUE_WEIGHTS = {"aliked-n16": "aliked_lightglue.pth", "disk": "disk_lightglue.pth"}
"""LightGlue is trained for one kind of features; these are the ones with released, freely licensed weights."""

SOURCES = ("extractors", "geometry", "images", "model/features.py", "model/gate.py", "model/preprocess.py")
"""Files and folders of semkey that every extractor's features depend on."""
NETWORK_SOURCES = (*SOURCES, "backbones", "model")
"""And those that semkey's own detectors depend on."""

Matcher = Callable[[Features, Features], Matches]


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is compared: image in, features out; two features in, matches out.

    Attributes:
        name: what the user calls it.
        extractor: detects and describes.
        matcher: takes the features of image 0 and image 1.
        extraction: everything that features depend on; JSON-ready. Two methods that differ in the matcher alone share
            it, and with it cached features.
        matching: everything else that matches depend on; JSON-ready.
        max_keypoints: most features of an image.
    """

    name: str
    extractor: Extractor
    matcher: Matcher = field(default=match, repr=False)
    extraction: Mapping[str, Any] = field(default_factory=dict)
    matching: Mapping[str, Any] = field(default_factory=dict)
    max_keypoints: int | None = None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that identifies the method and its results: ``name``, ``extraction`` and ``matching``."""
        return {"name": self.name, "extraction": dict(self.extraction), "matching": dict(self.matching)}

    @property
    def parameters(self) -> int:
        """Parameters of its networks; 0 for classical methods and where they are not known."""
        return int(self.extraction.get("parameters", 0)) + int(self.matching.get("parameters", 0))

    @property
    def weights_bytes(self) -> int:
        """Size of the files of weights; 0 for classical methods and where it is not known."""
        return int(self.extraction.get("weights_bytes", 0)) + int(self.matching.get("weights_bytes", 0))

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Features of a uint8 (H, W, 3) RGB image, checked, in float32 on the CPU.

        Raises:
            InputError: the extractor broke its promises (:meth:`Features.check`).
        """
        features = self.extractor.extract(image).to("cpu")
        try:
            features.check(size=(image.shape[1], image.shape[0]), max_keypoints=self.max_keypoints)
        except InputError as error:
            raise InputError(f"method '{self.name}': {error}") from None
        return features

    def match(self, features0: Features, features1: Features) -> Matches:
        """Matches of two images' features, on the CPU."""
        matches = self.matcher(features0, features1)
        return Matches(indices=matches.indices.cpu(), scores=matches.scores.cpu())


def create_method(
    name: str,
    *,
    keypoints: int = 1024,
    device: str = "auto",
    weights: Sequence[Path] = (),
    min_similarity: float | None = None,
    ratio: float | None = None,
    random_weights: bool = False,
) -> Method:
    """A method by name.

    Args:
        name: what :func:`semkey.extractors.create_extractor` takes, matched by mutual nearest neighbours; or
            ``aliked-n16+lightglue`` or ``disk+lightglue``.
        keypoints: largest number of keypoints per image, >= 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        weights: folders where released weights are looked for first.
        min_similarity: of mutual nearest neighbours, see :func:`semkey.matching.match`; LightGlue has a threshold of
            its own.
        ratio: of mutual nearest neighbours.
        random_weights: presets of semkey get random weights: enough to measure their speed.

    Raises:
        ConfigError: unknown name or matcher, a package that is missing, an option out of range.
        CheckpointError: weights are missing or not the released ones.
    """
    if min_similarity is not None and not -1 <= min_similarity <= 1:
        raise ConfigError(f"min_similarity is a cosine in [-1, 1], got {min_similarity}")
    if ratio is not None and not 0 < ratio <= 1:
        raise ConfigError(f"ratio lies in (0, 1], got {ratio}")
    base, matcher_weights = _split(name)
    extractor = create_extractor(
        base, max_keypoints=keypoints, device=device, weights=weights, random_weights=random_weights
    )
    settings = dict(getattr(extractor, "settings", {}))
    extraction = {
        **settings,
        "extractor": base,
        "max_keypoints": keypoints,
        "device": _device_name(settings, device),
        "versions": _versions(str(settings.get("kind", ""))),
        "source": code_hash(NETWORK_SOURCES if settings.get("kind") == "semkey" else SOURCES),
    }
    if matcher_weights is None:
        matching = {"matcher": "mutual nearest neighbours", "min_similarity": min_similarity, "ratio": ratio}

        def mutual(features0: Features, features1: Features) -> Matches:
            return match(features0, features1, min_similarity=min_similarity, ratio=ratio)

        matcher: Matcher = mutual
    else:
        path = find_weights(matcher_weights, weights)
        network = LightGlueMatcher(load_weights_file(path), path, select_device(device))
        matching = {
            "matcher": "lightglue",
            "weights": path.name,
            "weights_sha256": file_sha256(path),
            "weights_bytes": path.stat().st_size,
            "parameters": network.parameters,
            **network.settings,
        }
        matcher = network.match
    return Method(
        name=name,
        extractor=extractor,
        matcher=matcher,
        extraction=extraction,
        matching=matching,
        max_keypoints=keypoints,
    )


def _split(name: str) -> tuple[str, str | None]:
    """The extractor's part of a name, and the weights of LightGlue if it asks for that."""
    base, plus, matcher = name.rpartition("+")
    if not plus or (name.endswith(CHECKPOINT_SUFFIX) and f"+{matcher}" != MATCHER_SUFFIX):
        return name, None
    if f"+{matcher}" != MATCHER_SUFFIX:
        raise ConfigError(
            f"unknown matcher '{matcher}' in '{name}': there is {MATCHER_SUFFIX[1:]}, or no +MATCHER at all"
        )
    if base not in LIGHTGLUE_WEIGHTS:
        known = ", ".join(f"{other}{MATCHER_SUFFIX}" for other in LIGHTGLUE_WEIGHTS)
        raise ConfigError(f"'{name}': LightGlue has no weights for the features '{base}', only {known} exist")
    return base, LIGHTGLUE_WEIGHTS[base]


def _device_name(settings: Mapping[str, Any], device: str) -> str:
    if settings.get("kind") == "opencv":
        return "cpu"
    chosen = select_device(device)
    if chosen.type != "cuda":
        return chosen.type
    rounding = "TF32 convolutions" if torch.backends.cudnn.allow_tf32 else "no TF32"
    return f"{torch.cuda.get_device_name(chosen)}, {rounding}"


def _versions(kind: str) -> dict[str, str]:
    """Versions of the libraries that take part."""
    names = {"opencv": ["opencv-python-headless"], "semkey": ["torch", "transformers"], "peer": ["torch", "kornia"]}
    found = {"semkey": _semkey_version()}
    for name in names.get(kind, ["torch", "kornia", "opencv-python-headless"]):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _semkey_version() -> str:
    from semkey import __version__

    return __version__
