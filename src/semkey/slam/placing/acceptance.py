"""Whether a pose is believed; whoever places frames decides by this and nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.placing.placement import Placement
from semkey.slam.solvers.evidence import needed_log10_nfa
from semkey.slam.solvers.image_cells import coverage

Array = NDArray[np.float64]

# Of the depths measured where a pose finds landmarks, at least this share must be what it says, if the unit is that of
# the map: true poses have 0.55 to 1 (before depth that is wrong by design 0.42), nano on the other side of fr3_cabinet
# 0.01 and 0.04.
_AGREEING_DEPTHS = 1 / 3


def accept(
    placement: Placement,
    frame: ObservedFrame,
    camera: PinholeCamera,
    *,
    min_inliers: int,
    expected: Array | None = None,
    min_coverage: float = 0.0,
    is_expected: bool | None = None,
    is_within_reach: bool = True,
    is_alone: bool = False,
) -> bool:
    """Whether enough agrees with a pose to believe it; whoever places frames decides by this and nothing else.

    Chance must not explain it: the number of false alarms is at most ``10^-4``, and less where little of what should be
    seen is found, see :func:`semkey.slam.solvers.evidence.needed_log10_nfa`. The fewest inliers are a floor for what a
    pose can be computed from. Depths measured at what agrees must not say otherwise.

    Args:
        placement: of the frame.
        frame: the frame.
        camera: of the frame.
        min_inliers: fewest landmarks and lines that agree.
        expected: (V, 2) pixels where landmarks of the place should be seen; None for those that were looked for.
        min_coverage: where both the place has landmarks and the frame has keypoints, inliers must be found in at least
            this share of the image cells: two rooms with the same poster agree in the poster's cells only. Where lines
            agree and nothing is ``expected``, points need not.
        is_expected: a prediction, or keyframes just seen, back the pose; by default where no pixels are ``expected``.
        is_within_reach: the camera can have come there since its last pose; beyond, nothing backs the pose, and more of
            what should be seen has to be found.
        is_alone: a single photo, of which no frame before or after can tell; more is asked.
    """
    if placement.inlier_count < min_inliers or _depths_contradict(placement, min_inliers):
        return False
    if is_expected is None:
        is_expected = expected is None
    is_expected = is_expected and is_within_reach
    evidence = placement.evidence
    found, visible, sampled, matched = 0, 0, 0, 0
    if evidence is not None:
        found, visible, sampled, matched = evidence.found, evidence.visible, evidence.sampled, evidence.matched
    has_lines = placement.lines is not None and placement.lines.inlier_count > 0
    if has_lines:
        found, visible = 0, 0  # where there are few points lines speak for the pose, and none is counted as missing
    covered = placement_coverage(placement, frame, camera, placement.pixels if expected is None else expected)
    needed = needed_log10_nfa(
        found,
        visible,
        is_expected=is_expected,
        is_within_reach=is_within_reach,
        sampled=sampled,
        matched=matched,
        coverage=covered,
        is_alone=is_alone,
    )
    if placement.log10_nfa > needed:
        return False
    return min_coverage == 0 or (expected is None and has_lines) or covered >= min_coverage


def _depths_contradict(placement: Placement, fewest: int) -> bool:
    """Whether hardly any depth is what the pose says, where ``fewest`` were measured and their unit is the map's."""
    evidence = placement.evidence
    if evidence is None or placement.depth_factor is not None or evidence.depth_checked < fewest:
        return False
    return evidence.depth_agree < _AGREEING_DEPTHS * evidence.depth_checked


def placement_coverage(placement: Placement, frame: ObservedFrame, camera: PinholeCamera, expected: Array) -> float:
    """In which share of the cells where both sides have something inliers are found, see :func:`coverage`."""
    matched = frame.keypoints[placement.inlier_associations.keypoint_indices]
    return coverage(frame.keypoints, expected, matched, camera)
