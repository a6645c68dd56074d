"""ORB and RootSIFT through OpenCV, with results in the same form as semkey's own features."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from semkey.errors import ConfigError
from semkey.extractors.detector import Detector, MaskLike, check_points
from semkey.geometry.pixels import resize_keypoints
from semkey.images.masks import check_mask, in_mask, shrink_mask
from semkey.model.features import Features
from semkey.model.gate import has_structure
from semkey.model.preprocess import ImageLike, to_gray

MAX_PIXELS = 8_000_000
"""Larger images are reduced to this many pixels: SIFT's scale space of a 12000x9000 image would take 25 GB."""

MIN_SIDE = 8
"""OpenCV's pyramids raise errors on images a few pixels wide, in which nothing could be described anyway."""


_MARGIN = 40
"""Pixels by which an image is continued, so that points at its edge can be described; more than ORB's patch needs."""


class ClassicalExtractor(Detector):
    """An OpenCV detector and descriptor; subclasses choose them and turn descriptors into unit vectors.

    Args:
        max_keypoints: largest number of keypoints per image, >= 1.
        device: where the resulting tensors lie; the computation itself is on the CPU.

    Raises:
        ConfigError: ``max_keypoints`` is not positive.
    """

    descriptor_width: int

    def __init__(self, *, max_keypoints: int = 1024, device: torch.device | str = "cpu") -> None:
        if max_keypoints < 1:
            raise ConfigError(f"max_keypoints must be at least 1, got {max_keypoints}")
        self.max_keypoints = max_keypoints
        self.device: torch.device = torch.device(device)
        self.settings: dict[str, Any] = {"kind": "opencv", "max_pixels": MAX_PIXELS, **self._options()}
        self._detector = self._create(max_keypoints)

    @abstractmethod
    def _create(self, count: int) -> cv2.Feature2D:
        """The OpenCV object that detects and describes ``count`` keypoints."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What the OpenCV object was configured with, where that is not OpenCV's default."""

    @abstractmethod
    def _normalize(self, descriptors: NDArray[Any]) -> NDArray[np.float32]:
        """(N, descriptor_width) float32 of unit norm from what OpenCV returns."""

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> Features:
        """Find and describe keypoints.

        Args:
            image: see :meth:`Detector.extract`.
            mask: see :meth:`Detector.extract`.

        Returns:
            At most ``max_keypoints`` features, strongest response first; scores are responses divided by the image's
            largest, reliability is 1 throughout, there is no global descriptor. SIFT keypoints with several
            orientations occur once per orientation. Images without structure give no features.

        Raises:
            InputError: the image or the mask cannot be used.
        """
        gray, (width, height) = _gray_pixels(image)
        usable = None if mask is None else check_mask(mask, (width, height))
        shrink = gray.shape[1] / width
        if min(gray.shape) < MIN_SIDE:
            return self._features(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), None, (width, height))

        if usable is None:
            found, raw_descriptors = self._detector.detectAndCompute(gray, None)
        else:
            small = shrink_mask(usable, (gray.shape[1], gray.shape[0])).astype(np.uint8) * 255
            found, raw_descriptors = self._masked_detector().detectAndCompute(gray, small)
        responses = np.fromiter((keypoint.response for keypoint in found), dtype=np.float32, count=len(found))
        keypoints = np.asarray(cv2.KeyPoint.convert(found), dtype=np.float32).reshape(-1, 2)
        if shrink < 1:
            keypoints = resize_keypoints(keypoints, (gray.shape[1], gray.shape[0]), (width, height))
        # Sub-pixel fits and upscaling may leave the image by part of a pixel.
        keypoints = np.clip(keypoints, 0, np.array([width - 1, height - 1], dtype=np.float32))
        order = np.argsort(-responses, kind="stable")
        if usable is not None:  # OpenCV asked before the sub-pixel fit, and on ORB's reduced images
            order = order[in_mask(keypoints[order], usable)]
        order = order[: self.max_keypoints]
        descriptors = None if raw_descriptors is None else raw_descriptors[order]
        features = self._features(keypoints[order], responses[order], descriptors, (width, height))
        places = features.keypoints * shrink if shrink < 1 else features.keypoints
        kept = has_structure(torch.from_numpy(gray), places)
        return features.select(kept)

    def _masked_detector(self) -> cv2.Feature2D:
        """What detects under a mask: so many that enough are left, where the mask is only applied to the result."""
        return self._detector

    def describe(self, image: ImageLike, points: ArrayLike | torch.Tensor) -> Features:
        """Describe keypoints of one's own, upright and at the finest scale; scores are 1.

        Near the edge the image is continued by its outermost pixels.

        Raises:
            InputError: see :meth:`Detector.describe`.
        """
        gray, size = _gray_pixels(image)
        keypoints = check_points(points, size)
        places = resize_keypoints(keypoints.numpy().astype(np.float64), size, (gray.shape[1], gray.shape[0]))
        padded = np.pad(gray, _MARGIN, mode="edge")
        descriptors = self._describe_places(padded, places + _MARGIN)
        return Features(
            keypoints=keypoints.to(self.device),
            scores=torch.ones(len(keypoints), device=self.device),
            reliability=torch.ones(len(keypoints), device=self.device),
            descriptors=torch.from_numpy(descriptors).to(self.device),
            global_descriptor=torch.zeros(0, device=self.device),
            image_size=size,
            method=self.name,
        )

    def extract_and_describe(
        self, image: ImageLike, points: torch.Tensor, mask: MaskLike | None = None
    ) -> tuple[Features, torch.Tensor]:
        """Features of one image, and descriptors of points in it.

        Points are described upright and at the finest scale.

        Args:
            image: as :meth:`extract`.
            points: (M, 2) pixels of the image as given.
            mask: as :meth:`extract`, for the features.

        Returns:
            What :meth:`extract` returns, and (M, D) float32 of unit norm, zero where a point lies too close to the
            image's edge to be described.

        Raises:
            InputError: the image cannot be read or used.
        """
        features = self.extract(image, mask)
        gray, size = _gray_pixels(image)
        places = resize_keypoints(points.cpu().numpy().astype(np.float64), size, (gray.shape[1], gray.shape[0]))
        return features, torch.from_numpy(self._describe_places(gray, places)).to(self.device)

    def _describe_places(self, gray: NDArray[np.uint8], places: NDArray[Any]) -> NDArray[np.float32]:
        """Descriptors (M, D) of places (M, 2) in grey pixels; zero where one lies too close to the edge."""
        descriptors = np.zeros((len(places), self.descriptor_width), dtype=np.float32)
        if len(places) and min(gray.shape) >= MIN_SIDE:
            wanted = [self._point(float(x), float(y), index) for index, (x, y) in enumerate(places)]
            kept, raw_descriptors = self._detector.compute(gray, wanted)
            if len(kept):
                descriptors[[point.class_id for point in kept]] = self._normalize(raw_descriptors)
        return descriptors

    @abstractmethod
    def _point(self, x: float, y: float, index: int) -> cv2.KeyPoint:
        """What OpenCV has to be given to describe this place, with ``index`` as its class."""

    def _features(
        self,
        keypoints: NDArray[Any],
        responses: NDArray[Any],
        descriptors: NDArray[Any] | None,
        image_size: tuple[int, int],
    ) -> Features:
        if len(keypoints) == 0 or descriptors is None:
            unit_descriptors = np.zeros((0, self.descriptor_width), dtype=np.float32)
            scores = responses
        else:
            unit_descriptors = self._normalize(descriptors)
            scores = np.clip(responses / max(float(responses[0]), np.finfo(np.float32).tiny), 0, 1)
        return Features(
            keypoints=torch.from_numpy(keypoints).to(self.device),
            scores=torch.from_numpy(scores).to(self.device),
            reliability=torch.ones(len(keypoints), device=self.device),
            descriptors=torch.from_numpy(unit_descriptors).to(self.device),
            global_descriptor=torch.zeros(0, device=self.device),
            image_size=image_size,
            method=self.name,
        )


class OrbExtractor(ClassicalExtractor):
    """ORB (Rublee et al. 2011) as OpenCV computes it, with the corner threshold that ORB-SLAM falls back to.

    The 256 bits become coordinates of +-1/16, so that the cosine similarity is ``1 - 2 * hamming / 256`` and one
    matcher serves binary and real descriptors.
    """

    name = "orb"
    descriptor_width = 256

    def _create(self, count: int) -> cv2.Feature2D:
        # OpenCV's threshold of 20 finds a tenth of the keypoints asked for in low-texture rooms. The strongest are kept
        # in any case, so on textured images 7 changes nothing.
        return cv2.ORB.create(nfeatures=count, fastThreshold=7)

    def _options(self) -> dict[str, Any]:
        return {"fast_threshold": 7}

    def _point(self, x: float, y: float, index: int) -> cv2.KeyPoint:
        return cv2.KeyPoint(x, y, size=31, angle=0, octave=0, class_id=index)

    def _normalize(self, descriptors: NDArray[Any]) -> NDArray[np.float32]:
        bits = np.unpackbits(descriptors, axis=1)
        return bits.astype(np.float32) * np.float32(1 / 8) - np.float32(1 / 16)


class RootSiftExtractor(ClassicalExtractor):
    """SIFT (Lowe 2004) with RootSIFT descriptors (Arandjelovic & Zisserman 2012): L1 norm 1, then the square root.

    OpenCV's defaults, but for the precise upscaling of the first octave.
    """

    name = "sift"
    descriptor_width = 128

    def _create(self, count: int) -> cv2.Feature2D:
        # Without the precise upscaling every keypoint is off by +0.25 px in x and y.
        return cv2.SIFT.create(nfeatures=count, enable_precise_upscale=True)

    def _masked_detector(self) -> cv2.Feature2D:
        return self._create(0)  # all: OpenCV takes the strongest first, and asks the mask afterwards

    def _options(self) -> dict[str, Any]:
        return {"descriptor": "RootSIFT", "precise_upscale": True}

    def _point(self, x: float, y: float, index: int) -> cv2.KeyPoint:
        # The first layer above the base of the first octave, with the size that SIFT gives to keypoints found there.
        return cv2.KeyPoint(x, y, size=4.0, angle=0, octave=1 << 8, class_id=index)

    def _normalize(self, descriptors: NDArray[Any]) -> NDArray[np.float32]:
        sums = descriptors.sum(axis=1, keepdims=True)
        # A descriptor of zeros (no gradient in its patch) becomes the uniform one rather than NaN.
        shares = np.where(sums > 0, descriptors / np.maximum(sums, 1e-12), 1 / self.descriptor_width)
        return np.sqrt(shares).astype(np.float32)


def _gray_pixels(image: ImageLike) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Grey (H, W) uint8 of an image, reduced to at most :data:`MAX_PIXELS`, and its (width, height) as given."""
    gray = (to_gray(image) * 255).round().to(torch.uint8).cpu().numpy()
    height, width = gray.shape
    shrink = (MAX_PIXELS / (width * height)) ** 0.5
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return gray, (width, height)
