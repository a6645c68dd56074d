"""Refinement of matches by a small network that was trained for it, see :mod:`semkey.matching.alignment.network`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import CheckpointError, InputError
from semkey.matching.alignment.lucas_kanade import Alignment, AlignmentConfig, inside
from semkey.matching.alignment.network import PATCH_RADIUS, PatchNetwork, RefinerInfo, read_refiner
from semkey.matching.alignment.patches import Array, Floats, grid, local_deformations, sample, to_smooth_grey

# What alignment asks of a match is asked here as well; a patch's noise is at least the camera's.
_LIMITS = AlignmentConfig()


@dataclass(frozen=True, kw_only=True)
class PatchPairs:
    """Surroundings of both keypoints of matches, those in image 1 deformed to look like those in image 0.

    Attributes:
        grey1: (H, W) float32 grey levels of image 1, blurred a little.
        patches0: (M, 11, 11) float32, of zero mean and unit contrast.
        patches1: (M, 11, 11) likewise.
        contrasts: (M,) grey levels, the lesser of the two.
        deformations: (M, 2, 2) from the patches' pixels to those of image 1.
    """

    grey1: Floats
    patches0: Floats
    patches1: Floats
    contrasts: Array
    deformations: Array

    def likeness(self, patches1: Floats) -> Array:
        """Correlations (M,) of the patches of image 0 with others of unit contrast."""
        return _products(self.patches0, patches1).astype(np.float64) / (2 * PATCH_RADIUS + 1) ** 2


def cut_patches(image0: NDArray[np.uint8], image1: NDArray[np.uint8], points0: Array, points1: Array) -> PatchPairs:
    """Patches of matches; they follow the matches around (:func:`local_deformations`) where they are more alike so.

    Args:
        image0: (H, W, 3) RGB or (H, W) grey, uint8.
        image1: likewise.
        points0: (M, 2) pixels in image 0.
        points1: (M, 2) pixels in image 1.
    """
    grey0, grey1 = (to_smooth_grey(image, _LIMITS.smoothing_px) for image in (image0, image1))
    straight = np.tile(np.eye(2), (len(points0), 1, 1))
    patches0, contrast0 = _patches(grey0, points0, straight)
    patches1, contrast1 = _patches(grey1, points1, straight)
    found, known = local_deformations(points0, points1)
    followed, followed_contrast = _patches(grey1, points1, found)
    better = known & (_products(patches0, followed) > _products(patches0, patches1))
    return PatchPairs(
        grey1=grey1,
        patches0=patches0,
        patches1=np.where(better[:, None, None], followed, patches1),
        contrasts=np.minimum(contrast0, np.where(better, followed_contrast, contrast1)),
        deformations=np.where(better[:, None, None], found, straight),
    )


def align_learned(
    network: PatchNetwork,
    image0: NDArray[np.uint8],
    image1: NDArray[np.uint8],
    points0: Array,
    points1: Array,
    descriptors: torch.Tensor,
) -> Alignment:
    """Move the second point of each match to where the network says that the first one lies.

    A match stays where the patches are blank, or not alike or less alike than before, where the network is not surer in
    any direction than the detector is, and where it would move by more than 3 px or out of the image.

    Args:
        network: see :func:`load_refiner`.
        image0: (H, W, 3) RGB or (H, W) grey, uint8.
        image1: likewise.
        points0: (M, 2) pixels in image 0.
        points1: (M, 2) pixels in image 1.
        descriptors: (M, D) mean ones of the matches, float32.
    """
    count = len(points0)
    unmoved = np.tile(_LIMITS.prior_px**2 * np.eye(2), (count, 1, 1))
    if not count:
        return Alignment(points1=points1.copy(), covariances=unmoved, moved=np.zeros(0, bool))
    cut = cut_patches(image0, image1, points0, points1)
    with torch.inference_mode():
        moves, spreads = network(torch.from_numpy(cut.patches0), torch.from_numpy(cut.patches1), descriptors)
    shift = (cut.deformations @ moves.double().numpy()[:, :, None])[:, :, 0]
    within = spreads.double().numpy()
    covariances = cut.deformations @ within @ cut.deformations.transpose(0, 2, 1)
    reached, _ = _patches(cut.grey1, points1 + shift, cut.deformations)
    alike = cut.likeness(reached)
    moved = (
        (np.linalg.norm(shift, axis=1) <= _LIMITS.largest_move_px)
        & (cut.contrasts >= _LIMITS.noise)
        & (alike >= _LIMITS.least_correlation)
        & (alike >= cut.likeness(cut.patches1))
        & (_least_variance(within) < _LIMITS.prior_px**2)
        & inside(points1 + shift, (image1.shape[1], image1.shape[0]))
    )
    return Alignment(
        points1=np.where(moved[:, None], points1 + shift, points1),
        covariances=np.where(moved[:, None, None], covariances, unmoved),
        moved=moved,
    )


def load_refiner(path: Path) -> tuple[PatchNetwork, RefinerInfo]:
    """The refiner of a file, ready to run; read once.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        raise CheckpointError(f"{path}: no such file of a refiner (semkey train-refiner writes one)") from None
    return _load(path, changed)


def check_width(info: RefinerInfo, width: int, path: Path) -> None:
    """Refuse descriptors of another width than the refiner's.

    Raises:
        InputError: they are.
    """
    if width != info.input_dim:
        raise InputError(
            f"{path.name} was trained for '{info.features}' of width {info.input_dim}, got descriptors of width {width}"
        )


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int) -> tuple[PatchNetwork, RefinerInfo]:
    network, info = read_refiner(path)
    return network.eval().requires_grad_(False), info


def _patches(grey: Floats, points: Array, deformations: Array) -> tuple[Floats, Array]:
    """Patches (M, 11, 11) of zero mean and unit contrast, and the contrasts (M,)."""
    turned = deformations.astype(np.float32) @ grid(PATCH_RADIUS).T
    centres = points.astype(np.float32)
    values = sample(grey, centres[:, :1] + turned[:, 0], centres[:, 1:] + turned[:, 1])
    values = values - values.mean(axis=1, keepdims=True)
    contrasts = values.std(axis=1)
    side = 2 * PATCH_RADIUS + 1
    scaled = values / np.maximum(contrasts, np.float32(_LIMITS.noise))[:, None]
    return scaled.reshape(-1, side, side), contrasts.astype(np.float64)


def _products(first: Floats, second: Floats) -> Floats:
    count, pixels = len(first), first.shape[1] * first.shape[2]
    return np.einsum("mi,mi->m", first.reshape(count, pixels), second.reshape(count, pixels))


def _least_variance(covariances: Array) -> Array:
    """The smaller eigenvalue (M,) of symmetric matrices (M, 2, 2)."""
    a, b, d = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    return np.asarray((a + d) / 2 - np.hypot((a - d) / 2, b))
