"""The frozen backbones by name: architecture, official weights at a fixed revision, licence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from semkey.errors import ConfigError
from semkey.settings import did_you_mean

Family = Literal["vit", "dinov2", "dinov2-reg", "dinov3"]
Upsampling = Literal["bilinear", "shift-average", "resolution", "attention"]
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Shape of a vision transformer, and the colours it was trained on.

    Attributes:
        family: which of the library's networks it is.
        patch: side of a token's square, pixels.
        width: channels of a token.
        layers: transformer blocks.
        heads: of their attention.
        hidden: channels inside their MLP.
        image: side of the training images, pixels: the size of the position embeddings' grid.
        registers: register tokens.
        norm_eps: of the layer norms.
        mean: of RGB in [0, 1], taken off before the first layer.
        std: what that is divided by.
        options: other settings of the library's configuration, name and value.
    """

    family: Family
    patch: int
    width: int
    layers: int
    heads: int
    hidden: int
    image: int
    registers: int = 0
    norm_eps: float = 1e-6
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    options: tuple[tuple[str, object], ...] = ()

    def default_layers(self) -> tuple[int, ...]:
        """Four layers at equal distances, the last among them: 3, 6, 9, 12 of twelve."""
        count = min(4, self.layers)
        return tuple(self.layers * (step + 1) // count for step in range(count))

    def check_layers(self, chosen: tuple[int, ...], name: str) -> tuple[int, ...]:
        """``chosen`` layers, counted from 1, or the default ones where it is empty.

        Raises:
            ConfigError: one does not exist, or they do not increase.
        """
        if not chosen:
            return self.default_layers()
        if list(chosen) != sorted(set(chosen)) or chosen[0] < 1 or chosen[-1] > self.layers:
            raise ConfigError(
                f"backbone_layers are {list(chosen)}: '{name}' has layers 1 to {self.layers}, give them in order"
            )
        return chosen


@dataclass(frozen=True, kw_only=True)
class Source:
    """Official weights on the hub.

    Attributes:
        repository: ``owner/name``.
        revision: commit; ``main`` only where ``content`` says which weights they must be.
        sha256: of the file ``model.safetensors``, empty where it could not be verified when this was written.
        content: hash of the tensors (:func:`semkey.backbones.naming.content_hash`), empty where not known.
        megabytes: size of the file, 10^6 bytes.
        licence: of the weights.
        other_names: other names of files with these tensors.
    """

    repository: str
    revision: str
    sha256: str = ""
    content: str = ""
    megabytes: int
    licence: str = "Apache-2.0"
    other_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BackbonePreset:
    """A backbone that semkey knows by name."""

    name: str
    architecture: Architecture
    source: Source


DINOV3_LICENCE = "DINOv3 License"
DINOV3_LICENCE_URL = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"


def _dinov2(width: int, layers: int, heads: int, *, registers: int = 0) -> Architecture:
    return Architecture(
        family="dinov2-reg" if registers else "dinov2",
        patch=14,
        width=width,
        layers=layers,
        heads=heads,
        hidden=4 * width,
        image=518,
        registers=registers,
    )


def _dinov3(width: int, layers: int, heads: int) -> Architecture:
    return Architecture(
        family="dinov3",
        patch=16,
        width=width,
        layers=layers,
        heads=heads,
        hidden=4 * width,
        image=224,
        registers=4,
        norm_eps=1e-5,
    )


# Revisions and hashes as published; those of files that nobody could be found to have checked are left empty, and the
# hash that the hub states is used instead.
_PRESETS = (
    BackbonePreset(
        name="dinov2-small",
        architecture=_dinov2(384, 12, 6),
        source=Source(
            repository="facebook/dinov2-small",
            revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
            sha256="ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
            megabytes=88,
        ),
    ),
    BackbonePreset(
        name="dinov2-base",
        architecture=_dinov2(768, 12, 12),
        source=Source(
            repository="facebook/dinov2-base",
            revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
            megabytes=346,
        ),
    ),
    BackbonePreset(
        name="dinov2-large",
        architecture=_dinov2(1024, 24, 16),
        source=Source(
            repository="facebook/dinov2-large",
            revision="47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
            sha256="399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
            megabytes=1218,
        ),
    ),
    BackbonePreset(
        name="dinov2-small-reg",
        architecture=_dinov2(384, 12, 6, registers=4),
        source=Source(
            repository="facebook/dinov2-with-registers-small",
            revision="0d9846e56b43a21fa46d7f3f5070f0506a5795a9",
            megabytes=88,
        ),
    ),
    BackbonePreset(
        name="dinov2-base-reg",
        architecture=_dinov2(768, 12, 12, registers=4),
        source=Source(
            repository="facebook/dinov2-with-registers-base",
            revision="a1d738ccfa7ae170945f210395d99dde8adb1805",
            sha256="7a6f7b3b9fa4b8732e707476a03cd6cdce210048582f21aafb7991c17d98e362",
            megabytes=346,
        ),
    ),
    BackbonePreset(
        name="dinov2-large-reg",
        architecture=_dinov2(1024, 24, 16, registers=4),
        source=Source(
            repository="facebook/dinov2-with-registers-large",
            revision="e4c89a4e05589de9b3e188688a303d0f3c04d0f3",
            megabytes=1218,
        ),
    ),
    BackbonePreset(
        name="dinov3-small",
        architecture=_dinov3(384, 12, 6),
        source=Source(
            repository="facebook/dinov3-vits16-pretrain-lvd1689m",
            revision="114c1379950215c8b35dfcd4e90a5c251dde0d32",
            sha256="4610ad75edef83e75afdebf162d148dc628045ea6cbb83d67d4708c709c4f91d",
            megabytes=86,
            licence=DINOV3_LICENCE,
        ),
    ),
    BackbonePreset(
        name="dinov3-base",
        architecture=_dinov3(768, 12, 12),
        source=Source(
            repository="facebook/dinov3-vitb16-pretrain-lvd1689m",
            revision="5931719e67bbdb9737e363e781fb0c67687896bc",
            sha256="9a21ac3df0c63839d62612dda6f454d816c25611cc7a52966ed5a5a94921dc8b",
            megabytes=343,
            licence=DINOV3_LICENCE,
        ),
    ),
    BackbonePreset(
        name="vit-tiny",
        architecture=Architecture(
            family="vit",
            patch=16,
            width=192,
            layers=12,
            heads=3,
            hidden=768,
            image=224,
            mean=HALF,
            std=HALF,
        ),
        source=Source(
            repository="timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            revision="main",
            content="bd9c574f89d612d7ea5c114669454277e8a5792272d0c9e6ccf4edea8cea201c",
            megabytes=23,
            other_names=("vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors",),
        ),
    ),
)

BACKBONES: dict[str, BackbonePreset] = {preset.name: preset for preset in _PRESETS}
"""By name."""

HUB_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
"""``owner/name`` or ``owner/name@revision``."""


def check_backbone_name(name: str) -> None:
    """Tell early whether a name can be a backbone's.

    Raises:
        ConfigError: it is no preset, no ``owner/name`` and no folder.
    """
    if name in BACKBONES or (name and Path(name).is_dir()) or HUB_NAME.fullmatch(name):
        return
    raise ConfigError(
        f"backbone '{name}' is not known{preset_hint(name)}: none, {', '.join(BACKBONES)}, owner/name of a ViT on the "
        "hub, or a folder with config.json and model.safetensors"
    )


def preset_hint(name: str) -> str:
    """The preset that a wrong name is nearest to, as a part of a message."""
    hint = did_you_mean(name, BACKBONES)
    return hint and f", {hint}"
