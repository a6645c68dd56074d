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
from semkey.extractors.places import split_places
from semkey.extractors.registry import CHECKPOINT_SUFFIX, create_extractor, is_own, with_guide
from semkey.matching import AlignmentConfig, Matches, create_matcher, refine
from semkey.matching.alignment.learned import load_refiner
from semkey.matching.matchers import MATCHERS
from semkey.matching.mutual import match_mutual
from semkey.model.features import Features
from semkey.runtime import select_device

GUIDED, REFINE = "guided", "refine"
PARTS = (*MATCHERS, GUIDED, REFINE)
"""What may follow the features in a method's name, each after a ``+``, in this order; at most one is a matcher."""
GUIDE = "vit-tiny"
"""The backbone of ``+guided``."""

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
        refinement: how matches are refined in the images afterwards, the ``method`` of :func:`semkey.refine`; None
            leaves them as they are.
    """

    name: str
    extractor: Extractor
    matcher: Matcher = field(default=match_mutual, repr=False)
    extraction: Mapping[str, Any] = field(default_factory=dict)
    matching: Mapping[str, Any] = field(default_factory=dict)
    max_keypoints: int | None = None
    refinement: str | Path | None = None

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

    def refined(
        self,
        features0: Features,
        features1: Features,
        matches: Matches,
        image0: NDArray[np.uint8],
        image1: NDArray[np.uint8],
    ) -> Features:
        """The features of image 1, those that are matched where the refinement puts them."""
        if self.refinement is None:
            return features1
        found = refine(features0, features1, matches, image0, image1, method=self.refinement).features1
        assert found is not None
        return found


def create_method(
    name: str,
    *,
    keypoints: int = 1024,
    device: str = "auto",
    weights: Sequence[Path] = (),
    min_similarity: float | None = None,
    ratio: float | None = None,
    random_weights: bool = False,
    runtime: str = "torch",
) -> Method:
    """A method by name.

    Args:
        name: what :func:`semkey.extractors.create_extractor` takes, then what is to be done with it: ``+mnn`` (mutual
            nearest neighbours, as without it), ``+ratio``, ``+dual-softmax``, ``+lightglue`` or a ``+FILE.safetensors``
            of ``semkey train-matcher``, ``+guided`` for nearest neighbours among what ``vit-tiny`` finds alike, and
            ``+refine`` to align the matches in the images, or ``+refine=FILE`` with a file of ``semkey
            train-refiner``.
        keypoints: largest number of keypoints per image, >= 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        weights: folders where released weights are looked for first.
        min_similarity: of mutual nearest neighbours, see :func:`semkey.matching.match`; LightGlue has a threshold of
            its own.
        ratio: of mutual nearest neighbours.
        random_weights: presets of semkey get random weights: enough to measure their speed.
        runtime: what computes the networks of semkey's own detectors; others have none but their own.

    Raises:
        ConfigError: unknown name or matcher, a package that is missing, an option out of range.
        CheckpointError: weights are missing or not the released ones.
    """
    if min_similarity is not None and not -1 <= min_similarity <= 1:
        raise ConfigError(f"min_similarity is a cosine in [-1, 1], got {min_similarity}")
    if ratio is not None and not 0 < ratio <= 1:
        raise ConfigError(f"ratio lies in (0, 1], got {ratio}")
    base, matcher_name, is_guided, refinement = _split(name)
    extractor = create_extractor(
        base,
        max_keypoints=keypoints,
        device=device,
        weights=weights,
        random_weights=random_weights,
        runtime=runtime if is_own(split_places(base)[0]) else "torch",
    )
    if is_guided and matcher_name not in ("mnn", "ratio"):
        raise ConfigError(f"'{name}': the guide is for nearest neighbours, not for {matcher_name}")
    extractor = with_guide(extractor, GUIDE if is_guided else None, weights)
    settings = dict(getattr(extractor, "settings", {}))
    extraction = {
        **settings,
        "extractor": base,
        "max_keypoints": keypoints,
        "device": _device_name(settings, device),
        "versions": _versions(str(settings.get("kind", ""))),
        "source": code_hash(NETWORK_SOURCES if settings.get("kind") == "semkey" else SOURCES),
    }
    thresholds = {"min_similarity": min_similarity, "ratio": ratio} if matcher_name in ("mnn", "ratio") else {}
    matcher = create_matcher(matcher_name, features=base, device=select_device(device), weights=weights, **thresholds)
    matching = dict(matcher.settings)
    if refinement is not None:
        matching["refinement"] = _refinement(refinement)
    return Method(
        name=name,
        extractor=extractor,
        matcher=matcher.find,
        extraction=extraction,
        matching=matching,
        max_keypoints=keypoints,
        refinement=refinement,
    )


def _refinement(method: str | Path) -> dict[str, Any]:
    """Everything that a refinement depends on; JSON-ready.

    Raises:
        CheckpointError: the file cannot be used.
    """
    if isinstance(method, str):
        return AlignmentConfig().to_mapping()
    _, info = load_refiner(method)
    return {**info.to_mapping(), "weights": method.name, "weights_sha256": file_sha256(method)}


def _split(name: str) -> tuple[str, str, bool, str | Path | None]:
    """The features' part of a name, the matcher, whether matches are guided, and how they are refined."""
    refinement: str | Path | None
    before, found, file = name.rpartition(f"+{REFINE}=")
    if found:
        rest, refinement = before, Path(file)
    else:
        rest = name.removesuffix(f"+{REFINE}")
        refinement = None if rest == name else "alignment"
    is_guided = rest.endswith(f"+{GUIDED}")
    rest = rest.removesuffix(f"+{GUIDED}")
    base, plus, matcher = rest.rpartition("+")
    is_file = plus and matcher.endswith(CHECKPOINT_SUFFIX)
    if not plus or (is_file and (Path(rest).is_file() or not Path(matcher).is_file())):
        return rest, "mnn", is_guided, refinement  # a checkpoint may have a plus in its name
    if matcher not in MATCHERS and not is_file:
        raise ConfigError(
            f"unknown matcher '{matcher}' in '{name}': after the features come {', '.join(f'+{one}' for one in PARTS)} "
            "or +FILE of semkey train-matcher, or nothing"
        )
    if not base:
        raise ConfigError(f"'{name}' names no features: write them before the +")
    return base, matcher, is_guided, refinement


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
