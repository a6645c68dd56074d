"""Descriptors of given points beside an extractor's own keypoints."""

from __future__ import annotations

import inspect
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike

from semkey.errors import InputError
from semkey.extractors.classical import RootSiftExtractor
from semkey.extractors.detector import Detector, Extractor, MaskLike
from semkey.images.masks import check_mask, in_mask
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike


@runtime_checkable
class DescribingExtractor(Protocol):
    """An extractor that can describe any point of an image."""

    def extract_and_describe(
        self, image: ImageLike, points: torch.Tensor, mask: MaskLike | None = None
    ) -> tuple[Features, torch.Tensor]:
        """Features of an image under a mask, and descriptors (M, D) of points (M, 2) in it."""
        ...


def extract_and_describe(
    extractor: Extractor, image: ImageLike, points: ArrayLike | torch.Tensor, mask: MaskLike | None = None
) -> tuple[Features, torch.Tensor]:
    """Features of one image, and descriptors of given points in it.

    semkey's detectors sample both from one pass of the network, ORB and SIFT compute theirs. Extractors without
    ``extract_and_describe`` (peers, plug-ins) describe nothing but what they found: there the points get RootSIFT.

    Args:
        extractor: any.
        image: as ``extractor.extract`` takes it.
        points: (M, 2) pixels ``x y``.
        mask: of the image, see :meth:`semkey.extractors.Detector.extract`; None for the whole image.

    Returns:
        The features, and (M, D') float32 of unit norm, or zero where a point cannot be described. D' is the width of
        the features' descriptors only where the extractor described the points itself.

    Raises:
        InputError: the image cannot be used, or the points are not (M, 2) finite numbers.
    """
    places = points.float() if isinstance(points, torch.Tensor) else torch.from_numpy(np.asarray(points, np.float32))
    if places.ndim != 2 or places.shape[1] != 2 or not bool(torch.isfinite(places).all()):
        raise InputError(f"points to describe must be (M, 2) finite pixels, got shape {tuple(places.shape)}")
    if isinstance(extractor, DescribingExtractor):
        return (
            extractor.extract_and_describe(image, places)
            if mask is None
            else extractor.extract_and_describe(image, places, mask)
        )
    # One keypoint is all that SIFT is asked to find by itself.
    sift = RootSiftExtractor(max_keypoints=1)
    return extract_masked(extractor, image, mask), sift.extract_and_describe(image, places)[1]


def extract_masked(extractor: Extractor, image: ImageLike, mask: MaskLike | None) -> Features:
    """Features of one image under a mask by any extractor, also one that knows no masks.

    Such an extractor's keypoints on masked pixels are left out afterwards, so that there may be fewer than asked for.

    Raises:
        InputError: the image or the mask cannot be used.
    """
    if mask is None:
        return extractor.extract(image)
    if isinstance(extractor, Detector) or "mask" in inspect.signature(extractor.extract).parameters:
        extract: Any = extractor.extract
        return extract(image, mask=mask)
    features = extractor.extract(image)
    kept = in_mask(features.keypoints.detach().cpu().numpy(), check_mask(mask, features.image_size))
    return features.select(torch.from_numpy(np.flatnonzero(kept)).to(features.keypoints.device))
