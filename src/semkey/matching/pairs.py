"""``semkey.match``: two images or their features in, matches out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semkey.errors import InputError
from semkey.matching.matchers import PairMatcher, create_matcher
from semkey.matching.mutual import Matches
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike

if TYPE_CHECKING:
    from semkey.extractors import Extractor
    from semkey.extractors.detector import MaskLike


def match(
    features0: Features | ImageLike,
    features1: Features | ImageLike,
    *,
    detector: Extractor | str | Path = "compact",
    masks: tuple[MaskLike | None, MaskLike | None] | None = None,
    matcher: PairMatcher | str | Path = "mnn",
    min_similarity: float | None = None,
    ratio: float | None = None,
) -> Matches:
    """Match two images or their features.

    ``mnn``, the default, gives pairs that are each other's nearest neighbour in cosine similarity: quick, and as good
    as what RANSAC makes of it. ``ratio`` drops those with a second neighbour nearly as near, ``dual-softmax`` those
    that are not much more alike than all others, ``lightglue`` asks a network that looks at all keypoints of both
    images. Deterministic; of equally similar candidates the stronger keypoint (the lower index) wins.

    Args:
        features0: N0 features of image 0, or the image itself: a path or pixels, as ``detector.extract`` takes them.
        features1: N1 features of image 1, of the same kind on the same device; or the image.
        detector: extracts from images, or its name; features need none.
        masks: of the two images, (H, W) uint8 or bool or None each; keypoints on pixels of 0 are not matched.
        matcher: ``mnn``, ``ratio``, ``dual-softmax``, ``lightglue`` (weights are there for ``aliked-n16`` and
            ``disk``), the path of a file that ``semkey train-matcher`` wrote, or what
            :func:`semkey.matching.create_matcher` gives.
        min_similarity: smallest cosine similarity of nearest neighbours, in [-1, 1]; ``None`` keeps all.
        ratio: Lowe's ratio test in (0, 1] (Lowe 2004, section 7.1): the nearest descriptor must be closer than
            ``ratio`` times the second nearest, in Euclidean distance from image 0 to image 1; ``None`` for no test
            (0.9 for the matcher ``ratio``).

    Returns:
        At most min(N0, N1) matches; none if either image has no features. With their features, if images were given.

    Raises:
        InputError: an image or mask cannot be used, features of different kinds or devices, values that are not finite,
            or an option out of range.
        ConfigError: unknown detector or matcher, or a matcher without weights for these features.
        CheckpointError: the file of a matcher cannot be used.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> left, right, _ = data.stereo_motorcycle()
        >>> detector = semkey.load("nano", max_keypoints=512)
        >>> features0, features1 = detector.extract(left), detector.extract(right)
        >>> len(semkey.match(features0, features1)) > 200
        True
        >>> len(semkey.match(left, right, detector=detector, matcher="ratio", ratio=0.8)) > 100
        True
        >>> len(semkey.match(features0, features1, matcher="dual-softmax")) > 100
        True
    """
    if masks is not None and len(masks) != 2:
        raise InputError(f"masks are two, one for each image (or None), got {len(masks)}")
    are_features = isinstance(features0, Features) and isinstance(features1, Features)
    if not are_features:
        from semkey.extractors import as_detector

        detector = as_detector(detector)
    mask0, mask1 = masks or (None, None)
    ours0, ours1 = _features_of(features0, detector, mask0), _features_of(features1, detector, mask1)
    if not isinstance(matcher, PairMatcher):
        matcher = create_matcher(
            matcher,
            features=ours0.method or ours1.method,
            min_similarity=min_similarity,
            ratio=ratio,
            device=ours0.keypoints.device,
        )
    found = matcher.match(ours0, ours1)
    if are_features:
        return found
    return Matches(indices=found.indices, scores=found.scores, features0=ours0, features1=ours1)


def _features_of(given: Features | ImageLike, detector: Extractor | str | Path, mask: MaskLike | None) -> Features:
    if not isinstance(given, Features):
        from semkey.extractors.points import extract_masked

        assert not isinstance(detector, str | Path)
        return extract_masked(detector, given, mask)
    if mask is not None:
        raise InputError("masks are of images: give detector.extract(image, mask) the mask of features")
    return given
