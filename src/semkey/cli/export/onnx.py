"""``semkey export onnx``: detectors, matchers and refiners for other runtimes and languages."""

from __future__ import annotations

from pathlib import Path

import typer

from semkey.cli.options import field_option
from semkey.model.config import ExtractionConfig

_OF_DETECTORS = ("dense", "max_keypoints", "min_score", "nms_radius")


def export_onnx(
    context: typer.Context,
    name: str = typer.Argument(
        ...,
        metavar="NAME|FILE",
        help="A preset (compact, nano, vit-tiny, dinov2-small, ...), a checkpoint, or what train-matcher or "
        "train-refiner wrote.",
    ),
    out: Path = typer.Option(..., "--out", "-o", metavar="FILE.onnx", help="Where the graph goes."),
    dense: bool = typer.Option(False, "--dense", help="The network's dense maps, without the choice of keypoints."),
    max_keypoints: int = field_option(ExtractionConfig, "max_keypoints"),
    min_score: float = field_option(ExtractionConfig, "min_score"),
    nms_radius: int = field_option(ExtractionConfig, "nms_radius"),
) -> None:
    r"""Write a network as an ONNX file with free batch and sizes; pip install 'semkey\[onnx]'.

    A detector's graph holds the whole extraction: an image in [0, 1] in; keypoints, scores, reliability, descriptors,
    the global descriptor and a mask of valid rows out. A matcher's takes these of two images and gives matches, a
    refiner's moves matched keypoints. Graphs are compared with the network before they are written; what they take and
    give, licence, version and settings are in their metadata (docs/interop.md).

    [bold]Examples[/]

        semkey export onnx compact --out compact.onnx

        semkey export onnx nano --out nano.onnx --max-keypoints 512

        semkey export onnx runs/mine/mine.safetensors --out mine.onnx --dense

        semkey export onnx runs/lightglue-compact/lightglue-compact.safetensors --out matcher.onnx
    """
    from semkey.errors import ConfigError, InputError
    from semkey.export.metadata import weights_metadata
    from semkey.export.onnx_file import detector_graph, write_onnx
    from semkey.matching.exporting.networks import small_network
    from semkey.model.presets import load_detector

    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder")
    found = small_network(name)
    if found is None:
        detector = load_detector(
            name,
            max_keypoints=max_keypoints,
            device="cpu",
            precision="float32",
            min_score=min_score,
            nms_radius=nms_radius,
        )
        found = detector_graph(detector, dense=dense), weights_metadata(name, detector)
    else:
        given = [one for one in _OF_DETECTORS if getattr(context.get_parameter_source(one), "name", "") != "DEFAULT"]
        if given:
            raise ConfigError(f"--{given[0].replace('_', '-')} is of detectors; {name} is a {found[0].kind}")
    described = write_onnx(out, *found)
    said = f"{described['kind']} of {name}, {out.stat().st_size / 1e6:.1f} MB, opset {described['opset']}"
    typer.echo(f"{out}: {said}, licence {described['license']}")
    typer.echo(f"takes {described['input']}")
