"""LightGlue that stops when keypoints are sure of their matches, and leaves out those that surely have none.

Section 3.3 of the paper (Lindenberger et al. 2023). A head behind every layer but the last says of each keypoint how
likely its match at this layer is the one that the last layer will find. Heads, thresholds and both criteria are
kornia's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from semkey.matching.lightglue.assignment import best_pairs
from semkey.matching.lightglue.network import Network, Pair, first_states, next_states


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptiveMatches:
    """Matches of one pair, and what they took.

    Attributes:
        indices: (M, 2) int64 of the keypoints as they were given.
        scores: (M,) float32 confidences.
        layers: that were run.
        kept: keypoints of image 0 and image 1 that were in the last of them.
    """

    indices: torch.Tensor
    scores: torch.Tensor
    layers: int
    kept: tuple[int, int]


def assign_adaptively(network: Network, keypoints: Pair, descriptors: Pair, sizes: Pair) -> AdaptiveMatches:
    """Matches of one pair (a batch of 1), with no more layers and keypoints than it takes.

    Args:
        network: with trained confidence heads; its ``conf`` has the thresholds, see
            :func:`semkey.matching.lightglue.network.build_network`.
        keypoints: (1, M, 2) and (1, N, 2) pixels.
        descriptors: (1, M, D) and (1, N, D) of unit norm.
        sizes: (1, 2) each, width and height of the images, pixels.
    """
    (state0, state1), (code0, code1) = first_states(network, keypoints, descriptors, sizes)
    kept0, kept1 = (torch.arange(state.shape[1], device=state.device) for state in (state0, state1))
    total, last = len(kept0) + len(kept1), len(network.transformers) - 1
    number = 0
    for number, layer in enumerate(network.transformers):
        state0, state1 = next_states(layer, (state0, state1), (code0, code1))
        if number == last:
            break
        sure0, sure1 = network.token_confidence[number](state0, state1)
        if network.conf.depth_confidence > 0 and network.check_if_stop(sure0, sure1, number, total):
            break
        if network.conf.width_confidence > 0:
            state0, code0, kept0 = _pruned(network, number, sure0, state0, code0, kept0)
            state1, code1, kept1 = _pruned(network, number, sure1, state1, code1, kept1)
            if not len(kept0) or not len(kept1):
                break
    if len(kept0) and len(kept1):
        scores, _ = network.log_assignment[number](state0, state1)
        found, confidences = best_pairs(scores, network.conf.filter_threshold)[0]
    else:
        found, confidences = kept0.new_zeros((0, 2)), state0.new_zeros(0)
    return AdaptiveMatches(
        indices=torch.stack([kept0[found[:, 0]], kept1[found[:, 1]]], dim=1),
        scores=confidences,
        layers=number + 1,
        kept=(len(kept0), len(kept1)),
    )


def _pruned(
    network: Network, number: int, sure: torch.Tensor, state: torch.Tensor, code: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """State, code and places of the keypoints of one image that may still find a match."""
    matchable = network.log_assignment[number].get_matchability(state)
    (rows,) = network.get_pruning_mask(sure, matchable, number)[0].nonzero(as_tuple=True)
    if len(rows) == len(kept):
        return state, code, kept
    return state.index_select(1, rows), code.index_select(-2, rows), kept.index_select(0, rows)
