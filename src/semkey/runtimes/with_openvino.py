"""Dense maps by OpenVINO, converted from the torch module: from an ONNX file they are several times slower."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from functools import cache
from typing import Any

import torch

from semkey.export.dense_graph import DenseGraph
from semkey.model.dense import DenseMaps
from semkey.model.semantic_detector import SemanticKeypointDetector

# A size that is known computes faster than a free one, and is compiled once; of more sizes the oldest is forgotten.
_MOST_SIZES = 4


class OpenvinoMaps:
    """Dense maps of a detector, computed by OpenVINO on the CPU.

    Args:
        detector: in evaluation mode, on the CPU.
        reduced: convolutions in bfloat16.

    Raises:
        ConfigError: the network reads a backbone.
    """

    name = "openvino"

    def __init__(self, detector: SemanticKeypointDetector, *, reduced: bool) -> None:
        import openvino

        self._graph = DenseGraph(detector, with_place=False, only_needed=True).eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing, as in semkey.export.onnx_file
            self._model = openvino.convert_model(self._graph, example_input=torch.zeros(2, 1, 96, 128))
        self._core = _core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if reduced else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, images: torch.Tensor) -> DenseMaps:
        """Dense maps, float32, of images (B, 1, H, W) float32."""
        found = self._for_size(tuple(images.shape))([images.contiguous().numpy()])
        # The arrays belong to the request, which the next image overwrites.
        tensors = [torch.from_numpy(found[number].copy()) for number in range(len(self._graph.names))]
        return self._graph.maps(dict(zip(self._graph.names, tensors, strict=True)))

    def _for_size(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._compiled:
            if len(self._compiled) == _MOST_SIZES:
                self._compiled.popitem(last=False)
            model = self._model.clone()
            model.reshape(list(shape))
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
