"""The lines of a map as named arrays, and back: the optional part of a map file (``docs/map-format.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.slam.config import LineConfig
from semkey.slam.frames.observed_lines import ObservedLines
from semkey.slam.frames.segments import Segments
from semkey.slam.frames.segments_in_space import SpatialSegments
from semkey.slam.map.lines import LineMap
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.output.map_file import ArraySpec

_NOT_LOOKED_FOR = -1

# Letters: K keyframes, S segments of all keyframes together, B descriptor of lines, N lines, W sightings.
LINE_SPECS = {
    "keyframes/segments": ArraySpec(dtype="int64", shape=("K",), optional=True),
    "segments/endpoint": ArraySpec(dtype="float64", shape=("S", 2, 2), optional=True),
    "segments/descriptor": ArraySpec(dtype="float32", shape=("S", "B"), optional=True),
    "segments/valid": ArraySpec(dtype="bool", shape=("S",), optional=True),
    "segments/point": ArraySpec(dtype="float64", shape=("S", 2, 3), optional=True),
    "segments/depth_sigma": ArraySpec(dtype="float64", shape=("S", 2), optional=True),
    "lines/serial": ArraySpec(dtype="int64", shape=("N",), optional=True),
    "lines/reference": ArraySpec(dtype="int64", shape=("N",), optional=True),
    "lines/last_seen": ArraySpec(dtype="int64", shape=("N",), optional=True),
    "lines/birth": ArraySpec(dtype="int64", shape=("N",), optional=True),
    "lines/keyframe_count": ArraySpec(dtype="int64", shape=("N",), optional=True),
    "lines/visible": ArraySpec(dtype="int64", shape=("N",), optional=True),
    "lines/found": ArraySpec(dtype="int64", shape=("N",), optional=True),
    "lines/point": ArraySpec(dtype="float64", shape=("N", 2, 3), optional=True),
    "lines/information": ArraySpec(dtype="float64", shape=("N", 2, 3, 3), optional=True),
    "lines/descriptor": ArraySpec(dtype="float32", shape=("N", "B"), optional=True),
    "lines/sighting": ArraySpec(dtype="int64", shape=("W", 3), optional=True),
}


def line_arrays(slam_map: SlamMap) -> dict[str, NDArray[Any]]:
    """The lines of a map and the segments of its keyframes, as copies; nothing where lines are not used."""
    if slam_map.lines is None:
        return {}
    observed = [keyframe.frame.lines for keyframe in slam_map.keyframes.values()]
    looked = [lines for lines in observed if lines is not None]
    lines = slam_map.lines.to_arrays()
    width = next((one.segments.descriptors.shape[1] for one in looked), lines["descriptor"].shape[1])
    if not len(lines["descriptor"]):
        lines["descriptor"] = np.zeros((0, width), dtype=np.float32)
    counts = [_NOT_LOOKED_FOR if one is None else len(one) for one in observed]
    return {
        "keyframes/segments": np.array(counts, dtype=np.int64),
        "segments/endpoint": np.concatenate([np.zeros((0, 2, 2)), *(one.segments.endpoints for one in looked)]),
        "segments/descriptor": np.concatenate(
            [np.zeros((0, width), dtype=np.float32), *(one.segments.descriptors for one in looked)]
        ),
        "segments/valid": np.concatenate([np.zeros(0, dtype=bool), *(one.spatial.valid for one in looked)]),
        "segments/point": np.concatenate([np.zeros((0, 2, 3)), *(one.spatial.points for one in looked)]),
        "segments/depth_sigma": np.concatenate([np.zeros((0, 2)), *(one.spatial.sigma for one in looked)]),
        **{f"lines/{name}": array for name, array in lines.items()},
    }


def restore_lines(
    path: Path, arrays: Mapping[str, NDArray[Any]], slam_map: SlamMap, config: LineConfig, *, made: int
) -> None:
    """Give a map the lines that :func:`line_arrays` took from it; a map that was made without lines has none.

    Args:
        path: the file, for messages.
        arrays: checked against :data:`LINE_SPECS`.
        slam_map: with its keyframes, whose frames get their segments.
        config: settings of lines of the run that made the map.
        made: number that the next line gets.

    Raises:
        InputError: only some of the arrays are there, or numbers that refer to something else in the file do not.
    """
    missing = [name for name in LINE_SPECS if name not in arrays]
    if len(missing) == len(LINE_SPECS):
        return
    if missing:
        raise InputError(f"{path}: array '{missing[0]}' is missing beside the other arrays of lines")
    _check_references(path, arrays, slam_map)
    end = 0
    for keyframe, count in zip(slam_map.keyframes.values(), arrays["keyframes/segments"].tolist(), strict=True):
        if count == _NOT_LOOKED_FOR:
            continue
        rows, end = slice(end, end + count), end + count
        segments = Segments(
            endpoints=arrays["segments/endpoint"][rows], descriptors=arrays["segments/descriptor"][rows]
        )
        spatial = SpatialSegments(
            valid=arrays["segments/valid"][rows],
            points=arrays["segments/point"][rows],
            sigma=arrays["segments/depth_sigma"][rows],
        )
        keyframe.frame = replace(keyframe.frame, lines=ObservedLines(segments=segments, spatial=spatial))
    stored = {name.split("/")[1]: array for name, array in arrays.items() if name.startswith("lines/")}
    slam_map.lines = LineMap.from_arrays(slam_map.tree, slam_map.camera, config, stored, made=made)


def _check_references(path: Path, arrays: Mapping[str, NDArray[Any]], slam_map: SlamMap) -> None:
    counts, serials, sightings = arrays["keyframes/segments"], arrays["lines/serial"], arrays["lines/sighting"]
    known = [*slam_map.keyframes, *slam_map.tree.removed]
    size = dict(zip(slam_map.keyframes, counts.tolist(), strict=True))
    largest = np.array([size.get(keyframe, np.inf) for keyframe in sightings[:, 1].tolist()])
    problems = {
        "keyframes/segments does not add up": (counts < _NOT_LOOKED_FOR).any()
        or counts[counts > 0].sum() != len(arrays["segments/valid"]),
        "lines/serial does not increase": (np.diff(serials) <= 0).any(),
        "lines/reference names no keyframe": not np.isin(arrays["lines/reference"], known).all(),
        "lines/last_seen names no keyframe": not np.isin(arrays["lines/last_seen"], known).all(),
        "lines/sighting names no line": not np.isin(sightings[:, 0], serials).all(),
        "lines/sighting names no keyframe": not np.isin(sightings[:, 1], known).all(),
        "lines/sighting names no segment": (sightings[:, 2] < 0).any() or (sightings[:, 2] >= largest).any(),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise InputError(f"{path}: the map contradicts itself: {problem}")
