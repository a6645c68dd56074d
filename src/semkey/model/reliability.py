"""The reliability heads: how likely a keypoint's match is to be right, told from its own image alone.

Whatever a head reads is detached, so that training it cannot change matching, unless an experiment asks otherwise.
"""

from __future__ import annotations

import torch
from torch import nn

from semkey.model.dkd import Peaks
from semkey.model.heads import score_from_log_probability
from semkey.model.layers import sample_map
from semkey.model.stem import GRID_STRIDE


class GridReliabilityHead(nn.Module):
    """1 x 1 -> 64 -> 1 on the grid's features; the head of checkpoints that do not say which one they have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 64, 1), nn.ReLU(inplace=True), nn.Conv2d(64, 1, 1))

    def forward(self, grid: torch.Tensor, keypoints: torch.Tensor, *, attached: bool = False) -> torch.Tensor:
        """(B, C, h, w) and (B, N, 2) pixels -> logits (B, N), float32; gradients reach the grid if ``attached``."""
        return sample_map(self.layers(grid if attached else grid.detach()).float(), keypoints, GRID_STRIDE)[..., 0]


class KeypointReliabilityHead(nn.Module):
    """A perceptron on what decides whether a keypoint is found again, and then matched.

    It reads the score map in the 15 x 15 window around the peak (is it sharp, what competes with it), the score against
    the mean and the lowest of the image's keypoints (how far it is from falling out of the selection), the detail
    stem's features in a 3 x 3 patch, and the fine features that the descriptor is made of.

    Args:
        fine_channels: of the map that descriptors are read from.
        fine_stride: pixels per cell of that map.
        detail_channels: of the detail stem's map; 0 where the detector has none.
        detail_stride: pixels per cell of that map.
        hidden: width of the hidden layer.
    """

    patch: torch.Tensor

    radius = 7
    """The window reaches this far from the peak, pixels."""

    def __init__(
        self, fine_channels: int, fine_stride: int, detail_channels: int, detail_stride: int, hidden: int = 64
    ) -> None:
        super().__init__()
        self.fine_stride, self.detail_stride = fine_stride, detail_stride
        self.width = inputs = (2 * self.radius + 1) ** 2 + 3 + fine_channels + 9 * detail_channels
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)  # untrained it says 0.5 of every keypoint
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(inplace=True), last)
        cells = torch.tensor([-1.0, 0.0, 1.0]) * detail_stride
        patch = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), dim=-1).reshape(9, 2)
        self.register_buffer("patch", patch, persistent=False)

    def forward(
        self,
        log_probability: torch.Tensor,
        fine: torch.Tensor,
        detail: torch.Tensor,
        keypoints: torch.Tensor,
        peaks: Peaks,
    ) -> torch.Tensor:
        """Rate the keypoints of one image; their order does not matter.

        Args:
            log_probability: (1, 1, H, W).
            fine: (1, C, H/f, W/f).
            detail: (1, D, H/s, W/s).
            keypoints: (N, 2) refined pixels; all that the image has, since scores are seen against each other.
            peaks: the N maxima they were refined from.

        Returns:
            (N,) logits, float32.
        """
        if len(keypoints) == 0:
            return keypoints.new_zeros(0)
        return self.layers(self.inputs(log_probability, fine, detail, keypoints, peaks)).float()[:, 0]

    def inputs(
        self,
        log_probability: torch.Tensor,
        fine: torch.Tensor,
        detail: torch.Tensor,
        keypoints: torch.Tensor,
        peaks: Peaks,
        *,
        attached: bool = False,
    ) -> torch.Tensor:
        """What :meth:`forward` gives to the perceptron, of at least one keypoint: (N, K) float32, K inputs.

        Gradients reach the maps, but never the places of keypoints, only if ``attached``.
        """
        with torch.set_grad_enabled(attached and torch.is_grad_enabled()):
            return self._inputs(log_probability, fine, detail, keypoints.detach(), peaks)

    def _inputs(
        self,
        log_probability: torch.Tensor,
        fine: torch.Tensor,
        detail: torch.Tensor,
        keypoints: torch.Tensor,
        peaks: Peaks,
    ) -> torch.Tensor:
        points, scores = keypoints[None], peaks.scores.float()
        around = self._window(log_probability[0, 0], peaks.pixels) - scores[:, None]
        standing = torch.stack([scores, scores - scores.mean(), scores - scores.min()], dim=1)
        parts = [
            10.0 * around,
            10.0 * standing,
            sample_map(fine, points, self.fine_stride)[0].float(),
        ]
        if detail.shape[1] > 0:
            parts.append(sample_map(detail, points[:, :, None] + self.patch, self.detail_stride)[0].flatten(1).float())
        return torch.cat(parts, dim=1)

    def _window(self, log_probability: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Scores (N, 15 * 15) around pixels (N, 2); beyond the map its border is repeated."""
        height, width = log_probability.shape
        steps = torch.arange(-self.radius, self.radius + 1, device=pixels.device)
        rows = (pixels[:, 1, None] + steps).clamp(0, height - 1)
        columns = (pixels[:, 0, None] + steps).clamp(0, width - 1)
        indices = rows[:, :, None] * width + columns[:, None, :]
        # index_select of flat indices: a third of the time of indexing with them
        values = log_probability.reshape(-1).index_select(0, indices.reshape(-1)).reshape(len(pixels), -1)
        return score_from_log_probability(values.float())
