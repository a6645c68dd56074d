"""Extractors by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from semkey.downloads import file_sha256
from semkey.errors import ConfigError
from semkey.extractors.classical import ClassicalExtractor, OrbExtractor, RootSiftExtractor
from semkey.extractors.peers import PEERS
from semkey.extractors.plugins import create_from_entry_point, create_from_function, entry_point_names
from semkey.model.features import Features
from semkey.model.precision import uses_bfloat16
from semkey.model.preprocess import ImageLike
from semkey.model.presets import load, load_random, preset_names, presets
from semkey.runtime import select_device
from semkey.settings import did_you_mean

CLASSICAL: dict[str, type[ClassicalExtractor]] = {"orb": OrbExtractor, "sift": RootSiftExtractor}
CHECKPOINT_SUFFIX = ".safetensors"


class Extractor(Protocol):
    """Anything that turns an image into features."""

    name: str

    def extract(self, image: ImageLike) -> Features:
        """Features of one image, strongest first."""
        ...


class LearnedExtractor:
    """A semkey detector behind the extractor interface.

    Attributes:
        name: preset or path, as given.
        settings: everything that results depend on besides the versions of the libraries; JSON-ready.
    """

    def __init__(
        self,
        name: str,
        *,
        max_keypoints: int,
        device: str,
        weights: Sequence[Path] = (),
        random_weights: bool = False,
    ) -> None:
        self.name = name
        if random_weights:
            self._detector = load_random(name, max_keypoints=max_keypoints, device=device)
        else:
            self._detector = load(name, max_keypoints=max_keypoints, device=device, weights=weights)
        extraction, backbone = self._detector.extraction, self._detector.backbone
        reduced = uses_bfloat16(extraction.precision, self._detector.device)
        self.settings: dict[str, Any] = {
            "kind": "semkey",
            "parameters": sum(parameter.numel() for parameter in self._detector.parameters()),
            **asdict(extraction),
            "precision": "bfloat16" if reduced else "float32",
        }
        if random_weights:
            self.settings |= {"weights": "random", "weights_bytes": 4 * self.settings["parameters"]}
        else:
            shipped = presets().get(name)
            path = shipped.path if shipped else Path(name)
            self.settings |= {
                "weights": path.name,
                "weights_sha256": file_sha256(path),
                "weights_bytes": path.stat().st_size,
            }
        if backbone is not None:
            self.settings["backbone"] = asdict(backbone.identity)
            self.settings["parameters"] += backbone.parameter_count
            self.settings["weights_bytes"] += backbone.weight_bytes

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._detector.device

    def extract(self, image: ImageLike) -> Features:
        """Features of one image, strongest first."""
        return self._detector.extract(image)

    def extract_and_describe(self, image: ImageLike, points: torch.Tensor) -> tuple[Features, torch.Tensor]:
        """Features of one image, and descriptors (M, D) of points (M, 2) in it, from one pass of the network."""
        return self._detector.extract_and_describe(image, points)


def extractor_names() -> list[str]:
    """Names that :func:`create_extractor` knows, besides checkpoints and ``module:function``."""
    shipped = list(presets())
    builtin = [*shipped, *CLASSICAL, *PEERS, *(name for name in preset_names() if name not in shipped)]
    return [*builtin, *(name for name in entry_point_names() if name not in builtin)]


def create_extractor(
    name: str,
    *,
    max_keypoints: int = 1024,
    device: str = "auto",
    weights: Sequence[Path] = (),
    random_weights: bool = False,
) -> Extractor:
    """Create an extractor.

    Args:
        name: ``compact`` or another preset of semkey, ``orb``, ``sift`` (RootSIFT), a peer (``aliked-t16``,
            ``aliked-n16``, ``aliked-n16rot``, ``aliked-n32``, ``xfeat``, ``disk``: these need the extra ``peers``;
            ``clidd-n64``, ``clidd-s64``, ``clidd-m64``, ``clidd-l64``), the path of a semkey ``.safetensors``
            checkpoint, ``module:function`` (see :func:`semkey.extractors.plugins.create_from_function`), or a name that
            an installed package registered as an entry point of the group ``semkey.extractors``.
        max_keypoints: largest number of keypoints per image, >= 1.
        device: ``auto`` (for a learned extractor the GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``. ORB and
            SIFT compute on the CPU and only put their results on the device.
        weights: folders where the released weights of peers and backbones are looked for first (see
            :func:`semkey.extractors.peer_weights.find_weights`, :func:`semkey.backbones.loading.load_backbone`).
        random_weights: presets of semkey get random weights: enough to measure their speed.

    Returns:
        The extractor.

    Raises:
        ConfigError: unknown name, unusable device, ``max_keypoints`` below 1, a package that is missing, or a
            ``module:function`` that cannot be used.
        CheckpointError: the checkpoint is missing or not one of semkey's; the weights of a peer cannot be found.
    """
    shipped = _create_shipped(
        name, max_keypoints=max_keypoints, device=device, weights=weights, random_weights=random_weights
    )
    if shipped is not None:
        return shipped
    if ":" in name:
        return create_from_function(name, max_keypoints=max_keypoints, device=str(select_device(device)))
    registered = create_from_entry_point(name, max_keypoints=max_keypoints, device=str(select_device(device)))
    if registered is not None:
        return registered
    raise _unknown(name)


def create_stored_extractor(
    name: str, *, max_keypoints: int = 1024, device: str = "auto", weights: Sequence[Path] = ()
) -> Extractor:
    """Create the extractor that a file names, such as the map it was made with.

    Files come from strangers, so they never say which code is run: only what ships with semkey and checkpoints (which
    hold numbers alone) are made here. Own extractors are given by the user, and a file only checks that they match.

    Args:
        name: as written in the file.
        max_keypoints: see :func:`create_extractor`.
        device: see :func:`create_extractor`.
        weights: see :func:`create_extractor`.

    Raises:
        ConfigError: nothing of semkey's has this name; an extractor of one's own has to be given with ``--features``.
        CheckpointError: see :func:`create_extractor`.
    """
    shipped = _create_shipped(name, max_keypoints=max_keypoints, device=device, weights=weights, random_weights=False)
    if shipped is not None:
        return shipped
    if ":" not in name and name not in entry_point_names():
        raise _unknown(name)
    raise ConfigError(
        f"features '{name}' do not come with semkey, and code that a file names is not run: "
        "give your own extractor with --features"
    )


def _unknown(name: str) -> ConfigError:
    known = extractor_names()
    hint = did_you_mean(name, known) or f"a checkpoint's name ends in {CHECKPOINT_SUFFIX}"
    return ConfigError(f"unknown features '{name}': choose one of {', '.join(known)} ({hint})")


def _create_shipped(
    name: str, *, max_keypoints: int, device: str, weights: Sequence[Path], random_weights: bool
) -> Extractor | None:
    """What semkey itself has under a name, or a checkpoint; None for anything else. Runs no foreign code."""
    if max_keypoints < 1:
        raise ConfigError(f"max_keypoints must be at least 1, got {max_keypoints}")
    if name in CLASSICAL:
        # Their results are made on the CPU, and a copy to the GPU pays only where it is asked for.
        target = select_device("cpu" if device == "auto" else device)
        return CLASSICAL[name](max_keypoints=max_keypoints, device=target)
    if name in PEERS:
        return PEERS[name](name, max_keypoints=max_keypoints, device=select_device(device), weights=weights)
    if name in preset_names() or name.endswith(CHECKPOINT_SUFFIX):
        is_random = random_weights and name in preset_names()
        return LearnedExtractor(
            name, max_keypoints=max_keypoints, device=device, weights=weights, random_weights=is_random
        )
    return None
