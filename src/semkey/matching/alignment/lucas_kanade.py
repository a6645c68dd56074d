"""Aligning the image around one keypoint of a match with that around the other, to a fraction of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.matching.alignment.patches import (
    Array,
    Floats,
    grid,
    inverse_2x2,
    local_deformations,
    sample,
    sample_squares,
    to_smooth_grey,
)
from semkey.settings import Settings, require_within


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig(Settings):
    """Settings of the alignment of matched patches.

    Attributes:
        radius: patches have 2 radius + 1 pixels a side.
        smoothing_px: sigma of the blur of both images.
        iterations: at most so many steps.
        largest_move_px: a match that would move farther stays where it is.
        prior_px: how far keypoints are expected to be off, standard deviation: where the image does not tell, along a
            straight edge, a match stays.
        noise: standard deviation of the grey levels' noise at least, of 255.
        correlated: how many neighbouring pixels say the same; the information of a patch is divided by it.
        least_correlation: patches that are less alike after alignment do not move.
        least_gradient: root mean square slope of a patch, grey levels per pixel, below which it does not move.
        deformed: patches follow the deformation that the matches around them tell, where they are more alike so.
    """

    radius: int = 5
    smoothing_px: float = 0.7
    iterations: int = 4
    largest_move_px: float = 3.0
    prior_px: float = 1.0
    noise: float = 3.0
    correlated: float = 4.0
    least_correlation: float = 0.7
    least_gradient: float = 1.5
    deformed: bool = True

    def __post_init__(self) -> None:
        require_within(self, "[1, 32]", "radius")
        require_within(self, "[1, 100]", "iterations")
        require_within(self, "[0, 5]", "smoothing_px")
        require_within(self, "(0, inf)", "largest_move_px", "prior_px", "noise")
        require_within(self, "[1, inf)", "correlated")
        require_within(self, "[-1, 1]", "least_correlation")
        require_within(self, "[0, inf)", "least_gradient")


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where matches lie after alignment.

    Attributes:
        points1: (M, 2) float64 pixels in image 1.
        covariances: (M, 2, 2) float64 of ``points1`` given the keypoint in image 0, pixels^2 of image 1.
        moved: (M,) bool; the others are where they were.
    """

    points1: Array
    covariances: Array
    moved: NDArray[np.bool_]


def align(
    image0: NDArray[np.uint8], image1: NDArray[np.uint8], points0: Array, points1: Array, config: AlignmentConfig
) -> Alignment:
    """Move the second point of each match to where the image looks most like that around the first.

    Inverse-compositional Lucas-Kanade (Baker and Matthews 2004) over translations, all matches at once, on patches of
    zero mean and unit contrast: the gradients and the Hessian are those of image 0. A prior of ``prior_px`` on the move
    makes it the most probable one instead of the least different one.

    Args:
        image0: (H, W, 3) RGB or (H, W) grey, uint8.
        image1: likewise.
        points0: (M, 2) pixels in image 0.
        points1: (M, 2) pixels in image 1.
        config: settings.
    """
    count = len(points0)
    if not count:
        return Alignment(points1=points1.copy(), covariances=np.zeros((0, 2, 2)), moved=np.zeros(0, bool))
    grey0, grey1 = (to_smooth_grey(image, config.smoothing_px) for image in (image0, image1))
    template = _Template.of(grey0, points0, config)
    deformations = np.tile(np.eye(2), (count, 1, 1))
    seen = template.compare(grey1, _Places.of(points1, deformations, config))
    if config.deformed:
        found, known = local_deformations(points0, points1)
        followed = template.compare(grey1, _Places.of(points1, found, config))
        better = known & (followed.correlation > seen.correlation)
        deformations = np.where(better[:, None, None], found, deformations)
        seen = followed.where(better, seen)

    places = _Places.of(points1, deformations, config)
    return _descend(template, grey1, points1, deformations, places, seen, config)


def align_patches(
    patches: NDArray[np.uint8], grey1: Floats, points1: Array, deformations: Array, config: AlignmentConfig
) -> Alignment:
    """Move points of image 1 to where it looks most like patches that were kept of other images, see :func:`align`.

    Args:
        patches: (M, S, S) of :func:`semkey.matching.alignment.patches.cut_patches`, ``S = 2 radius + 3``.
        grey1: (H, W) of :func:`semkey.matching.alignment.patches.to_smooth_grey`.
        points1: (M, 2) pixels in image 1.
        deformations: (M, 2, 2) that take steps in a patch to steps in image 1.
        config: settings; ``deformed`` is not asked.
    """
    template = _Template.of_patches(patches.astype(np.float32))
    places = _Places.of(points1, deformations, config)
    return _descend(template, grey1, points1, deformations, places, template.compare(grey1, places), config)


def _descend(
    template: _Template,
    grey1: Floats,
    points1: Array,
    deformations: Array,
    places: _Places,
    seen: _Comparison,
    config: AlignmentConfig,
) -> Alignment:
    count, start = len(points1), seen.correlation
    unmoved = np.tile(config.prior_px**2 * np.eye(2), (count, 1, 1))
    shift, information = np.zeros((count, 2)), template.hessian
    prior = np.eye(2) / config.prior_px**2
    move = np.zeros((count, 2))  # in pixels of image 0's patch
    for step in range(config.iterations + 1):
        if step:
            seen = template.compare(grey1, places.moved(shift))
        precision = seen.precision(template, config)
        information = template.hessian * precision[:, None, None] + prior
        if step == config.iterations:
            break
        pull = seen.pull * precision[:, None] + move / config.prior_px**2
        move = move - (inverse_2x2(information) @ pull[:, :, None])[:, :, 0]
        move = np.clip(move, -2 * config.largest_move_px, 2 * config.largest_move_px)
        shift = (deformations @ move[:, :, None])[:, :, 0]

    covariances = deformations @ inverse_2x2(information) @ deformations.transpose(0, 2, 1)
    moved = (
        (np.sqrt((shift * shift).sum(axis=1)) <= config.largest_move_px)
        & (template.slope >= config.least_gradient)
        & (seen.correlation >= config.least_correlation)
        & (seen.correlation >= start)
        & inside(points1 + shift, (grey1.shape[1], grey1.shape[0]))
    )
    return Alignment(
        points1=np.where(moved[:, None], points1 + shift, points1),
        covariances=np.where(moved[:, None, None], covariances, unmoved),
        moved=moved,
    )


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where the pixels (M, S^2) of the patches lie in image 1."""

    x: Floats
    y: Floats

    @classmethod
    def of(cls, points: Array, deformations: Array, config: AlignmentConfig) -> _Places:
        offsets, matrices, centres = grid(config.radius).T, deformations.astype(np.float32), points.astype(np.float32)
        x, y = matrices[:, 0] @ offsets, matrices[:, 1] @ offsets
        x += centres[:, :1]
        y += centres[:, 1:]
        return cls(x=x, y=y)

    def moved(self, shift: Array) -> _Places:
        steps = shift.astype(np.float32)
        return _Places(x=self.x + steps[:, :1], y=self.y + steps[:, 1:])


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """How patches of image 1 differ from those of image 0, both of zero mean and unit contrast.

    Attributes:
        correlation: (M,).
        pull: (M, 2) the products of image 0's derivatives with the difference.
    """

    correlation: Array
    pull: Array

    def where(self, chosen: NDArray[np.bool_], other: _Comparison) -> _Comparison:
        return _Comparison(
            correlation=np.where(chosen, self.correlation, other.correlation),
            pull=np.where(chosen[:, None], self.pull, other.pull),
        )

    def precision(self, template: _Template, config: AlignmentConfig) -> Array:
        """Of a pixel, as far as it says something of its own (M,): the inverse square of the noise.

        The mean squared difference of two patches of unit contrast is 2 - 2 correlation.
        """
        noise = np.maximum(2 - 2 * self.correlation, (config.noise / template.contrast) ** 2)
        return 1.0 / (config.correlated * noise)


@dataclass(frozen=True, kw_only=True)
class _Template:
    """Patches of image 0.

    Attributes:
        rows: (M, 4, S^2) grey levels, their derivatives by x and y, and ones; means are taken out of products only.
        means: (M, 3) of the first three rows.
        own: (M, 2) products of derivatives and values, as those of patches of zero mean and unit contrast.
        contrast: (M,) standard deviation of the grey levels.
        hessian: (M, 2, 2) of the derivatives, likewise.
        slope: (M,) root mean square slope, grey levels per pixel.
    """

    rows: Floats
    means: Array
    own: Array
    contrast: Array
    hessian: Array
    slope: Array

    @classmethod
    def of(cls, image: Floats, points: Array, config: AlignmentConfig) -> _Template:
        return cls.of_patches(sample_squares(image, points, config.radius + 1))

    @classmethod
    def of_patches(cls, wide: Floats) -> _Template:
        """Of patches (M, S, S) that are a pixel wider on each side, for the derivatives."""
        count, side = wide.shape[:2]
        rows = np.empty((count, 4, (side - 2) ** 2), np.float32)
        square = rows.reshape(count, 4, side - 2, side - 2)
        square[:, 0] = wide[:, 1:-1, 1:-1]
        square[:, 1] = 0.5 * (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2])
        square[:, 2] = 0.5 * (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1])
        square[:, 3] = 1.0
        pixels = rows.shape[2]
        products = (rows @ rows.transpose(0, 2, 1)).astype(np.float64)
        means = products[:, :3, 3] / pixels
        centred = products[:, :3, :3] - pixels * means[:, :, None] * means[:, None, :]
        contrast = np.sqrt(np.maximum(centred[:, 0, 0] / pixels, 0.0)) + 1e-3
        centred /= np.square(contrast)[:, None, None]
        return cls(
            rows=rows,
            means=means,
            own=centred[:, 1:, 0],
            contrast=contrast,
            hessian=centred[:, 1:, 1:],
            slope=np.sqrt((products[:, 1, 1] + products[:, 2, 2]) / pixels),
        )

    def compare(self, image: Floats, places: _Places) -> _Comparison:
        values = sample(image, places.x, places.y)
        pixels = values.shape[1]
        products = (self.rows @ values[:, :, None])[:, :, 0].astype(np.float64)
        total = products[:, 3]
        square = np.einsum("ms,ms->m", values, values).astype(np.float64) / pixels
        contrast = np.sqrt(np.maximum(square - (total / pixels) ** 2, 0.0)) + 1e-3
        centred = (products[:, :3] - self.means * total[:, None]) / (self.contrast * contrast)[:, None]
        return _Comparison(correlation=centred[:, 0] / pixels, pull=centred[:, 1:] - self.own)


def inside(points: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points (M, 2) lie on an image of (width, height) pixels."""
    return np.asarray(((points >= -0.5) & (points <= np.array(size) - 0.5)).all(axis=1))
