"""What ``semkey eval slam`` compares: features by name, with lines beside them or not, and OpenCV's odometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semkey.errors import ConfigError
from semkey.evaluation.running.methods import PARTS, Method, create_method
from semkey.evaluation.slam.cv2_odometry import NAME as CV2_ODOMETRY
from semkey.extractors.places import name_with_places, split_places

LINES_SUFFIX = "+lines"
"""``compact+lines`` is ``compact`` with line segments beside its keypoints."""


@dataclass(frozen=True, kw_only=True)
class SlamMethod:
    """One back end's input, with everything that results depend on.

    Attributes:
        name: as the user calls it.
        fingerprint: everything that identifies it; JSON-ready.
        weights: folders where released weights are looked for first.
    """

    name: str
    fingerprint: Mapping[str, Any]
    weights: tuple[Path, ...] = ()
    runtime: str = "torch"

    @property
    def is_opencv(self) -> bool:
        """Whether this is OpenCV's odometry, which uses no features and needs depth images."""
        return self.name == CV2_ODOMETRY

    @property
    def features(self) -> str:
        """Name of the features, for :func:`semkey.extractors.create_extractor`."""
        return self.name.removesuffix(LINES_SUFFIX)

    @property
    def settings(self) -> tuple[str, ...]:
        """Changes of :class:`semkey.slam.config.SlamConfig` that the features ask for."""
        return ("loops.retrieval=joined",) if split_places(self.features)[1] else ()

    @property
    def lines(self) -> bool:
        """Whether line segments are used."""
        return self.name.endswith(LINES_SUFFIX)


def names_with_places(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """Every name as it is, then with each of some descriptors of places, which stand before ``+lines``.

    Raises:
        ConfigError: these are not descriptors of places.
    """
    result = list(names)
    for name in names:
        if name != CV2_ODOMETRY:
            features = name.removesuffix(LINES_SUFFIX)
            result += [f"{name_with_places(features, place)}{name[len(features) :]}" for place in places]
    return result


def create_slam_methods(
    names: Sequence[str],
    *,
    keypoints: int = 1024,
    device: str = "auto",
    weights: Sequence[Path] = (),
    runtime: str = "torch",
) -> list[SlamMethod]:
    """Methods by name, before any work: an unknown name or missing weights end the run at once.

    Args:
        names: what :func:`semkey.extractors.create_extractor` takes, with ``+lines`` behind it for line segments as
            well; or ``cv2-odometry``. Features with descriptors of places (``compact@vit-tiny:gem``) also choose loop
            candidates by these.
        keypoints: most keypoints of an image.
        device: where networks run.
        weights: folders where released weights are looked for first.
        runtime: what computes the networks of semkey's own detectors.

    Raises:
        ConfigError: an unknown name, one with a matcher, or one that occurs twice.
        CheckpointError: weights are missing.
    """
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"features '{twice}' occur twice")
    if not names:
        raise ConfigError("there are no features to evaluate")
    return [_create(name, keypoints, device, weights, runtime) for name in names]


def create_features(
    features: str, *, keypoints: int, device: str, weights: Sequence[Path], runtime: str = "torch"
) -> Method:
    """The features of a method, with what they depend on.

    Raises:
        ConfigError: unknown features.
        CheckpointError: weights are missing.
    """
    return create_method(features, keypoints=keypoints, device=device, weights=weights, runtime=runtime)


def _create(name: str, keypoints: int, device: str, weights: Sequence[Path], runtime: str) -> SlamMethod:
    if name == CV2_ODOMETRY:
        import cv2

        return SlamMethod(name=name, fingerprint={"name": name, "versions": {"opencv": cv2.__version__}})
    features = name.removesuffix(LINES_SUFFIX)
    if features == CV2_ODOMETRY:
        raise ConfigError(f"'{name}': {CV2_ODOMETRY} uses no lines")
    base, plus, part = features.rpartition("+")
    if plus and part in PARTS:
        raise ConfigError(f"'{name}': SLAM matches by itself, near where landmarks are expected; give '{base}'")
    method = create_features(features, keypoints=keypoints, device=device, weights=weights, runtime=runtime)
    fingerprint = {"name": name, "extraction": dict(method.extraction)}
    if name != features:
        fingerprint["lines"] = True
    return SlamMethod(name=name, fingerprint=fingerprint, weights=tuple(weights), runtime=runtime)
