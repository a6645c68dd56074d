"""Where points and maps of view 0 of a training pair lie in view 1, differentiable.

A pair is related either by a homography ``H10`` or by a dense warp ``warp10`` made from depth. Pixels, x y, pixel
centres at integers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def dense_warp(H10: torch.Tensor, warp10: torch.Tensor) -> torch.Tensor:
    """The dense warp of each pair of a batch, made from its homography where it has one.

    Args:
        H10: (B, 3, 3) float64, NaN for pairs without a homography.
        warp10: (B, H, W, 2) used for those; NaN where not seen.

    Returns:
        (B, H, W, 2) in the dtype of ``warp10``: where each pixel of view 0 lies in view 1, NaN beyond the horizon of a
        homography and where not seen.
    """
    height, width = warp10.shape[1:3]
    steps_y = torch.arange(height, device=warp10.device, dtype=torch.float64)
    steps_x = torch.arange(width, device=warp10.device, dtype=torch.float64)
    y, x = torch.meshgrid(steps_y, steps_x, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    rows = []
    for H, warp in zip(H10, warp10, strict=True):
        if bool(torch.isfinite(H).all()):
            mapped, in_front = _through_homography(H, pixels, (height, width))
            mapped = mapped.masked_fill(~in_front[:, None], float("nan"))
            rows.append(mapped.reshape(height, width, 2).to(warp.dtype))
        else:
            rows.append(warp)
    return torch.stack(rows)


def project_points(points: torch.Tensor, H10: torch.Tensor, warp10: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of view 0 in view 1, differentiable with respect to ``points``.

    A dense warp is read bilinearly; a point is unknown if any of its four pixels is not seen, since a mean over them
    would mix two surfaces.

    Args:
        points: (N, 2) pixels of view 0.
        H10: (3, 3) float64, NaN where the pair has no homography.
        warp10: (H, W, 2), used where it has none; its size is view 0's in either case.

    Returns:
        (N, 2) pixels of view 1 in the dtype of ``points``, finite and without meaning where not seen, and (N,) bool:
        seen, that is known and on the pixels of view 1, which has the size of view 0.
    """
    size = (int(warp10.shape[0]), int(warp10.shape[1]))
    if bool(torch.isfinite(H10).all()):
        projected, known = _through_homography(H10.to(points.device), points, size)
        projected = projected.to(points.dtype)
    else:
        projected, known = _read_warp(warp10, points)
    inside = _on_pixels(projected.detach(), size) & _on_pixels(points.detach(), size)
    return projected, known & inside


def warp_map(maps: torch.Tensor, warp10: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of view 1 as view 0 sees them, read bilinearly.

    Args:
        maps: (B, C, H1, W1) of view 1, one value per pixel.
        warp10: (B, H, W, 2) where each pixel of view 0 lies in view 1, NaN where not seen.

    Returns:
        (B, C, H, W), 0 where view 1 does not show the pixel, and (B, H, W) bool: whether it does.
    """
    height, width = maps.shape[-2:]
    inside = _on_pixels(warp10, (height, width))
    size = torch.tensor([width, height], dtype=maps.dtype, device=maps.device)
    grid = (2.0 * warp10.to(maps.dtype).masked_fill(~inside[..., None], 0.0) + 1.0) / size - 1.0
    warped = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped * inside[:, None], inside


def _on_pixels(points: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Whether points (..., 2) lie on the pixels of an image of ``size`` (height, width); NaN does not."""
    height, width = size
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _through_homography(
    H: torch.Tensor, points: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (N, 2) mapped in float64, and whether they lie on the same side of the horizon as the image's centre.

    The sign of the Jacobian would tell the side as well, but not for the mirrored views that training uses.
    """
    height, width = size
    H = H.double()
    mapped = points.double() @ H[:, :2].T + H[:, 2]
    depth = mapped[:, 2]
    centre = H[2, 0] * ((width - 1) / 2) + H[2, 1] * ((height - 1) / 2) + H[2, 2]
    in_front = depth * centre.sign() > 1e-9 * H[2].abs().sum()
    return mapped[:, :2] / torch.where(in_front, depth, torch.ones_like(depth))[:, None], in_front


def _read_warp(warp10: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A dense warp at sub-pixel points (N, 2), and whether all four pixels around them are known."""
    height, width = warp10.shape[:2]
    base = points.detach().floor().long()
    x, y = base[:, 0].clamp(0, width - 2), base[:, 1].clamp(0, height - 2)
    right, lower = (points[:, 0] - x)[:, None], (points[:, 1] - y)[:, None]
    corners = torch.stack([warp10[y, x], warp10[y, x + 1], warp10[y + 1, x], warp10[y + 1, x + 1]])
    known = torch.isfinite(corners).all(dim=-1).all(dim=0)
    corners = corners.nan_to_num(0.0).to(points.dtype)  # NaN would spoil the gradients of all points
    top = corners[0] * (1 - right) + corners[1] * right
    bottom = corners[2] * (1 - right) + corners[3] * right
    return top * (1 - lower) + bottom * lower, known
