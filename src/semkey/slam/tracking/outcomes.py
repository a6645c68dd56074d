"""Records of frames, by what became of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.records import FrameRecord
from semkey.slam.tracking.tracker import Location

Array = NDArray[np.float64]


def located_record(frame: ObservedFrame, location: Location) -> FrameRecord:
    """Of a frame that was placed in the map and not kept."""
    return FrameRecord(
        index=frame.index,
        timestamp=frame.timestamp,
        T_world_cam=location.placement.T_world_cam,
        reference_keyframe=location.reference,
        T_keyframe_cam=location.T_reference_cam,
        matches=len(location.placement.associations),
        inliers=location.placement.inlier_count,
        keypoints=len(frame),
        method=location.method,
        submap=location.submap,
        covariance=location.placement.covariance,
        quality=location.placement.quality,
        **_evidence(location),
    )


def kept_record(keyframe: Keyframe, location: Location, T_keyframe_cam: Array) -> FrameRecord:
    """Of a frame that was placed in the map and became a keyframe.

    Args:
        keyframe: what was made of the frame.
        location: where it was found.
        T_keyframe_cam: (4, 4) the frame as seen from the keyframe: the identity, but for rounding.
    """
    return FrameRecord(
        index=keyframe.frame.index,
        timestamp=keyframe.frame.timestamp,
        T_world_cam=keyframe.T_world_cam,
        reference_keyframe=keyframe.id,
        T_keyframe_cam=T_keyframe_cam,
        matches=len(location.placement.associations),
        inliers=location.placement.inlier_count,
        keypoints=len(keyframe.frame),
        method=location.method,
        is_keyframe=True,
        submap=keyframe.submap,
        covariance=location.placement.covariance,
        quality=location.placement.quality,
        **_evidence(location),
    )


def start_record(keyframe: Keyframe) -> FrameRecord:
    """Of a frame that a submap begins with."""
    return FrameRecord(
        index=keyframe.frame.index,
        timestamp=keyframe.frame.timestamp,
        T_world_cam=keyframe.T_world_cam,
        reference_keyframe=keyframe.id,
        T_keyframe_cam=np.eye(4),
        keypoints=len(keyframe.frame),
        method="start",
        is_keyframe=True,
        submap=keyframe.submap,
        covariance=np.zeros((6, 6)),
        quality=1.0,
    )


def lost_record(index: int, timestamp: float, submap: int, *, keypoints: int | None) -> FrameRecord:
    """Of a frame without a pose: it was not found in the map, or, without ``keypoints``, it could not be read."""
    return FrameRecord(
        index=index,
        timestamp=timestamp,
        T_world_cam=None,
        keypoints=keypoints or 0,
        method="unreadable" if keypoints is None else "lost",
        submap=submap,
    )


def landmarks_of_keypoints(frame: ObservedFrame, location: Location) -> NDArray[np.int64]:
    """The landmark (N,) that each keypoint of a located frame was tracked by, -1 for none."""
    landmark_ids = np.full(len(frame), -1, dtype=np.int64)
    landmark_ids[location.found.keypoint_indices] = location.found.landmark_ids
    return landmark_ids


def _evidence(location: Location) -> dict[str, Any]:
    """What speaks for the pose, as arguments of a record."""
    evidence = location.placement.evidence
    if evidence is None:
        return {}
    return {"log10_nfa": location.placement.log10_nfa, "visible": evidence.visible, "found": evidence.found}
