"""Configuration of the network and of extraction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from semkey.backbones.specs import Upsampling, check_backbone_name
from semkey.errors import ConfigError
from semkey.settings import Settings, require, require_choice, require_within

Precision = Literal["auto", "float32", "bfloat16"]
Branches = Literal["hybrid", "fine", "semantic"]
Reliability = Literal["keypoint", "grid"]
Detector = Literal["pixels", "cells"]
Place = Literal["trained", "cls", "gem", "vlad"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Shapes of the network; stored in every checkpoint.

    Attributes:
        backbone: frozen backbone: a preset (``vit-tiny``, ``dinov2-base-reg``, ...), ``owner/name`` of a ViT on the hub
            or a folder, see :func:`semkey.backbones.loading.load_backbone`; "none" for the convolutions alone.
        backbone_layers: which of its layers feed the pyramid, counted from 1; empty for four at equal distances.
        upsampling: how the backbone's tokens become finer than they are: "bilinear"; "attention", learned from
            what the convolutions see (:class:`semkey.backbones.guided_upsampling.GuidedUpsampling`); "shift-average" or
            "resolution", for four times the time, see :class:`semkey.backbones.backbone.Backbone`.
        branches: "hybrid" fuses the convolutions with the backbone; "fine" leaves the backbone out, which is the
            network without one; "semantic" leaves the convolutions out, but for the reading of positions inside a cell.
        stem_channels: channels of the stem at strides 2, 4 and 8; two numbers for strides 4 and 8 only (faster).
        detector: "pixels" gives each pixel a logit of its own from evidence at full resolution, and follows a picture
            that is moved; "cells" a softmax inside fixed 8 x 8 cells, the detector of 0.1.0; files without this key
            have the latter.
        pixel_channels: of "pixels": channels of the convolutions at full resolution.
        pixel_layers: of "pixels": how many there are, 3 or 2 (faster).
        detail_channels: of "cells": channels of the detail stem, which positions are read from.
        detail_stride: of "cells": its stride, 2 or 4 (faster).
        context_channels: channels at strides 16 and 32 of the convolutions.
        grid_channels: channels of the fused pyramid map, one cell per 8 x 8 pixels.
        detector_channels: channels of the score head.
        descriptor_dim: descriptor width D.
        descriptor_positions: deformable samples M per keypoint (SDDH).
        descriptor_stride: of the map that they are read from, 4 or 8 (faster).
        global_dim: width G of the global descriptor.
        reliability: which head predicts it: "keypoint" reads scores and features around the keypoint, "grid" the fused
            map alone; files without this key have the latter, see :func:`ModelConfig.from_stored`.
        covariance: whether a covariance of each keypoint is predicted, from what the "keypoint" reliability head reads;
            files without this key have none.
    """

    backbone: str = "none"
    backbone_layers: tuple[int, ...] = ()
    upsampling: Upsampling = "bilinear"
    branches: Branches = "hybrid"
    stem_channels: tuple[int, ...] = (16, 32, 64)
    detector: Detector = "cells"
    pixel_channels: int = 8
    pixel_layers: int = 3
    detail_channels: int = 16
    detail_stride: int = 2
    context_channels: tuple[int, int] = (96, 96)
    grid_channels: int = 64
    detector_channels: int = 64
    descriptor_dim: int = 64
    descriptor_positions: int = 16
    descriptor_stride: int = 4
    global_dim: int = 256
    reliability: Reliability = "keypoint"
    covariance: bool = False

    @classmethod
    def from_stored(cls, values: Mapping[str, Any]) -> Self:
        """From a checkpoint's mapping; what it does not name, because there was no choice then, is as it was."""
        return cls.from_mapping({"reliability": "grid", "detector": "cells", "covariance": False, **values})

    def __post_init__(self) -> None:
        require_choice(self, "upsampling", "branches", "reliability", "detector")
        needs_one = self.backbone_layers or self.branches == "semantic" or self.upsampling != "bilinear"
        if self.backbone == "none" and needs_one:
            raise ConfigError("backbone_layers, upsampling and branches 'semantic' need a backbone, it is none")
        if self.upsampling == "attention" and self.branches == "semantic":
            raise ConfigError(
                "upsampling 'attention' is guided by the convolutions, which branches 'semantic' leaves out"
            )
        if self.backbone != "none":
            check_backbone_name(self.backbone)
        widths = (self.pixel_channels, *self.stem_channels, self.detail_channels)
        widths = (*widths, *self.context_channels, self.grid_channels)
        widths = (*widths, self.detector_channels, self.descriptor_dim, self.descriptor_positions, self.global_dim)
        if len(self.stem_channels) not in (2, 3) or len(self.context_channels) != 2:
            raise ConfigError("stem_channels must have 2 or 3 and context_channels 2 entries")
        if self.detail_stride not in (2, 4):
            raise ConfigError(f"detail_stride is {self.detail_stride}, must be 2 or 4")
        if self.pixel_layers not in (2, 3):
            raise ConfigError(f"pixel_layers is {self.pixel_layers}, must be 2 or 3")
        if self.covariance and self.reliability != "keypoint":
            raise ConfigError("covariance reads what the reliability head 'keypoint' reads: set one of them otherwise")
        if self.descriptor_stride not in (4, 8):
            raise ConfigError(f"descriptor_stride is {self.descriptor_stride}, must be 4 or 8")
        if not all(isinstance(width, int) and 1 <= width <= 4096 for width in widths):
            raise ConfigError(f"channel counts must be whole numbers from 1 to 4096, got {widths}")

    @property
    def uses_backbone(self) -> bool:
        """Whether the network reads a backbone."""
        return self.backbone != "none" and self.branches != "fine"

    @property
    def network(self) -> ModelConfig:
        """The same network, without the name of a backbone that it does not read."""
        if self.uses_backbone:
            return self
        return replace(self, backbone="none", backbone_layers=(), upsampling="bilinear", branches="hybrid")

    @property
    def uses_convolutions(self) -> bool:
        """Whether stem and context are part of the network."""
        return not (self.uses_backbone and self.branches == "semantic")


@dataclass(frozen=True, kw_only=True)
class ExtractionConfig(Settings):
    """How keypoints are chosen from the score map.

    Attributes:
        max_keypoints: at most this many keypoints, strongest first.
        min_score: keypoints below this score are dropped, in [0, 1].
        nms_radius: a keypoint is the maximum of its (2 r + 1) x (2 r + 1) window, pixels, 1 to 3.
        window: side of the soft-argmax window, pixels, odd.
        border: no keypoints closer than this to the edge of the image, pixels of the network's input. What the edge
            cuts is found again at another place of the scene, and matches of it claim that the camera stands still.
        temperature: soft-argmax temperature on scores in [0, 1].
        max_side: larger images are scaled down so that their longer side has this many pixels.
        precision: of the convolutions: "float32", "bfloat16", or "auto": bfloat16 on a CPU with instructions for it,
            float32 elsewhere. Positions, scores and descriptors are float32 in any case.
        place: what the global descriptor is: "trained" that of the network's own head; over a backbone also "cls", its
            class token, "gem", the generalised mean of its tokens, and "vlad", over ``vocabulary``.
        vocabulary: of "vlad": the file that ``semkey vocabulary`` has written.
    """

    max_keypoints: int = 1024
    min_score: float = 0.0
    nms_radius: int = 3
    window: int = 5
    border: int = 8
    temperature: float = 0.1
    max_side: int = 1600
    precision: Precision = "auto"
    place: Place = "trained"
    vocabulary: str = ""

    def __post_init__(self) -> None:
        require_within(self, "[1, inf)", "max_keypoints")
        require_within(self, "[0, 1]", "min_score")
        require_within(self, "[1, 3]", "nms_radius")
        require(self.window % 2 == 1 and self.window >= 3, f"window is {self.window}, must be odd and at least 3")
        require_within(self, "[0, inf)", "border")
        require_within(self, "(0, inf)", "temperature")
        require_within(self, "[32, inf)", "max_side")
        require_choice(self, "precision", "place")
        if (self.place == "vlad") != bool(self.vocabulary):
            raise ConfigError("place 'vlad' and vocabulary belong together: name a file of semkey vocabulary with it")
