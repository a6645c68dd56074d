"""LightGlue on semkey's own features, with weights that ``semkey train-matcher`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from semkey.errors import InputError
from semkey.matching.lightglue.adaptive import assign_adaptively
from semkey.matching.lightglue.assignment import best_pairs
from semkey.matching.lightglue.checkpoint import MatcherInfo, read_matcher
from semkey.matching.lightglue.network import Network, layer_states
from semkey.matching.mutual import Matches
from semkey.model.features import Features


class TrainedLightGlue:
    """A matcher that was trained for one kind of features, in float32.

    Args:
        path: a file of ``semkey train-matcher``.
        device: where it runs.
        adaptive: stop early and leave keypoints out, where the file's confidence heads are trained.

    Attributes:
        info: for which features it is, and how large.
        device: as given.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
        ConfigError: kornia is not installed.
    """

    def __init__(self, path: Path, device: torch.device, *, adaptive: bool = True) -> None:
        self.path, self.device = path, device
        self._network, self.info = read_matcher(path)
        self._is_adaptive = adaptive and self.info.is_adaptive
        self._network.eval().requires_grad_(False).to(device)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self._network.parameters())

    @property
    def settings(self) -> dict[str, Any]:
        """What matches depend on besides the weights; JSON-ready."""
        return {**self.info.to_mapping(), "adaptive": self._is_adaptive, "precision": "float32"}

    def match(self, features0: Features, features1: Features) -> Matches:
        """Match two images' features.

        Returns:
            Matches on the matcher's device, in the order of image 0's keypoints; scores are confidences above the
            matcher's threshold. None if either image has no features.

        Raises:
            InputError: descriptors of another width than those that it was trained for.
        """
        for features in (features0, features1):
            width = features.descriptors.shape[1]
            if width != self.info.input_dim and len(features):
                raise InputError(
                    f"{self.path}: the matcher was trained for '{self.info.features}' of width {self.info.input_dim}, "
                    f"got descriptors of width {width}"
                )
        if len(features0) == 0 or len(features1) == 0:
            none = torch.zeros((0, 2), dtype=torch.int64, device=self.device)
            return Matches(indices=none, scores=torch.zeros(0, device=self.device))
        pair = (features0.to(self.device), features1.to(self.device))
        keypoints = pair[0].keypoints[None], pair[1].keypoints[None]
        descriptors = pair[0].descriptors[None], pair[1].descriptors[None]
        sizes = _size(features0, self.device), _size(features1, self.device)
        with torch.inference_mode():
            if self._is_adaptive:
                adapted = assign_adaptively(self._network, keypoints, descriptors, sizes)
                found, scores = adapted.indices, adapted.scores
            else:
                found, scores = assign(self._network, keypoints, descriptors, sizes, self.info.filter_threshold)[0]
        return Matches(indices=found.clone(), scores=scores.clone())


def assign(
    network: Network,
    keypoints: tuple[torch.Tensor, torch.Tensor],
    descriptors: tuple[torch.Tensor, torch.Tensor],
    sizes: tuple[torch.Tensor, torch.Tensor],
    threshold: float,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Indices (M, 2) and confidences (M,) of the matches of each pair of a batch.

    A match is the best of its row and column by the log assignment, with a confidence above ``threshold``; see
    :func:`semkey.matching.lightglue.network.layer_states` for the arguments.
    """
    state0, state1 = layer_states(network, keypoints, descriptors, sizes)[-1]
    scores, _ = network.log_assignment[-1](state0, state1)
    return best_pairs(scores, threshold)


def _size(features: Features, device: torch.device) -> torch.Tensor:
    return torch.tensor([features.image_size], device=device)


__all__ = ["MatcherInfo", "TrainedLightGlue", "assign"]
