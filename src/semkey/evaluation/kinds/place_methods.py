"""Ways to describe an image by one vector, by name: what ``semkey eval places`` compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.backbones.global_descriptors import GLOBAL_KINDS, VladVocabulary, train_vlad
from semkey.backbones.specs import BACKBONES
from semkey.errors import ConfigError
from semkey.extractors.detector import Detector, MaskLike
from semkey.extractors.places import (
    BackbonePlaces,
    DescriberFactory,
    SharedBackbone,
    parse_place,
    split_places,
    with_places,
)
from semkey.extractors.registry import create_extractor
from semkey.model.config import Precision
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike

Describe = Callable[[NDArray[np.uint8]], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class PlaceMethod:
    """A way to describe an image by one vector.

    Attributes:
        name: as the user gave it.
        describe: (H, W, 3) uint8 RGB -> (G,) float32, unit norm, on the CPU.
        fingerprint: everything that it depends on; JSON-ready.
    """

    name: str
    describe: Describe = field(repr=False)
    fingerprint: Mapping[str, Any] = field(default_factory=dict)


class RememberingDetector(Detector):
    """A detector for several methods: the features of the image that it saw last are kept for the next one."""

    def __init__(self, detector: Detector) -> None:
        self.name, self.max_keypoints, self.device = detector.name, detector.max_keypoints, detector.device
        self.settings = detector.settings
        self._detector = detector
        self._last: tuple[ImageLike, Features] | None = None

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> Features:
        """See :class:`Detector`; with a mask nothing is kept."""
        if mask is not None:
            return self._detector.extract(image, mask)
        if self._last is None or self._last[0] is not image:
            self._last = image, self._detector.extract(image)
        return self._last[1]


def create_place_methods(
    names: Sequence[str],
    *,
    device: str = "auto",
    weights: Sequence[Path] = (),
    vocabulary: Path | None = None,
    vocabulary_images: Sequence[NDArray[np.uint8]] = (),
    clusters: int = 16,
    precision: Precision = "auto",
    seed: int = 0,
) -> list[PlaceMethod]:
    """Methods by name; those over one backbone share its features, and those with the same keypoints these.

    Args:
        names: each ``BACKBONE:cls``, ``BACKBONE:gem``, ``BACKBONE:vlad`` or ``BACKBONE:vlad=FILE`` over a frozen
            backbone, or features with a global descriptor, such as ``compact`` or ``compact@own@vit-tiny:gem``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        weights: folders where weights are looked for first.
        vocabulary: file of a VLAD vocabulary; None trains one.
        vocabulary_images: what it is trained on.
        clusters: of that vocabulary.
        precision: of the backbone.
        seed: of that vocabulary.

    Raises:
        ConfigError: unknown name, or a vocabulary that cannot be made.
        CheckpointError: weights or vocabulary cannot be read.
    """
    factory = DescriberFactory(device=device, weights=weights, precision=precision)
    bases: dict[str, RememberingDetector] = {}
    words: dict[str, VladVocabulary] = {}
    methods = []
    for name in names:
        parts = parse_place(name)
        if parts is None:
            if name in BACKBONES:
                ways = ", ".join(f"{name}:{way}" for way in GLOBAL_KINDS)
                raise ConfigError(f"'{name}': say how its tokens become one vector, {ways}")
            features, places = split_places(name)
            if features not in bases:
                made = create_extractor(features, max_keypoints=512, device=device, weights=weights)
                bases[features] = RememberingDetector(made)
            base = bases[features]
            methods.append(_of_extractor(name, with_places(base, name, factory=factory) if places else base))
            continue
        if parts.kind != "vlad" or parts.vocabulary is not None:
            place = factory.create(name)
        else:
            source = factory.source(parts.backbone)
            if parts.backbone not in words:
                words[parts.backbone] = _vocabulary(source, vocabulary, vocabulary_images, clusters, seed)
            place = BackbonePlaces(name, "vlad", source, words[parts.backbone], vocabulary)
        methods.append(PlaceMethod(name=name, describe=place.describe, fingerprint=place.fingerprint))
    return methods


def _of_extractor(name: str, extractor: Detector) -> PlaceMethod:
    def describe(image: NDArray[np.uint8]) -> torch.Tensor:
        found = extractor.extract(image).global_descriptor.detach().cpu()
        if len(found) == 0:
            raise ConfigError(f"'{name}' has no global descriptor: take compact, or BACKBONE:cls, :gem or :vlad")
        return found

    return PlaceMethod(name=name, describe=describe, fingerprint=dict(extractor.settings))


def _vocabulary(
    source: SharedBackbone, path: Path | None, images: Sequence[NDArray[np.uint8]], clusters: int, seed: int
) -> VladVocabulary:
    if path is not None:
        return VladVocabulary.read(path, source.backbone)
    if not images:
        raise ConfigError("vlad needs a vocabulary: name its file, or images to train it on")
    return train_vlad(source.backbone, images, clusters=clusters, seed=seed, bfloat16=source.bfloat16)
