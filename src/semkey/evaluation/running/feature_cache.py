"""Features on disk, so that every image is extracted once per method, also over several runs."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from semkey.errors import InputError
from semkey.evaluation.running.methods import Method
from semkey.files import atomic_write_bytes
from semkey.model.features import Features

IMAGES_IN_MEMORY = 32
_HEADER = "semkey"
_TENSORS = ("keypoints", "scores", "reliability", "descriptors", "global_descriptor", "covariances", "semantics")


class FeatureCache:
    """Features by method and pixels: kept in memory for the latest images, and in a folder for all.

    A file is found by a hash of everything features depend on: what the method says of its extraction (weights,
    options, versions, code) and the image's pixels. So a changed method or image is never answered with old features,
    and several runs may share a folder. Features are float32 on the CPU, whether computed or read.

    Args:
        folder: where files are kept, made when the first is written; None for memory alone.
        images_in_memory: how many images' features are held at most.
        read: whether files that are there are read; without, every image that is not in memory is extracted, and
            written for others.

    Attributes:
        hits: answers without extraction.
        misses: images extracted.
    """

    def __init__(
        self, folder: Path | None = None, *, images_in_memory: int = IMAGES_IN_MEMORY, read: bool = True
    ) -> None:
        self.folder = folder
        self.images_in_memory = images_in_memory
        self.read = read
        self.hits = 0
        self.misses = 0
        self._memory: OrderedDict[str, Features] = OrderedDict()

    def features(self, method: Method, image: NDArray[np.uint8]) -> Features:
        """Features of an image, float32 on the CPU.

        A damaged file is extracted anew and replaced.

        Args:
            method: extracts on a miss.
            image: uint8 (H, W, 3) RGB.

        Raises:
            InputError: the method's features are not as promised, or the folder cannot be written.
        """
        key = feature_key(method, image)
        features = self._memory.get(key)
        path = self._path(key)
        if features is None and path is not None and self.read:
            features = _read(path)
        if features is None:
            self.misses += 1
            features = method.extract(image)
            if path is not None:
                _write(path, features)
        else:
            self.hits += 1
        self._memory[key] = features
        self._memory.move_to_end(key)
        while len(self._memory) > self.images_in_memory:
            self._memory.popitem(last=False)
        return features

    def _path(self, key: str) -> Path | None:
        # 256 folders, since some file systems are slow with many files in one
        return None if self.folder is None else self.folder / key[:2] / f"{key}.safetensors"


def feature_key(method: Method, image: NDArray[np.uint8]) -> str:
    """Hash (hex) of everything that the features of this image by this method depend on."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(json.dumps(method.extraction, sort_keys=True).encode())
    digest.update(f"|{image.shape}|{image.dtype}|".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _write(path: Path, features: Features) -> None:
    # copies, since safetensors refuses views into a larger tensor
    present = {name: getattr(features, name) for name in _TENSORS if getattr(features, name) is not None}
    tensors = {name: tensor.to(torch.float32).clone().contiguous() for name, tensor in present.items()}
    header = json.dumps(
        {"image_size": list(features.image_size), "method": features.method, "digest": _digest(tensors)}
    )
    atomic_write_bytes(path, save(tensors, metadata={_HEADER: header}))


def _read(path: Path) -> Features | None:
    """Features of a file; None where it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[_HEADER])
            stored = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in _TENSORS if name in stored}
        width, height = header["image_size"]
        features = Features(**tensors, image_size=(width, height), method=header.get("method", ""))
    except (SafetensorError, OSError, InputError, KeyError, TypeError, ValueError):
        return None
    return features if header.get("digest") == _digest(tensors) else None


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of the values: a file keeps its length where a crash of the machine left a part of it unwritten."""
    digest = hashlib.blake2b(digest_size=16)
    for name in _TENSORS:
        if name in tensors:
            digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
