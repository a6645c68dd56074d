"""The kind ``negatives``: how many keypoints a method gives where there is nothing to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semkey.errors import ConfigError
from semkey.evaluation.data.negatives import NegativeImage, negative_images
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.methods import Method
from semkey.evaluation.running.pair_runner import Progress
from semkey.evaluation.running.results import Evaluation, Metric, Row, SetResult
from semkey.images.reading import read_image

KIND = "negatives"
PHOTOS = "photos"
"""The set of the photos themselves: what the same scores look like where there is something to find."""

STRONG_SCORE = 0.5

METRICS = (
    Metric(name="keypoints", label="keypoints per image", higher_is_better=False, headline=True),
    Metric(name="most", label="most in one image", higher_is_better=False, digits=0, headline=True),
    Metric(name="strong", label=f"of score {STRONG_SCORE:g} or more", higher_is_better=False, headline=True),
    Metric(name="highest_score", label="highest score", higher_is_better=False, digits=3, headline=True),
    Metric(name="on_photos", label="keypoints per photo", higher_is_better=None, headline=True),
    Metric(name="strong_on_photos", label=f"of score {STRONG_SCORE:g} or more on photos", higher_is_better=None),
    Metric(name="median_score", label="median score", higher_is_better=None, digits=3),
    Metric(name="reliability", label="mean reliability", higher_is_better=False, digits=3),
)

DESCRIPTIONS = {
    "blank": "one grey value throughout, 640x480",
    "gradient": "brightness that rises evenly, 640x480, over the whole and a tenth of the grey range",
    "noise": "middle grey with Gaussian noise of sigma 1, 2, 5 and 10 grey values, 640x480",
    "defocus": "photos under a disc of 12 and 20 px radius, with noise of sigma 2",
    PHOTOS: "the photos as they are, for comparison",
}


def run_negatives(
    methods: Sequence[Method],
    photos: Sequence[Path] = (),
    *,
    seed: int = 0,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Count the keypoints of every method on images that hold nothing.

    Args:
        methods: with unique names.
        photos: files that the set ``defocus`` is made of, and that are a set of their own for comparison.
        seed: of the noise.
        environment: default :func:`describe_environment`.
        progress: told about every image.

    Returns:
        One set per kind of image; its groups are the variants. ``error`` of a row is its number of keypoints.

    Raises:
        ConfigError: no methods, or two of one name.
        InputError: a photo cannot be read, or a method broke its promises.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods must be given once each, got {', '.join(names) or 'none'}")
    pictures = [read_image(path) for path in photos]
    sets = negative_images(pictures, seed=seed)
    if pictures:
        sets[PHOTOS] = [NegativeImage(group="", image=picture) for picture in pictures]
    total = len(methods) * sum(len(images) for images in sets.values())
    done = 0
    if progress is not None:
        progress(done, total, "")
    results: dict[str, dict[str, SetResult]] = {}
    for method in methods:
        results[method.name] = {}
        for name, images in sets.items():
            rows = []
            for index, image in enumerate(images):
                rows.append(_measure(method, f"{name} {index}", image))
                done += 1
                if progress is not None:
                    progress(done, total, f"{method.name}, {name}")
            results[method.name][name] = _of_photos(rows) if name == PHOTOS else summarise(rows)
    return Evaluation(
        kind=KIND,
        options={"seed": seed, "photos": len(pictures)},
        environment=describe_environment() if environment is None else environment,
        methods={method.name: dict(method.fingerprint) for method in methods},
        sets={name: {"description": DESCRIPTIONS[name], "pairs": len(images)} for name, images in sets.items()},
        metrics=METRICS,
        results=results,
    )


def summarise(rows: Sequence[Row]) -> SetResult:
    """Means over the images of a set, the largest of them, and the same by group."""
    groups = dict.fromkeys(row["group"] for row in rows if row["group"])
    return SetResult(
        count=len(rows),
        metrics=_metrics(rows),
        groups={group: _metrics([row for row in rows if row["group"] == group]) for group in groups},
        rows=rows,
    )


def _of_photos(rows: Sequence[Row]) -> SetResult:
    """Under names of their own: there a keypoint is no fault."""
    of_all = _metrics(rows)
    metrics = {"on_photos": of_all["keypoints"], "strong_on_photos": of_all["strong"]}
    return SetResult(count=len(rows), metrics={**metrics, "median_score": of_all["median_score"]}, rows=rows)


def _measure(method: Method, name: str, negative: NegativeImage) -> Row:
    features = method.extract(negative.image)
    scores, reliability = features.scores.numpy(), features.reliability.numpy()
    return {
        "name": name,
        "group": negative.group,
        "error": len(features),
        "keypoints": len(features),
        "strong": int((scores >= STRONG_SCORE).sum()),
        "highest_score": float(scores.max()) if len(scores) else 0.0,
        "median_score": float(np.median(scores)) if len(scores) else float("nan"),
        "reliability": float(reliability.mean()) if len(reliability) else float("nan"),
    }


def _metrics(rows: Sequence[Row]) -> dict[str, float]:
    def mean(key: str) -> float:
        values = np.array([row[key] for row in rows], dtype=np.float64)
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")

    return {
        "keypoints": mean("keypoints"),
        "most": float(max(row["keypoints"] for row in rows)),
        "strong": mean("strong"),
        "highest_score": float(max(row["highest_score"] for row in rows)),
        "median_score": mean("median_score"),
        "reliability": mean("reliability"),
    }
