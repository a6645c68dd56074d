"""How exactly the keypoints of a frame lie where they should, as the settings want it told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from semkey.matching.keypoint_noise import KeypointNoise, isotropic_covariances, keypoint_covariances
from semkey.model.features import Features
from semkey.slam.config import TrackingConfig

# ORB's keypoints come from eight pyramid levels: the structure tensor of the full image is far too sure of them
# (normalised errors of 161 instead of 6 on icl-nuim), and fr3_cabinet is lost with it.
_NOT_BY_THE_IMAGE = frozenset({"orb"})

CovarianceModel = Callable[[Features, NDArray[np.uint8] | None], NDArray[np.float64]]


def covariance_model(config: TrackingConfig, image_scale: float) -> CovarianceModel:
    """What gives the covariances (N, 2, 2), pixels^2, of features and the image (or None) that they are from.

    Args:
        config: settings; ``residuals``, ``pixel_sigma``, ``edge_sigma`` and ``along_edge_sigma`` are read.
        image_scale: by what pixel values of the settings are multiplied.
    """
    noise = KeypointNoise(across=config.edge_sigma, largest=config.along_edge_sigma).scaled(image_scale)

    def covariances(features: Features, image: NDArray[np.uint8] | None) -> NDArray[np.float64]:
        told = features.covariances is not None or features.method not in _NOT_BY_THE_IMAGE
        if config.residuals == "isotropic" or image is None or not told:
            return isotropic_covariances(len(features), config.pixel_sigma * image_scale)
        # As exact as a map file keeps them, so that a resumed run goes on with the same numbers.
        return keypoint_covariances(features, image, noise).astype(np.float32).astype(np.float64)

    return covariances


def can_be_aligned(config: TrackingConfig, features: Features) -> bool:
    """Whether keypoints are moved to what landmarks first looked like: where they lie on what the full image shows.

    With ORB's aligned, the error on fr3_cabinet grows from 25 to 30 mm.
    """
    return config.alignment and features.method not in _NOT_BY_THE_IMAGE
