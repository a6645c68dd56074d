"""Dense maps by OpenVINO, converted from the torch module: from an ONNX file they are several times slower."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from functools import cache
from typing import Any

import torch

from semkey.export.dense_graph import DenseGraph
from semkey.export.positions import traceable_positions
from semkey.model.dense import DenseMaps
from semkey.model.semantic_detector import SemanticKeypointDetector

# A size that is known computes faster than a free one, and is compiled once; of more sizes the oldest is forgotten.
_MOST_SIZES = 4


class OpenvinoMaps:
    """Dense maps of a detector, computed by OpenVINO on the CPU.

    Args:
        detector: in evaluation mode, on the CPU.
        reduced: convolutions and products of matrices in bfloat16.
    """

    name = "openvino"

    def __init__(self, detector: SemanticKeypointDetector, *, reduced: bool) -> None:
        import openvino

        self._graph = DenseGraph(detector, with_place=False, only_needed=True).eval()
        with warnings.catch_warnings(), torch.no_grad(), traceable_positions(self._graph):
            warnings.simplefilter("ignore")  # of tracing, as in semkey.export.onnx_file
            self._model = openvino.convert_model(self._graph, example_input=self._graph.examples(0))
        self._core = _core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if reduced else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, images: torch.Tensor, colors: torch.Tensor | None) -> DenseMaps:
        """Dense maps, float32, of images (B, 1, H, W) float32, over a backbone also (B, 3, H, W) in colour."""
        given = [images] if colors is None else [images, colors]
        found = self._for_size(tuple(images.shape))([tensor.contiguous().numpy() for tensor in given])
        # The arrays belong to the request, which the next image overwrites.
        tensors = [torch.from_numpy(found[number].copy()) for number in range(len(self._graph.names))]
        return self._graph.maps(dict(zip(self._graph.names, tensors, strict=True)))

    def _for_size(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._compiled:
            if len(self._compiled) == _MOST_SIZES:
                self._compiled.popitem(last=False)
            model = self._model.clone()
            batch, _, height, width = shape
            sides = [[batch, channels, height, width] for channels in (1, 3)[: len(model.inputs)]]
            model.reshape(dict(zip(model.inputs, sides, strict=True)))
            self._compiled[shape] = self._core.compile_model(model, "CPU", self._settings)
        self._compiled.move_to_end(shape)
        return self._compiled[shape]


@cache
def _core() -> Any:
    """The one core of the process.

    Each core's plugin gives the thread that it is made in another stack for signals, and puts back the one before when
    it goes. Of two that go in the order in which they came, the second puts back what the first has unmapped, and the
    next signal that has a handler, such as Ctrl-C, ends the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()
