"""True and false acceptances of poses over the threshold of evidence: the operating curve in ``docs/slam.md``.

    python scripts/evidence_curve.py OUT --maps SEQUENCE SEQUENCE ... --photos FOLDER --features nano --pairs 5000

True are the frames of each sequence as they were tracked in its own map, and the same frames found in it by descriptors
alone, against the keyframes around them. False are unrelated photos, and frames of the other sequences, placed by
descriptors against groups of keyframes of a map: a pair is one image against one group. Both as a lost camera is found,
but without its floor of inliers, whose effect is counted apart.

Each pair is kept in ``OUT/rows`` when it is done. After ``--seconds``, or Ctrl-C, the same command goes on from there.
What is there is printed and drawn (``OUT/FEATURES.png``) every time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets import FrameSequence, open_sequence
from semkey.datasets.readers.folder import list_images
from semkey.evaluation.running.results import Row
from semkey.evaluation.running.row_store import RowStore, content_key
from semkey.evaluation.slam.code import code_of
from semkey.evaluation.slam.methods import create_slam_methods
from semkey.extractors import Extractor, create_extractor
from semkey.geometry.transforms import inverse
from semkey.images import read_image
from semkey.model.features import Features
from semkey.slam import SlamConfig, SlamResult, run_slam
from semkey.slam.config import image_scale
from semkey.slam.frames.covariance import covariance_model
from semkey.slam.frames.frame import ObservedFrame, observe_frame
from semkey.slam.map.association import match_keyframe, merge_associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.output.session import Session, load_session, save_session
from semkey.slam.placing.placement import Placement, PlacingRules
from semkey.slam.placing.placing import place_frame
from semkey.slam.solvers.evidence import MAX_LOG10_NFA, needed_log10_nfa

_GROUP = 3
_FRAMES_OF_OTHERS = 12
_TRUE_FRAMES = 60
_RIGHT_M = 0.05
_FLOOR = 6
_NO_DEPTH = np.zeros((1, 1), dtype=np.float32)
_KINDS = {
    "tracked": "true, tracked",
    "found": "true, by descriptors alone",
    "photo": "photos",
    "foreign": "other rooms",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """A map with the sequence that it was made of."""

    name: str
    sequence: FrameSequence
    result: SlamResult
    slam_map: SlamMap

    def groups(self) -> list[list[Keyframe]]:
        """Keyframes that follow each other, as a lost camera is matched with them."""
        keyframes = list(self.slam_map.keyframes.values())
        return [keyframes[k : k + _GROUP] for k in range(max(1, len(keyframes) - _GROUP + 1))]


class Images:
    """Features of the images, extracted when they are first asked for; the last few are kept."""

    def __init__(self, extractor: Extractor, places: list[Place]) -> None:
        self._extractor = extractor
        camera = places[0].slam_map.camera
        self._size = (camera.width, camera.height)
        self._covariances = covariance_model(SlamConfig().tracking, image_scale(camera))
        self._kept: dict[str, ObservedFrame] = {}

    def photo(self, path: Path) -> ObservedFrame:
        """A photo in the size of the frames."""
        if path.name not in self._kept:
            image = cv2.resize(read_image(path), self._size, interpolation=cv2.INTER_AREA)
            self._keep(path.name, np.asarray(image, dtype=np.uint8))
        return self._kept[path.name]

    def frame(self, place: Place, index: int) -> ObservedFrame:
        """A frame of a sequence, without its depth: photos have none."""
        key = f"{place.name} {index}"
        if key not in self._kept:
            self._keep(key, place.sequence[index].image)
        return self._kept[key]

    def _keep(self, key: str, image: NDArray[np.uint8]) -> None:
        features: Features = self._extractor.extract(image)
        covariances = self._covariances(features, image)
        if len(self._kept) > 100:
            self._kept.clear()
        self._kept[key] = observe_frame(0, 0.0, features, _NO_DEPTH, covariances, min_depth=0.0, max_depth=np.inf)


def main() -> None:
    """Measure what is missing, print the counts as JSON, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--maps", type=Path, nargs="+", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--features", default="nano")
    parser.add_argument("--pairs", type=int, default=5000, help="of photos and groups of keyframes")
    parser.add_argument("--frames", type=int, default=100, help="of each sequence")
    parser.add_argument("--seconds", type=float, default=np.inf, help="begin no pair after so long")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    (method,) = create_slam_methods([arguments.features])
    extractor = create_extractor(arguments.features)
    content = {"method": method.fingerprint, "floor": _FLOOR, "frames": arguments.frames, "code": code_of(method)}
    key = content_key({**content, "maps": [path.name for path in arguments.maps]}, ())
    kept = arguments.out / "maps" / key
    kept.mkdir(parents=True, exist_ok=True)
    places = [_place(path, extractor, arguments.frames, kept / f"{path.name}.semkey") for path in arguments.maps]
    images = Images(extractor, places)
    with RowStore(arguments.out / "rows", method.name, "evidence", key) as store:
        for row in itertools.chain(*(_tracked(place) for place in places)):
            if row["name"] not in store:
                store.append(row)
        jobs = itertools.chain(_true_jobs(places), _photo_jobs(places, arguments), _foreign_jobs(places))
        done, left = [], 0
        for kind, name, place, group, source in jobs:
            if name not in store:
                if time.monotonic() > end:
                    left += 1
                    continue
                frame = images.photo(source) if isinstance(source, Path) else images.frame(*source)
                true = places_pose(*source) if kind == "found" and not isinstance(source, Path) else None
                store.append({"name": name, "kind": kind, **_measure(frame, place, group, true)})
            done.append(store[name])
        rows = [*(store[row["name"]] for place in places for row in _tracked(place)), *done]
    print(json.dumps({"features": arguments.features, "left": left, **_counts(rows)}, indent=1))
    _draw(arguments.out / f"{method.name}.png", rows, arguments.features)


def _place(path: Path, extractor: Extractor, frames: int, kept: Path) -> Place:
    """The map of a sequence: made once, then read from its file."""
    sequence = open_sequence(path)
    if not kept.is_file():
        result = run_slam(sequence, extractor, SlamConfig(), max_frames=frames)
        save_session(kept, Session(result=result, feature_settings={}))
    session = load_session(kept)
    return Place(name=path.name, sequence=sequence, result=session.result, slam_map=session.slam_map)


def places_pose(place: Place, index: int) -> NDArray[np.float64] | None:
    """Where a frame was tracked, in the map as it is at the end."""
    return next((place.result.pose(record) for record in place.result.frames if record.index == index), None)


Job = tuple[str, str, Place, list[Keyframe], "Path | tuple[Place, int]"]


def _tracked(place: Place) -> Iterator[Row]:
    for record in place.result.frames:
        if record.method == "start":
            continue
        lost = record.T_world_cam is None or record.log10_nfa is None
        # What was tracked has explained the view, or had more than enough.
        margin = 0.0 if lost else record.log10_nfa - needed_log10_nfa(record.found, record.visible, coverage=1.0)
        value = math.inf if lost else MAX_LOG10_NFA + margin
        name = f"tracked {place.name} {record.index}"
        yield {"name": name, "kind": "tracked", "value": value, "is_right": not lost, "has_floor": not lost}


def _true_jobs(places: list[Place]) -> Iterator[Job]:
    """Frames against the keyframes around them, themselves left out."""
    for place in places:
        keyframes = list(place.slam_map.keyframes.values())
        records = [record for record in place.result.frames if record.reference_keyframe is not None]
        for record in records[:: max(1, len(records) // _TRUE_FRAMES)]:
            others = [keyframe for keyframe in keyframes if keyframe.frame.index != record.index]
            nearest = sorted(others, key=lambda keyframe: abs(keyframe.frame.index - record.index))[:_GROUP]
            if nearest:
                yield "found", f"found {place.name} {record.index}", place, nearest, (place, record.index)


def _foreign_jobs(places: list[Place]) -> Iterator[Job]:
    for other, place in itertools.permutations(places, 2):
        for index in range(0, len(other.sequence), max(1, len(other.sequence) // _FRAMES_OF_OTHERS)):
            for group in place.groups():
                name = f"foreign {other.name} {index} {place.name} {group[0].id}"
                yield "foreign", name, place, group, (other, index)


def _photo_jobs(places: list[Place], arguments: argparse.Namespace) -> Iterator[Job]:
    pairs = (
        ("photo", f"photo {path.name} {place.name} {group[0].id}", place, group, path)
        for path in list_images(arguments.photos)
        for place in places
        for group in place.groups()
    )
    return itertools.islice(pairs, arguments.pairs)


def _measure(frame: ObservedFrame, place: Place, group: list[Keyframe], true: NDArray[np.float64] | None) -> Row:
    """The evidence of the best pose there is, on a scale on which -4 is just enough, and whether the pose is right."""
    slam_map, config = place.slam_map, SlamConfig().tracking
    pixel = image_scale(slam_map.camera)
    matches = merge_associations([match_keyframe(frame, keyframe, slam_map.landmarks) for keyframe in group])

    def nearby(placement: Placement) -> NDArray[np.int64]:
        return slam_map.covisibility.local_landmarks(placement.inlier_associations.landmark_ids)

    # Without the floor of inliers: whatever RANSAC finds is judged by its evidence alone.
    rules = PlacingRules(
        min_matches=_FLOOR,
        min_sample_inliers=_FLOOR,
        ransac_error_px=config.ransac_error_px * pixel,
        search_radii_px=(6.0 * pixel,) * 3,
        settled_px=0.5 * pixel,
    )
    placement = place_frame(slam_map, frame, matches, nearby, rules)
    if placement is None or placement.evidence is None:
        return {"value": math.inf, "is_right": False, "has_floor": False}
    found, visible = placement.evidence.found, placement.evidence.visible
    value = MAX_LOG10_NFA + placement.log10_nfa - needed_log10_nfa(found, visible, is_expected=False)
    is_right = False
    if true is not None:
        is_right = float(np.linalg.norm((inverse(true) @ placement.T_world_cam)[:3, 3])) < _RIGHT_M
    return {
        "value": value,
        "is_right": is_right,
        "has_floor": placement.inlier_count >= config.min_relocalisation_inliers,
        "log10_nfa": placement.log10_nfa,
        "found": found,
        "visible": visible,
    }


def _counts(rows: list[Row]) -> dict[str, dict[str, float | None]]:
    counts: dict[str, dict[str, float | None]] = {}
    for kind in _KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        accepted = [row for row in of_kind if row["value"] <= MAX_LOG10_NFA]
        counts[kind] = {
            "pairs": len(of_kind),
            "with_a_pose": sum(math.isfinite(row["value"]) for row in of_kind),
            "accepted_by_evidence": len(accepted),
            "accepted": sum(bool(row["has_floor"]) for row in accepted),
            "right": sum(bool(row["is_right"]) for row in accepted),
            "lowest": min((round(row["value"], 1) for row in of_kind if math.isfinite(row["value"])), default=None),
        }
    return counts


def _draw(path: Path, rows: list[Row], features: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    thresholds = np.linspace(-60, 60, 1201)
    colours = {"tracked": "#2b7a4b", "found": "#7cb342", "photo": "#b8322a", "foreign": "#e67e22"}
    for kind, label in _KINDS.items():
        values = np.sort([row["value"] for row in rows if row["kind"] == kind])
        if len(values):
            share = 100 * np.searchsorted(values, thresholds, side="right") / len(values)
            axes.plot(thresholds, share, color=colours[kind], label=f"{label} ({len(values)})")
    axes.axvline(MAX_LOG10_NFA, color="black", linestyle="--", linewidth=1, label=f"in use: {MAX_LOG10_NFA:g}")
    axes.set_xlabel("threshold of evidence, log10 of the number of false alarms")
    axes.set_ylabel("accepted, %")
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(0, 110)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(f"Poses accepted over the threshold, {features}", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    with path.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)


if __name__ == "__main__":
    main()
