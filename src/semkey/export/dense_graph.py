"""The network without the choice of keypoints, as a graph with named maps."""

from __future__ import annotations

import torch

from semkey.export.graph import BATCH, IMAGES, Axes, OnnxGraph
from semkey.model.dense import DenseMaps
from semkey.model.preprocess import PAD_MULTIPLE
from semkey.model.reliability import GridReliabilityHead
from semkey.model.semantic_detector import SemanticKeypointDetector

_GREY = f"images (batch, 1, height, width) float32 grey of zero mean and unit variance, sides of {PAD_MULTIPLE}k"
_COLORS = "colors (batch, 3, height, width) the same as RGB in [0, 1]"
_SIDES = ((96, 128), (160, 224), (256, 96))


class DenseGraph(OnnxGraph):
    """Dense maps of a detector, without those that have no channels.

    Args:
        detector: in evaluation mode.
        with_place: give the global descriptor; else the coarse maps that it is made of.
        only_needed: leave out what extraction does not read.
    """

    kind = "dense maps"

    def __init__(
        self, detector: SemanticKeypointDetector, *, with_place: bool = True, only_needed: bool = False
    ) -> None:
        super().__init__()
        self.detector = detector
        # A frozen backbone is in nobody's parameters; registered here, its weights are in the file once.
        self.transformer = None if detector.backbone is None else detector.backbone.network
        self._with_place = with_place
        by_grid = isinstance(detector.reliability, GridReliabilityHead)
        self._maps = [
            name
            for name, there in (
                ("log_probability", True),
                ("grid", by_grid or not only_needed),
                ("fine", True),
                ("detail", detector.config.detector == "cells"),
            )
            if there
        ]

    @property
    def inputs(self) -> dict[str, Axes]:
        """Names of what it takes: a network over a backbone sees the images in colour as well."""
        return {"images": IMAGES} if self.detector.backbone is None else {"images": IMAGES, "colors": IMAGES}

    @property
    def outputs(self) -> dict[str, Axes]:
        """Names of the maps, in order."""
        backbone = self.detector.backbone
        coarse = len(self.detector.config.context_channels) + (0 if backbone is None else len(backbone.channels))
        last = ["global_descriptor"] if self._with_place else [f"coarse{number}" for number in range(coarse)]
        return dict.fromkeys(self._maps, IMAGES) | dict.fromkeys(last, BATCH if self._with_place else IMAGES)

    @property
    def takes(self) -> str:
        """The inputs in words."""
        return _GREY if self.detector.backbone is None else f"{_GREY}; {_COLORS}"

    def examples(self, number: int) -> tuple[torch.Tensor, ...]:
        """Noise of the shapes that it takes."""
        rng = torch.Generator().manual_seed(number)
        batch = 1 if number else 2
        channels = [1, 3][: len(self.inputs)]
        return tuple(torch.rand(batch, one, *_SIDES[number], generator=rng) for one in channels)

    def forward(self, images: torch.Tensor, colors: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Dense maps, as :class:`DenseMaps` and :attr:`names` say.

        Args:
            images: (B, 1, H, W) float32 grey of zero mean and unit variance, H and W multiples of 32.
            colors: (B, 3, H, W) the same as RGB in [0, 1], for a backbone.
        """
        maps = self.detector(images, colors)
        found = [getattr(maps, name) for name in self._maps]
        return (*found, self.detector.describe_place(maps)) if self._with_place else (*found, *maps.coarse)

    def maps(self, outputs: dict[str, torch.Tensor]) -> DenseMaps:
        """The outputs by name as :class:`DenseMaps`; what the graph left out has no channels."""
        first = outputs["log_probability"]
        nothing = first.new_zeros(len(first), 0, 1, 1)
        coarse = [tensor for name, tensor in sorted(outputs.items()) if name.startswith("coarse")]
        return DenseMaps(
            log_probability=first,
            grid=outputs.get("grid", nothing),
            fine=outputs["fine"],
            detail=outputs.get("detail", nothing),
            coarse=tuple(coarse),
        )
