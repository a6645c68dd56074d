"""One vector per image, for recognising places, from a backbone's tokens: class token, GeM, VLAD.

The idea of frozen features for place recognition without training is AnyLoc's (Keetha et al. 2023), which finds VLAD
over tokens the best of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from semkey.backbones.backbone import Backbone, BackboneFeatures
from semkey.backbones.feature_cache import compute_features
from semkey.errors import CheckpointError, ConfigError
from semkey.files import atomic_write_bytes

GlobalKind = Literal["cls", "gem", "vlad"]
GLOBAL_KINDS: tuple[GlobalKind, ...] = ("cls", "gem", "vlad")

FORMAT = "semkey-vlad-1"
_ITERATIONS = 30
_TOKENS_PER_IMAGE = 200


def class_descriptor(features: BackboneFeatures) -> torch.Tensor:
    """The class token: (B, C) float32, unit norm."""
    return F.normalize(features.class_token.float(), dim=-1)


def gem_descriptor(features: BackboneFeatures, p: float = 3.0) -> torch.Tensor:
    """Generalised mean of the last map's tokens: (B, C) float32, unit norm.

    GeM (Radenovic et al. 2018, eq. 3) is defined for positive features. Tokens have both signs: each is raised with its
    sign, and the mean is brought back with its own.
    """
    tokens = features.maps[-1].float()
    mean = (tokens.sign() * tokens.abs().pow(p)).mean(dim=(2, 3))
    return F.normalize(mean.sign() * mean.abs().pow(1.0 / p), dim=-1)


@dataclass(frozen=True, kw_only=True)
class VladVocabulary:
    """Centres of clusters of a backbone's tokens.

    Attributes:
        centers: (K, C) float32.
        layer: which layer's tokens, counted from 1.
        content: hash of the weights of the backbone that they are of.
    """

    centers: torch.Tensor
    layer: int
    content: str

    def describe(self, features: BackboneFeatures, layers: tuple[int, ...]) -> torch.Tensor:
        """VLAD (Jegou et al. 2010) with normalisation per cluster (Arandjelovic and Zisserman 2013).

        Args:
            features: of a batch.
            layers: which layers its maps are of.

        Returns:
            (B, K C) float32, unit norm.

        Raises:
            ConfigError: the vocabulary's layer is not among them.
        """
        if self.layer not in layers:
            raise ConfigError(f"the vocabulary is of layer {self.layer}, the backbone gives layers {list(layers)}")
        tokens = F.normalize(features.maps[layers.index(self.layer)].float().flatten(2).transpose(1, 2), dim=-1)
        centers = self.centers.to(tokens.device)
        nearest = torch.cdist(tokens, centers.expand(tokens.shape[0], -1, -1)).argmin(dim=-1)
        chosen = F.one_hot(nearest, len(centers)).to(tokens.dtype)  # (B, N, K)
        sums = chosen.transpose(1, 2) @ tokens - chosen.sum(dim=1)[..., None] * centers
        return F.normalize(F.normalize(sums, dim=-1).flatten(1), dim=-1)

    def write(self, path: str | Path) -> None:
        """Write as ``.safetensors``, atomically.

        Raises:
            InputError: the path cannot be written.
        """
        metadata = {"format": FORMAT, "layer": str(self.layer), "content": self.content}
        atomic_write_bytes(path, save({"centers": self.centers.contiguous()}, metadata=metadata))

    @classmethod
    def read(cls, path: str | Path, backbone: Backbone) -> VladVocabulary:
        """Read what :meth:`write` wrote.

        Raises:
            CheckpointError: missing, damaged, or of another backbone.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise CheckpointError(f"{path}: no vocabulary of semkey ({FORMAT})")
                found = cls(
                    centers=file.get_tensor("centers"), layer=int(metadata["layer"]), content=metadata["content"]
                )
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read as a vocabulary ({error})") from None
        if found.content != backbone.identity.content:
            raise CheckpointError(f"{path}: made over another backbone than '{backbone.identity.name}': train it again")
        return found


def place_descriptor(
    kind: GlobalKind, features: BackboneFeatures, layers: tuple[int, ...], vocabulary: VladVocabulary | None
) -> torch.Tensor:
    """One of the three by name: (B, G) float32, unit norm.

    Args:
        kind: which.
        features: of a batch.
        layers: which layers its maps are of.
        vocabulary: of "vlad".

    Raises:
        ConfigError: "vlad" without a vocabulary, or its layer is not among them.
    """
    if kind == "cls":
        return class_descriptor(features)
    if kind == "gem":
        return gem_descriptor(features)
    if vocabulary is None:
        raise ConfigError("vlad needs a vocabulary: the file that semkey vocabulary writes")
    return vocabulary.describe(features, layers)


def train_vlad(
    backbone: Backbone,
    images: Iterable[NDArray[np.uint8]],
    *,
    clusters: int = 16,
    layer: int | None = None,
    seed: int = 0,
    bfloat16: bool = False,
) -> VladVocabulary:
    """Cluster the tokens of some images: k-means++ and Lloyd's iterations on unit vectors.

    Args:
        backbone: whose tokens.
        images: (H, W, 3) uint8 RGB; some hundreds from where the vocabulary will be used are enough.
        clusters: K.
        layer: of the backbone, counted from 1; None takes the last but one that it gives, where tokens still know their
            place better.
        seed: of the tokens that are used and of the first centres.
        bfloat16: compute the backbone in bfloat16.

    Raises:
        ConfigError: the layer is not among those that the backbone gives, or there are fewer tokens than clusters.
    """
    layer = backbone.layers[-2 if len(backbone.layers) > 1 else -1] if layer is None else layer
    if layer not in backbone.layers:
        raise ConfigError(f"layer {layer} is not among the backbone's: {list(backbone.layers)}")
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for image in images:
        features = compute_features(backbone, image, bfloat16=bfloat16)
        tokens = features.maps[backbone.layers.index(layer)][0].flatten(1).T.cpu()
        parts.append(tokens[torch.randperm(len(tokens), generator=generator)[:_TOKENS_PER_IMAGE]])
    tokens = F.normalize(torch.cat(parts), dim=-1) if parts else torch.zeros(0, 1)
    if not 1 <= clusters <= len(tokens):
        raise ConfigError(f"clusters is {clusters}, there are {len(tokens)} tokens to make them of")
    return VladVocabulary(centers=_k_means(tokens, clusters, generator), layer=layer, content=backbone.identity.content)


def _k_means(points: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Centres (count, C) of points (N, C)."""
    centers = points[torch.randint(len(points), (1,), generator=generator)]
    while len(centers) < count:
        distances = torch.cdist(points, centers).min(dim=1).values.square() + 1e-12
        centers = torch.cat([centers, points[torch.multinomial(distances, 1, generator=generator)]])
    for _ in range(_ITERATIONS):
        nearest = torch.cdist(points, centers).argmin(dim=1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=count)[:, None]
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
        if torch.equal(moved, centers):
            break
        centers = moved
    return centers
