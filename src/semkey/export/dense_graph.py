"""The network without the choice of keypoints, as a graph with named maps."""

from __future__ import annotations

import torch

from semkey.backbones.backbone import BackboneFeatures
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
        with_place: give the global descriptor; else the coarse maps that it is made of, and the class token where it is
            one over a backbone.
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
        backbone, config = self.detector.backbone, self.detector.config
        coarse = len(config.context_channels) if config.uses_convolutions else 0
        coarse += 0 if backbone is None else len(backbone.channels)
        first = dict.fromkeys(self._maps, IMAGES)
        if self._with_place:
            return first | {"global_descriptor": BATCH}
        token = {"class_token": BATCH} if self._with_token else {}
        return first | {f"coarse{number}": IMAGES for number in range(coarse)} | token

    @property
    def _with_token(self) -> bool:
        return self.detector.extraction.place != "trained"

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
        if self._with_place:
            return (*found, self.detector.describe_place(maps))
        token = (maps.semantic.class_token,) if self._with_token and maps.semantic is not None else ()
        return (*found, *maps.coarse, *token)

    def maps(self, outputs: dict[str, torch.Tensor]) -> DenseMaps:
        """The outputs by name as :class:`DenseMaps`; what the graph left out has no channels."""
        first = outputs["log_probability"]
        nothing = first.new_zeros(len(first), 0, 1, 1)
        coarse = tuple(outputs[name] for name in self.names if name.startswith("coarse"))
        return DenseMaps(
            log_probability=first,
            grid=outputs.get("grid", nothing),
            fine=outputs["fine"],
            detail=outputs.get("detail", nothing),
            coarse=coarse,
            semantic=self._semantic(coarse, outputs),
        )

    def _semantic(self, coarse: tuple[torch.Tensor, ...], outputs: dict[str, torch.Tensor]) -> BackboneFeatures | None:
        """What a global descriptor over the backbone is made of: the last of the coarse maps are the backbone's."""
        backbone = self.detector.backbone
        if backbone is None or "class_token" not in outputs:
            return None
        maps = coarse[-len(backbone.channels) :]
        return BackboneFeatures(maps=maps, class_token=outputs["class_token"], patch=backbone.patch)
