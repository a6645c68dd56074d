"""Keypoints drawn from a score map, and the loss by which what they were worth changes the map.

Where no correspondences are known, whether a keypoint was good shows only afterwards, and not differentiably: by how
many others its match agrees. A policy gradient (REINFORCE, Williams 1992) needs no more: keypoints are drawn with the
probabilities of the map, and the log-probabilities of those that were worth more than the others rise. DISK
(Tyszkiewicz et al. 2020) draws one keypoint or none from each cell; RIPE (Künzel et al. 2025) shows that the inliers of
a fundamental matrix suffice as reward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

CELL = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """Keypoints drawn from a map.

    Attributes:
        pixels: (N, 2) int64 x y.
        log_probability: (N,) of having been drawn; differentiable.
    """

    pixels: torch.Tensor
    log_probability: torch.Tensor

    def __len__(self) -> int:
        return len(self.pixels)


def draw_keypoints(
    log_probability: torch.Tensor, valid: torch.Tensor | None = None, *, cell: int = CELL, margin: int = 0
) -> Draw:
    """Draw at most one keypoint from each cell of a map, with the map's own probabilities.

    Where the borders of the cells lie is drawn as well: whatever cells the detector has itself, no place is preferred.
    The probabilities of a cell that sum to more than 1 are scaled to 1; what is left is "none".

    Args:
        log_probability: (H, W) of a keypoint at each pixel, at most 0.
        valid: (H, W) bool, pixels that may be drawn; all by default.
        cell: side of a cell, pixels.
        margin: no keypoint is drawn closer to the border, pixels.

    Returns:
        The keypoints, row of cells by row of cells; random numbers are torch's.
    """
    height, width = log_probability.shape
    top, left = (int(torch.randint(0, cell, ())) + margin for _ in range(2))
    rows, columns = (height - margin - top) // cell, (width - margin - left) // cell
    if rows < 1 or columns < 1:
        return Draw(
            pixels=torch.zeros(0, 2, dtype=torch.int64, device=log_probability.device),
            log_probability=log_probability.reshape(-1)[:0],
        )
    part = (slice(top, top + rows * cell), slice(left, left + columns * cell))
    logs = F.pixel_unshuffle(log_probability[part][None, None], cell)[0].flatten(1).T  # (cells, cell * cell)
    probability = logs.exp()
    if valid is not None:
        allowed = F.pixel_unshuffle(valid[part][None, None].to(probability), cell)[0].flatten(1).T
        probability = probability * allowed
    total = probability.sum(dim=1, keepdim=True)
    none = (1.0 - total).clamp(min=0.0)
    with torch.no_grad():
        drawn = torch.multinomial(torch.cat([probability, none], dim=1).float().clamp(min=1e-12), 1)[:, 0]
    kept = drawn < cell * cell
    if valid is not None:  # the least probability that lets a cell of nothing be drawn from is no permission
        kept = kept & (allowed.gather(1, drawn.clamp(max=cell * cell - 1)[:, None])[:, 0] > 0)
    number = torch.nonzero(kept)[:, 0]
    inside = drawn[number]
    x = left + number % columns * cell + inside % cell
    y = top + number // columns * cell + inside // cell
    chosen = logs[number, inside] - total[number, 0].clamp(min=1.0).log()
    return Draw(pixels=torch.stack([x, y], dim=1), log_probability=chosen)


def policy_loss(draws: list[Draw], rewards: list[torch.Tensor]) -> torch.Tensor:
    """The loss whose gradient raises the probability of keypoints that were worth more than the others of their image.

    Compared with the mean of their own image, they cannot all rise: how many keypoints there are stays as it is, and
    which ones they are changes.

    Args:
        draws: of V images.
        rewards: V times (N,), without gradients.

    Returns:
        Scalar: minus the mean of (reward - mean reward of the image) times the log-probability; 0 without keypoints.
        Its value says nothing, its gradient is that of the expected reward.
    """
    total = torch.cat([draw.log_probability for draw in draws])
    if len(total) == 0:
        return total.sum()
    advantages = torch.cat([reward - reward.mean() if len(reward) else reward for reward in rewards])
    return -(advantages.detach() * total).mean()
