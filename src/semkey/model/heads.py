"""The heads over the fused pyramid: score map, descriptors, sub-pixel offsets, global descriptor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from semkey.model.layers import ConvBlock, cells_to_image, is_traced, sample_map
from semkey.model.stem import GRID_STRIDE


class ScoreHead(nn.Module):
    """Keypoint log-probabilities at full resolution from a grid: each cell gives one logit per pixel it covers.

    3 x 3, 3 x 3, 1 x 1 -> 8 * 8, plus the detail stem's logits: the grid says whether a place is worth a
    keypoint, the detail where its corner lies. A softmax over a cell's 64 logits and a constant 0 for "no keypoint
    here" (as SuperPoint's dustbin, DeTone et al. 2018) makes them probabilities; depth-to-space puts them in place.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        last = nn.Conv2d(hidden, GRID_STRIDE**2, 1)
        self.layers = nn.Sequential(ConvBlock(channels, hidden), ConvBlock(hidden, hidden), last)

    def forward(self, grid: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and (B, 64, h, w) -> log-probabilities (B, 1, 8 h, 8 w), float32, at most 0."""
        logits = self.layers(grid).float() + detail.float()
        # log(1 + sum exp) is the softplus of the log-sum-exp
        return cells_to_image(logits - F.softplus(torch.logsumexp(logits, dim=1, keepdim=True)), GRID_STRIDE)

    def logits(self, grid: torch.Tensor) -> torch.Tensor:
        """The grid's own logits in their places: (B, C, h, w) -> (B, 1, 8 h, 8 w), float32."""
        return cells_to_image(self.layers(grid).float(), GRID_STRIDE)


def score_from_log_probability(log_probability: torch.Tensor) -> torch.Tensor:
    """Score in [0, 1] of a log-probability: 1 + log(p) / 10, so 1 is certain and 0 is p = 4.5e-5 or less.

    With this scale a soft-argmax at temperature 0.1 weighs pixels by their probability, whatever the peak's height.
    """
    return (1.0 + 0.1 * log_probability).clamp(min=0.0)


def probability_from_score(score: torch.Tensor) -> torch.Tensor:
    """The probability that a score in [0, 1] stands for; what :func:`score_from_log_probability` turns back."""
    return torch.exp(10.0 * (score - 1.0))


class SDDH(nn.Module):
    """Sparse deformable descriptor head (ALIKED, Zhao et al. 2023, section III-C).

    A 3 x 3 patch around the keypoint predicts M sample positions; the features there go through SELU and are summed
    with learned matrices. Works in pixels on the pyramid's map for descriptors (stride ``stride``). ALIKED's 1 x 1
    convolution of the samples is the pyramid's last one here: it commutes with bilinear sampling, and on the map it
    costs less.
    """

    patch: torch.Tensor

    def __init__(self, channels: int, dim: int, positions: int, stride: int) -> None:
        super().__init__()
        self.positions, self.stride = positions, stride
        self.offsets = nn.Sequential(
            nn.Linear(9 * channels, 2 * positions), nn.SELU(inplace=True), nn.Linear(2 * positions, 2 * positions)
        )
        self.aggregate = nn.Linear(positions * channels, dim, bias=False)
        steps = torch.tensor([-1.0, 0.0, 1.0]) * stride
        patch = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(9, 2)
        self.register_buffer("patch", patch, persistent=False)

    def forward(self, fine: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
        """Describe keypoints.

        Args:
            fine: (B, C, H/s, W/s) map of the pyramid.
            keypoints: (B, N, 2) pixels of the full-resolution input.

        Returns:
            (B, N, D) float32, unit norm.
        """
        batch, count, _ = keypoints.shape
        reach = _longer_side(fine) * self.stride / 4.0
        patch = sample_map(fine, keypoints[:, :, None] + self.patch, self.stride)
        offsets = self.offsets(patch.flatten(2)) * self.stride
        offsets = offsets.float().clamp(min=-reach).clamp(max=reach).reshape(batch, count, self.positions, 2)
        samples = sample_map(fine, keypoints[:, :, None] + offsets, self.stride)
        samples = F.selu(samples, inplace=not samples.requires_grad)
        descriptors = self.aggregate(samples.flatten(2))
        return F.normalize(descriptors.float(), dim=-1, eps=1e-6)


def _longer_side(maps: torch.Tensor) -> float | torch.Tensor:
    """Of maps (..., H, W); a tensor where a graph is recorded, so that it stays that of the image at hand."""
    height, width = maps.shape[-2:]
    if not is_traced():
        return max(height, width)
    return torch.maximum(torch.as_tensor(height), torch.as_tensor(width)).float()


class OffsetHead(nn.Module):
    """Sub-pixel refinement: a small heat map per keypoint from fine features, read out by soft-argmax.

    Input is a 3 x 3 patch of the detail stem's map and the keypoint's window of scores; output an expectation over a
    5 x 5 grid of candidate shifts half a pixel apart, so at most one pixel in x and y.
    """

    patch: torch.Tensor
    candidates: torch.Tensor

    def __init__(self, channels: int, stride: int, window: int = 5) -> None:
        super().__init__()
        self.stride = stride
        last = nn.Linear(64, 25)
        nn.init.zeros_(last.weight)  # starts as "no shift"
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(9 * channels + window**2, 64), nn.ReLU(inplace=True), last)
        cells = torch.tensor([-1.0, 0.0, 1.0]) * stride
        shifts = torch.linspace(-1.0, 1.0, 5)
        patch = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), dim=-1).reshape(9, 2)
        candidates = torch.stack(torch.meshgrid(shifts, shifts, indexing="xy"), dim=-1).reshape(25, 2)
        self.register_buffer("patch", patch, persistent=False)
        self.register_buffer("candidates", candidates, persistent=False)

    def forward(self, detail: torch.Tensor, keypoints: torch.Tensor, window_scores: torch.Tensor) -> torch.Tensor:
        """Shift of each keypoint.

        Args:
            detail: (B, C, H/s, W/s) map of the detail stem.
            keypoints: (B, N, 2) pixels.
            window_scores: (B, N, 25) scores of the 5 x 5 window that the keypoint was read from.

        Returns:
            (B, N, 2) float32 pixels in [-1, 1].
        """
        patch = sample_map(detail, keypoints[:, :, None] + self.patch, self.stride).flatten(2)
        logits = self.layers(torch.cat([patch, window_scores.to(patch.dtype)], dim=-1))
        return logits.float().softmax(dim=-1) @ self.candidates


class QuadraticOffset(nn.Module):
    """Sub-pixel place of a peak: the top of a quadratic through the 3 x 3 scores around a maximum.

    Scores are linear in log-probabilities, and the logarithm of a Gaussian peak is a quadratic whatever its width, so
    the top is found without a bias. A soft-argmax is pulled to the middle of its window as soon as the peak is not much
    narrower than that: half a pixel came out as a tenth. Along a ridge, where the quadratic is flat or opens upwards,
    the curvature is made up to :attr:`least_curvature`, and the place stays near the maximum. It has no parameters.
    """

    fit: torch.Tensor

    least_curvature = 0.005
    """Of scores per squared pixel: a Gaussian peak of standard deviation 4.5 px."""
    largest_shift = 0.75
    """Pixels, in x and in y: the top of a peak lies within half a pixel of its maximum but for noise."""

    def __init__(self, window: int = 5) -> None:
        super().__init__()
        self.window = window
        steps = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        y, x = (part.reshape(-1) for part in torch.meshgrid(steps, steps, indexing="ij"))
        design = torch.stack([torch.ones_like(x), x, y, x * x / 2, x * y, y * y / 2], dim=1)
        weights = torch.exp(-(x * x + y * y) / 4.0)[:, None]  # the root of a Gaussian of one pixel
        fit = torch.linalg.pinv(design * weights) * weights[:, 0]
        self.register_buffer("fit", fit.float(), persistent=False)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows (N, k * k) of scores around maxima, row by row -> shifts (N, 2) x y from their middle, pixels."""
        first = self.window // 2 - 1
        side = slice(first, first + 3)
        middle = windows.float().unflatten(-1, (self.window, self.window))[:, side, side].flatten(1)
        _, slope_x, slope_y, xx, xy, yy = (middle @ self.fit.T).unbind(dim=1)
        steepest = (xx + yy) / 2 + torch.sqrt(((xx - yy) / 2) ** 2 + xy * xy + 1e-12)  # the larger eigenvalue
        lift = (steepest + self.least_curvature).clamp(min=0.0)
        xx, yy = xx - lift, yy - lift
        determinant = xx * yy - xy * xy
        shift = torch.stack([xy * slope_y - yy * slope_x, xy * slope_x - xx * slope_y], dim=1) / determinant[:, None]
        return shift.clamp(-self.largest_shift, self.largest_shift)


class WindowOffset(QuadraticOffset):
    """:class:`QuadraticOffset` and what a perceptron on the same 5 x 5 scores adds to it, at most a pixel.

    Peaks are no Gaussians: beside edges and other peaks their tops lie elsewhere than the quadratic's. Untrained it
    adds nothing; ``scripts/fit_offset.py`` fits it to views through known homographies.
    """

    largest_correction = 1.0
    contrast = 4.0
    """Scores below the maximum are multiplied by this for the perceptron: a window spans a few tenths."""

    def __init__(self, window: int = 5, hidden: int = 48) -> None:
        super().__init__(window)
        last = nn.Linear(hidden, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(window**2, hidden), nn.ReLU(inplace=True), last)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows (N, k * k) of scores around maxima, row by row -> shifts (N, 2) x y from their middle, pixels."""
        return super().forward(windows) + self.correction(windows)

    def correction(self, windows: torch.Tensor) -> torch.Tensor:
        """What the perceptron adds: (N, k * k) -> (N, 2), pixels."""
        relative = windows.float() - windows[:, self.window**2 // 2, None].float()
        return self.largest_correction * torch.tanh(self.layers(self.contrast * relative))


class GlobalHead(nn.Module):
    """Place descriptor: GeM pooling (Radenovic et al. 2018, eq. 3, p = 3) of the coarse maps, linearly projected."""

    def __init__(self, coarse: Sequence[int], dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(sum(coarse), dim)

    def forward(self, coarse: Sequence[torch.Tensor]) -> torch.Tensor:
        """Coarse maps (B, C_i, h_i, w_i) -> (B, G) float32, unit norm."""
        pooled = [F.relu(m.detach().float()).clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3) for m in coarse]
        return F.normalize(self.project(torch.cat(pooled, dim=1)), dim=-1, eps=1e-6)
