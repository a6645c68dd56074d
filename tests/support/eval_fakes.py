"""Features, matches and pairs made by hand, for tests of the evaluation protocols."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from semkey.evaluation.data.pairs import HomographyTruth, ImagePair, ImageSource, PoseTruth
from semkey.evaluation.running.results import Row, plain, row_from_json
from semkey.matching.mutual import Matches
from semkey.model.features import Features

SIZE = (640, 480)


def no_image() -> np.ndarray:
    raise AssertionError("a protocol measures features and reads no image")


def pair(
    truth: HomographyTruth | PoseTruth | ArrayLike,
    name: str = "pair",
    group: str = "",
    read: Callable[[], np.ndarray] = no_image,
) -> ImagePair:
    """A pair with a truth, or with the homography given as a matrix."""
    known = truth if isinstance(truth, HomographyTruth | PoseTruth) else HomographyTruth(H10=np.array(truth, float))
    images = [ImageSource(key=f"{name}-{side}", read=read) for side in "01"]
    return ImagePair(name=name, image0=images[0], image1=images[1], truth=known, group=group)


def features(
    keypoints: ArrayLike,
    *,
    scores: Sequence[float] | None = None,
    reliability: Sequence[float] | None = None,
    descriptors: ArrayLike | None = None,
    size: tuple[int, int] = SIZE,
) -> Features:
    """Features whose descriptors are the unit vectors, so that keypoint i of one image matches i of the other."""
    points = np.asarray(keypoints, dtype=np.float32).reshape(-1, 2)
    count = len(points)
    width = max(count, 1)
    vectors = np.eye(width)[:count] if descriptors is None else np.asarray(descriptors)
    return Features(
        keypoints=torch.from_numpy(points),
        scores=torch.linspace(1, 0.5, count) if scores is None else torch.tensor(scores, dtype=torch.float32),
        reliability=torch.ones(count) if reliability is None else torch.tensor(reliability, dtype=torch.float32),
        descriptors=torch.from_numpy(vectors.astype(np.float32)),
        global_descriptor=torch.zeros(0),
        image_size=size,
    )


def matches(indices: Sequence[Sequence[int]] | np.ndarray, scores: Sequence[float] | None = None) -> Matches:
    """Matches of given similarity, 1 by default."""
    pairs = torch.tensor(np.asarray(indices).reshape(-1, 2), dtype=torch.int64)
    similarity = torch.ones(len(pairs)) if scores is None else torch.tensor(scores, dtype=torch.float32)
    return Matches(indices=pairs, scores=similarity)


def diagonal(count: int) -> Matches:
    """Keypoint i of image 0 with keypoint i of image 1."""
    return matches(np.stack([np.arange(count)] * 2, axis=1))


def through_json(rows: Sequence[Row]) -> list[Row]:
    """The rows as an interrupted run reads them back."""
    return [row_from_json(json.loads(json.dumps(plain(row), allow_nan=False))) for row in rows]
