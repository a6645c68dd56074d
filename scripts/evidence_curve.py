"""True and false acceptances of poses over the threshold of evidence: the operating curve in ``docs/slam.md``.

    python scripts/evidence_curve.py OUT.png --maps SEQUENCE SEQUENCE ... --photos FOLDER --features nano --pairs 5000

True are the frames of each sequence tracked in its own map. False are unrelated photos, and frames of the other
sequences, placed by descriptors against groups of keyframes of a map: a pair is one image against one group.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from semkey.datasets import open_sequence
from semkey.datasets.readers.folder import list_images
from semkey.extractors import create_extractor
from semkey.images import read_image
from semkey.model.features import Features
from semkey.slam import SlamConfig, run_slam
from semkey.slam.frames.frame import ObservedFrame, observe_frame
from semkey.slam.map.association import match_keyframe, merge_associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.placing import Placement, PlacingRules, place_frame
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.solvers.evidence import MAX_LOG10_NFA

_GROUP = 4
_FRAMES_OF_OTHERS = 12
_PIXEL_SIGMA = 2.0
_NO_DEPTH = np.zeros((1, 1), dtype=np.float32)


def main() -> None:
    """Measure, print the counts as JSON, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--maps", type=Path, nargs="+", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--features", default="nano")
    parser.add_argument("--pairs", type=int, default=5000, help="of photos and groups of keyframes")
    parser.add_argument("--frames", type=int, default=150, help="of each sequence")
    arguments = parser.parse_args()
    extractor = create_extractor(arguments.features)
    sequences = [open_sequence(path) for path in arguments.maps]
    results = [run_slam(sequence, extractor, SlamConfig(), max_frames=arguments.frames) for sequence in sequences]
    true = [record.log10_nfa for result in results for record in result.frames if record.log10_nfa is not None]
    lost = sum(record.T_world_cam is None for result in results for record in result.frames)
    groups = [
        (result.slam_map, keyframes)
        for result in results
        if result.slam_map is not None
        for keyframes in _groups(list(result.slam_map.keyframes.values()))
    ]
    camera = sequences[0].camera
    assert camera is not None
    photos: list[ObservedFrame] = []
    for path in list_images(arguments.photos)[: -(-arguments.pairs // len(groups))]:
        resized = cv2.resize(read_image(path), (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        photos.append(_observe(extractor.extract(resized)))
    pairs = [(photo, group) for photo in photos for group in groups][: arguments.pairs]
    unrelated = [_evidence(photo, *group) for photo, group in pairs]
    foreign = []
    for sequence, result in zip(sequences, results, strict=True):
        step = max(1, len(sequence) // _FRAMES_OF_OTHERS)
        frames = [_observe(extractor.extract(sequence[k].image)) for k in range(0, len(sequence), step)]
        foreign += [
            _evidence(frame, slam_map, keyframes)
            for frame in frames
            for slam_map, keyframes in groups
            if slam_map is not result.slam_map
        ]
    figures = {
        "features": arguments.features,
        "true": len(true),
        "true_lost": lost,
        "true_highest": max(true),
        "true_99_percent": float(np.quantile(true, 0.99)),
        "photo_pairs": len(unrelated),
        "photos_lowest": min(unrelated),
        "photos_accepted": int(np.count_nonzero(np.array(unrelated) <= MAX_LOG10_NFA)),
        "foreign_pairs": len(foreign),
        "foreign_lowest": min(foreign),
        "foreign_accepted": int(np.count_nonzero(np.array(foreign) <= MAX_LOG10_NFA)),
    }
    print(json.dumps(figures, indent=1))
    _draw(arguments.out, np.array(true), np.array(unrelated + foreign), arguments.features)


def _groups(keyframes: list[Keyframe]) -> list[list[Keyframe]]:
    return [keyframes[k : k + _GROUP] for k in range(len(keyframes))]


def _observe(features: Features) -> ObservedFrame:
    # All equally exact: what is asked is how many agree.
    covariances = np.tile(_PIXEL_SIGMA**2 * np.eye(2), (len(features), 1, 1))
    return observe_frame(0, 0.0, features, _NO_DEPTH, covariances, min_depth=0.0, max_depth=np.inf)


def _evidence(frame: ObservedFrame, slam_map: SlamMap, keyframes: list[Keyframe]) -> float:
    """log10 of the number of false alarms of the best pose there is; 0 where there is none."""
    matches = merge_associations([match_keyframe(frame, keyframe, slam_map.landmarks) for keyframe in keyframes])

    def nearby(placement: Placement) -> np.ndarray:
        return slam_map.local_landmarks(placement.inlier_associations.landmark_ids)

    # What tracking asks for, without the floor of inliers: whatever RANSAC finds is judged by its evidence alone.
    rules = PlacingRules(min_matches=6, min_sample_inliers=6, ransac_error_px=4.0, search_radii_px=(8.0, 6.0, 6.0))
    placement = place_frame(slam_map, frame, matches, nearby, rules)
    return 0.0 if placement is None else placement.log10_nfa


def _draw(path: Path, true: np.ndarray, false: np.ndarray, features: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    thresholds = np.linspace(-60, 10, 701)
    for values, colour, label in ((true, "#2b7a4b", "true poses"), (false, "#b8322a", "false poses")):
        share = 100 * np.searchsorted(np.sort(values), thresholds, side="right") / len(values)
        axes.plot(thresholds, share, color=colour, label=f"{label} ({len(values)})")
    axes.axvline(MAX_LOG10_NFA, color="black", linestyle="--", linewidth=1, label=f"threshold {MAX_LOG10_NFA:g}")
    axes.set_xlabel("threshold of log10 of the number of false alarms")
    axes.set_ylabel("accepted, %")
    axes.set_title(f"Poses accepted over the threshold, {features}", fontsize=10)
    axes.legend(fontsize=9)
    axes.grid(alpha=0.3)
    with path.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)


if __name__ == "__main__":
    main()
