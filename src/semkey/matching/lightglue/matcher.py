"""LightGlue (Lindenberger et al. 2023) with its released weights, through kornia; a baseline for evaluations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from semkey.errors import CheckpointError, ConfigError, InputError
from semkey.matching.mutual import Matches
from semkey.model.features import Features

DESCRIPTOR_WIDTH = 128
LAYERS = 9
FILTER_THRESHOLD = 0.1
"""Smallest confidence of a match, as released."""


class LightGlueMatcher:
    """The network, on one device, in float32.

    All nine layers run on all keypoints. The released options that stop early and leave keypoints out halve the time
    on a CPU and lose a few correct matches (3 of 100 on indoor pairs), and they set in at other numbers of keypoints on
    other devices, so that results would depend on the device.

    Args:
        tensors: the content of a released file for features of 128-D.
        path: where ``tensors`` come from, for messages.
        device: where it runs.

    Raises:
        ConfigError: kornia is not installed.
        CheckpointError: the tensors do not fit the network.
    """

    def __init__(self, tensors: Mapping[str, Any], path: Path, device: torch.device) -> None:
        try:
            from kornia.feature import LightGlue
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != "kornia":
                raise
            raise ConfigError("LightGlue runs through kornia: pip install 'semkey[peers]'") from None

        self.device = device
        with torch.random.fork_rng(devices=[]):  # the initial values, replaced below, take no caller's random numbers
            self._network = LightGlue(
                None,  # ty: ignore[invalid-argument-type] (documented: builds the network without a download)
                input_dim=DESCRIPTOR_WIDTH,
                n_layers=LAYERS,
                depth_confidence=-1,
                width_confidence=-1,
                filter_threshold=FILTER_THRESHOLD,
            )
        self._load(tensors, path)
        self._network.eval().requires_grad_(False).to(device)

    @property
    def settings(self) -> dict[str, Any]:
        """What matches depend on besides the weights; JSON-ready."""
        return {"layers": LAYERS, "filter_threshold": FILTER_THRESHOLD, "adaptive": False, "precision": "float32"}

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self._network.parameters())

    def match(self, features0: Features, features1: Features) -> Matches:
        """Match two images' features.

        Args:
            features0: N0 features of image 0, on any device.
            features1: N1 features of image 1.

        Returns:
            Matches on the matcher's device, in the order of image 0's keypoints; scores are LightGlue's confidences,
            in (0.1, 1]. None if either image has no features.

        Raises:
            InputError: descriptors are not 128-D.
        """
        for features in (features0, features1):
            width = features.descriptors.shape[1]
            if width != DESCRIPTOR_WIDTH and len(features):
                raise InputError(f"LightGlue's released weights take {DESCRIPTOR_WIDTH}-D descriptors, got {width}-D")
        if len(features0) == 0 or len(features1) == 0:
            none = torch.zeros((0, 2), dtype=torch.int64, device=self.device)
            return Matches(indices=none, scores=torch.zeros(0, device=self.device))
        with torch.inference_mode():
            data = {"image0": self._input(features0), "image1": self._input(features1)}
            found = self._network(data)
        return Matches(indices=found["matches"][0], scores=found["scores"][0].float().clamp(0, 1))

    def _input(self, features: Features) -> dict[str, torch.Tensor]:
        return {
            "keypoints": features.keypoints[None].to(self.device),
            "descriptors": features.descriptors[None].to(self.device),
            "image_size": torch.tensor([features.image_size], device=self.device),
        }

    def _load(self, tensors: Mapping[str, Any], path: Path) -> None:
        renamed = dict(tensors)
        for layer in range(LAYERS):  # names before the network was rearranged
            for part in ("self_attn", "cross_attn"):
                old, new = f"{part}.{layer}.", f"transformers.{layer}.{part}."
                renamed = {key.replace(old, new) if key.startswith(old) else key: v for key, v in renamed.items()}
        try:
            result = self._network.load_state_dict(renamed, strict=False)
        except (RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path}: does not fit LightGlue ({' '.join(str(error).split())[:200]})") from None
        # The thresholds of early stopping follow from the number of layers, and are in some files only. The file for
        # DISK has scalars log_assignment.N.r that no released code reads.
        missing = [name for name in result.missing_keys if name != "confidence_thresholds"]
        foreign = [name for name in result.unexpected_keys if not re.fullmatch(r"log_assignment\.\d+\.r", name)]
        if missing or foreign:
            raise CheckpointError(f"{path}: tensor '{(missing or foreign)[0]}' does not fit LightGlue")
