"""A pose of a frame with what speaks for it, and the rules by which frames are placed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations
from semkey.slam.map.line_association import SeenLines
from semkey.slam.solvers.evidence import Evidence
from semkey.slam.solvers.pose import pose_covariance

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# A pose errs by more than the noise of its own image: errors of landmarks have parts in common, those of the keyframes
# that they are from. Variances of compact and nano in three rendered rooms ask for 1.3 (mean) to 1.75 (95 % within).
_SHARED_ERRORS = 1.5

NearbyLandmarks = Callable[["Placement"], Indices]
"""``nearby(placement)``: ids of the landmarks that a frame may see from there."""


@dataclass(frozen=True, kw_only=True)
class PlacingRules:
    """How frames are placed; tracking, loops and single photos differ in this only.

    Attributes:
        min_matches: fewest matches that RANSAC, and each round of the search, goes on with.
        min_sample_inliers: fewest inliers of RANSAC that are gone on with.
        ransac_error_px: inlier threshold of RANSAC, pixels of the image.
        search_radii_px: how far from its projection a landmark is looked for in each round, pixels of the image.
        settled_px: a round that moves landmarks by less than this in the image (the median) is the last; 0 always makes
            all rounds.
        refines_sample: the matches of RANSAC are refined before the first round. A keyframe at a loop has few of them,
            from two keyframes of the place; the search starts from RANSAC's own pose there.
        uses_depth: depths of keypoints count; not between two maps whose units of length may differ.
    """

    min_matches: int
    min_sample_inliers: int
    ransac_error_px: float
    search_radii_px: tuple[float, ...]
    settled_px: float = 0.0
    refines_sample: bool = True
    uses_depth: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """A pose of a frame with what speaks for it.

    Attributes:
        T_world_cam: (4, 4) the pose.
        associations: landmarks and keypoints that the pose was estimated from.
        inliers: (M,) bool, which of them agree with it.
        information: (6, 6) inverse covariance in the camera's tangent space ``[rho, phi]`` by the claimed noise; zero
            before a refinement.
        scatter: how the residuals compare with that noise, see :class:`semkey.slam.solvers.pose.RefinedPose`.
        visible: (V,) landmarks that were looked for near their projections; none before the first round.
        pixels: (V, 2) where they were expected by the pose before the last refinement.
        radius_px: how far from there they were looked for.
        sample_similarity: median similarity of the matches that RANSAC found to agree.
        lines: lines that were looked for; None where lines are not used or too few are in view.
        evidence: how improbable all that is by chance; None where nothing was looked for.
        depth_factor: by how much the measured depths contradict the map, as the median ratio of the two; None where
            they do not. They have no say in the pose then.
        is_contested: most of what is in view speaks for another pose, and long established landmarks decided.
    """

    T_world_cam: Array
    associations: Associations
    inliers: NDArray[np.bool_]
    information: Array = field(default_factory=lambda: np.zeros((6, 6)))
    scatter: float = 1.0
    visible: Indices = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pixels: Array = field(default_factory=lambda: np.zeros((0, 2)))
    radius_px: float = 0.0
    sample_similarity: float = 0.0
    lines: SeenLines | None = None
    evidence: Evidence | None = None
    depth_factor: float | None = None
    is_contested: bool = False

    @property
    def log10_nfa(self) -> float:
        """Logarithm of the number of false alarms, a decade lower for every line that agrees; 0 without evidence."""
        if self.evidence is None:
            return 0.0
        return self.evidence.log10_nfa - (0 if self.lines is None else self.lines.inlier_count)

    @property
    def inlier_count(self) -> int:
        """Landmarks and lines that agree with the pose."""
        return int(np.count_nonzero(self.inliers)) + (0 if self.lines is None else self.lines.inlier_count)

    @property
    def covariance(self) -> Array:
        """(6, 6) of the pose in the map, see :mod:`semkey.geometry.pose_covariance`."""
        return _SHARED_ERRORS * pose_covariance(self.information, self.scatter)

    @property
    def quality(self) -> float:
        """Of the landmarks that should be in view, the share that was seen where it should be, in [0, 1]."""
        return min(1.0, np.count_nonzero(self.inliers) / len(self.visible)) if len(self.visible) else 0.0

    @property
    def inlier_associations(self) -> Associations:
        """The associations that agree with the pose."""
        return self.associations.select(self.inliers)


class LineFinder(Protocol):
    """Finds lines of the map in a frame."""

    def find(
        self, frame: ObservedFrame, T_world_cam: Array, landmark_ids: Indices, *, radius_px: float
    ) -> SeenLines | None:
        """The lines of keyframes that see these landmarks, near where the pose sees them; None for too few."""
        ...

    def solve(
        self, frame: ObservedFrame, associations: Associations, seen: SeenLines, *, max_error_px: float, seed: int
    ) -> tuple[Array, NDArray[np.bool_]] | None:
        """T_world_cam (4, 4) by RANSAC over points and lines, and which points agree with it; None for too few."""
        ...
