"""Runs of all cases with several features, one after the other in this process; each is kept, so that runs go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semkey.datasets import FrameSequence, open_sequence
from semkey.datasets.sequence import Sensor
from semkey.errors import ConfigError, InputError
from semkey.evaluation.running.code import code_hash
from semkey.evaluation.running.pair_runner import ROWS_FOLDER
from semkey.evaluation.running.results import Row
from semkey.evaluation.running.row_store import RowStore, content_key
from semkey.evaluation.slam.code import code_of
from semkey.evaluation.slam.methods import SlamMethod, create_slam_methods
from semkey.evaluation.slam.rooms import render_rooms
from semkey.evaluation.slam.torture.cases import ROOM, ROOM_FRAMES, Case, cases_named
from semkey.evaluation.slam.torture.judging import WRONG_M, WRONG_REAL_M, Verdict, judge
from semkey.extractors import Extractor, create_extractor
from semkey.slam import SlamConfig, run_slam

Progress = Callable[[int, int, str], None]

KIND = "slam-torture"
_CODE = ("evaluation/slam/torture", "rendering", "images")
_LETTERS = {"ok": "o", "wrong": "w", "lost": "l", "none": "-"}


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
            "states": "".join(_LETTERS[state] for state in self.verdict.states),
            "log10_nfa": [None if np.isnan(value) else round(float(value), 1) for value in self.evidence],
        }

    def to_row(self) -> Row:
        """Everything, as a row store keeps it; see :meth:`from_row`."""
        return {
            "name": self.case,
            "states": [str(state) for state in self.verdict.states],
            "errors_m": self.verdict.errors_m.tolist(),
            "errors_deg": self.verdict.errors_deg.tolist(),
            "submaps": self.submaps,
            "remarks": list(self.remarks),
            "log10_nfa": self.evidence.tolist(),
        }

    @classmethod
    def from_row(cls, row: Row, case: Case, features: str) -> CaseResult:
        """What :meth:`to_row` made a row of."""
        return cls(
            case=case.name,
            features=features,
            right=case.right,
            verdict=Verdict(
                states=np.array(row["states"], dtype=np.str_),
                errors_m=np.array(row["errors_m"], dtype=np.float64),
                errors_deg=np.array(row["errors_deg"], dtype=np.float64),
            ),
            submaps=row["submaps"],
            remarks=tuple(row["remarks"]),
            evidence=np.array(row["log10_nfa"], dtype=np.float64),
        )


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
    sensor: Sensor = "rgbd",
    out: Path | None = None,
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
        sensor: ``rgbd``, or ``mono``, which leaves out the cases that change depth alone.
        out: a folder where the result of each run is kept (``OUT/rows/FEATURES/slam-torture.jsonl``): a later call with
            the same settings, sequences and code takes those that are there. None keeps nothing.
        progress: told about every run.

    Raises:
        InputError: the folder cannot be written to.
        ConfigError: unknown case or features, or a case that needs places or depth that are not there.
    """
    chosen = _chosen_cases(cases, sensor)
    if cases is not None and len(places) < 2 and any(case.real for case in chosen):
        raise ConfigError("cases of two real rooms need two sequences with depth and ground truth")
    chosen = [case for case in chosen if not case.real or len(places) >= 2]
    methods = create_slam_methods(features, keypoints=keypoints, device=device, weights=weights)
    if room is None and any(not case.real for case in chosen):
        path = render_rooms([ROOM], frames=ROOM_FRAMES, progress=progress)[ROOM]
        room = open_sequence(path)
    extractors: dict[str, Extractor] = {}
    results: list[CaseResult] = []
    total = len(chosen) * len(methods)
    with ExitStack() as stack:
        stores: dict[str, RowStore] = {}
        if out is not None:
            for method in methods:
                store = RowStore(out / ROWS_FOLDER, method.name, KIND, _key(method, room, places, seed, sensor))
                stores[method.name] = stack.enter_context(store)
        for case in chosen:
            for method in methods:
                if progress is not None:
                    progress(len(results), total, f"{case.name}, {method.name}")
                kept = stores.get(method.name)
                if kept is not None and case.name in kept:
                    results.append(CaseResult.from_row(kept[case.name], case, method.name))
                    continue
                if method.name not in extractors:
                    extractors[method.name] = create_extractor(
                        method.name, max_keypoints=keypoints, device=device, weights=weights
                    )
                sources = list(places) if case.real else [room] if room is not None else []
                results.append(run_case(case, method.name, extractors[method.name], sources, seed=seed, sensor=sensor))
                if kept is not None:
                    kept.append(results[-1].to_row())
    if progress is not None:
        progress(total, total, "")
    return results


def _chosen_cases(names: Sequence[str] | None, sensor: Sensor) -> list[Case]:
    """Cases by name, or all; without depth, all that are more than depth."""
    if sensor not in ("rgbd", "mono"):
        raise ConfigError(f"torture cases have no right images, which sensor '{sensor}' needs; choose rgbd or mono")
    chosen = cases_named(names)
    if sensor == "rgbd":
        return chosen
    needing = next((case.name for case in chosen if case.depth_only), None)
    if names is not None and needing is not None:
        raise ConfigError(f"case '{needing}' changes depth alone, which sensor 'mono' does not have")
    return [case for case in chosen if not case.depth_only]


def _key(
    method: SlamMethod, room: FrameSequence | None, places: Sequence[FrameSequence], seed: int, sensor: Sensor
) -> str:
    """A hash of everything that the rows of one kind of features depend on, but for the pixels of the images."""
    content = {
        "kind": KIND,
        "method": method.fingerprint,
        "seed": seed,
        "sensor": sensor,
        "sources": [
            [source.name, len(source), float(source.timestamps.sum()), repr(source.camera)]
            for source in (room, *places)
            if source is not None
        ],
        "code": [code_of(method), code_hash(_CODE)],
    }
    return content_key(content, ())


def run_case(
    case: Case,
    features: str,
    extractor: Extractor,
    sources: Sequence[FrameSequence],
    *,
    seed: int = 0,
    sensor: Sensor = "rgbd",
) -> CaseResult:
    """Run one case and judge it."""
    sequence = case.make(sources)
    result = run_slam(sequence, extractor, SlamConfig(seed=seed), sensor=sensor)
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
            with_scale=sensor == "mono",
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
