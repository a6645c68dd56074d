"""A map and the frames of a run as named arrays, and back: what a map file holds (``docs/map-format.md``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.geometry.camera import PinholeCamera
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.model.features import Features
from semkey.slam.config import MapConfig
from semkey.slam.frames.frame import PATCHES, ObservedFrame
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.keyframe_tree import RemovedKeyframe
from semkey.slam.map.landmarks import LandmarkMap
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.output.map_checks import NONE as _NONE
from semkey.slam.output.map_checks import check_map
from semkey.slam.output.map_file import ArraySpec
from semkey.slam.records import FrameRecord

Arrays = dict[str, NDArray[Any]]
Poses = NDArray[np.float64]
_PATCH = 2 * PATCHES.radius + 3

# Letters: K keyframes, P keypoints of all keyframes together, D descriptor, G global descriptor, L landmark rows,
# R removed keyframes, E loops, F frames.
KEYFRAME_SPECS = {
    "keyframes/id": ArraySpec(dtype="int64", shape=("K",)),
    "keyframes/frame": ArraySpec(dtype="int64", shape=("K",)),
    "keyframes/timestamp": ArraySpec(dtype="float64", shape=("K",)),
    "keyframes/T_world_cam": ArraySpec(dtype="float64", shape=("K", 4, 4)),
    "keyframes/submap": ArraySpec(dtype="int64", shape=("K",)),
    "keyframes/parent": ArraySpec(dtype="int64", shape=("K",)),
    "keyframes/scale": ArraySpec(dtype="float64", shape=("K",)),
    "keyframes/median_depth": ArraySpec(dtype="float64", shape=("K",)),
    "keyframes/keypoints": ArraySpec(dtype="int64", shape=("K",)),
    "keyframes/global_descriptor": ArraySpec(dtype="float32", shape=("K", "G")),
    "keypoints/position": ArraySpec(dtype="float32", shape=("P", 2)),
    "keypoints/covariance": ArraySpec(dtype="float32", shape=("P", 2, 2), optional=True),
    "keypoints/patch": ArraySpec(dtype="uint8", shape=("P", _PATCH, _PATCH), optional=True),
    "keypoints/score": ArraySpec(dtype="float32", shape=("P",)),
    "keypoints/reliability": ArraySpec(dtype="float32", shape=("P",)),
    "keypoints/weight": ArraySpec(dtype="float64", shape=("P",)),
    "keypoints/descriptor": ArraySpec(dtype="float32", shape=("P", "D")),
    "keypoints/depth": ArraySpec(dtype="float64", shape=("P",)),
    "keypoints/depth_sigma": ArraySpec(dtype="float64", shape=("P",)),
    "keypoints/landmark": ArraySpec(dtype="int64", shape=("P",)),
    "removed/id": ArraySpec(dtype="int64", shape=("R",)),
    "removed/parent": ArraySpec(dtype="int64", shape=("R",)),
    "removed/T_parent_keyframe": ArraySpec(dtype="float64", shape=("R", 4, 4)),
    "removed/scale_ratio": ArraySpec(dtype="float64", shape=("R",)),
    "loops/link": ArraySpec(dtype="int64", shape=("E", 3)),
}
LANDMARK_SPECS = {
    "landmarks/position": ArraySpec(dtype="float64", shape=("L", 3)),
    "landmarks/information": ArraySpec(dtype="float64", shape=("L", 3, 3)),
    "landmarks/descriptor": ArraySpec(dtype="float32", shape=("L", "D")),
    "landmarks/view_direction": ArraySpec(dtype="float64", shape=("L", 3)),
    "landmarks/view_distance": ArraySpec(dtype="float64", shape=("L",)),
    "landmarks/visible": ArraySpec(dtype="int64", shape=("L",)),
    "landmarks/found": ArraySpec(dtype="int64", shape=("L",)),
    "landmarks/alive": ArraySpec(dtype="bool", shape=("L",)),
    "landmarks/keyframe_count": ArraySpec(dtype="int64", shape=("L",)),
    "landmarks/birth": ArraySpec(dtype="int64", shape=("L",)),
    "landmarks/reference": ArraySpec(dtype="int64", shape=("L",)),
    "landmarks/serial": ArraySpec(dtype="int64", shape=("L",)),
    "landmarks/color": ArraySpec(dtype="uint8", shape=("L", 3), optional=True),
}
FRAME_SPECS = {
    "frames/index": ArraySpec(dtype="int64", shape=("F",)),
    "frames/timestamp": ArraySpec(dtype="float64", shape=("F",)),
    "frames/T_world_cam": ArraySpec(dtype="float64", shape=("F", 4, 4)),
    "frames/reference_keyframe": ArraySpec(dtype="int64", shape=("F",)),
    "frames/T_keyframe_cam": ArraySpec(dtype="float64", shape=("F", 4, 4)),
    "frames/matches": ArraySpec(dtype="int64", shape=("F",)),
    "frames/inliers": ArraySpec(dtype="int64", shape=("F",)),
    "frames/keypoints": ArraySpec(dtype="int64", shape=("F",)),
    "frames/method": ArraySpec(dtype="int64", shape=("F",)),
    "frames/is_keyframe": ArraySpec(dtype="bool", shape=("F",)),
    "frames/submap": ArraySpec(dtype="int64", shape=("F",)),
    "frames/covariance": ArraySpec(dtype="float64", shape=("F", 6, 6), optional=True),
    "frames/quality": ArraySpec(dtype="float64", shape=("F",), optional=True),
    "frames/ground_truth": ArraySpec(dtype="float64", shape=("F", 4, 4)),
    "frames/log10_nfa": ArraySpec(dtype="float64", shape=("F",), optional=True),
    "frames/visible": ArraySpec(dtype="int64", shape=("F",), optional=True),
    "frames/found": ArraySpec(dtype="int64", shape=("F",), optional=True),
}
SPECS: Mapping[str, ArraySpec] = KEYFRAME_SPECS | LANDMARK_SPECS | FRAME_SPECS


def map_arrays(slam_map: SlamMap) -> Arrays:
    """The arrays of a map with at least one keyframe; copies, so that the map may go on changing."""
    keyframes = list(slam_map.keyframes.values())
    frames = [keyframe.frame for keyframe in keyframes]
    features = [frame.features for frame in frames]
    removed = slam_map.tree.removed
    arrays: Arrays = {
        "keyframes/id": _ints(keyframe.id for keyframe in keyframes),
        "keyframes/frame": _ints(frame.index for frame in frames),
        "keyframes/timestamp": np.array([frame.timestamp for frame in frames], dtype=np.float64),
        "keyframes/T_world_cam": np.stack([keyframe.T_world_cam for keyframe in keyframes]),
        "keyframes/submap": _ints(keyframe.submap for keyframe in keyframes),
        "keyframes/parent": _ints(_NONE if keyframe.parent is None else keyframe.parent for keyframe in keyframes),
        "keyframes/scale": np.array([keyframe.scale for keyframe in keyframes], dtype=np.float64),
        "keyframes/median_depth": np.array([keyframe.median_depth for keyframe in keyframes], dtype=np.float64),
        "keyframes/keypoints": _ints(len(frame) for frame in frames),
        "keyframes/global_descriptor": np.stack([feature.global_descriptor.numpy() for feature in features]),
        "keypoints/position": np.concatenate([frame.keypoints for frame in frames]).astype(np.float32),
        "keypoints/covariance": np.concatenate([frame.covariances for frame in frames]).astype(np.float32),
        "keypoints/score": np.concatenate([feature.scores.numpy() for feature in features]),
        "keypoints/reliability": np.concatenate([feature.reliability.numpy() for feature in features]),
        "keypoints/weight": np.concatenate([frame.weights for frame in frames]),
        "keypoints/descriptor": np.concatenate([frame.descriptors for frame in frames]),
        "keypoints/depth": np.concatenate([frame.depth for frame in frames]),
        "keypoints/depth_sigma": np.concatenate([frame.depth_sigma for frame in frames]),
        "keypoints/landmark": np.concatenate([keyframe.landmark_ids for keyframe in keyframes]),
        "removed/id": _ints(removed),
        "removed/parent": _ints(entry.parent for entry in removed.values()),
        "removed/T_parent_keyframe": _poses([entry.T_parent_keyframe for entry in removed.values()]),
        "removed/scale_ratio": np.array([entry.scale_ratio for entry in removed.values()], dtype=np.float64),
    }
    patches = [frame.patches for frame in frames if frame.patches is not None]
    if len(patches) == len(frames):
        arrays["keypoints/patch"] = np.concatenate(patches)
    arrays["loops/link"] = np.array(slam_map.loop_links, dtype=np.int64).reshape(-1, 3)
    return arrays | {f"landmarks/{name}": array for name, array in slam_map.landmarks.to_arrays().items()}


def restore_map(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    counters: Mapping[str, int],
    camera: PinholeCamera,
    config: MapConfig,
    pixel_sigma: float,
) -> SlamMap:
    """The map that :func:`map_arrays` took apart.

    Args:
        path: the file, for messages.
        arrays: checked against :data:`SPECS`.
        counters: see :meth:`SlamMap.counters`.
        camera: of all frames.
        config: settings of the map.
        pixel_sigma: see :class:`SlamMap`.

    Raises:
        InputError: numbers that refer to something else in the file do not, or that cannot be.
    """
    check_map(path, arrays)
    counts = arrays["keyframes/keypoints"]
    ends = np.cumsum(counts)
    size = (camera.width, camera.height)
    keyframes = [
        _keyframe(arrays, number, slice(int(end - count), int(end)), size, pixel_sigma)
        for number, (count, end) in enumerate(zip(counts, ends, strict=True))
    ]
    removed = {
        int(gone): RemovedKeyframe(parent=int(parent), T_parent_keyframe=pose, scale_ratio=float(ratio))
        for gone, parent, pose, ratio in zip(
            arrays["removed/id"],
            arrays["removed/parent"],
            arrays["removed/T_parent_keyframe"],
            arrays["removed/scale_ratio"],
            strict=True,
        )
    }
    stored = {name.split("/")[1]: array for name, array in arrays.items() if name.startswith("landmarks/")}
    stored.pop("color", None)
    landmarks = LandmarkMap.from_arrays(stored, made=counters["landmarks_made"])
    return SlamMap.restored(
        camera,
        config,
        pixel_sigma=pixel_sigma,
        keyframes=keyframes,
        landmarks=landmarks,
        removed=removed,
        loop_links=[(first, second, inliers) for first, second, inliers in arrays["loops/link"].tolist()],
        counters=counters,
    )


def frame_arrays(records: Sequence[FrameRecord], ground_truth: Mapping[int, Poses], methods: Sequence[str]) -> Arrays:
    """The arrays of the frames of a run; poses of lost frames are NaN, ``methods`` are what numbers stand for."""
    return {
        "frames/index": _ints(record.index for record in records),
        "frames/timestamp": np.array([record.timestamp for record in records], dtype=np.float64),
        "frames/T_world_cam": _poses([record.T_world_cam for record in records]),
        "frames/reference_keyframe": _ints(
            _NONE if record.reference_keyframe is None else record.reference_keyframe for record in records
        ),
        "frames/T_keyframe_cam": _poses([record.T_keyframe_cam for record in records]),
        "frames/matches": _ints(record.matches for record in records),
        "frames/inliers": _ints(record.inliers for record in records),
        "frames/keypoints": _ints(record.keypoints for record in records),
        "frames/method": _ints(methods.index(record.method) for record in records),
        "frames/is_keyframe": np.array([record.is_keyframe for record in records], dtype=bool),
        "frames/submap": _ints(record.submap for record in records),
        "frames/covariance": _matrices([record.covariance for record in records], 6),
        "frames/quality": np.array([record.quality for record in records], dtype=np.float64),
        "frames/log10_nfa": np.array(
            [np.nan if record.log10_nfa is None else record.log10_nfa for record in records], dtype=np.float64
        ),
        "frames/visible": _ints(record.visible for record in records),
        "frames/found": _ints(record.found for record in records),
        "frames/ground_truth": _poses([ground_truth.get(record.index) for record in records]),
    }


def restore_frames(
    arrays: Mapping[str, NDArray[Any]], methods: Sequence[str]
) -> tuple[list[FrameRecord], dict[int, Poses]]:
    """The records and the ground truth that :func:`frame_arrays` took apart."""
    columns = {name.split("/")[1]: array for name, array in arrays.items() if name.startswith("frames/")}
    records, truth = [], {}
    for row in range(len(columns["index"])):
        index = int(columns["index"][row])
        reference = int(columns["reference_keyframe"][row])
        records.append(
            FrameRecord(
                index=index,
                timestamp=float(columns["timestamp"][row]),
                T_world_cam=_pose(columns["T_world_cam"][row]),
                reference_keyframe=None if reference == _NONE else reference,
                T_keyframe_cam=_pose(columns["T_keyframe_cam"][row]),
                matches=int(columns["matches"][row]),
                inliers=int(columns["inliers"][row]),
                keypoints=int(columns["keypoints"][row]),
                method=methods[int(columns["method"][row])],
                is_keyframe=bool(columns["is_keyframe"][row]),
                submap=int(columns["submap"][row]),
                covariance=_pose(columns["covariance"][row]) if "covariance" in columns else None,
                quality=float(columns["quality"][row]) if "quality" in columns else 0.0,
                **_evidence(columns, row),
            )
        )
        true_pose = _pose(columns["ground_truth"][row])
        if true_pose is not None:
            truth[index] = true_pose
    return records, truth


def _evidence(columns: Mapping[str, NDArray[Any]], row: int) -> dict[str, Any]:
    """What spoke for a frame's pose, which maps of earlier versions do not have."""
    if "log10_nfa" not in columns:
        return {}
    value = float(columns["log10_nfa"][row])
    evidence = {name: int(columns[name][row]) for name in ("visible", "found")}
    return {"log10_nfa": None if np.isnan(value) else value, **evidence}


def _keyframe(
    arrays: Mapping[str, NDArray[Any]], number: int, rows: slice, size: tuple[int, int], pixel_sigma: float
) -> Keyframe:
    parent = int(arrays["keyframes/parent"][number])
    features = Features(
        keypoints=torch.from_numpy(arrays["keypoints/position"][rows]),
        scores=torch.from_numpy(arrays["keypoints/score"][rows]),
        reliability=torch.from_numpy(arrays["keypoints/reliability"][rows]),
        descriptors=torch.from_numpy(arrays["keypoints/descriptor"][rows]),
        global_descriptor=torch.from_numpy(arrays["keyframes/global_descriptor"][number]),
        image_size=size,
    )
    positions = arrays["keypoints/position"][rows].astype(np.float64)
    # Maps of version 0.1.0 have one standard deviation for all keypoints.
    stored = arrays.get("keypoints/covariance")
    covariances = isotropic_covariances(len(positions), pixel_sigma) if stored is None else stored[rows].astype(float)
    frame = ObservedFrame(
        index=int(arrays["keyframes/frame"][number]),
        timestamp=float(arrays["keyframes/timestamp"][number]),
        features=features,
        keypoints=positions,
        covariances=covariances,
        descriptors=arrays["keypoints/descriptor"][rows],
        weights=arrays["keypoints/weight"][rows],
        depth=arrays["keypoints/depth"][rows],
        depth_sigma=arrays["keypoints/depth_sigma"][rows],
        tree=KDTree(positions),
        patches=arrays["keypoints/patch"][rows] if "keypoints/patch" in arrays else None,
    )
    return Keyframe(
        id=int(arrays["keyframes/id"][number]),
        frame=frame,
        T_world_cam=arrays["keyframes/T_world_cam"][number].copy(),
        landmark_ids=arrays["keypoints/landmark"][rows].copy(),
        submap=int(arrays["keyframes/submap"][number]),
        parent=None if parent == _NONE else parent,
        scale=float(arrays["keyframes/scale"][number]),
        median_depth=float(arrays["keyframes/median_depth"][number]),
    )


def _ints(values: Any) -> NDArray[np.int64]:
    return np.fromiter(values, dtype=np.int64)


def _poses(poses: Sequence[Poses | None]) -> Poses:
    """Poses (N, 4, 4), NaN for those that are not known."""
    return _matrices(poses, 4)


def _matrices(matrices: Sequence[Poses | None], size: int) -> Poses:
    """Matrices (N, size, size), NaN for those that are not known."""
    unknown = np.full((size, size), np.nan)
    return np.stack([unknown if one is None else one for one in matrices]) if matrices else np.zeros((0, size, size))


def _pose(stored: Poses) -> Poses | None:
    return None if np.isnan(stored).any() else stored.copy()
