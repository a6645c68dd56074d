"""Detectors as ONNX files."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from semkey import __version__
from semkey.errors import ConfigError, InputError
from semkey.export.dense_graph import DenseGraph
from semkey.export.extraction_graph import ExtractionGraph
from semkey.files import atomic_write_bytes
from semkey.model.preprocess import PAD_MULTIPLE
from semkey.model.semantic_detector import SemanticKeypointDetector

#: GridSample reads images in two dimensions since 16; 17 is what runtimes of 2022 and later have.
OPSET = 17
# Sides of the images that a file is checked with: others than those it was traced with, and both orientations.
_CHECKED = ((160, 224), (256, 96))
_DENSE_TOLERANCE = 1e-3
_DENSE_INPUT = f"images (batch, 1, height, width) float32 grey of zero mean and unit variance, sides of {PAD_MULTIPLE}k"
_INPUTS: dict[tuple[str | int, ...], str] = {
    ("images",): _DENSE_INPUT,
    ("images", "colors"): f"{_DENSE_INPUT}; colors (batch, 3, height, width) the same as RGB in [0, 1]",
    ("image", 1): "image (batch, 1, height, width) float32 grey (OpenCV's RGB2GRAY) in [0, 1], sides of 32 and more",
    ("image", 3): "image (batch, 3, height, width) float32 RGB in [0, 1], sides of 32 pixels and more",
}


def onnx_bytes(
    graph: nn.Module, examples: Sequence[torch.Tensor], names: Sequence[str], outputs: Sequence[str]
) -> bytes:
    """A module traced into an ONNX file whose batch, height and width are free.

    By tracing and not by ``torch.export``: with free sizes that takes minutes for these graphs, this a second.

    Raises:
        ConfigError: onnx is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"this needs {package}: pip install 'semkey[onnx]'")
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        # What is constant on purpose (numbers of channels) is warned of as well; the results are checked instead.
        warnings.simplefilter("ignore")
        file = Path(folder) / "graph.onnx"
        torch.onnx.export(
            graph,
            tuple(examples),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(names),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch", 2: "height", 3: "width"} for name in names}
            | {one: {0: "batch"} for one in outputs},
        )
        return file.read_bytes()


def export_onnx(
    path: str | Path, detector: SemanticKeypointDetector, metadata: Mapping[str, Any], *, dense: bool = False
) -> dict[str, Any]:
    """Write a detector as ONNX file, after checking that onnxruntime computes the same with it.

    Args:
        path: written atomically.
        detector: on the CPU, in float32 and evaluation mode; its ``extraction`` is part of the graph.
        metadata: of the file; text, numbers or what JSON has. Version, opset and axes are added.
        dense: the dense maps of :class:`DenseGraph` instead of keypoints (:class:`ExtractionGraph`).

    Returns:
        All metadata.

    Raises:
        ConfigError: onnx or onnxruntime is not installed, or the network's backbone cannot be a graph.
        InputError: the file cannot be written, or the graph computes something else than the network.
    """
    if dense:
        graph: DenseGraph | ExtractionGraph = DenseGraph(detector)
        names, taken = graph.inputs, _INPUTS[tuple(graph.inputs)]
    else:
        graph = ExtractionGraph(detector)
        names, taken = ["image"], _INPUTS["image", graph.channels]
    data = onnx_bytes(graph.eval(), _examples(graph, 2, (96, 128) if dense else (130, 201)), names, graph.names)
    described = {
        **metadata,
        "semkey_version": __version__,
        "opset": OPSET,
        "kind": "dense maps" if dense else "extraction",
        "input": taken,
    }
    import onnx

    model = onnx.load_from_string(data)
    onnx.helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in described.items()}
    )
    model.producer_name, model.producer_version = "semkey", __version__
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    _check(path, graph, data, names)
    atomic_write_bytes(path, data)
    return described


def _examples(
    graph: DenseGraph | ExtractionGraph, batch: int, sides: tuple[int, int], seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Noise of the shapes that a graph takes."""
    rng = torch.Generator().manual_seed(seed)
    channels = [graph.channels] if isinstance(graph, ExtractionGraph) else [1, 3][: len(graph.inputs)]
    return tuple(torch.rand(batch, number, *sides, generator=rng) for number in channels)


def _check(path: str | Path, graph: DenseGraph | ExtractionGraph, data: bytes, names: Sequence[str]) -> None:
    """Compare with the network on other sizes than the graph was traced with.

    Raises:
        InputError: the results differ.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for sides in _CHECKED:
        given = _examples(graph, 1, sides, seed=1)
        with torch.no_grad():
            expected = dict(zip(graph.names, graph(*given), strict=True))
        inputs = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
        got = dict(zip(graph.names, session.run(None, inputs), strict=True))
        # Keypoints of nearly equal scores may change places: what is compared in order are the scores.
        compared = ["scores", "global_descriptor"] if isinstance(graph, ExtractionGraph) else graph.names
        worst = max(float(np.abs(expected[one].numpy() - got[one]).max()) for one in compared)
        if not worst < _DENSE_TOLERANCE:
            raise InputError(
                f"{path}: not written, the graph computes something else than the network (by {worst:.2g})"
            )
