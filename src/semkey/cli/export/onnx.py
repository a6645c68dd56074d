"""``semkey export onnx``: a detector for other runtimes and languages."""

from __future__ import annotations

from pathlib import Path

import typer

from semkey.cli.options import field_option
from semkey.model.config import ExtractionConfig


def export_onnx(
    name: str = typer.Argument(..., metavar="NAME|FILE", help="A preset (compact, nano, vit-tiny) or a checkpoint."),
    out: Path = typer.Option(..., "--out", "-o", metavar="FILE.onnx", help="Where the graph goes."),
    dense: bool = typer.Option(False, "--dense", help="The network's dense maps, without the choice of keypoints."),
    max_keypoints: int = field_option(ExtractionConfig, "max_keypoints"),
    min_score: float = field_option(ExtractionConfig, "min_score"),
    nms_radius: int = field_option(ExtractionConfig, "nms_radius"),
) -> None:
    r"""Write a detector as an ONNX file with free batch, height and width; pip install 'semkey\[onnx]'.

    The graph holds the whole extraction: an image in [0, 1] in; keypoints, scores, reliability, descriptors, the
    global descriptor and a mask of valid rows out. It is compared with the network before it is written; what it takes
    and gives, its licence, version and settings are in its metadata (docs/interop.md).

    [bold]Examples[/]

        semkey export onnx compact --out compact.onnx

        semkey export onnx nano --out nano.onnx --max-keypoints 512

        semkey export onnx runs/mine/mine.safetensors --out mine.onnx --dense
    """
    from semkey.errors import InputError
    from semkey.export.metadata import weights_metadata
    from semkey.export.onnx_file import export_onnx as write
    from semkey.model.presets import load_detector

    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder")
    detector = load_detector(
        name,
        max_keypoints=max_keypoints,
        device="cpu",
        precision="float32",
        min_score=min_score,
        nms_radius=nms_radius,
    )
    described = write(out, detector, weights_metadata(name, detector), dense=dense)
    said = f"{described['kind']} of {name}, {out.stat().st_size / 1e6:.1f} MB, opset {described['opset']}"
    typer.echo(f"{out}: {said}, licence {described['license']}")
    typer.echo(f"takes {described['input']}")
