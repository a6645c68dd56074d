"""``semkey eval``: methods side by side on image pairs; the kinds without pairs are in ``eval_other``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from semkey.cli.evaluate import other as eval_other
from semkey.cli.evaluate import places as eval_places
from semkey.cli.evaluate import single_images as eval_single_images
from semkey.cli.evaluate import slam as eval_slam
from semkey.cli.evaluate.common import (
    KeptOptions,
    MatchOptions,
    MethodOptions,
    ResizeOption,
    TogetherOption,
    environment,
    out_option,
    pair_workers,
    run_pair_kind,
    split_integers,
    split_names,
    split_numbers,
)
from semkey.cli.evaluate.sets import folder_layout, joined, posed_sets, resized, unique_names
from semkey.cli.inputs import ClusterOptions
from semkey.cli.options import configured

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


PoseEstimator = Literal["poselib", "opencv"]

# Options that several kinds have.
EstimatorsOption = typer.Option(
    "poselib,opencv,dlt", metavar="NAME,...", help="Homography estimators; the first one ranks the pairs."
)
MaxErrorOption = typer.Option(3.0, metavar="PX", help="Inlier threshold of the robust estimators.")
GapsOption = typer.Option("10,20", metavar="N,N,...", help="Frames between the two images of a sequence's pairs.")
StrideOption = typer.Option(1, min=1, help="Frames between the first images of pairs.")
OverlapOption = typer.Option(
    0.1, min=0.0, max=0.99, help="Smallest share of a view that the other one sees, from depth; 0 to keep all."
)
DepthOption = typer.Option(
    None,
    "--depth/--no-depth",
    help="Judge matches by the depth (default: where it is registered to the images; not in 7-Scenes).",
)


@app.command("planar")
@configured
def planar(
    *,
    context: typer.Context,
    data: list[Path] = typer.Argument(
        ..., metavar="DATA...", help="Folders in HPatches or Oxford layout or with *_H_A_to_B.txt, or folders of these."
    ),
    methods: MethodOptions,
    out: Path = out_option("planar"),
    exclude_hpatches: bool = typer.Option(
        False, "--exclude-hpatches", help="Leave out the eight HPatches scenes over 1600x1200, as most papers do."
    ),
    resize: str | None = ResizeOption,
    together: bool = TogetherOption,
    estimators: str = EstimatorsOption,
    max_error: float = MaxErrorOption,
    matching: MatchOptions,
    kept: KeptOptions,
    cluster: ClusterOptions,
) -> None:
    """Repeatability, localisation error, matching and homography accuracy on planar pairs.

    [bold]Examples[/]

        semkey eval planar hpatches-sequences-release --exclude-hpatches --methods compact,sift,aliked-n16

        semkey eval planar graf homogr --methods compact,orb --keypoints 2048 --out run
    """
    from semkey.evaluation.data.planar import planar_sets
    from semkey.evaluation.kinds.planar import PlanarProtocol

    protocol = PlanarProtocol(
        estimators=tuple(split_names(estimators, "--estimators")), max_error_px=max_error, seed=methods.seed
    )
    chosen = methods.create(matching)
    sets = [found for path in data for found in planar_sets(path, exclude_hpatches=exclude_hpatches)]
    run_pair_kind(
        protocol,
        joined(resized(unique_names(sets), resize), together),
        chosen,
        out=out,
        kept=kept,
        workers=pair_workers(cluster, methods, matching, kept, out),
        environment=environment(context, methods.device),
        options={"keypoints": methods.keypoints, "resize": resize, "exclude_hpatches": exclude_hpatches},
        unit="px",
    )


@app.command("posed-pairs")
@configured
def posed_pairs(
    *,
    context: typer.Context,
    data: list[Path] = typer.Argument(
        ...,
        metavar="DATA...",
        help="Posed RGB-D sequences (TUM, 7-Scenes, ICL-NUIM), folders of posed photos with nerfstudio's "
        "transforms.json, or pair lists (text, with --images).",
    ),
    images: Path | None = typer.Option(None, metavar="ROOT", help="Where the images of pair lists lie."),
    methods: MethodOptions,
    out: Path = out_option("posed-pairs"),
    gaps: str = GapsOption,
    stride: int = StrideOption,
    min_overlap: float = OverlapOption,
    angles: str = typer.Option(
        "5,15,30,45", metavar="DEG,DEG,...", help="Ranges of angles between two posed photos; each is a set."
    ),
    max_pairs: int = typer.Option(100, "--pairs", min=1, help="Most pairs of a set of posed photos."),
    camera: str | None = typer.Option(
        None, metavar="FX,FY,CX,CY", help="Pinhole camera of sequences in pixels, instead of the data set's own."
    ),
    depth: bool | None = DepthOption,
    resize: str | None = ResizeOption,
    together: bool = TogetherOption,
    estimator: PoseEstimator = typer.Option("poselib", help="Relative pose estimator."),
    max_error: float = typer.Option(1.0, metavar="PX", help="Inlier threshold of the estimator."),
    sweep: str | None = typer.Option(
        None, metavar="PX,PX,...", help="Further thresholds to try; the best is reported beside the fixed one."
    ),
    matching: MatchOptions,
    kept: KeptOptions,
    cluster: ClusterOptions,
) -> None:
    """Relative pose accuracy on image pairs with known poses; with depth also precision and correct matches.

    [bold]Examples[/]

        semkey eval posed-pairs redkitchen/seq-01 --gaps 10,20 --stride 6 --methods compact,sift,orb

        semkey eval posed-pairs desk toy --angles 5,15,30 --min-overlap 0.3

        semkey eval posed-pairs scannet_test_pairs_with_gt.txt --images scans_test --resize 640x480
    """
    from semkey.evaluation.kinds.posed import PosedProtocol

    protocol = PosedProtocol(
        estimator=estimator,
        max_error_px=max_error,
        sweep_px=() if sweep is None else split_numbers(sweep, "--sweep"),
        seed=methods.seed,
    )
    distances = split_integers(gaps, "--gaps")
    chosen = methods.create(matching)
    sets = posed_sets(
        data,
        images,
        gaps=distances,
        stride=stride,
        min_overlap=min_overlap,
        resize=resize,
        camera=camera,
        use_depth=depth,
        angles=split_numbers(angles, "--angles"),
        max_pairs=max_pairs,
    )
    run_pair_kind(
        protocol,
        joined(sets, together),
        chosen,
        out=out,
        kept=kept,
        workers=pair_workers(cluster, methods, matching, kept, out),
        environment=environment(context, methods.device),
        options={
            "keypoints": methods.keypoints,
            "resize": resize,
            "gaps": distances,
            "stride": stride,
            "min_overlap": min_overlap,
            "angles": angles,
            "pairs": max_pairs,
            "camera": camera,
            "depth": depth,
        },
        unit="°",
    )


@app.command("homographies")
@configured
def homographies(
    *,
    context: typer.Context,
    photos: list[Path] = typer.Argument(..., metavar="PHOTOS...", help="Folders of photos."),
    methods: MethodOptions,
    out: Path = out_option("homographies"),
    count: int = typer.Option(100, min=1, help="Pairs per folder."),
    max_side: int = typer.Option(640, min=64, help="Longer side of the views; smaller photos stay as they are."),
    estimators: str = EstimatorsOption,
    max_error: float = MaxErrorOption,
    matching: MatchOptions,
    kept: KeptOptions,
    cluster: ClusterOptions,
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
        seed=methods.seed,
    )
    chosen = methods.create(matching)
    config = HomographyConfig(max_side=max_side)
    sets = [random_homography_set(folder, count=count, seed=methods.seed, config=config) for folder in photos]
    run_pair_kind(
        protocol,
        unique_names(sets),
        chosen,
        out=out,
        kept=kept,
        workers=pair_workers(cluster, methods, matching, kept, out),
        environment=environment(context, methods.device),
        options={"keypoints": methods.keypoints, "count": count, "views": asdict(config)},
        unit="px",
    )


@app.command("reliability")
@configured
def reliability(
    *,
    context: typer.Context,
    data: list[Path] = typer.Argument(
        ..., metavar="DATA...", help="Planar folders, posed RGB-D sequences, or folders of photos (homographies)."
    ),
    methods: MethodOptions,
    out: Path = out_option("reliability"),
    count: int = typer.Option(100, min=1, help="Random homographies per folder of photos."),
    gaps: str = GapsOption,
    stride: int = StrideOption,
    min_overlap: float = OverlapOption,
    depth: bool | None = DepthOption,
    resize: str | None = ResizeOption,
    kept: KeptOptions,
    cluster: ClusterOptions,
) -> None:
    """How well scores and predicted reliabilities tell which keypoints will be matched right.

    [bold]Example[/]

        semkey eval reliability fr3_cabinet my-photos --gaps 1 --methods compact,sift,aliked-n16
    """
    from semkey.evaluation.data.homographies import random_homography_set
    from semkey.evaluation.data.planar import planar_sets
    from semkey.evaluation.kinds.reliability import ReliabilityProtocol

    protocol = ReliabilityProtocol(seed=methods.seed)
    distances = split_integers(gaps, "--gaps")
    chosen = methods.create()
    sets: list[PairSet] = []
    for path in data:
        layout = folder_layout(path)
        if layout == "planar":
            sets += resized(planar_sets(path), resize)
        elif layout == "sequence":
            sets += posed_sets(
                [path], None, gaps=distances, stride=stride, min_overlap=min_overlap, resize=resize, use_depth=depth
            )
        else:
            sets += resized([random_homography_set(path, count=count, seed=methods.seed)], resize)
    run_pair_kind(
        protocol,
        unique_names(sets),
        chosen,
        out=out,
        kept=kept,
        workers=pair_workers(cluster, methods, MatchOptions(), kept, out),
        environment=environment(context, methods.device),
        options={
            "keypoints": methods.keypoints,
            "resize": resize,
            "count": count,
            "gaps": distances,
            "stride": stride,
            "depth": depth,
        },
        unit="(share of co-visible keypoints without a right match)",
    )


app.command("localisation")(eval_other.localisation)
app.command("shift")(eval_single_images.shift)
app.command("negatives")(eval_single_images.negatives)
app.command("speed")(eval_other.speed)
app.command("places")(eval_places.places)
app.command("slam")(eval_slam.slam)
app.command("trajectory")(eval_other.trajectory)
app.command("convert-megadepth")(eval_other.convert_megadepth)
app.command("report")(eval_other.report)
