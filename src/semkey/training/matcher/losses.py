"""What a matcher's assignments cost, and how right they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from semkey.matching.lightglue.assignment import partners_by_scores
from semkey.matching.lightglue.network import Network
from semkey.training.matcher.batches import MatcherBatch

States = list[tuple[torch.Tensor, torch.Tensor]]


def assignment_loss(network: Network, states: States, batch: MatcherBatch) -> torch.Tensor:
    """Mean over the layers of the negative log likelihood of the true assignment (LightGlue, equation 10).

    Pairs of keypoints and unmatchable ones of either view are averaged apart, so that neither drowns the other.
    """
    losses = []
    for (state0, state1), head in zip(states, network.log_assignment, strict=True):
        losses.append(_layer_loss(state0.float(), state1.float(), head, batch))
    return torch.stack(losses).mean()


def _layer_loss(state0: torch.Tensor, state1: torch.Tensor, head: Network, batch: MatcherBatch) -> torch.Tensor:
    projected0, projected1 = (head.final_proj(state) / state.shape[-1] ** 0.25 for state in (state0, state1))
    similarity = projected0 @ projected1.transpose(1, 2)
    logits0, logits1 = (head.matchability(state).squeeze(-1) for state in (state0, state1))
    partners0, partners1 = batch.partners
    row, first = (partners0 >= 0).nonzero(as_tuple=True)
    second = partners0[row, first]
    by_rows = F.log_softmax(similarity, dim=2)[row, first, second]
    by_columns = F.log_softmax(similarity, dim=1)[row, first, second]
    matchable = F.logsigmoid(logits0[row, first]) + F.logsigmoid(logits1[row, second])
    matched = -(by_rows + by_columns + matchable)
    unmatched = torch.cat([F.softplus(logits0[partners0 == -1]), F.softplus(logits1[partners1 == -1])])
    return _mean(matched) / 2 + _mean(unmatched) / 2


def confidence_loss(network: Network, states: States) -> torch.Tensor:
    """Mean over all layers but the last of the binary cross-entropy of the confidence heads (LightGlue, section 3.3).

    A keypoint is right to be sure that has the match, or none, that the last layer gives it. States are not changed:
    gradients go into the heads alone.
    """
    threshold = network.conf.filter_threshold
    partners = []
    with torch.no_grad():
        for (state0, state1), assignment in zip(states, network.log_assignment, strict=True):
            scores, _ = assignment(state0.float(), state1.float())
            partners.append(partners_by_scores(scores, threshold)[:2])
    losses = []
    for layer, head in enumerate(network.token_confidence):
        for view in (0, 1):
            logits = head.token[0](states[layer][view].detach().float()).squeeze(-1)
            stays = partners[layer][view] == partners[-1][view]
            losses.append(F.binary_cross_entropy_with_logits(logits, stays.float()))
    return torch.stack(losses).mean()


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.sum() / max(1, values.numel())


def match_figures(found: torch.Tensor, partners0: torch.Tensor) -> tuple[int, int, int]:
    """How many matches (M, 2) are right, how many decided, and how many right ones there are.

    Args:
        found: (M, 2) indices.
        partners0: (K,) of view 0's keypoints, as in a batch.
    """
    truth = partners0[found[:, 0]]
    decided = truth >= -1
    return int((truth == found[:, 1]).sum()), int(decided.sum()), int((partners0 >= 0).sum())
