"""``semkey.refine``: the second keypoint of every match moved to where the images agree best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import ConfigError, InputError, check_type
from semkey.matching.alignment.learned import align_learned, check_width, load_refiner
from semkey.matching.alignment.lucas_kanade import AlignmentConfig, align
from semkey.matching.alignment.network import mean_descriptors
from semkey.matching.mutual import Matches
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike, load_pixels

_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RefinedMatches(Matches):
    """Matches whose keypoints in image 1 were moved: ``features1`` has them where they are now.

    Attributes:
        covariances: (M, 2, 2) float32, of the keypoint in image 1 given that in image 0, px^2: small across an edge,
            large along it, and 1 in both directions where a match was not moved.
        moved: (M,) bool, which were moved; the others are where they were found.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> image = data.camera()
        >>> features = semkey.load("orb", max_keypoints=100).extract(image)
        >>> refined = semkey.refine(features, features, semkey.match(features, features), image, image)
        >>> bool((refined.points1 - refined.points0).abs().max() < 0.01)
        True
    """

    covariances: torch.Tensor
    moved: torch.Tensor

    @property
    def points0(self) -> torch.Tensor:
        """(M, 2) float32 pixels in image 0."""
        assert self.features0 is not None
        return self.features0.keypoints[self.indices[:, 0]]

    @property
    def points1(self) -> torch.Tensor:
        """(M, 2) float32 pixels in image 1."""
        assert self.features1 is not None
        return self.features1.keypoints[self.indices[:, 1]]


def refine(
    features0: Features,
    features1: Features,
    matches: Matches,
    image0: ImageLike,
    image1: ImageLike,
    *,
    method: str | Path = "alignment",
    config: AlignmentConfig | None = None,
) -> RefinedMatches:
    """Move the keypoint in image 1 of every match to where the image looks most like that around the one in image 0.

    *Alignment*: translations of 11x11 grey patches by inverse-compositional Lucas-Kanade (Baker and Matthews 2004),
    which follow how the matches around turn and scale the image. A match stays where it is that would move by more than
    3 pixels, that lies on a blank patch, or whose patches do not become more alike: wrong matches and other sides of
    things, mostly. Works for all features, needs no training, and takes some milliseconds for 500 matches. The result
    of a match depends on the others only by the deformation around it.

    *Learned*: a small network that ``semkey train-refiner`` trained for the features reads the same patches and the
    descriptors and says where in the second patch the keypoint lies (after Keypt2Subpx, Kim et al. 2024).

    Args:
        features0: of image 0.
        features1: of image 1.
        matches: of these features, as :func:`semkey.match` gives them.
        image0: the image that ``features0`` are of: a path or pixels, as ``detector.extract`` takes them.
        image1: likewise for ``features1``.
        method: ``alignment``; ``learned`` with the weights that come with semkey for the features, where there are
            some; or a file of ``semkey train-refiner``.
        config: settings of the alignment; None for the defaults.

    Returns:
        The same matches with a covariance each, with ``features0`` as given and ``features1`` with the keypoints moved.

    Raises:
        InputError: an image cannot be read or is not the one of the features, matches that are not theirs, or values
            that are not finite.
        ConfigError: an unknown method, settings for one that has none, or no weights for these features.
        CheckpointError: the file of a refiner cannot be used.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> left, right, _ = data.stereo_motorcycle()
        >>> detector = semkey.load("nano", max_keypoints=512)
        >>> features0, features1 = detector.extract(left), detector.extract(right)
        >>> refined = semkey.refine(features0, features1, semkey.match(features0, features1), left, right)
        >>> refined.points1.shape == (len(refined), 2), refined.covariances.shape == (len(refined), 2, 2)
        (True, True)
        >>> float(refined.moved.float().mean()) > 0.5
        True
    """
    for features in (features0, features1):
        check_type(features, Features, "the features", "pass what detector.extract gives")
    check_type(matches, Matches, "the matches", "pass what semkey.match gives")
    path = _refiner_file(method, features0.method, config)
    pixels0, pixels1 = (
        _pixels(image, features, name)
        for image, features, name in ((image0, features0, "image0"), (image1, features1, "image1"))
    )
    indices = matches.indices.detach().cpu()
    _check(indices, features0, features1)
    points0 = features0.keypoints.detach().cpu().double().numpy()[indices[:, 0].numpy()]
    points1 = features1.keypoints.detach().cpu().double().numpy()[indices[:, 1].numpy()]
    if not (np.isfinite(points0).all() and np.isfinite(points1).all()):
        raise InputError("matched keypoints hold NaN or infinite values: nothing can be aligned there")
    if path is None:
        found = align(pixels0, pixels1, points0, points1, config or AlignmentConfig())
    else:
        network, info = load_refiner(path)
        descriptors0, descriptors1 = features0.descriptors.detach().cpu(), features1.descriptors.detach().cpu()
        for descriptors in (descriptors0, descriptors1):
            check_width(info, descriptors.shape[1], path)
        means = mean_descriptors(descriptors0[indices[:, 0]], descriptors1[indices[:, 1]])
        found = align_learned(network, pixels0, pixels1, points0, points1, means)
    keypoints = features1.keypoints.detach().clone()
    keypoints[matches.indices[:, 1]] = torch.from_numpy(found.points1).to(keypoints)
    return RefinedMatches(
        indices=matches.indices,
        scores=matches.scores,
        features0=features0,
        features1=replace(features1, keypoints=keypoints),
        covariances=torch.from_numpy(found.covariances).to(keypoints),
        moved=torch.from_numpy(found.moved).to(keypoints.device),
    )


def _refiner_file(method: str | Path, features: str, config: AlignmentConfig | None) -> Path | None:
    """The file of a learned refiner, None for alignment."""
    text = str(method)
    if text == "alignment":
        return None
    if config is not None:
        raise ConfigError(f"config holds settings of the alignment; the method '{text}' has none")
    if isinstance(method, Path) or text.endswith(_SUFFIX):
        return Path(method)
    if text != "learned":
        raise ConfigError(
            f"unknown method '{text}' of refinement: choose alignment, learned or a file of semkey train-refiner"
        )
    path = Path(str(files("semkey"))) / "weights" / f"refiner-{features}{_SUFFIX}"
    if not features or not path.is_file():
        raise ConfigError(
            f"no learned refiner comes with semkey for the features '{features}': train one with semkey train-refiner "
            "and give its file as method, or use method='alignment'"
        )
    return path


def _pixels(image: ImageLike, features: Features, name: str) -> NDArray[np.uint8]:
    """The image as uint8 (H, W[, 3])."""
    pixels = load_pixels(image)
    if isinstance(pixels, torch.Tensor):
        values = (pixels.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        pixels = np.ascontiguousarray(values[:, :, 0] if values.shape[2] == 1 else values)
    size = (pixels.shape[1], pixels.shape[0])
    if size != tuple(features.image_size):
        width, height = features.image_size
        raise InputError(
            f"{name} has {size[0]}x{size[1]} pixels, its features are of an image of {width}x{height}: pass the image "
            "that was extracted"
        )
    return pixels


def _check(indices: torch.Tensor, features0: Features, features1: Features) -> None:
    for column, features in enumerate((features0, features1)):
        chosen = indices[:, column]
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(features):
            raise InputError(
                f"matches name keypoint {int(chosen.max())} of image {column}, which has {len(features)}: they are of "
                "other features"
            )
        if len(chosen.unique()) != len(chosen):
            raise InputError(f"matches name a keypoint of image {column} twice: pass what semkey.match gives")
