"""Features of images that come again, kept on disk in half precision: computed once, read through the page cache.

One ``.safetensors`` file per image, which the system maps into memory when it is read. Its folder is named after the
backbone, its weights, its layers and the precision it was computed in; its name is a hash of the image's pixels and
size. So a changed image or backbone finds no file of its own, and everybody else's stay. Files are written under a
temporary name and renamed: several processes may fill one folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from semkey.backbones.backbone import Backbone, BackboneFeatures
from semkey.errors import ConfigError
from semkey.files import atomic_write_bytes

_FORMAT = "features-1"  # another number makes everything anew


class BackboneCache:
    """Features of one backbone on disk.

    Args:
        folder: of the cache; several backbones may share it.
        backbone: whose features; its weights must be known ones.
        bfloat16: whether it computes in bfloat16.

    Raises:
        ConfigError: the backbone has random weights.

    Attributes:
        folder: where this backbone's files are.
        hits: images that were found.
        misses: images that were computed.
    """

    def __init__(self, folder: Path, backbone: Backbone, *, bfloat16: bool) -> None:
        identity = backbone.identity
        if not identity.content:
            raise ConfigError("features of a backbone with random weights cannot be kept")
        state = {
            "format": _FORMAT,
            "content": identity.content,
            "architecture": asdict(backbone.architecture),
            "layers": backbone.layers,
            "precision": "bfloat16" if bfloat16 else "float32",
        }
        if backbone.upsampling != "bilinear":
            state["upsampling"] = backbone.upsampling
        digest = hashlib.blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=6).hexdigest()
        name = "".join(c if c.isalnum() or c in "-." else "-" for c in Path(identity.name).name)
        self.folder = folder / f"{name}-{digest}"
        self.backbone, self.bfloat16 = backbone, bfloat16
        self.hits = self.misses = 0

    def path(self, image: NDArray[np.uint8]) -> Path:
        """The file of an image (H, W, 3) uint8 RGB."""
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
        digest.update(f"{image.shape}".encode())
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def read(self, image: NDArray[np.uint8]) -> BackboneFeatures | None:
        """An image's features as a batch of one, float16 on the CPU; None where they are not there, or damaged."""
        try:
            with safe_open(self.path(image), framework="pt") as file:
                maps = tuple(file.get_tensor(f"layer{layer}") for layer in self.backbone.layers)
                return BackboneFeatures(maps=maps, class_token=file.get_tensor("class"), patch=self.backbone.patch)
        except (SafetensorError, OSError):
            return None

    def write(self, image: NDArray[np.uint8], features: BackboneFeatures) -> None:
        """Keep an image's features, a batch of one.

        Raises:
            InputError: the folder cannot be written.
        """
        tensors = {
            f"layer{layer}": feature_map.half().cpu().contiguous()
            for layer, feature_map in zip(self.backbone.layers, features.maps, strict=True)
        }
        tensors["class"] = features.class_token.half().cpu().contiguous()
        atomic_write_bytes(self.path(image), save(tensors))

    def features(self, image: NDArray[np.uint8]) -> BackboneFeatures:
        """An image's features, read or computed and kept; the same numbers either way.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            A batch of one, float32 on the backbone's device, rounded to half precision.
        """
        device = self.backbone.mean.device
        found = self.read(image)
        if found is None:
            self.misses += 1
            found = compute_features(self.backbone, image, bfloat16=self.bfloat16)
            self.write(image, found)
            found = found.map(torch.Tensor.half)
        else:
            self.hits += 1
        return found.map(lambda tensor: tensor.to(device).float())


def compute_features(backbone: Backbone, image: NDArray[np.uint8], *, bfloat16: bool) -> BackboneFeatures:
    """Features of one image (H, W, 3) uint8 RGB, a batch of one, float32."""
    device = backbone.mean.device
    colors = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device).float() / 255.0
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        return backbone(colors).map(torch.Tensor.float)
