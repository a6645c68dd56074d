"""Maps put together and cut out: maps of several recordings as one, and a part of a map as a map of its own.

Both work on the arrays of map files. What concerns single frames of the runs stays behind, and so do lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError, InputError
from semkey.slam.loops.closing import LoopCloser
from semkey.slam.loops.place_recognition import PlaceRecognition
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.local_mapping import LocalMapping
from semkey.slam.output.map_arrays import frame_arrays, map_arrays, restore_map
from semkey.slam.output.session import Session, check_features
from semkey.slam.records import LoopRecord
from semkey.slam.timing import StageTimer

_NONE = -1
_KEYFRAME_IDS = (
    "keyframes/id",
    "keyframes/parent",
    "removed/id",
    "removed/parent",
    "landmarks/birth",
    "landmarks/reference",
)
# A keyframe that sees less of a cut map cannot be found in it.
_LEAST_LANDMARKS = 15


@dataclass(frozen=True, kw_only=True)
class MergedMaps:
    """Maps put together.

    Attributes:
        session: the map, without frames.
        meetings: places where a submap was joined to another, or a loop was closed.
    """

    session: Session
    meetings: tuple[LoopRecord, ...]


def merge_maps(
    sessions: Sequence[Session],
    names: Sequence[str | Path],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> MergedMaps:
    """Put maps together: later ones are looked for in what is there, and joined where they show a place again.

    Submaps that meet nowhere stay submaps of their own, each with its own world. The worlds of the first map stay where
    they are.

    Args:
        sessions: two or more, made with the same features and camera.
        names: of their files, for messages.
        progress: called with the number of keyframes that were looked for, and of all.

    Raises:
        ConfigError: features, cameras or the kind of scale differ.
    """
    if len(sessions) < 2:
        raise ConfigError("merging takes two maps or more")
    first = sessions[0]
    for session, name in zip(sessions[1:], names[1:], strict=True):
        check_features(first, names[0], session.result.features, session.feature_settings)
        if session.result.camera != first.result.camera:
            raise ConfigError(f"{name}: was made with another camera than {names[0]}; one map has one camera")
        if (session.result.sensor == "mono") != (first.result.sensor == "mono"):
            raise ConfigError(f"{name}: one of it and {names[0]} is in metres, the other is not")
    total = sum(len(session.slam_map.keyframes) for session in sessions[1:])
    merged, meetings, done = first, [], 0
    for session in sessions[1:]:
        newest = max(merged.slam_map.keyframes)
        merged = _put_beside(merged, session)
        slam_map = merged.slam_map
        found = [key for key in slam_map.keyframes if key > newest]
        for record in _meet(merged, found):
            if record is not None:
                meetings.append(record)
            done += 1
            if progress is not None:
                progress(done, total)
    if meetings:
        _adjust(merged)
    return MergedMaps(session=merged, meetings=tuple(meetings))


def _put_beside(first: Session, second: Session) -> Session:
    """Both maps in one, the second with other numbers and its submaps as submaps of their own."""
    maps = first.slam_map, second.slam_map
    before, after = (map_arrays(slam_map) for slam_map in maps)
    counters = maps[0].counters
    rows = len(before["landmarks/position"])
    for name in _KEYFRAME_IDS:
        after[name] = np.where(after[name] == _NONE, _NONE, after[name] + counters["next_keyframe"])
    after["keyframes/submap"] = after["keyframes/submap"] + counters["next_submap"]
    after["keypoints/landmark"] = np.where(after["keypoints/landmark"] < 0, _NONE, after["keypoints/landmark"] + rows)
    after["landmarks/serial"] = after["landmarks/serial"] + counters["landmarks_made"]
    after["loops/link"] = after["loops/link"] + np.array([counters["next_keyframe"]] * 2 + [0], dtype=np.int64)
    arrays = {name: np.concatenate([before[name], after[name]]) for name in before}
    colors = None
    if first.colors is not None and second.colors is not None:
        colors = np.concatenate([_filled(first), _filled(second)])
    counters = {name: value + maps[1].counters[name] for name, value in counters.items()}
    names = {session.result.sequence_name: None for session in (first, second)}
    return _session(first, arrays, counters, colors, " + ".join(names))


def _filled(session: Session) -> NDArray[np.uint8]:
    """A colour for every row; rows that were added since the last picture are grey."""
    colors = session.colors
    assert colors is not None
    missing = len(session.slam_map.landmarks) - len(colors)
    return np.concatenate([colors, np.full((max(0, missing), 3), 128, np.uint8)])


def _meet(session: Session, keyframe_ids: Sequence[int]) -> Any:
    """Look for keyframes in the rest of the map; yields the record of what was joined at each, or None."""
    slam_map, config = session.slam_map, session.result.config
    with_scale = session.result.sensor == "mono"
    places = PlaceRecognition(
        slam_map,
        config.loops,
        ransac_error_px=config.tracking.ransac_error_px,
        with_scale=with_scale,
        seed=config.seed,
    )
    loops = LoopCloser(slam_map, config.loops, with_scale=with_scale)
    for key in keyframe_ids:
        match = places.find_loop(slam_map.keyframes[key])
        yield None if match is None else loops.correct(match)


def _adjust(session: Session) -> None:
    """Adjust the submaps as a whole, as a run does at its end."""
    mapping = LocalMapping(session.slam_map, session.result.config.map, StageTimer({}, {}))
    try:
        mapping.finish()
    finally:
        mapping.close()


def crop_map(session: Session, inside: Callable[[NDArray[np.float64]], NDArray[np.bool_]], submap: int) -> Session:
    """A part of one submap: its landmarks in some region, and the keyframes that see at least 15 of them.

    Args:
        session: with the map.
        inside: which positions (N, 3) in the submap's world are kept.
        submap: its number; the others are left out.

    Raises:
        InputError: there is no such submap, or nothing is left of it.
    """
    slam_map = session.slam_map
    if submap not in slam_map.tree.submaps:
        raise InputError(f"there is no submap {submap}; the map has {', '.join(map(str, slam_map.tree.submaps))}")
    arrays = map_arrays(slam_map)
    keep_landmark = arrays["landmarks/alive"] & inside(arrays["landmarks/position"])
    owner = np.repeat(np.arange(len(arrays["keyframes/id"])), arrays["keyframes/keypoints"])
    seen = arrays["keypoints/landmark"]
    counted = (seen >= 0) & keep_landmark[np.maximum(seen, 0)]
    counts = np.bincount(owner[counted], minlength=len(arrays["keyframes/id"]))
    keep = (arrays["keyframes/submap"] == submap) & (counts >= _LEAST_LANDMARKS)
    if not keep.any():
        raise InputError(f"nothing is left: no keyframe of submap {submap} sees {_LEAST_LANDMARKS} landmarks there")
    counted &= keep[owner]
    # A landmark moves with a keyframe that sees it, and lives while one does.
    keep_landmark &= np.isin(np.arange(len(keep_landmark)), seen[counted])
    ids = arrays["keyframes/id"]
    numbers, first_seen = np.unique(seen[counted], return_index=True)
    observers = np.full(len(keep_landmark), _NONE, dtype=np.int64)
    observers[numbers] = ids[owner[counted]][first_seen]
    references = arrays["landmarks/reference"]
    row_of = np.cumsum(keep_landmark) - 1
    cropped = _rows(arrays, keep, keep[owner], keep_landmark)
    cropped["keypoints/landmark"] = np.where(counted, row_of[np.maximum(seen, 0)], _NONE)[keep[owner]]
    cropped["landmarks/reference"] = np.where(np.isin(references, ids[keep]), references, observers)[keep_landmark]
    cropped["keyframes/parent"] = _parents(slam_map, ids[keep])
    links = arrays["loops/link"]
    cropped["loops/link"] = links[np.isin(links[:, :2], ids[keep]).all(axis=1)]
    colors = None if session.colors is None else _filled(session)[keep_landmark]
    return _session(session, cropped, slam_map.counters, colors, session.result.sequence_name)


def _rows(
    arrays: dict[str, NDArray[Any]],
    keyframes: NDArray[np.bool_],
    keypoints: NDArray[np.bool_],
    landmarks: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """The kept rows of every array; of removed keyframes none, since no frame hangs on them any more."""
    kept = {"keyframes": keyframes, "keypoints": keypoints, "landmarks": landmarks, "removed": slice(0, 0)}
    return {name: array[kept.get(name.split("/")[0], slice(None))] for name, array in arrays.items()}


def _parents(slam_map: SlamMap, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """By kept keyframe its nearest kept ancestor; the first one is the root where there is none."""
    staying = set(kept.tolist())
    parents = []
    for key in kept.tolist():
        parent = slam_map.keyframes[key].parent
        while parent is not None and parent not in staying:
            parent = slam_map.keyframes[parent].parent
        parents.append(int(kept[0]) if parent is None and key != kept[0] else _NONE if parent is None else parent)
    if parents[0] != _NONE:  # the first one may hang on a later one
        parents = [_NONE, *(int(kept[0]) for _ in parents[1:])]
    return np.array(parents, dtype=np.int64)


def _session(
    like: Session,
    arrays: dict[str, NDArray[Any]],
    counters: dict[str, int],
    colors: NDArray[np.uint8] | None,
    name: str,
) -> Session:
    """A session with the map of these arrays, and no frames."""
    result, slam_map = like.result, like.slam_map
    made = restore_map(
        Path(name),
        arrays | frame_arrays([], {}, []),
        counters,
        result.camera,
        result.config.map,
        slam_map.pixel_sigma,
    )
    empty = replace(
        result,
        sequence_name=name,
        frames=[],
        ground_truth={},
        stage_seconds={},
        stage_samples={},
        problems=[],
        loops=[],
        dropped=0,
        seconds=0.0,
        slam_map=made,
    )
    return replace(like, result=empty, colors=colors)
