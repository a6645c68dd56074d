"""Dense maps by onnxruntime."""

from __future__ import annotations

import torch

from semkey.export.dense_graph import DenseGraph
from semkey.export.onnx_file import onnx_bytes
from semkey.model.dense import DenseMaps
from semkey.model.semantic_detector import SemanticKeypointDetector


class OnnxruntimeMaps:
    """Dense maps of a detector, computed by onnxruntime on the CPU in float32.

    Args:
        detector: in evaluation mode, on the CPU.

    Raises:
        ConfigError: onnx or onnxruntime is not installed.
    """

    name = "onnxruntime"

    def __init__(self, detector: SemanticKeypointDetector) -> None:
        self._graph = DenseGraph(detector, with_place=False, only_needed=True).eval()
        data = onnx_bytes(self._graph)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait must not keep a core from those that work (see semkey.runtime).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: torch.Tensor, colors: torch.Tensor | None) -> DenseMaps:
        """Dense maps, float32, of images (B, 1, H, W) float32, over a backbone also (B, 3, H, W) in colour."""
        given = {"images": images} if colors is None else {"images": images, "colors": colors}
        found = self._session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        return self._graph.maps(dict(zip(self._graph.names, map(torch.from_numpy, found), strict=True)))
