"""Runs of all cases with several features, one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semkey.datasets import FrameSequence, open_sequence
from semkey.errors import ConfigError, InputError
from semkey.evaluation.slam.rooms import render_rooms
from semkey.evaluation.slam.torture.cases import ROOM, ROOM_FRAMES, Case, cases_named
from semkey.evaluation.slam.torture.judging import WRONG_M, WRONG_REAL_M, Verdict, judge
from semkey.extractors import Extractor, create_extractor
from semkey.slam import SlamConfig, run_slam

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseResult:
    """What one kind of features made of one case.

    Attributes:
        case: its name.
        features: their name.
        right: what would have been right.
        verdict: frame by frame.
        submaps: how many maps the run had at its end.
        remarks: what the run said about its input.
        evidence: (N,) log10 of the number of false alarms of each pose, NaN where there is none.
    """

    case: str
    features: str
    right: str
    verdict: Verdict
    submaps: int
    remarks: tuple[str, ...] = ()
    evidence: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready figures, with one letter per frame: o(k), w(rong), l(ost), - (lost, and rightly so)."""
        letters = {"ok": "o", "wrong": "w", "lost": "l", "none": "-"}
        return {
            "case": self.case,
            "features": self.features,
            "right": self.right,
            "frames": len(self.verdict.states),
            "tracked": self.verdict.tracked,
            "wrong": self.verdict.count("wrong"),
            "lost_though_trackable": self.verdict.count("lost"),
            "worst_m": None if np.isinf(self.verdict.worst_m) else round(self.verdict.worst_m, 4),
            "submaps": self.submaps,
            "remarks": list(self.remarks),
            "states": "".join(letters[state] for state in self.verdict.states),
            "log10_nfa": [None if np.isnan(value) else round(float(value), 1) for value in self.evidence],
        }


def run_torture(
    features: Sequence[str],
    *,
    cases: Sequence[str] | None = None,
    room: FrameSequence | None = None,
    places: Sequence[FrameSequence] = (),
    keypoints: int = 1024,
    device: str = "auto",
    weights: Sequence[Path] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> list[CaseResult]:
    """Run cases with every kind of features.

    Args:
        features: names, as :func:`semkey.extractors.create_extractor` takes them.
        cases: names of cases; None for all that can be made.
        room: what the rendered cases are made from; None renders it, or takes it from the cache.
        places: two real RGB-D sequences of different rooms with ground truth, for the cases made from those; without
            them these cases are left out.
        keypoints: most keypoints of an image.
        device: where networks run.
        weights: folders where released weights are looked for first.
        seed: of RANSAC.
        progress: told about every run.

    Raises:
        ConfigError: unknown case or features, or a case that needs places that are not there.
    """
    chosen = cases_named(cases)
    if cases is not None and len(places) < 2 and any(case.real for case in chosen):
        raise ConfigError("cases of two real rooms need two sequences with depth and ground truth")
    chosen = [case for case in chosen if not case.real or len(places) >= 2]
    extractors = [create_extractor(name, max_keypoints=keypoints, device=device, weights=weights) for name in features]
    if room is None and any(not case.real for case in chosen):
        path = render_rooms([ROOM], frames=ROOM_FRAMES, progress=progress)[ROOM]
        room = open_sequence(path)
    results: list[CaseResult] = []
    total = len(chosen) * len(extractors)
    for case in chosen:
        for name, extractor in zip(features, extractors, strict=True):
            if progress is not None:
                progress(len(results), total, f"{case.name}, {name}")
            sources = list(places) if case.real else [room] if room is not None else []
            results.append(run_case(case, name, extractor, sources, seed=seed))
    if progress is not None:
        progress(total, total, "")
    return results


def run_case(
    case: Case, features: str, extractor: Extractor, sources: Sequence[FrameSequence], *, seed: int = 0
) -> CaseResult:
    """Run one case and judge it."""
    sequence = case.make(sources)
    result = run_slam(sequence, extractor, SlamConfig(seed=seed))
    records = {record.index: record for record in result.frames}
    frames = range(len(sequence))
    poses = [result.pose(records[k]) if k in records else None for k in frames]
    return CaseResult(
        case=case.name,
        features=features,
        right=case.right,
        verdict=judge(
            poses,
            [_submap(result, records[k]) if k in records else 0 for k in frames],
            sequence.ground_truth,
            sequence.steps,
            wrong_m=WRONG_REAL_M if case.real else WRONG_M,
        ),
        submaps=len({_submap(result, record) for record in result.frames if record.T_world_cam is not None}),
        remarks=tuple(result.problems),
        evidence=np.array([getattr(records.get(k), "log10_nfa", None) or np.nan for k in frames], dtype=np.float64),
    )


def _submap(result: Any, record: Any) -> int:
    """The submap that a frame belongs to at the end: its own may have been merged into another."""
    keyframe = result.slam_map.keyframes.get(record.reference_keyframe) if result.slam_map is not None else None
    return record.submap if keyframe is None else keyframe.submap


def open_places(paths: Sequence[Path]) -> list[FrameSequence]:
    """Real sequences for the cases of two rooms.

    Raises:
        DatasetError: one cannot be opened.
        InputError: one has no depth or no ground truth, or their images have different sizes.
    """
    opened = [open_sequence(path) for path in paths]
    for path, sequence in zip(paths, opened, strict=True):
        if not sequence.has_depth or not sequence.has_ground_truth or sequence.camera is None:
            raise InputError(f"{path}: has no depth or no ground truth, which --torture needs")
    cameras = [sequence.camera for sequence in opened]
    sizes = {(camera.width, camera.height) for camera in cameras if camera is not None}
    if len(sizes) > 1:
        raise InputError(f"{paths[1]}: its images are not of the size of those of {paths[0]}")
    return opened
