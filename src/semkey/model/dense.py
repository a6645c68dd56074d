"""The network as others want it: tensors in, a tuple of tensors out."""

from __future__ import annotations

import torch
from torch import nn

from semkey.errors import InputError
from semkey.model.semantic_detector import SemanticKeypointDetector


class DenseNetwork(nn.Module):
    """The dense maps of a detector as a tuple, for ``torch.export``, ONNX and profilers.

    The choice of keypoints is not in it; :class:`semkey.model.semantic_detector.DenseMaps` says what the maps are.

    Args:
        detector: whose parameters it shares.

    Example:
        >>> import semkey, torch
        >>> network = semkey.load("nano", device="cpu").network
        >>> program = torch.export.export(network, (torch.zeros(1, 1, 64, 96),))
        >>> [tuple(tensor.shape) for tensor in program.module()(torch.zeros(1, 1, 64, 96))][:1]
        [(1, 1, 64, 96)]
    """

    def __init__(self, detector: SemanticKeypointDetector) -> None:
        super().__init__()
        self.detector = detector
        # A frozen backbone is in nobody's parameters; an exported program has to hold them.
        self.backbone = None if detector.backbone is None else detector.backbone.network

    def forward(self, images: torch.Tensor, colors: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Dense maps.

        Args:
            images: (B, 1, H, W) float32 grey of zero mean and unit variance, H and W multiples of 32.
            colors: (B, 3, H, W) float32 in [0, 1], the same images in colour; needed where there is a backbone.

        Returns:
            Log-probability (B, 1, H, W) of a keypoint at each pixel; fused features (B, C, H/8, W/8); the map that
            descriptors are read from; the map that sub-pixel offsets are read from; the global descriptor (B, G).

        Raises:
            InputError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise InputError(f"images have shape {tuple(images.shape)}: pass grey ones, (B, 1, H, W)")
        if any(isinstance(side, int) and side % 32 for side in images.shape[2:]):  # symbols have no value yet
            raise InputError(f"images have shape {tuple(images.shape)}: height and width must be multiples of 32")
        maps = self.detector(images, colors)
        return maps.log_probability, maps.grid, maps.fine, maps.detail, self.detector.describe_place(maps)
