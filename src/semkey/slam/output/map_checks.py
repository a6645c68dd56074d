"""Whether the arrays of a map file make sense: a checksum says only that a file is as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.trajectories import is_rigid

NONE = -1
"""Stands for no keyframe and no landmark."""

_FINITE = (
    "keyframes/timestamp",
    "keyframes/T_world_cam",
    "keyframes/global_descriptor",
    "keypoints/position",
    "keypoints/covariance",
    "keypoints/score",
    "keypoints/reliability",
    "keypoints/weight",
    "keypoints/descriptor",
    "removed/T_parent_keyframe",
    "frames/timestamp",
)
_POSITIVE = ("keyframes/scale", "removed/scale_ratio", "keypoints/weight")
_FAR = 1e9  # metres, or pixels: nothing is there, and squares of it are still numbers


def check_map(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays that refer to what is not there, or hold numbers that cannot be.

    Args:
        path: of the file, for the message.
        arrays: of the right types and shapes.

    Raises:
        InputError: what contradicts what.
    """
    for problem, is_there in {**_references(arrays), **_values(arrays)}.items():
        if is_there:
            raise InputError(f"{path}: the map contradicts itself: {problem}")


def _references(arrays: Mapping[str, NDArray[Any]]) -> dict[str, bool]:
    ids, rows = arrays["keyframes/id"], len(arrays["landmarks/position"])
    known = np.concatenate([ids, arrays["removed/id"]])
    landmarks = arrays["keypoints/landmark"]
    seen = landmarks[landmarks >= 0]
    counts = arrays["keyframes/keypoints"]
    frames = arrays["frames/reference_keyframe"]
    return {
        "keyframes/id does not increase": bool((np.diff(ids) <= 0).any() or (ids < 0).any() or not len(ids)),
        "keyframes/keypoints does not add up": bool(
            (counts < 0).any() or (counts > len(landmarks)).any() or counts.sum() != len(landmarks)
        ),
        "keyframes/parent names no keyframe": not np.isin(arrays["keyframes/parent"], [NONE, *ids]).all(),
        "removed/parent names no keyframe": not np.isin(arrays["removed/parent"], known).all(),
        "keypoints/landmark names no landmark": bool((seen >= rows).any()) or not arrays["landmarks/alive"][seen].all(),
        "landmarks/reference names no keyframe": not np.isin(
            arrays["landmarks/reference"][arrays["landmarks/alive"]], ids
        ).all(),
        "frames/reference_keyframe names no keyframe": not np.isin(frames, [NONE, *known]).all(),
        "frames/index does not increase": bool((np.diff(arrays["frames/index"]) <= 0).any()),
        "frames/method is negative": bool((arrays["frames/method"] < 0).any()),
    }


def _values(arrays: Mapping[str, NDArray[Any]]) -> dict[str, bool]:
    alive = arrays["landmarks/alive"]
    problems = {
        f"{name} is not finite, or out of range": bool((~(np.abs(arrays[name]) < _largest(name))).any())
        for name in _FINITE
        if name in arrays
    }
    problems |= {f"{name} is not positive": not (arrays[name] > 0).all() for name in _POSITIVE}
    problems["landmarks/position is not finite, or out of range"] = bool(
        (~(np.abs(arrays["landmarks/position"][alive]) < _FAR)).any()
    )
    for name in ("landmarks/view_distance", "landmarks/keyframe_count"):
        problems[f"{name} is not positive"] = not (arrays[name][alive] > 0).all()
    poses = [*arrays["keyframes/T_world_cam"], *arrays["removed/T_parent_keyframe"]]
    if not any(problems.values()):
        problems["keyframes/T_world_cam is no pose"] = not all(is_rigid(pose) for pose in poses)
    return problems


def _largest(name: str) -> float:
    return np.inf if name.endswith("timestamp") else _FAR
