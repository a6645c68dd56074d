"""Poses found around wrong predictions, and whether they are believed: numbers of ``docs/slam.md``.

    python scripts/wrong_predictions.py SEQUENCE ... --features nano --frames 40

The first frames of each RGB-D sequence are mapped. Each of them is then looked for in that map around five predictions:
its pose moved by 1 cm, by 10 cm and by 0.3 m along each axis (standard deviations, with turns of 0.6, 5 and 17
degrees), and the poses of two other frames. A pose is true within 3 cm and 3 degrees of where ground truth has the
frame as seen from its nearest keyframe, false beyond 6 cm or 5 degrees. Those with 20 landmarks or more are counted: by
all landmarks, and by established ones alone where these disagree.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from semkey.datasets import FrameSequence, open_sequence
from semkey.geometry.transforms import inverse, se3_exp, se3_log
from semkey.slam import Slam
from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.acceptance import placement_coverage
from semkey.slam.placing.placement import Placement
from semkey.slam.timing import StageTimer
from semkey.slam.tracking import locating
from semkey.slam.tracking.locating import FrameLocator
from semkey.slam.tracking.motion import Prediction

Array = NDArray[np.float64]

_MOVES = ((0.01, 0.01), (0.1, 0.08), (0.3, 0.3))
_OTHERS = 2
_FEWEST = 20


def main() -> None:
    """Print how many true and false poses are believed, and what they have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", nargs="+", type=Path)
    parser.add_argument("--features", default="nano")
    parser.add_argument("--frames", type=int, default=40)
    options = parser.parse_args()
    for path in options.sequences:
        sequence = open_sequence(path)
        slam_map, frames = mapped(sequence, options.features, options.frames)
        poses = asked_poses(slam_map, sequence, frames)
        print(f"{path.name}, {options.features}")
        for name, kind in (("true", [pose for pose in poses if is_true(pose)]), ("false", [*filter(is_false, poses)])):
            believed = [pose for pose in kind if pose["believed"]]
            print(f"  {name}: {len(kind)}, believed {len(believed)}")
            if kind:
                each = [-pose["log10_nfa"] / pose["found"] for pose in kind]
                print(f"    decades per landmark {quartiles(each)}")
                print(f"    share found {quartiles([pose['found'] / pose['visible'] for pose in kind])}")
                print(f"    coverage {quartiles([pose['coverage'] for pose in kind])}")
                print(f"    standard deviation, m {quartiles([pose['sigma'] for pose in kind])}")


def quartiles(values: list[float]) -> str:
    """The least, the quartiles and the most of some values."""
    shares = {"least": 0, "quarter": 25, "median": 50, "three quarters": 75, "most": 100}
    return ", ".join(f"{name} {np.percentile(values, share):.3f}" for name, share in shares.items())


def is_true(pose: dict[str, Any]) -> bool:
    """Whether a pose is where the camera was."""
    return pose["metres"] < 0.03 and pose["degrees"] < 3


def is_false(pose: dict[str, Any]) -> bool:
    """Whether a pose is elsewhere; between the two nothing is claimed."""
    return pose["metres"] > 0.06 or pose["degrees"] > 5


def mapped(sequence: FrameSequence, features: str, count: int) -> tuple[SlamMap, dict[int, ObservedFrame]]:
    """The map of the first frames, and these frames."""
    assert sequence.camera is not None
    frames = {}
    with Slam(sequence.camera, features) as slam:
        for index in range(min(count, len(sequence))):
            frames[index] = slam.observe(sequence[index])
            slam.track_observed(frames[index])
        slam.finish()
        assert slam.result.slam_map is not None
        return slam.result.slam_map, frames


def asked_poses(slam_map: SlamMap, sequence: FrameSequence, frames: dict[int, ObservedFrame]) -> list[dict[str, Any]]:
    """Every pose that was asked to be believed."""
    poses: list[dict[str, Any]] = []
    truth = np.eye(4)
    believe = locating.accept

    def accept(placement: Placement, frame: ObservedFrame, camera: Any, **rules: Any) -> bool:
        believed = believe(placement, frame, camera, **rules)
        evidence, off = placement.evidence, inverse(truth) @ placement.T_world_cam
        if evidence is not None and evidence.found >= _FEWEST:
            poses.append(
                {
                    "believed": believed,
                    "found": evidence.found,
                    "visible": evidence.visible,
                    "log10_nfa": placement.log10_nfa,
                    "coverage": placement_coverage(placement, frame, camera, placement.pixels),
                    "sigma": float(np.sqrt(np.linalg.eigvalsh(placement.covariance[:3, :3])[-1])),
                    "metres": float(np.linalg.norm(off[:3, 3])),
                    "degrees": float(np.degrees(np.linalg.norm(se3_log(off)[3:]))),
                }
            )
        return believed

    locator = FrameLocator(
        slam_map, SlamConfig().tracking, pixel=image_scale(slam_map.camera), seed=0, lines=None, timer=StageTimer()
    )
    true_poses = dict(poses_in_map(slam_map, sequence, frames))
    rng = np.random.default_rng(0)
    with patch.object(locating, "accept", accept):
        for index, truth in true_poses.items():
            moved = [truth @ se3_exp(np.r_[rng.normal(0, m, 3), rng.normal(0, turn, 3)]) for m, turn in _MOVES]
            others = [true_poses[int(other)] for other in rng.choice(list(true_poses), _OTHERS)]
            for expected in (*moved, *others):
                prediction = Prediction(T_world_cam=expected, translation_sigma=0.01, rotation_sigma=0.02)
                locator.begin()
                locator.by_prediction(frames[index], prediction, landmarks_near(slam_map, expected))
    return poses


def poses_in_map(
    slam_map: SlamMap, sequence: FrameSequence, frames: dict[int, ObservedFrame]
) -> Iterator[tuple[int, Array]]:
    """Where frames are in the map: by ground truth, as seen from the keyframe that is nearest in time."""
    keyframes = list(slam_map.keyframes.values())
    taken = np.array([keyframe.frame.timestamp for keyframe in keyframes])
    for index, frame in frames.items():
        nearest = keyframes[int(np.abs(taken - frame.timestamp).argmin())]
        row = int(np.abs(np.asarray(sequence.timestamps) - nearest.frame.timestamp).argmin())
        pose, reference = sequence.ground_truth[index], sequence.ground_truth[row]
        if pose is not None and reference is not None:
            yield index, nearest.T_world_cam @ inverse(reference) @ pose


def landmarks_near(slam_map: SlamMap, T_world_cam: Array) -> NDArray[np.int64]:
    """Landmarks of the keyframe whose pose is nearest: half a metre counts as much as a radian or so."""
    nearest = min(
        slam_map.keyframes.values(),
        key=lambda keyframe: (
            np.linalg.norm(keyframe.T_world_cam[:3, 3] - T_world_cam[:3, 3])
            + 2 * np.linalg.norm(keyframe.T_world_cam[:3, :3] - T_world_cam[:3, :3])
        ),
    )
    return nearest.landmark_ids[nearest.observed]


if __name__ == "__main__":
    main()
