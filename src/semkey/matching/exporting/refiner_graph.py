"""The learned refinement as one graph: two images and their matches in, moved keypoints out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from semkey.export.gate_graph import blurred, gaussian_row
from semkey.export.graph import Axes, OnnxGraph
from semkey.matching.alignment import patches
from semkey.matching.alignment.lucas_kanade import AlignmentConfig
from semkey.matching.alignment.network import PATCH_RADIUS, PatchNetwork, RefinerInfo, mean_descriptors

_LIMITS = AlignmentConfig()
_LEVELS = 255.0
_FAR = 1e12
_MATCHES: Axes = {0: "matches"}
_SIDES = (((96, 128), (130, 161)), ((120, 170), (110, 150)), ((81, 64), (90, 97)))
_TAKES = (
    "image0 and image1 (1, 1, height, width) float32 grey (OpenCV's RGB2GRAY) in [0, 1]; of each match points0 and "
    "points1 (matches, 2) float32 pixels x y, descriptors0 and descriptors1 (matches, {width}) float32 of '{features}'"
)


class RefinerGraph(OnnxGraph):
    """What :func:`semkey.matching.alignment.learned.align_learned` does, patches and deformations included.

    Args:
        network: of a file of ``semkey train-refiner``, on the CPU.
        info: what the file says of it.
    """

    kind = "refiner"
    row: torch.Tensor
    offsets: torch.Tensor

    def __init__(self, network: PatchNetwork, info: RefinerInfo) -> None:
        super().__init__()
        self.network, self.info = network.eval().requires_grad_(False), info
        self.register_buffer("row", gaussian_row(_LIMITS.smoothing_px))
        self.register_buffer("offsets", torch.from_numpy(patches.grid(PATCH_RADIUS)))

    @property
    def inputs(self) -> dict[str, Axes]:
        """Names of what it takes, in order."""
        images: dict[str, Axes] = {f"image{number}": {2: f"height{number}", 3: f"width{number}"} for number in (0, 1)}
        return images | dict.fromkeys(("points0", "points1", "descriptors0", "descriptors1"), _MATCHES)

    @property
    def outputs(self) -> dict[str, Axes]:
        """Names of what it gives, in order."""
        return dict.fromkeys(("refined", "covariances", "moved"), _MATCHES)

    @property
    def takes(self) -> str:
        """The inputs in words."""
        return _TAKES.format(width=self.info.input_dim, features=self.info.features)

    @property
    def compared(self) -> list[str]:
        """Where and how far points move; whether follows from that."""
        return ["refined", "covariances"]

    def examples(self, number: int) -> tuple[torch.Tensor, ...]:
        """Two parts of one smooth texture, and points of both that are off by up to a pixel."""
        rng = torch.Generator().manual_seed(number)
        texture = F.interpolate(torch.rand(1, 1, 40, 40, generator=rng), (240, 240), mode="bicubic").clamp(0, 1)
        (height0, width0), (height1, width1) = _SIDES[number]
        images = texture[..., :height0, :width0], texture[..., 3 : 3 + height1, 5 : 5 + width1]
        limit = torch.tensor([min(width0, width1), min(height0, height1)])
        points0 = 12.0 + torch.rand(30 + number, 2, generator=rng) * (limit - 24.0)
        points1 = points0 - torch.tensor([5.0, 3.0]) + torch.rand(points0.shape, generator=rng) - 0.5
        vectors = torch.randn(2, len(points0), self.info.input_dim, generator=rng)
        return (*(image.contiguous() for image in images), points0, points1, *F.normalize(vectors, dim=2))

    def forward(
        self,
        image0: torch.Tensor,
        image1: torch.Tensor,
        points0: torch.Tensor,
        points1: torch.Tensor,
        descriptors0: torch.Tensor,
        descriptors1: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Refine.

        Args:
            image0: (1, 1, H, W) grey in [0, 1].
            image1: likewise, of a size of its own.
            points0: (M, 2) pixels in image 0.
            points1: (M, 2) pixels in image 1 of the same matches.
            descriptors0: (M, D).
            descriptors1: (M, D).

        Returns:
            (M, 2) pixels in image 1; covariances (M, 2, 2) given the keypoint in image 0, pixels squared; and (M,) bool
            which were moved.
        """
        grey0, grey1 = self._smooth(image0), self._smooth(image1)
        straight = torch.eye(2)[None] + 0.0 * points0[:, :, None]
        patches0, contrasts0 = self._patches(grey0, points0, straight)
        patches1, contrasts1 = self._patches(grey1, points1, straight)
        found, known = _local_deformations(points0, points1)
        followed, followed_contrasts = self._patches(grey1, points1, found)
        before, after = (patches0 * patches1).sum(dim=1), (patches0 * followed).sum(dim=1)
        better = known & (after > before)
        patches1 = torch.where(better[:, None], followed, patches1)
        contrasts = torch.minimum(contrasts0, torch.where(better, followed_contrasts, contrasts1))
        deformations = torch.where(better[:, None, None], found, straight)
        moves, within = self._moves(patches0, patches1, mean_descriptors(descriptors0, descriptors1))
        shifts = (deformations @ moves[:, :, None])[:, :, 0]
        covariances = deformations @ within @ deformations.transpose(1, 2)
        target = points1 + shifts
        reached, _ = self._patches(grey1, target, deformations)
        alike, unmoved = ((patches0 * other).mean(dim=1) for other in (reached, patches1))
        limit = torch.stack([torch.as_tensor(image1.shape[3]), torch.as_tensor(image1.shape[2])]).float() - 0.5
        moved = (
            (shifts.square().sum(dim=1) <= _LIMITS.largest_move_px**2)
            & (contrasts >= _LIMITS.noise)
            & (alike >= _LIMITS.least_correlation)
            & (alike >= unmoved)
            & (_least_variance(within) < _LIMITS.prior_px**2)
            & ((target >= -0.5) & (target <= limit)).all(dim=1)
        )
        prior = _LIMITS.prior_px**2 * straight
        refined = torch.where(moved[:, None], target, points1)
        return refined, torch.where(moved[:, None, None], covariances, prior), moved

    def _moves(
        self, patches0: torch.Tensor, patches1: torch.Tensor, descriptors: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network says; with a row more on the way, since runtimes cannot reshape what has none."""
        side = 2 * PATCH_RADIUS + 1
        squares = (F.pad(one, (0, 0, 0, 1)).reshape(-1, side, side) for one in (patches0, patches1))
        moves, within = self.network(*squares, F.pad(descriptors, (0, 0, 0, 1)))
        return moves[:-1], within[:-1]

    def _smooth(self, image: torch.Tensor) -> torch.Tensor:
        levels = _LEVELS * image
        return blurred(levels - levels.mean(), self.row)

    def _patches(
        self, grey: torch.Tensor, points: torch.Tensor, deformations: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches (M, 121) of zero mean and unit contrast, and the contrasts (M,)."""
        places = points[:, None] + self.offsets @ deformations.transpose(1, 2)
        last = torch.stack([torch.as_tensor(grey.shape[3]), torch.as_tensor(grey.shape[2])]).float() - 1.0
        grid = (2.0 * places / last - 1.0)[None]
        values = F.grid_sample(grey, grid, mode="bilinear", padding_mode="border", align_corners=True)[0, 0]
        centred = values - values.mean(dim=1, keepdim=True)
        contrasts = centred.square().mean(dim=1).sqrt()
        return centred / contrasts.clamp(min=_LIMITS.noise)[:, None], contrasts


def _local_deformations(points0: torch.Tensor, points1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`semkey.matching.alignment.patches.local_deformations` (M, 2, 2), and (M,) whether neighbours agree."""
    count = patches.NEIGHBOURS + 1
    # Rows beyond the matches, farther than all of them: so there are always as many neighbours as are looked for.
    beyond = torch.ones_like(points0[:, :1]) * torch.full((1, count), _FAR)
    apart = points0[:, None] - points0[None]
    distances, near = torch.topk(torch.cat([apart.square().sum(dim=2), beyond], dim=1), count, dim=1, largest=False)
    near, there = near[:, 1:], (distances[:, 1:] < _FAR).float()
    around0, around1 = (
        F.pad(points, (0, 0, 0, count))[near.reshape(-1)].reshape(-1, patches.NEIGHBOURS, 2) - points[:, None]
        for points in (points0, points1)
    )
    x0, y0, x1, y1 = around0[..., 0], around0[..., 1], around1[..., 0], around1[..., 1]
    lengths = (x0 * x0 + y0 * y0).sqrt()
    stiffness = patches.STIFFNESS_PX**2
    a, b, c, d = (torch.full_like(x0[:, :1], value) for value in (1.0, 0.0, 0.0, 1.0))
    agreeing = there.sum(dim=1)
    for tolerance in patches.TOLERANCES:
        miss_x, miss_y = x1 - a * x0 - b * y0, y1 - c * x0 - d * y0
        weights = 1.0 / (1.0 + (miss_x * miss_x + miss_y * miss_y) / (tolerance * lengths + patches.SLACK_PX) ** 2)
        weights = weights * there
        agreeing = (weights > 0.5).float().sum(dim=1)
        wx, wy = weights * x0, weights * y0
        xx, xy, yy = _sums(wx * x0) + stiffness, _sums(wx * y0), _sums(wy * y0) + stiffness
        determinant = xx * yy - xy * xy
        px, py, qx, qy = _sums(wx * x1) + stiffness, _sums(wy * x1), _sums(wx * y1), _sums(wy * y1) + stiffness
        a, b = (px * yy - py * xy) / determinant, (py * xx - px * xy) / determinant
        c, d = (qx * yy - qy * xy) / determinant, (qy * xx - qx * xy) / determinant
    found = torch.cat([a, b, c, d], dim=1).reshape(-1, 2, 2)
    stretch = (found.square().sum(dim=(1, 2)) / 2).sqrt()
    shrinking = (a * d - b * c)[:, 0]
    most = patches.LARGEST_STRETCH
    good = (agreeing >= patches.LEAST_AGREEING) & (shrinking > most**-2) & (stretch < most)
    return torch.where(good[:, None, None], found, torch.eye(2)[None]), good


def _sums(values: torch.Tensor) -> torch.Tensor:
    return values.sum(dim=1, keepdim=True)


def _least_variance(covariances: torch.Tensor) -> torch.Tensor:
    """The smaller eigenvalue (M,) of symmetric matrices (M, 2, 2)."""
    a, b, d = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    return (a + d) / 2 - (((a - d) / 2).square() + b.square()).sqrt()
