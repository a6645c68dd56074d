"""``semkey detect``: keypoints of single images, as pictures, a table and JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from semkey.cli.console import (
    check_json_path,
    is_stdout,
    print_error,
    print_table,
    track,
    write_json,
)
from semkey.cli.inputs import FeatureOptions, MaskOptions, expand_folders
from semkey.cli.options import configured

if TYPE_CHECKING:
    from semkey.extractors import Detector
    from semkey.images.masks import MaskSource
    from semkey.model.features import Features


ColorBy = Literal["scores", "reliability"]


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Keypoints found in one file."""

    path: Path
    features: Features
    seconds: float


@configured
def detect(
    *,
    images: list[Path] = typer.Argument(..., metavar="IMAGES", help="Image files, or folders of images."),
    out: Path | None = typer.Option(
        None, "--out", "-o", metavar="DIR", help="Draw the keypoints into DIR/<name>_keypoints.png."
    ),
    json_file: str | None = typer.Option(
        None, "--json", metavar="FILE", help="Write keypoints, scores and reliabilities as JSON; - for stdout."
    ),
    descriptors: Path | None = typer.Option(
        None, metavar="FILE", help="Write keypoints and descriptors to FILE.h5 (as hloc has it) or FILE.npz."
    ),
    color_by: ColorBy = typer.Option("scores", help="What the colours of the drawing show, blue low, red high."),
    features: FeatureOptions,
    mask: MaskOptions,
) -> None:
    """Find keypoints in images: list them, draw them, or write them as JSON.

    The table shows the mean score and mean reliability of each image's keypoints. All images are read before anything
    is written. The JSON holds, per image, "path", "width", "height", "seconds",
    "keypoints" as pairs x, y in pixels, "scores" and "reliability" in 0..1, strongest keypoint first.

    [bold]Examples[/]

        semkey detect photo.jpg -o drawings

        semkey detect frames/*.png --json keypoints.json --max-keypoints 500

        semkey detect frames/*.png -o drawings --mask masks/

        semkey detect photos/ --descriptors features.h5

        semkey detect photo.jpg --features sift --json - | jq '.images[0].keypoints | length'
    """
    from semkey.errors import InputError

    check_json_path(json_file)
    images = expand_folders(images)
    _check_descriptors(descriptors)
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"cannot write drawings to {out}: it is a file, not a folder")
    masks = mask.open()
    extractor = features.create()
    detections, errors = _detect_all(extractor, images, masks)
    if errors:
        for error in errors:
            print_error(error)
        raise typer.Exit(2)

    drawings = {} if out is None else _drawing_paths(out, images)
    _draw_all(detections, drawings, color_by)
    if json_file is not None:
        write_json(
            json_file, {"features": features.features, "images": [_to_json(detection) for detection in detections]}
        )
    if descriptors is not None:
        _write_descriptors(descriptors, detections)
    rows = [_table_row(detection) for detection in detections]
    columns = ["image", "size", "keypoints", "score", "reliability", "ms"]
    print_table(columns, rows, to_stderr=is_stdout(json_file))
    if out is not None:
        typer.echo(f"drawings in {out}", err=is_stdout(json_file))
    if descriptors is not None:
        typer.echo(f"features in {descriptors}", err=is_stdout(json_file))


def _detect_all(
    extractor: Detector, paths: list[Path], masks: MaskSource | None
) -> tuple[list[Detection], list[Exception]]:
    """Detect in every image; after the first bad file the others are only checked, so that each gets its line."""
    from semkey.errors import InputError
    from semkey.images import read_image
    from semkey.images.masks import check_mask

    detections: list[Detection] = []
    errors: list[Exception] = []
    for path in track(paths, "Detecting"):
        try:
            image = read_image(path)
            mask = None if masks is None else check_mask(masks.file(path.name), (image.shape[1], image.shape[0]))
            if not errors:
                start = time.perf_counter()
                features = extractor.extract(image, mask).to("cpu")
                detections.append(Detection(path=path, features=features, seconds=time.perf_counter() - start))
        except InputError as error:
            errors.append(error)
    return detections, errors


def _check_descriptors(path: Path | None) -> None:
    """Tell before the work what cannot be written."""
    from semkey.errors import InputError
    from semkey.files import check_output_file

    if path is None:
        return
    check_output_file(path)
    if path.suffix.lower() not in (".h5", ".hdf5", ".npz"):
        raise InputError(f"cannot write {path}: --descriptors takes a name that ends in .h5 or .npz")
    if path.suffix.lower() != ".npz":
        from semkey.interop.hloc import require_h5py

        require_h5py()


def _write_descriptors(path: Path, detections: list[Detection]) -> None:
    paths = [detection.path for detection in detections]
    short = len({one.name for one in paths}) == len(paths)
    named = [(d.path.name if short else d.path.as_posix().lstrip("/"), d.features) for d in detections]
    if path.suffix.lower() == ".npz":
        from semkey.interop.npz import write_features_npz

        write_features_npz(path, named)
        return
    from semkey.interop.hloc import write_features

    write_features(path, named)


def _drawing_paths(folder: Path, images: list[Path]) -> dict[int, Path]:
    """A file name per image, numbered where two images from different folders share one."""
    taken: dict[str, int] = {}
    paths = {}
    for index, image in enumerate(images):
        count = taken[image.stem] = taken.get(image.stem, 0) + 1
        suffix = "" if count == 1 else f"_{count}"
        paths[index] = folder / f"{image.stem}{suffix}_keypoints.png"
    return paths


def _draw_all(detections: list[Detection], drawings: dict[int, Path], color_by: ColorBy) -> None:
    if not drawings:
        return
    from semkey.visualization import draw_keypoints
    from semkey.visualization.draw import with_caption
    from semkey.visualization.picture import Picture

    for index in track(list(drawings), "Drawing"):
        # Read again: holding every image of a long list would not fit into memory.
        detection = detections[index]
        drawn = draw_keypoints(detection.path, detection.features, color_by=color_by)
        Picture(with_caption(drawn.pixels, caption_of(detection.features, color_by))).save(drawings[index])


def caption_of(features: Features, color_by: ColorBy) -> str:
    """What colours and sizes of a drawing say."""
    from semkey.visualization.draw import COVARIANCE_SIGMAS

    count = f"{len(features)} keypoints"
    if len(features) == 0:
        return count
    low, high = (0.0, 1.0) if color_by == "reliability" else (float(v) for v in features.scores.aminmax())
    name, other = ("reliability", "score") if color_by == "reliability" else ("score", "reliability")
    ellipses = f"ellipses: {COVARIANCE_SIGMAS:g} standard deviations"
    shape = f"larger: more {other}" if features.covariances is None else ellipses
    return f"{count}; {name} from {low:.3g} (blue) to {high:.3g} (red); {shape}"


def _to_json(detection: Detection) -> dict[str, Any]:
    features = detection.features
    return {
        "path": str(detection.path),
        "width": features.image_size[0],
        "height": features.image_size[1],
        "seconds": round(detection.seconds, 6),
        "keypoints": _rounded(features.keypoints, 4),
        "scores": _rounded(features.scores, 6),
        "reliability": _rounded(features.reliability, 6),
    }


def _rounded(tensor: Any, digits: int) -> Any:
    return tensor.double().round(decimals=digits).tolist()


def _table_row(detection: Detection) -> list[str]:
    features = detection.features
    has_keypoints = len(features) > 0
    return [
        str(detection.path),
        f"{features.image_size[0]}x{features.image_size[1]}",
        str(len(features)),
        f"{float(features.scores.mean()):.3f}" if has_keypoints else "-",
        f"{float(features.reliability.mean()):.3f}" if has_keypoints else "-",
        f"{detection.seconds * 1000:.0f}",
    ]
