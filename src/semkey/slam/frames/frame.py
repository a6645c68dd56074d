"""One observed frame in the arrays that tracking works on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.geometry.camera import PinholeCamera
from semkey.matching.alignment.lucas_kanade import AlignmentConfig
from semkey.matching.alignment.patches import cut_patches, to_smooth_grey
from semkey.model.features import Features
from semkey.slam.frames.depth import depth_sigma, is_scattered, sample_depth, with_disparity_offset
from semkey.slam.frames.observed_lines import ObservedLines
from semkey.slam.frames.stereo import StereoView

# An observation never gets less than this share of the full weight: reliability is a prediction, not a verdict.
_SMALLEST_WEIGHT = 0.05

PATCHES = AlignmentConfig(iterations=3, deformed=False)
"""How keypoints are aligned to the patches of keyframes; how the view differs is known from poses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObservedFrame:
    """Keypoints of one frame with their depths.

    Attributes:
        index: position in the sequence.
        timestamp: seconds.
        features: as extracted.
        keypoints: (N, 2) float64 pixels.
        covariances: (N, 2, 2) of their positions, pixels^2.
        descriptors: (N, D) float32, unit norm.
        weights: (N,) in (0, 1], information multiplier from the predicted reliability.
        depth: (N,) metres, 0 where there is none to trust.
        depth_sigma: (N,) metres.
        tree: nearest-neighbour index over ``keypoints``.
        lines: segments of the image; None where they are not looked for.
        grey: (H, W) float32 of :func:`semkey.matching.alignment.patches.to_smooth_grey`; None where keypoints are not
            aligned, and in frames that are kept.
        depth_image: (H, W) float32 metres, from which depths are read again where keypoints are moved; None where there
            is none, and in frames that are kept.
        depth_range: nearest and farthest depth that is trusted, metres.
        stereo: the pair of images that depths are from, for the same purpose; None where there is none, and in frames
            that are kept.
        patches: (N, S, S) uint8 around the keypoints, of frames that are kept; None where keypoints are not aligned.
    """

    index: int
    timestamp: float
    features: Features
    keypoints: NDArray[np.float64]
    covariances: NDArray[np.float64]
    descriptors: NDArray[np.float32]
    weights: NDArray[np.float64]
    depth: NDArray[np.float64]
    depth_sigma: NDArray[np.float64]
    tree: KDTree
    lines: ObservedLines | None = None
    grey: NDArray[np.float32] | None = None
    depth_image: NDArray[np.float32] | None = None
    depth_range: tuple[float, float] = (0.0, np.inf)
    stereo: StereoView | None = None
    patches: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    def without_depth(self) -> ObservedFrame:
        """The same frame as if nothing had been measured but the image."""
        nothing = np.zeros(len(self))
        return replace(self, depth=nothing, depth_sigma=np.ones(len(self)), depth_image=None, stereo=None)

    def without_depth_at(self, mask: NDArray[np.bool_]) -> ObservedFrame:
        """The same frame as if no depth had been measured at the keypoints of ``mask`` (N,)."""
        return replace(self, depth=np.where(mask, 0.0, self.depth)) if mask.any() else self

    def with_disparity_offset(self, offset: float, focal_baseline: float) -> ObservedFrame:
        """The same frame as if all its disparities ``focal_baseline / depth`` were larger by ``offset`` pixels."""
        if not offset:
            return self
        depth, sigma = with_disparity_offset(self.depth, self.depth_sigma, offset, focal_baseline)
        stereo = None if self.stereo is None else replace(self.stereo, offset=self.stereo.offset + offset)
        return replace(self, depth=depth, depth_sigma=sigma, stereo=stereo)

    def with_depth_near(self, indices: NDArray[np.int64], radius_px: float) -> ObservedFrame:
        """The same frame as if depth had been measured only within ``radius_px`` of its keypoints ``indices`` (M,)."""
        depth = np.zeros(len(self))
        if len(indices):
            near = KDTree(self.keypoints[indices]).query(self.keypoints)[0] <= radius_px
            depth = np.where(near, self.depth, 0.0)
        return replace(self, depth=depth)

    def with_image(self, image: NDArray[np.uint8]) -> ObservedFrame:
        """The same frame with its image, (H, W, 3) RGB or (H, W) grey, for its keypoints to be aligned in."""
        return replace(self, grey=to_smooth_grey(image, PATCHES.smoothing_px))

    def with_keypoints(self, keypoints: NDArray[np.float64], covariances: NDArray[np.float64]) -> ObservedFrame:
        """The same frame with its keypoints (N, 2) at other places, and the depths there, where they had any.

        All is rounded to float32, as files hold it.
        """
        rounded = keypoints.astype(np.float32)
        places, covariances = rounded.astype(np.float64), covariances.astype(np.float32).astype(np.float64)
        features = replace(self.features, keypoints=torch.from_numpy(rounded))
        depth, sigma = self.depth, self.depth_sigma
        if self.depth_image is not None:
            near, far = self.depth_range
            depth = np.where(depth > 0, sample_depth(self.depth_image, places, min_depth=near, max_depth=far), 0.0)
            sigma = depth_sigma(depth)
        elif self.stereo is not None:
            moved = (places != self.keypoints).any(axis=1)
            depth, sigma = depth.copy(), sigma.copy()
            depth[moved], sigma[moved] = self.stereo.depth_near(places[moved], depth[moved])
        return replace(
            self,
            features=features,
            keypoints=places,
            covariances=covariances,
            tree=KDTree(places),
            depth=depth,
            depth_sigma=sigma,
        )

    def kept(self) -> ObservedFrame:
        """The same frame with patches around its keypoints in place of the image."""
        if self.grey is None:
            return replace(self, depth_image=None, stereo=None)
        patches = cut_patches(self.grey, self.keypoints, PATCHES.radius)
        return replace(self, grey=None, depth_image=None, stereo=None, patches=patches)

    def points_cam(self, indices: NDArray[np.int64], camera: PinholeCamera) -> NDArray[np.float64]:
        """Back-projected keypoints (M, 3) at ``indices`` (M,), which must have depth."""
        return camera.backproject(self.keypoints[indices], self.depth[indices])


def observe_frame(
    index: int,
    timestamp: float,
    features: Features,
    depth: NDArray[np.float32],
    covariances: NDArray[np.float64],
    *,
    min_depth: float,
    max_depth: float,
) -> ObservedFrame:
    """Look up the depth of every keypoint, in ``depth`` (H, W) metres, and lay the features out as numpy arrays.

    ``covariances`` (N, 2, 2), pixels^2, are those of :func:`semkey.matching.keypoint_noise.keypoint_covariances`.
    """
    pixels = features.keypoints.cpu().numpy()
    z = sample_depth(depth, pixels, min_depth=min_depth, max_depth=max_depth)
    if is_scattered(depth, pixels, z, min_depth=min_depth, max_depth=max_depth):
        z = np.zeros_like(z)
    observed = observe_keypoints(index, timestamp, features, z, depth_sigma(z), covariances)
    return replace(observed, depth_image=depth, depth_range=(min_depth, max_depth))


def observe_keypoints(
    index: int,
    timestamp: float,
    features: Features,
    depth: NDArray[np.float64],
    sigma: NDArray[np.float64],
    covariances: NDArray[np.float64],
) -> ObservedFrame:
    """Lay features out as numpy arrays.

    Args:
        index: position in the sequence.
        timestamp: seconds.
        features: of the image.
        depth: (N,) of the keypoints, metres, 0 where there is none to trust.
        sigma: (N,) of the depths, metres.
        covariances: (N, 2, 2) of the keypoints' positions, pixels^2.
    """
    features = features.to("cpu")
    keypoints = features.keypoints.numpy().astype(np.float64)
    return ObservedFrame(
        index=index,
        timestamp=timestamp,
        features=features,
        keypoints=keypoints,
        covariances=covariances,
        descriptors=np.ascontiguousarray(features.descriptors.numpy(), dtype=np.float32),
        weights=np.clip(features.reliability.numpy().astype(np.float64), _SMALLEST_WEIGHT, 1.0),
        depth=depth,
        depth_sigma=sigma,
        tree=KDTree(keypoints),
    )
