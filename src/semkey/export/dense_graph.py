"""The network without the choice of keypoints, as a graph with named maps."""

from __future__ import annotations

import torch
from torch import nn

from semkey.errors import ConfigError
from semkey.model.dense import DenseMaps
from semkey.model.preprocess import PAD_MULTIPLE
from semkey.model.reliability import GridReliabilityHead
from semkey.model.semantic_detector import SemanticKeypointDetector


def check_backbone(detector: SemanticKeypointDetector) -> None:
    """Raise a ConfigError for a network whose backbone cannot be a graph for images of any size.

    Where patches do not divide the padded image, tokens are read at places that would keep the size they were traced
    with.
    """
    backbone = detector.backbone
    if backbone is not None and (PAD_MULTIPLE % backbone.architecture.patch or backbone.upsampling != "bilinear"):
        raise ConfigError(
            f"a network over the backbone '{detector.config.backbone}' with patches of "
            f"{backbone.architecture.patch} pixels and upsampling '{backbone.upsampling}' cannot be a graph for images "
            "of any size: take one with patches of 16 (vit-tiny, dinov3-small), or one without a backbone"
        )
    if backbone is not None and detector.extraction.place != "trained":
        raise ConfigError(f"a graph has the place 'trained', not '{detector.extraction.place}'")


class DenseGraph(nn.Module):
    """Dense maps of a detector, without those that have no channels.

    Args:
        detector: in evaluation mode.
        with_place: give the global descriptor; else the coarse maps that it is made of.
        only_needed: leave out what extraction does not read.

    Raises:
        ConfigError: of the network's backbone, see :func:`check_backbone`.
    """

    def __init__(
        self, detector: SemanticKeypointDetector, *, with_place: bool = True, only_needed: bool = False
    ) -> None:
        super().__init__()
        check_backbone(detector)
        self.detector = detector
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
    def inputs(self) -> list[str]:
        """Names of what it takes: a network over a backbone sees the images in colour as well."""
        return ["images"] if self.detector.backbone is None else ["images", "colors"]

    @property
    def names(self) -> list[str]:
        """Of the outputs, in order."""
        backbone = self.detector.backbone
        coarse = len(self.detector.config.context_channels) + (0 if backbone is None else len(backbone.channels))
        last = ["global_descriptor"] if self._with_place else [f"coarse{number}" for number in range(coarse)]
        return [*self._maps, *last]

    def forward(self, images: torch.Tensor, colors: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Dense maps, as :class:`DenseMaps` and :attr:`names` say.

        Args:
            images: (B, 1, H, W) float32 grey of zero mean and unit variance, H and W multiples of 32.
            colors: (B, 3, H, W) the same as RGB in [0, 1], for a backbone.
        """
        maps = self.detector(images, colors)
        found = [getattr(maps, name) for name in self._maps]
        return (*found, self.detector.place(maps.coarse)) if self._with_place else (*found, *maps.coarse)

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
