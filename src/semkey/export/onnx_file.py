"""Networks as ONNX files."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semkey import __version__
from semkey.errors import ConfigError, InputError
from semkey.export.dense_graph import DenseGraph
from semkey.export.extraction_graph import ExtractionGraph
from semkey.export.graph import OnnxGraph
from semkey.export.positions import traceable_positions
from semkey.files import atomic_write_bytes
from semkey.model.semantic_detector import SemanticKeypointDetector

#: GridSample reads images in two dimensions since 16; 17 is what runtimes of 2022 and later have.
OPSET = 17
_TOLERANCE = 1e-3


def onnx_bytes(graph: OnnxGraph) -> bytes:
    """A graph traced into an ONNX file whose axes are free where it says so.

    By tracing and not by ``torch.export``: with free sizes that takes minutes for these graphs, this a second.

    Raises:
        ConfigError: onnx is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"this needs {package}: pip install 'semkey[onnx]'")
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        traceable_positions(graph),
        tempfile.TemporaryDirectory() as folder,
    ):
        # What is constant on purpose (numbers of channels) is warned of as well; the results are checked instead.
        warnings.simplefilter("ignore")
        file = Path(folder) / "graph.onnx"
        torch.onnx.export(
            graph.eval(),
            graph.examples(0),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=graph.names,
            dynamic_axes={name: dict(axes) for name, axes in {**graph.inputs, **graph.outputs}.items()},
        )
        return file.read_bytes()


def export_onnx(
    path: str | Path, detector: SemanticKeypointDetector, metadata: Mapping[str, Any], *, dense: bool = False
) -> dict[str, Any]:
    """Write a detector as ONNX file: the whole extraction, or the dense maps of :class:`DenseGraph`.

    Args:
        path: see :func:`write_onnx`.
        detector: on the CPU, in float32 and evaluation mode; its ``extraction`` is part of the graph.
        metadata: see :func:`write_onnx`.
        dense: the dense maps instead of keypoints (:class:`ExtractionGraph`).

    Returns:
        All metadata.

    Raises:
        ConfigError: see :func:`write_onnx`.
        InputError: see :func:`write_onnx`.
    """
    return write_onnx(path, detector_graph(detector, dense=dense), metadata)


def detector_graph(detector: SemanticKeypointDetector, *, dense: bool = False) -> OnnxGraph:
    """A detector as a graph; arguments as for :func:`export_onnx`."""
    return DenseGraph(detector) if dense else ExtractionGraph(detector)


def write_onnx(path: str | Path, graph: OnnxGraph, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Write a graph as ONNX file, after checking that onnxruntime computes the same with it.

    Args:
        path: written atomically.
        graph: on the CPU.
        metadata: of the file; text, numbers or what JSON has. Version, opset, kind and inputs are added.

    Returns:
        All metadata.

    Raises:
        ConfigError: onnx or onnxruntime is not installed.
        InputError: the file cannot be written, or the graph computes something else than the network.
    """
    data = onnx_bytes(graph)
    described = {
        **metadata,
        "semkey_version": __version__,
        "opset": OPSET,
        "kind": graph.kind,
        "input": graph.takes,
    }
    import onnx

    model = onnx.load_from_string(data)
    onnx.helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in described.items()}
    )
    model.producer_name, model.producer_version = "semkey", __version__
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    _check(path, graph, data)
    atomic_write_bytes(path, data)
    return described


def _check(path: str | Path, graph: OnnxGraph, data: bytes) -> None:
    """Compare with the network on other sizes than the graph was traced with.

    Raises:
        InputError: the results differ.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for number in (1, 2):
        given = graph.examples(number)
        with torch.no_grad():
            expected = dict(zip(graph.names, graph(*given), strict=True))
        inputs = {name: tensor.numpy() for name, tensor in zip(graph.inputs, given, strict=True)}
        got = dict(zip(graph.names, session.run(None, inputs), strict=True))
        worst = max(float(np.abs(expected[one].numpy() - got[one]).max()) for one in graph.compared)
        if not worst < _TOLERANCE:
            raise InputError(
                f"{path}: not written, the graph computes something else than the network (by {worst:.2g})"
            )
