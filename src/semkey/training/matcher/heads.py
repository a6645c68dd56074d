"""Training of a matcher's confidence heads, on its frozen weights (LightGlue, section 3.3)."""

from __future__ import annotations

from typing import Any

import torch

from semkey.matching.lightglue.adaptive import assign_adaptively
from semkey.matching.lightglue.network import Network, Pair
from semkey.training.matcher.batches import MatcherBatch
from semkey.training.matcher.config import MatcherTrainConfig
from semkey.training.matcher.losses import States, confidence_loss
from semkey.training.resumable import learning_rate_factor


class HeadsTrainer:
    """The heads of a network whose other weights stay as they are, and their optimiser.

    Args:
        network: whose heads are trained, in place.
        config: of the training.
    """

    def __init__(self, network: Network, config: MatcherTrainConfig) -> None:
        self._network, self._config = network, config
        self._parameters = list(network.token_confidence.parameters())
        rate = config.confidence.learning_rate
        self._optimizer = torch.optim.AdamW(self._parameters, lr=rate, weight_decay=0.0) if config.head_steps else None

    def update(self, done: int, states: States) -> float:
        """One step after ``done`` others; returns the loss."""
        assert self._optimizer is not None
        for group in self._optimizer.param_groups:
            factor = learning_rate_factor(done, self._config.head_steps, 0)
            group["lr"] = self._config.confidence.learning_rate * factor
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        loss = confidence_loss(self._network, states)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        return float(loss.detach())

    def state(self) -> dict[str, Any] | None:
        """Of the optimiser; the heads themselves are the network's."""
        return self._optimizer.state_dict() if self._optimizer is not None else None

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on from a checkpoint; None: from one that was written before there were heads to train."""
        if state is not None and self._optimizer is not None:
            self._optimizer.load_state_dict(state)


class AdaptiveFigures:
    """What stopping early and leaving keypoints out do to pairs held out."""

    def __init__(self, network: Network, config: MatcherTrainConfig) -> None:
        self._network, self._config = network, config
        self._layers = self._kept = self._given = self._found = self._whole = self._pairs = 0

    def add(self, batch: MatcherBatch, sizes: Pair, whole: torch.Tensor) -> None:
        """Count a pair whose matches (M, 2) without either are ``whole``."""
        conf, confidence = self._network.conf, self._config.confidence
        before = conf.depth_confidence, conf.width_confidence
        conf.depth_confidence, conf.width_confidence = confidence.depth, confidence.width
        adapted = assign_adaptively(self._network, batch.keypoints, batch.descriptors, sizes)
        conf.depth_confidence, conf.width_confidence = before
        pairs = {tuple(pair) for pair in whole.tolist()}
        self._found += len(pairs & {tuple(pair) for pair in adapted.indices.tolist()})
        self._whole += len(pairs)
        self._layers += adapted.layers
        self._kept += sum(adapted.kept)
        self._given += sum(points.shape[1] for points in batch.keypoints)
        self._pairs += 1

    def summary(self) -> dict[str, float]:
        """Mean layers of a pair, share of keypoints in the last of them, share of the whole network's matches found."""
        return {
            "layers": self._layers / max(1, self._pairs),
            "kept": self._kept / max(1, self._given),
            "same_matches": self._found / max(1, self._whole),
        }
