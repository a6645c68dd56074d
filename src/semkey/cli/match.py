"""``semkey match``: matches of two images, checked by robust geometry."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from semkey.cli.console import (
    check_json_path,
    is_stdout,
    print_error,
    print_table,
    write_json,
)
from semkey.cli.inputs import FeatureOptions, MaskOptions, MatcherOptions
from semkey.cli.options import configured

if TYPE_CHECKING:
    import numpy as np

    from semkey.extractors import Detector
    from semkey.matching import Matches
    from semkey.matching.robust import RobustEstimate
    from semkey.model.features import Features


Geometry = Literal["fundamental", "homography"]
Layout = Literal["auto", "horizontal", "vertical"]

DEFAULT_MAX_ERROR_PX: dict[Geometry, float] = {"fundamental": 1.0, "homography": 3.0}


@configured
def match(
    *,
    image_a: Path = typer.Argument(..., metavar="A", help="First image."),
    image_b: Path = typer.Argument(..., metavar="B", help="Second image."),
    out: Path | None = typer.Option(
        None, "--out", "-o", metavar="FILE", help="Draw both images, inliers coloured by error and outliers grey."
    ),
    layout: Layout = typer.Option(
        "auto", help="Images of --out side by side or above each other; auto: as fits a screen better."
    ),
    json_file: str | None = typer.Option(
        None, "--json", metavar="FILE", help="Write matches, inliers and the model as JSON; - for stdout."
    ),
    geometry: Geometry = typer.Option(
        "fundamental",
        "--geometry",
        "-g",
        help="fundamental: any rigid scene seen from two places; homography: a plane, or a camera that only turned.",
    ),
    max_error: float | None = typer.Option(
        None, metavar="PX", help="Largest error of an inlier in pixels (default: fundamental 1, homography 3)."
    ),
    matcher: MatcherOptions,
    refine: bool = typer.Option(
        False, "--refine", help="Move matched keypoints to where the two images agree, to a fraction of a pixel."
    ),
    refiner: Path | None = typer.Option(
        None, metavar="FILE", help="Refine with what `semkey train-refiner` wrote, instead of by aligning patches."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the random sampling; the same seed gives the same result."),
    guide: str | None = typer.Option(
        None,
        metavar="BACKBONE",
        help="Look for nearest neighbours only among what this backbone (vit-tiny, ...) finds alike.",
    ),
    features: FeatureOptions,
    mask: MaskOptions,
) -> None:
    """Match two images: mutual nearest neighbours (or another matcher), then the geometry most of them agree on.

    The JSON holds "image0" and "image1" (path, width, height, number of keypoints), "matches" as a list of
    {"index0", "index1", "point0", "point1", "score", "inlier"}, and "geometry" (kind, 3x3 "matrix" or null, "inliers").
    With --refine or --refiner each match has "moved" and "covariance" (2x2, of point1, pixels squared) as well.

    [bold]Examples[/]

        semkey match left.jpg right.jpg -o matches.png

        semkey match wall1.png wall2.png --geometry homography --json matches.json

        semkey match left.jpg right.jpg --features orb --ratio 0.9

        semkey match left.jpg right.jpg --refine --json matches.json
    """
    from semkey.errors import InputError
    from semkey.images import read_image
    from semkey.images.masks import check_mask
    from semkey.images.writing import check_image_path
    from semkey.matching import refine as refine_matches

    limit = DEFAULT_MAX_ERROR_PX[geometry] if max_error is None else max_error
    if not limit > 0:
        raise InputError(f"--max-error must be positive, got {limit}")
    if out is not None:
        check_image_path(out)
    check_json_path(json_file)
    images, usable = [], []
    source = mask.open()
    failed = False
    for path in (image_a, image_b):
        try:
            image = read_image(path)
            size = (image.shape[1], image.shape[0])
            usable.append(None if source is None else check_mask(source.file(path.name), size))
            images.append(image)
        except InputError as error:
            print_error(error)
            failed = True
    if failed:
        raise typer.Exit(2)

    extractor = _extractor(features, matcher, guide)
    chosen = matcher.create(features)
    start = time.perf_counter()
    features0, features1 = map(extractor.extract, images, usable)
    extracted = time.perf_counter()
    matches = chosen.match(features0, features1)
    matched = time.perf_counter()
    refine = refine or refiner is not None
    if refine:
        method = "alignment" if refiner is None else refiner
        matches = refine_matches(features0, features1, matches, images[0], images[1], method=method)
        features1 = matches.features1 or features1
    refined = time.perf_counter()
    estimate = _estimate(geometry, features0, features1, matches, limit, seed)
    verified = time.perf_counter()

    if out is not None:
        _draw(out, images, features0, features1, matches, estimate, layout, geometry)
    if json_file is not None:
        value = {
            "features": features.features,
            "matcher": matcher.matcher,
            "image0": _image_json(image_a, features0),
            "image1": _image_json(image_b, features1),
            "matches": _matches_json(features0, features1, matches, estimate),
            "geometry": {
                "kind": geometry,
                "matrix": None if estimate.model is None else estimate.model.tolist(),
                "inliers": estimate.inlier_count,
                "max_error_px": limit,
                "seed": seed,
            },
        }
        write_json(json_file, value)
    share = f" ({estimate.inlier_count / len(matches):.0%})" if len(matches) else ""
    rows = [
        ["keypoints", f"{len(features0)} and {len(features1)}", f"{(extracted - start) * 1000:.0f}"],
        ["matches", str(len(matches)), f"{(matched - extracted) * 1000:.0f}"],
        *([["moved", str(_moved(matches)), f"{(refined - matched) * 1000:.0f}"]] if refine else []),
        [f"inliers ({geometry})", f"{estimate.inlier_count}{share}", f"{(verified - refined) * 1000:.0f}"],
    ]
    print_table(["", "count", "ms"], rows, to_stderr=is_stdout(json_file))
    if out is not None:
        typer.echo(f"drawing in {out}", err=is_stdout(json_file))


def _extractor(features: FeatureOptions, matcher: MatcherOptions, guide: str | None) -> Detector:
    from semkey.errors import ConfigError
    from semkey.extractors.registry import with_guide

    if guide is not None and matcher.matcher not in ("mnn", "ratio"):
        raise ConfigError(f"--guide is for nearest neighbours, not for --matcher {matcher.matcher}")
    return with_guide(features.create(), guide)


def _estimate(
    geometry: Geometry, features0: Features, features1: Features, matches: Matches, max_error_px: float, seed: int
) -> RobustEstimate:
    from semkey.matching.robust import estimate_fundamental, estimate_homography

    estimate = estimate_homography if geometry == "homography" else estimate_fundamental
    points0 = features0.keypoints[matches.indices[:, 0]]
    points1 = features1.keypoints[matches.indices[:, 1]]
    return estimate(points0, points1, max_error_px=max_error_px, seed=seed)


def _draw(
    path: Path,
    images: list[np.ndarray],
    features0: Features,
    features1: Features,
    matches: Matches,
    estimate: RobustEstimate,
    layout: Layout,
    geometry: Geometry,
) -> None:
    import numpy as np

    from semkey.geometry.homography import warp_points
    from semkey.metrics.two_view import sampson_errors
    from semkey.visualization import draw_matches

    points0 = features0.keypoints[matches.indices[:, 0]].double().cpu().numpy()
    points1 = features1.keypoints[matches.indices[:, 1]].double().cpu().numpy()
    errors = None
    if estimate.model is not None and geometry == "homography":
        errors = np.linalg.norm(warp_points(estimate.model, points0) - points1, axis=1)
    elif estimate.model is not None:
        errors = sampson_errors(estimate.model, points0, points1)
    picture = draw_matches(
        images[0], images[1], features0, features1, matches, estimate.inliers, errors=errors, layout=layout
    )
    picture.save(path)


def _image_json(path: Path, features: Features) -> dict[str, Any]:
    width, height = features.image_size
    return {"path": str(path), "width": width, "height": height, "keypoints": len(features)}


def _matches_json(
    features0: Features, features1: Features, matches: Matches, estimate: RobustEstimate
) -> list[dict[str, Any]]:
    indices = matches.indices.tolist()
    points0 = features0.keypoints[matches.indices[:, 0]].double().round(decimals=4).tolist()
    points1 = features1.keypoints[matches.indices[:, 1]].double().round(decimals=4).tolist()
    scores = matches.scores.double().round(decimals=6).tolist()
    rows = zip(indices, points0, points1, scores, estimate.inliers.tolist(), strict=True)
    entries: list[dict[str, Any]] = [
        {"index0": index0, "index1": index1, "point0": p0, "point1": p1, "score": score, "inlier": inlier}
        for (index0, index1), p0, p1, score, inlier in rows
    ]
    moved, covariances = getattr(matches, "moved", None), getattr(matches, "covariances", None)
    if moved is None or covariances is None:
        return entries
    rounded = covariances.double().round(decimals=6).tolist()
    extra = zip(entries, moved.tolist(), rounded, strict=True)
    return [{**entry, "moved": was_moved, "covariance": covariance} for entry, was_moved, covariance in extra]


def _moved(matches: Matches) -> int:
    return int(getattr(matches, "moved").sum())  # noqa: B009 (refined ones have it)
