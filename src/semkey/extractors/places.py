"""Global descriptors of frozen backbones beside any features: ``compact@vit-tiny:gem``.

Behind ``@`` stands what the global descriptor of an image is: ``BACKBONE:cls``, ``BACKBONE:gem`` or
``BACKBONE:vlad=FILE``, the features' own (``own``), or several of them joined, such as ``own@vit-tiny:gem``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from semkey.backbones.backbone import Backbone, BackboneFeatures
from semkey.backbones.feature_cache import compute_features
from semkey.backbones.global_descriptors import GlobalKind, VladVocabulary, place_descriptor
from semkey.backbones.loading import load_backbone
from semkey.downloads import file_sha256
from semkey.errors import ConfigError
from semkey.extractors.detector import Detector, MaskLike
from semkey.extractors.points import extract_and_describe
from semkey.model.config import Precision
from semkey.model.features import Features
from semkey.model.precision import uses_bfloat16
from semkey.model.preprocess import ImageLike, load_pixels, to_rgb
from semkey.runtime import select_device

OWN = "own"
"""The global descriptor that the features have by themselves."""
SEPARATOR = "@"

_PLACE = re.compile(r"(?P<backbone>[^@]+):(?P<kind>cls|gem|vlad)(?:=(?P<vocabulary>[^@]+))?")


class PlaceDescriber(Protocol):
    """Describes whole images.

    Attributes:
        name: as the user gave it.
        fingerprint: everything that it depends on; JSON-ready.
    """

    name: str
    fingerprint: dict[str, Any]

    def describe(self, image: NDArray[np.uint8], /) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> (G,) float32, unit norm, on the CPU."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlaceName:
    """What ``vit-tiny:gem`` means: a backbone, how its tokens become one vector, and the file of a vocabulary."""

    backbone: str
    kind: GlobalKind
    vocabulary: Path | None = None


def parse_place(name: str) -> PlaceName | None:
    """The parts of ``BACKBONE:cls``, ``BACKBONE:gem``, ``BACKBONE:vlad`` or ``BACKBONE:vlad=FILE``; None otherwise."""
    match = _PLACE.fullmatch(name)
    if match is None or (match["vocabulary"] and match["kind"] != "vlad"):
        return None
    kind: Any = match["kind"]
    file = match["vocabulary"]
    return PlaceName(backbone=match["backbone"], kind=kind, vocabulary=Path(file) if file else None)


def split_places(name: str) -> tuple[str, tuple[str, ...]]:
    """``compact@own@vit-tiny:gem`` -> ``compact`` and ``own``, ``vit-tiny:gem``; no places where none are named."""
    places: list[str] = []
    while SEPARATOR in name and not Path(name).exists():
        head, _, tail = name.rpartition(SEPARATOR)
        if not head or (tail != OWN and parse_place(tail) is None):
            break
        places.insert(0, tail)
        name = head
    return name, tuple(places)


def name_with_places(features: str, places: str) -> str:
    """``compact`` and ``own@vit-tiny:gem`` -> ``compact@own@vit-tiny:gem``.

    Raises:
        ConfigError: the places are not descriptors of places.
    """
    name = f"{features}{SEPARATOR}{places}"
    if split_places(name)[0] != features:
        raise ConfigError(
            f"places '{places}' are not BACKBONE:cls, BACKBONE:gem, BACKBONE:vlad=FILE or {OWN}, joined by {SEPARATOR}"
        )
    return name


class SharedBackbone:
    """A backbone for several describers: features of the image that it saw last are kept for the next one."""

    def __init__(self, name: str, *, device: str = "auto", weights: Sequence[Path] = (), precision: Precision) -> None:
        backbone = load_backbone(name, weights=weights).to(select_device(device))
        self.bfloat16 = uses_bfloat16(precision, backbone.mean.device)
        self.backbone: Backbone = backbone.reduce() if self.bfloat16 else backbone
        self._last: tuple[NDArray[np.uint8], BackboneFeatures] | None = None

    def __call__(self, image: NDArray[np.uint8]) -> BackboneFeatures:
        """Features of an image (H, W, 3) uint8 RGB."""
        if self._last is None or self._last[0] is not image:
            self._last = image, compute_features(self.backbone, image, bfloat16=self.bfloat16)
        return self._last[1]


class BackbonePlaces:
    """A backbone's tokens as one vector.

    Args:
        name: as the user gave it.
        kind: how.
        source: the backbone.
        vocabulary: of "vlad".
        file: that the vocabulary was read from; None where it was made on the way.
    """

    def __init__(
        self,
        name: str,
        kind: GlobalKind,
        source: SharedBackbone,
        vocabulary: VladVocabulary | None = None,
        file: Path | None = None,
    ) -> None:
        self.name, self.kind, self._source, self._vocabulary = name, kind, source, vocabulary
        self.fingerprint: dict[str, Any] = {
            **asdict(source.backbone.identity),
            "descriptor": kind,
            "precision": "bfloat16" if source.bfloat16 else "float32",
        }
        if vocabulary is not None:
            self.fingerprint |= {"clusters": len(vocabulary.centers), "layer": vocabulary.layer}
        if file is not None:
            self.fingerprint["vocabulary_sha256"] = file_sha256(file)

    def describe(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """See :class:`PlaceDescriber`."""
        layers = self._source.backbone.layers
        return place_descriptor(self.kind, self._source(image), layers, self._vocabulary)[0].cpu()


@dataclass(kw_only=True)
class DescriberFactory:
    """Makes describers by name; those over one backbone share its features.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        weights: folders where weights are looked for first.
        precision: of the backbones.
    """

    device: str = "auto"
    weights: Sequence[Path] = ()
    precision: Precision = "auto"
    _shared: dict[str, SharedBackbone] = field(default_factory=dict)

    def source(self, backbone: str) -> SharedBackbone:
        """The backbone of a name, loaded once.

        Raises:
            ConfigError: unknown backbone, or transformers is missing.
            CheckpointError: its weights cannot be had.
        """
        if backbone not in self._shared:
            self._shared[backbone] = SharedBackbone(
                backbone, device=self.device, weights=self.weights, precision=self.precision
            )
        return self._shared[backbone]

    def create(self, name: str) -> BackbonePlaces:
        """The describer ``BACKBONE:cls``, ``BACKBONE:gem`` or ``BACKBONE:vlad=FILE``.

        Raises:
            ConfigError: another name, or vlad without its file; see :meth:`source`.
            CheckpointError: the vocabulary cannot be read; see :meth:`source`.
        """
        parts = parse_place(name)
        if parts is None:
            raise ConfigError(f"'{name}' is no descriptor of places: BACKBONE:cls, BACKBONE:gem or BACKBONE:vlad=FILE")
        if parts.kind == "vlad" and parts.vocabulary is None:
            raise ConfigError(f"'{name}' needs a vocabulary: {name}=FILE, which semkey vocabulary writes")
        source = self.source(parts.backbone)
        words = None if parts.vocabulary is None else VladVocabulary.read(parts.vocabulary, source.backbone)
        return BackbonePlaces(name, parts.kind, source, words, parts.vocabulary)


class DetectorWithPlaces(Detector):
    """Features with the global descriptor of something else, or with both.

    Args:
        base: finds and describes keypoints.
        places: None stands for the base's own global descriptor. Several are joined: unit vectors one after the other,
            so that cosines are the means of theirs.

    Raises:
        ConfigError: there are no places.
    """

    def __init__(self, base: Detector, places: Sequence[PlaceDescriber | None]) -> None:
        if not places:
            raise ConfigError("name at least one descriptor of places")
        names = [OWN if place is None else place.name for place in places]
        self.name = SEPARATOR.join([base.name, *names])
        self.max_keypoints, self.device = base.max_keypoints, base.device
        self.settings = {
            **base.settings,
            "places": [OWN if place is None else dict(place.fingerprint) for place in places],
        }
        self._base, self._places = base, tuple(places)

    @property
    def network(self) -> nn.Module:
        """See :class:`Detector`: that of the keypoints."""
        return self._base.network

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> Features:
        """See :class:`Detector`; a mask leaves the global descriptor as it is."""
        pixels = load_pixels(image)
        return self._with_place(self._base.extract(pixels, mask), pixels)

    def describe(self, image: ImageLike, points: ArrayLike | torch.Tensor) -> Features:
        """See :class:`Detector`."""
        pixels = load_pixels(image)
        return self._with_place(self._base.describe(pixels, points), pixels)

    def extract_and_describe(
        self, image: ImageLike, points: torch.Tensor, mask: MaskLike | None = None
    ) -> tuple[Features, torch.Tensor]:
        """Features of one image, and descriptors (M, D) of points (M, 2) in it, as the base gives them."""
        pixels = load_pixels(image)
        features, described = extract_and_describe(self._base, pixels, points, mask)
        return self._with_place(features, pixels), described

    def _with_place(self, features: Features, pixels: NDArray[np.uint8] | torch.Tensor) -> Features:
        colors = _colors(pixels)
        parts = []
        for place in self._places:
            part = features.global_descriptor if place is None else place.describe(colors).to(self.device)
            if len(part) == 0:
                raise ConfigError(f"'{self._base.name}' has no global descriptor of its own: leave out {OWN}")
            parts.append(part)
        return replace(features, global_descriptor=torch.cat(parts) / len(parts) ** 0.5, method=self.name)


def with_places(
    base: Detector,
    name: str,
    *,
    device: str = "auto",
    weights: Sequence[Path] = (),
    factory: DescriberFactory | None = None,
) -> DetectorWithPlaces:
    """Features with the global descriptors that stand behind the ``@`` of a name.

    Args:
        base: the features.
        name: such as ``compact@vit-tiny:gem``.
        device: where the backbone computes.
        weights: folders where its weights are looked for first.
        factory: makes the describers, in place of a new one on ``device`` with ``weights``.

    Raises:
        ConfigError: unknown backbone, vlad without its file, or a package that is missing.
        CheckpointError: weights or vocabulary cannot be read.
    """
    factory = factory or DescriberFactory(device=device, weights=weights)
    return DetectorWithPlaces(base, [None if one == OWN else factory.create(one) for one in split_places(name)[1]])


def _colors(pixels: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB; an array of that shape is returned as it is."""
    if isinstance(pixels, np.ndarray) and pixels.ndim == 3:
        return pixels
    return (to_rgb(pixels) * 255.0).round().byte().permute(1, 2, 0).cpu().numpy()
