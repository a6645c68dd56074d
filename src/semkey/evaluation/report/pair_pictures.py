"""Drawings of telling pairs: where the first method does worst and best, and where a peer does better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semkey.evaluation.data.pairs import ImagePair, PairSet, PoseTruth
from semkey.evaluation.report.pictures import ReportPicture
from semkey.evaluation.running.feature_cache import FeatureCache
from semkey.evaluation.running.methods import Method
from semkey.evaluation.running.pair_runner import read_pair
from semkey.evaluation.running.results import Evaluation, SetResult
from semkey.matching.mutual import Matches
from semkey.metrics.two_view import epipolar_distances
from semkey.model.features import Features
from semkey.visualization.draw import draw_matches

CORRECT_PX = 3.0
PER_KIND = 2
"""Pairs drawn of each kind: worst, best, behind the peer."""
_JPEG_QUALITY = 85
_MAX_WIDTH = 1400


@dataclass(frozen=True)
class _Chosen:
    section: str
    pair_set: PairSet
    pair: ImagePair


def pair_pictures(
    evaluation: Evaluation, sets: Sequence[PairSet], methods: Sequence[Method], cache: FeatureCache, *, unit: str
) -> list[ReportPicture]:
    """Draw the worst and best pairs of the first method, those where the best peer is furthest ahead, for both.

    Matches are green where they are within 3 px of the true place and red where they are not; matches whose true place
    is not known (holes of the depth) are left out. Without depth, the distance from the true epipolar line decides.

    Args:
        evaluation: of these sets and methods; rows are ranked by their ``error``.
        sets: the pairs.
        methods: the first one is the subject.
        cache: with the features of the run.
        unit: of the errors, for the captions.
    """
    first = methods[0]
    peer = _best_peer(evaluation, methods)
    drawn = [first] if peer is None else [first, peer]
    pictures = []
    for chosen in _choose(evaluation, sets, first.name, None if peer is None else peer.name):
        for method in drawn:
            image0, image1 = read_pair(chosen.pair_set, chosen.pair)
            features0, features1 = cache.features(method, image0), cache.features(method, image1)
            matches = method.match(features0, features1)
            features1 = method.refined(features0, features1, matches, image0, image1)
            errors = _errors(evaluation.results[method.name][chosen.pair_set.name])
            caption = (
                f"{chosen.pair_set.name}, {chosen.pair.name}, {method.name}: error "
                f"{_error_text(errors[chosen.pair.name], unit)} (green: within {CORRECT_PX:g} px of the truth)"
            )
            data = _draw(image0, features0, image1, features1, matches, chosen.pair, method.name)
            pictures.append(ReportPicture(section=chosen.section, caption=caption, data=data))
    return pictures


def judge_matches(
    pair: ImagePair, features0: Features, features1: Features, matches: Matches
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which matches (M,) can be judged by the truth, and which of them are correct."""
    indices = matches.indices.cpu().numpy()
    points0 = features0.keypoints.cpu().numpy().astype(np.float64)[indices[:, 0]]
    points1 = features1.keypoints.cpu().numpy().astype(np.float64)[indices[:, 1]]
    truth = pair.truth
    if isinstance(truth, PoseTruth) and not truth.has_depth:
        straight0, straight1 = truth.straightened(points0, points1)
        K0, K1 = truth.camera0.matrix, truth.camera1.matrix
        distances = epipolar_distances(straight0, straight1, K0, K1, truth.T_cam1_cam0)
    else:
        mapped, _ = truth.project(points0, features1.image_size)
        distances = np.linalg.norm(mapped - points1, axis=1)
    known = np.isfinite(distances)
    return known, known & (np.where(known, distances, np.inf) <= CORRECT_PX)


def _draw(
    image0: NDArray[np.uint8],
    features0: Features,
    image1: NDArray[np.uint8],
    features1: Features,
    matches: Matches,
    pair: ImagePair,
    name: str,
) -> bytes:
    known, correct = judge_matches(pair, features0, features1, matches)
    kept = torch.from_numpy(known).to(matches.indices.device)
    shown = Matches(indices=matches.indices[kept], scores=matches.scores[kept])
    unknown = int((~known).sum())
    is_epipolar = isinstance(pair.truth, PoseTruth) and not pair.truth.has_depth
    judged = "matches at the true epipolar line" if is_epipolar else "matches correct"
    caption = f"{name}: {len(features0)} and {len(features1)} keypoints, {int(correct.sum())} {judged}, "
    caption += f"{len(shown) - int(correct.sum())} not" + (f", {unknown} not known" if unknown else "")
    picture = draw_matches(image0, image1, features0, features1, shown, correct[known], caption=caption).pixels
    if picture.shape[1] > _MAX_WIDTH:
        size = (_MAX_WIDTH, round(picture.shape[0] * _MAX_WIDTH / picture.shape[1]))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    return encoded.tobytes()


def _choose(evaluation: Evaluation, sets: Sequence[PairSet], first: str, peer: str | None) -> list[_Chosen]:
    """Pairs to draw, each at most once; ties in the order of the sets."""
    ranked = [
        (_errors(evaluation.results[first][pair_set.name]).get(pair.name, math.nan), pair_set, pair)
        for pair_set in sets
        for pair in pair_set.pairs
    ]
    ranked = [entry for entry in ranked if not math.isnan(entry[0])]
    chosen: list[_Chosen] = []
    taken: set[tuple[str, str]] = set()

    def take(section: str, entries: Sequence[tuple[float, PairSet, ImagePair]]) -> None:
        free = [entry for entry in entries if (entry[1].name, entry[2].name) not in taken]
        for _, pair_set, pair in free[:PER_KIND]:
            taken.add((pair_set.name, pair.name))
            chosen.append(_Chosen(section, pair_set, pair))

    if peer is not None:
        behind = []
        for error, pair_set, pair in ranked:
            other = _errors(evaluation.results[peer][pair_set.name]).get(pair.name, math.nan)
            # Ratios, so that a failure against a good estimate ranks first and two failures do not count.
            if math.isfinite(other) and error > other:
                behind.append((error / max(other, 1e-9), pair_set, pair))
        take(f"Pairs where {peer} is furthest ahead of {first}", sorted(behind, key=lambda entry: -entry[0]))
    beside = "" if peer is None else f", beside {peer}"
    worst, best = f"Worst pairs of {first}{beside}", f"Best pairs of {first}{beside}"
    take(worst, sorted(ranked, key=lambda entry: -entry[0]))
    take(best, sorted(ranked, key=lambda entry: entry[0]))
    order = {worst: 0, best: 2}
    return sorted(chosen, key=lambda one: order.get(one.section, 1))


def _errors(result: SetResult) -> dict[str, float]:
    return {str(row["name"]): float(row.get("error", math.nan)) for row in result.rows}


def _error_text(error: float, unit: str) -> str:
    if math.isnan(error):
        return "not known"
    return f"{error:.3g} {unit}" if math.isfinite(error) else "infinite (no estimate)"


def _best_peer(evaluation: Evaluation, methods: Sequence[Method]) -> Method | None:
    """The peer whose errors rank best among the peers, on average over all pairs; None without peers."""
    peers = list(methods[1:])
    if not peers:
        return None
    ranks = np.zeros(len(peers))
    for set_name in evaluation.sets:
        errors = [_errors(evaluation.results[peer.name][set_name]) for peer in peers]
        for name in errors[0]:
            values = np.array([of_peer.get(name, math.nan) for of_peer in errors])
            # Ties, two failures for example, share their rank.
            ranks += (values[None, :] < values[:, None]).sum(axis=1) + 0.5 * (values[None, :] == values[:, None]).sum(
                axis=1
            )
    return peers[int(np.argmin(ranks))]
