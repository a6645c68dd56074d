"""What the page shows of one or two images: keypoints, matches, and what looks like a point that was clicked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.backbones.backbone import Backbone
from semkey.extractors import Detector
from semkey.matching import PairMatcher, refine
from semkey.matching.robust import estimate_fundamental
from semkey.model.features import Features
from semkey.ui.config import PageConfig
from semkey.ui.similarity import SeenImage, best, draw_similarity, encode_image, original_point, similarity
from semkey.ui.uploads import read_upload
from semkey.visualization import draw_keypoints, draw_matches

_INLIER_PX = 1.0


@dataclass(kw_only=True, eq=False)
class OpenImages:
    """The images that a visitor looks at.

    Attributes:
        names: of their files.
        images: (H, W, 3) uint8 RGB each.
        seen: by name of the backbone, the images through it, as far as they were asked for.
    """

    names: list[str]
    images: list[NDArray[np.uint8]]
    seen: dict[str, list[SeenImage]] = field(default_factory=dict)

    def through(self, name: str, backbone: Backbone) -> list[SeenImage]:
        """All images through a backbone, computed once."""
        if name not in self.seen:
            self.seen[name] = [encode_image(image, backbone) for image in self.images]
        return self.seen[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageView:
    """What is shown.

    Attributes:
        keypoints: (H, W, 3) uint8 of each image with its keypoints.
        matches: (H, W, 3) uint8 of both images with matches; None for one image.
        text: the numbers, a line each.
    """

    keypoints: list[NDArray[np.uint8]]
    matches: NDArray[np.uint8] | None
    text: str


def open_images(paths: Sequence[Path], config: PageConfig) -> OpenImages:
    """Read the dropped images.

    Raises:
        InputError: one is none, damaged, or too large.
    """
    return OpenImages(names=[path.name for path in paths], images=[read_upload(path, config) for path in paths])


def show_images(opened: OpenImages, detector: Detector, matcher: PairMatcher | None, *, refined: bool) -> ImageView:
    """Find keypoints in the images, and match two of them.

    Args:
        opened: one or two images.
        detector: finds and describes.
        matcher: of the detector's features; None draws keypoints alone.
        refined: move matched keypoints to where the images agree (:func:`semkey.refine`).
    """
    lines, features = [], []
    for name, image in zip(opened.names, opened.images, strict=True):
        start = time.perf_counter()
        found = detector.extract(image).to("cpu")
        lines.append(f"{name}: {_described(found)}, {(time.perf_counter() - start) * 1000:.0f} ms")
        features.append(found)
    drawn = [
        draw_keypoints(image, found, color_by="reliability").pixels
        for image, found in zip(opened.images, features, strict=True)
    ]
    if matcher is None or len(features) < 2:
        return ImageView(keypoints=drawn, matches=None, text="\n".join(lines))
    matches = matcher.match(*features)
    if refined:
        matches = refine(features[0], features[1], matches, opened.images[0], opened.images[1])
        features[1] = matches.features1 or features[1]
    points = [one.keypoints[matches.indices[:, k]] for k, one in enumerate(features)]
    estimate = estimate_fundamental(points[0], points[1], max_error_px=_INLIER_PX, seed=0)
    share = f" ({estimate.inlier_count / len(matches):.0%})" if len(matches) else ""
    lines.append(f"{len(matches)} matches, {estimate.inlier_count}{share} within {_INLIER_PX:g} px of one geometry")
    picture = draw_matches(opened.images[0], opened.images[1], features[0], features[1], matches, estimate.inliers)
    return ImageView(keypoints=drawn, matches=picture.pixels, text="\n".join(lines))


def show_similarity(
    opened: OpenImages, clicked: int, point: tuple[float, float], name: str, backbone: Backbone
) -> tuple[list[NDArray[np.uint8]], str]:
    """The images under the colours of what looks like a point, on one scale, and that in words.

    Args:
        opened: one or two images.
        clicked: number of the image with the point.
        point: x y in pixels of the picture that was shown (:attr:`SeenImage.image`).
        name: of the backbone.
        backbone: it.
    """
    seen = opened.through(name, backbone)
    cosines = [similarity(seen[clicked], point, one) for one in seen]
    limits = min(float(one.min()) for one in cosines), max(float(one.max()) for one in cosines)
    drawn = [
        draw_similarity(one, found, limits, point if k == clicked else None)
        for k, (one, found) in enumerate(zip(seen, cosines, strict=True))
    ]
    text = f"{opened.names[clicked]} at {_place(opened, clicked, seen[clicked], point)}"
    for k, found in enumerate(cosines):
        if k != clicked:
            place = _place(opened, k, seen[k], best(found))
            text += f"; most alike in {opened.names[k]} at {place}, cosine {found.max():.2f}"
    return drawn, f"{text}. Colours: cosine {limits[0]:.2f} (blue) to {limits[1]:.2f} (red) by {name}."


def _place(opened: OpenImages, number: int, seen: SeenImage, point: tuple[float, float]) -> str:
    height, width = opened.images[number].shape[:2]
    x, y = original_point(point, seen.image, (width, height))
    return f"({x:.0f}, {y:.0f})"


def _described(features: Features) -> str:
    text = f"{len(features)} keypoints"
    if len(features):
        text += f", mean score {float(features.scores.mean()):.2f}"
        text += f", mean reliability {float(features.reliability.mean()):.2f}"
    if features.covariances is not None and len(features):
        sigma = float(features.covariances.double().det().clamp(min=0).pow(0.25).median())
        text += f", median sigma {sigma:.2f} px"
    return text
