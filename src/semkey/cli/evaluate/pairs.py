"""``semkey eval``: methods side by side on image pairs; the kinds without pairs are in ``eval_other``."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semkey.cli.evaluate import other as eval_other
from semkey.cli.evaluate import places as eval_places
from semkey.cli.evaluate import slam as eval_slam
from semkey.cli.evaluate.common import (
    CacheOption,
    DeviceOption,
    KeypointsOption,
    MethodsOption,
    MinSimilarityOption,
    NoCacheOption,
    PicturesOption,
    RatioOption,
    ResizeOption,
    SeedOption,
    TogetherOption,
    WeightsOption,
    create_methods,
    environment,
    open_cache,
    out_option,
    run_pair_kind,
    split_integers,
    split_names,
    split_numbers,
)
from semkey.cli.evaluate.sets import folder_layout, joined, posed_sets, resized, unique_names

if TYPE_CHECKING:
    from semkey.evaluation.data.pairs import PairSet

app = typer.Typer(
    name="eval",
    no_args_is_help=True,
    help="""Measure methods side by side, each kind with its own protocol (see docs/evaluation.md).

    Writes results.json, report.html (one file, with curves and pictures) and prints the main numbers. Features are kept
    in DIR/cache; an interrupted run goes on where it stopped when the same command is run again.

    [bold]Example[/]

        semkey eval homographies my-photos --methods compact,sift,orb --out run
    """,
)


class PoseEstimator(StrEnum):
    """What turns matches into a relative pose."""

    POSELIB = "poselib"
    OPENCV = "opencv"


@app.command("planar")
def planar(
    context: typer.Context,
    data: list[Path] = typer.Argument(
        ..., metavar="DATA...", help="Folders in HPatches or Oxford layout or with *_H_A_to_B.txt, or folders of these."
    ),
    methods: str = MethodsOption,
    keypoints: int = KeypointsOption,
    out: Path = out_option("planar"),
    exclude_hpatches: bool = typer.Option(
        False, "--exclude-hpatches", help="Leave out the eight HPatches scenes over 1600x1200, as most papers do."
    ),
    resize: str | None = ResizeOption,
    together: bool = TogetherOption,
    estimators: str = typer.Option(
        "poselib,opencv,dlt", metavar="NAME,...", help="Homography estimators; the first one ranks the pairs."
    ),
    max_error: float = typer.Option(3.0, metavar="PX", help="Inlier threshold of the robust estimators."),
    min_similarity: float | None = MinSimilarityOption,
    ratio: float | None = RatioOption,
    weights: list[Path] | None = WeightsOption,
    device: str = DeviceOption,
    seed: int = SeedOption,
    cache: Path | None = CacheOption,
    no_cache: bool = NoCacheOption,
    pictures: bool = PicturesOption,
) -> None:
    """Repeatability, localisation error, matching and homography accuracy on planar pairs.

    [bold]Examples[/]

        semkey eval planar hpatches-sequences-release --exclude-hpatches --methods compact,sift,aliked-n16

        semkey eval planar graf homogr --methods compact,orb --keypoints 2048 --out run
    """
    from semkey.evaluation.data.planar import planar_sets
    from semkey.evaluation.kinds.planar import PlanarProtocol

    protocol = PlanarProtocol(
        estimators=tuple(split_names(estimators, "--estimators")), max_error_px=max_error, seed=seed
    )
    chosen = create_methods(
        methods, keypoints=keypoints, device=device, weights=weights, min_similarity=min_similarity, ratio=ratio
    )
    sets = [found for path in data for found in planar_sets(path, exclude_hpatches=exclude_hpatches)]
    run_pair_kind(
        protocol,
        joined(resized(unique_names(sets), resize), together),
        chosen,
        out=out,
        cache=open_cache(out, cache, no_cache),
        environment=environment(context, device),
        options={"keypoints": keypoints, "resize": resize, "exclude_hpatches": exclude_hpatches},
        unit="px",
        pictures=pictures,
    )


@app.command("posed-pairs")
def posed_pairs(
    context: typer.Context,
    data: list[Path] = typer.Argument(
        ..., metavar="DATA...", help="Posed RGB-D sequences (TUM, 7-Scenes), or pair lists (text, with --images)."
    ),
    images: Path | None = typer.Option(None, metavar="ROOT", help="Where the images of pair lists lie."),
    methods: str = MethodsOption,
    keypoints: int = KeypointsOption,
    out: Path = out_option("posed-pairs"),
    gaps: str = typer.Option("10,20", metavar="N,N,...", help="Frames between the two images of a sequence's pairs."),
    stride: int = typer.Option(1, min=1, help="Frames between the first images of pairs."),
    min_overlap: float = typer.Option(
        0.1, min=0.0, max=0.99, help="Smallest share of a view that the other one sees, from depth; 0 to keep all."
    ),
    camera: str | None = typer.Option(
        None, metavar="FX,FY,CX,CY", help="Pinhole camera of sequences in pixels, instead of the data set's own."
    ),
    depth: bool | None = typer.Option(
        None,
        "--depth/--no-depth",
        help="Judge matches by the depth (default: where it is registered to the images; not in 7-Scenes).",
    ),
    resize: str | None = ResizeOption,
    together: bool = TogetherOption,
    estimator: PoseEstimator = typer.Option(PoseEstimator.POSELIB, help="Relative pose estimator."),
    max_error: float = typer.Option(1.0, metavar="PX", help="Inlier threshold of the estimator."),
    sweep: str | None = typer.Option(
        None, metavar="PX,PX,...", help="Further thresholds to try; the best is reported beside the fixed one."
    ),
    min_similarity: float | None = MinSimilarityOption,
    ratio: float | None = RatioOption,
    weights: list[Path] | None = WeightsOption,
    device: str = DeviceOption,
    seed: int = SeedOption,
    cache: Path | None = CacheOption,
    no_cache: bool = NoCacheOption,
    pictures: bool = PicturesOption,
) -> None:
    """Relative pose accuracy on image pairs with known poses; with depth also precision and correct matches.

    [bold]Examples[/]

        semkey eval posed-pairs redkitchen/seq-01 --gaps 10,20 --stride 6 --methods compact,sift,orb

        semkey eval posed-pairs scannet_test_pairs_with_gt.txt --images scans_test --resize 640x480
    """
    from semkey.evaluation.kinds.posed import PosedProtocol

    protocol = PosedProtocol(
        estimator=estimator.value,
        max_error_px=max_error,
        sweep_px=() if sweep is None else split_numbers(sweep, "--sweep"),
        seed=seed,
    )
    distances = split_integers(gaps, "--gaps")
    chosen = create_methods(
        methods, keypoints=keypoints, device=device, weights=weights, min_similarity=min_similarity, ratio=ratio
    )
    sets = posed_sets(
        data,
        images,
        gaps=distances,
        stride=stride,
        min_overlap=min_overlap,
        resize=resize,
        camera=camera,
        use_depth=depth,
    )
    run_pair_kind(
        protocol,
        joined(sets, together),
        chosen,
        out=out,
        cache=open_cache(out, cache, no_cache),
        environment=environment(context, device),
        options={
            "keypoints": keypoints,
            "resize": resize,
            "gaps": distances,
            "stride": stride,
            "min_overlap": min_overlap,
            "camera": camera,
            "depth": depth,
        },
        unit="°",
        pictures=pictures,
    )


@app.command("homographies")
def homographies(
    context: typer.Context,
    photos: list[Path] = typer.Argument(..., metavar="PHOTOS...", help="Folders of photos."),
    methods: str = MethodsOption,
    keypoints: int = KeypointsOption,
    out: Path = out_option("homographies"),
    count: int = typer.Option(100, min=1, help="Pairs per folder."),
    max_side: int = typer.Option(640, min=64, help="Longer side of the views; smaller photos stay as they are."),
    estimators: str = typer.Option(
        "poselib,opencv,dlt", metavar="NAME,...", help="Homography estimators; the first one ranks the pairs."
    ),
    max_error: float = typer.Option(3.0, metavar="PX", help="Inlier threshold of the robust estimators."),
    min_similarity: float | None = MinSimilarityOption,
    ratio: float | None = RatioOption,
    weights: list[Path] | None = WeightsOption,
    device: str = DeviceOption,
    seed: int = SeedOption,
    cache: Path | None = CacheOption,
    no_cache: bool = NoCacheOption,
    pictures: bool = PicturesOption,
) -> None:
    """The measures of planar pairs on random homographies and light changes of any photos; needs no data set.

    [bold]Example[/]

        semkey eval homographies my-photos --count 200 --seed 1 --methods compact,sift,orb
    """
    from semkey.evaluation.data.homographies import HomographyConfig, random_homography_set
    from semkey.evaluation.kinds.planar import PlanarProtocol

    protocol = PlanarProtocol(
        kind="homographies",
        estimators=tuple(split_names(estimators, "--estimators")),
        max_error_px=max_error,
        seed=seed,
    )
    chosen = create_methods(
        methods, keypoints=keypoints, device=device, weights=weights, min_similarity=min_similarity, ratio=ratio
    )
    config = HomographyConfig(max_side=max_side)
    run_pair_kind(
        protocol,
        unique_names([random_homography_set(folder, count=count, seed=seed, config=config) for folder in photos]),
        chosen,
        out=out,
        cache=open_cache(out, cache, no_cache),
        environment=environment(context, device),
        options={"keypoints": keypoints, "count": count, "views": asdict(config)},
        unit="px",
        pictures=pictures,
    )


@app.command("reliability")
def reliability(
    context: typer.Context,
    data: list[Path] = typer.Argument(
        ..., metavar="DATA...", help="Planar folders, posed RGB-D sequences, or folders of photos (homographies)."
    ),
    methods: str = MethodsOption,
    keypoints: int = KeypointsOption,
    out: Path = out_option("reliability"),
    count: int = typer.Option(100, min=1, help="Random homographies per folder of photos."),
    gaps: str = typer.Option("10,20", metavar="N,N,...", help="Frames between the two images of a sequence's pairs."),
    stride: int = typer.Option(1, min=1, help="Frames between the first images of pairs."),
    min_overlap: float = typer.Option(
        0.1, min=0.0, max=0.99, help="Smallest share of a view that the other one sees, from depth; 0 to keep all."
    ),
    resize: str | None = ResizeOption,
    weights: list[Path] | None = WeightsOption,
    device: str = DeviceOption,
    seed: int = SeedOption,
    cache: Path | None = CacheOption,
    no_cache: bool = NoCacheOption,
    pictures: bool = PicturesOption,
) -> None:
    """How well scores and predicted reliabilities tell which keypoints will be matched right.

    [bold]Example[/]

        semkey eval reliability redkitchen/seq-01 my-photos --methods compact,sift,aliked-n16
    """
    from semkey.evaluation.data.homographies import random_homography_set
    from semkey.evaluation.data.planar import planar_sets
    from semkey.evaluation.kinds.reliability import ReliabilityProtocol

    protocol = ReliabilityProtocol(seed=seed)
    distances = split_integers(gaps, "--gaps")
    chosen = create_methods(methods, keypoints=keypoints, device=device, weights=weights)
    sets: list[PairSet] = []
    for path in data:
        layout = folder_layout(path)
        if layout == "planar":
            sets += resized(planar_sets(path), resize)
        elif layout == "sequence":
            sets += posed_sets([path], None, gaps=distances, stride=stride, min_overlap=min_overlap, resize=resize)
        else:
            sets += resized([random_homography_set(path, count=count, seed=seed)], resize)
    run_pair_kind(
        protocol,
        unique_names(sets),
        chosen,
        out=out,
        cache=open_cache(out, cache, no_cache),
        environment=environment(context, device),
        options={"keypoints": keypoints, "resize": resize, "count": count, "gaps": distances, "stride": stride},
        unit="(share of co-visible keypoints without a right match)",
        pictures=pictures,
    )


app.command("localisation")(eval_other.localisation)
app.command("speed")(eval_other.speed)
app.command("places")(eval_places.places)
app.command("slam")(eval_slam.slam)
app.command("trajectory")(eval_other.trajectory)
app.command("convert-megadepth")(eval_other.convert_megadepth)
app.command("report")(eval_other.report)
