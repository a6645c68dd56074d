"""Peers behind one protocol: image in, :class:`semkey.model.features.Features` out.

ALIKED and XFeat run through kornia with their released weights (see ``--peers`` of the benchmark scripts).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import semkey
from semkey.extractors import create_extractor
from semkey.extractors.registry import Extractor
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike


def _features(
    keypoints: torch.Tensor, scores: torch.Tensor, descriptors: torch.Tensor, image: torch.Tensor
) -> Features:
    return Features(
        keypoints=keypoints.float(),
        scores=scores.float().clamp(0, 1),
        reliability=torch.ones(len(keypoints)),
        descriptors=torch.nn.functional.normalize(descriptors.float(), dim=-1),
        global_descriptor=torch.zeros(0),
        image_size=(image.shape[3], image.shape[2]),
    )


def _to_tensor(image: ImageLike) -> torch.Tensor:
    if not isinstance(image, np.ndarray):
        raise TypeError("the peers take uint8 RGB arrays")
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0


class Aliked:
    """ALIKED (Zhao et al. 2023) in top-k mode."""

    def __init__(self, name: str, weights: Path, max_keypoints: int) -> None:
        import kornia.feature as KF

        self.name = name
        self.model = KF.ALIKED(name, max_num_keypoints=max_keypoints, detection_threshold=0.0)
        self.model.load_state_dict(torch.load(weights / f"{name}.pth", weights_only=True), strict=False)
        self.model.eval()

    @torch.inference_mode()
    def extract(self, image: ImageLike) -> Features:
        """Features of a uint8 (H, W, 3) RGB image."""
        tensor = _to_tensor(image)
        found = self.model(tensor)[0]
        return _features(found.keypoints, found.keypoint_scores, found.descriptors, tensor)


class XFeat:
    """XFeat sparse (Potje et al. 2024)."""

    def __init__(self, weights: Path, max_keypoints: int) -> None:
        import kornia.feature as KF
        from safetensors.torch import load_file

        self.name = "xfeat"
        self.model = KF.XFeat(top_k=max_keypoints)
        self.model.net.load_state_dict(load_file(weights / "xfeat.safetensors"), strict=False)
        self.model.eval()

    @torch.inference_mode()
    def extract(self, image: ImageLike) -> Features:
        """Features of a uint8 (H, W, 3) RGB image."""
        tensor = _to_tensor(image)
        found = self.model.detectAndCompute(tensor, top_k=self.model.top_k)[0]
        return _features(found["keypoints"], found["scores"], found["descriptors"], tensor)


class Precise:
    """A semkey detector at a given precision of its convolutions."""

    def __init__(self, name: str, max_keypoints: int, precision: str) -> None:
        self.name = f"{name} ({precision})"
        self.detector = semkey.load(name, max_keypoints=max_keypoints, precision=precision)

    def extract(self, image: ImageLike) -> Features:
        """Features of an image."""
        return self.detector.extract(image)


def create(name: str, max_keypoints: int, peers: Path, precision: str = "auto") -> Extractor:
    """A method by name: compact, orb, sift, aliked-n16, aliked-t16, xfeat, or the path of a semkey checkpoint.

    ``precision`` is that of semkey's own detectors.
    """
    if name.startswith("aliked"):
        return Aliked(name, peers, max_keypoints)
    if name == "xfeat":
        return XFeat(peers, max_keypoints)
    if precision != "auto" and name not in ("orb", "sift"):
        return Precise(name, max_keypoints, precision)
    return create_extractor(name, max_keypoints=max_keypoints)
