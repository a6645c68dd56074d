"""Extractors by name."""

from __future__ import annotations

import difflib
from typing import Protocol

from semkey.errors import ConfigError
from semkey.extractors.classical import ClassicalExtractor, OrbExtractor, RootSiftExtractor
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike
from semkey.model.presets import load, presets, select_device

CLASSICAL: dict[str, type[ClassicalExtractor]] = {"orb": OrbExtractor, "sift": RootSiftExtractor}
CHECKPOINT_SUFFIX = ".safetensors"


class Extractor(Protocol):
    """Anything that turns an image into features."""

    name: str

    def extract(self, image: ImageLike) -> Features:
        """Features of one image, strongest first."""
        ...


class LearnedExtractor:
    """A semkey detector behind the extractor interface."""

    def __init__(self, name: str, *, max_keypoints: int, device: str) -> None:
        self.name = name
        self._detector = load(name, max_keypoints=max_keypoints, device=device)

    def extract(self, image: ImageLike) -> Features:
        """Features of one image, strongest first."""
        return self._detector.extract(image)


def create_extractor(name: str, *, max_keypoints: int = 1024, device: str = "auto") -> Extractor:
    """Create an extractor.

    Args:
        name: ``compact`` (learned), ``orb``, ``sift`` (RootSIFT), or the path of a semkey ``.safetensors`` checkpoint.
        max_keypoints: largest number of keypoints per image, >= 1.
        device: ``auto`` (for a learned extractor the GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``. ORB and
            SIFT compute on the CPU and only put their results on the device.

    Returns:
        The extractor.

    Raises:
        ConfigError: unknown name, unusable device, or ``max_keypoints`` below 1.
        CheckpointError: the checkpoint is missing or not one of semkey's.
    """
    if max_keypoints < 1:
        raise ConfigError(f"max_keypoints must be at least 1, got {max_keypoints}")
    if name in CLASSICAL:
        # Their results are made on the CPU, and a copy to the GPU pays only where it is asked for.
        target = select_device("cpu" if device == "auto" else device)
        return CLASSICAL[name](max_keypoints=max_keypoints, device=target)
    learned = presets()
    if name in learned or name.endswith(CHECKPOINT_SUFFIX):
        return LearnedExtractor(name, max_keypoints=max_keypoints, device=device)
    known = [*learned, *CLASSICAL]
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"a checkpoint's name ends in {CHECKPOINT_SUFFIX}"
    raise ConfigError(f"unknown features '{name}': choose one of {', '.join(known)} ({hint})")
