"""The network: image in, score map and feature maps out; and extraction of keypoints from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from torch import nn

from semkey.backbones.backbone import Backbone, BackboneFeatures
from semkey.backbones.global_descriptors import VladVocabulary, place_descriptor
from semkey.errors import ConfigError, InputError
from semkey.images.masks import shrink_mask
from semkey.model.config import ExtractionConfig, ModelConfig
from semkey.model.covariance import CovarianceHead
from semkey.model.dense import DenseMaps
from semkey.model.dkd import Peaks, detect_peaks, peaks_at
from semkey.model.features import Features
from semkey.model.gate import has_structure
from semkey.model.heads import (
    SDDH,
    GlobalHead,
    OffsetHead,
    ScoreHead,
    WindowOffset,
    score_from_log_probability,
)
from semkey.model.layers import fold_batch_norms
from semkey.model.pixels import CellSmoothing, PixelStem, window_log_probability
from semkey.model.precision import uses_bfloat16
from semkey.model.preprocess import (
    ImageLike,
    PreparedImage,
    inside_mask,
    load_pixels,
    prepare,
    prepare_colors,
    to_gray,
    to_network_pixels,
    to_original_pixels,
    to_rgb,
)
from semkey.model.pyramid import FeaturePyramid
from semkey.model.reliability import GridReliabilityHead, KeypointReliabilityHead
from semkey.model.stem import Context, DetailStem, Stem


class SemanticKeypointDetector(nn.Module):
    """Keypoints, descriptors and reliability from one image.

    Parts, each a module of its own: ``backbone`` (frozen; None for ``compact``), ``stem``, ``context``, ``pyramid``,
    ``detail``, ``detector``, ``descriptor``, ``offset``, ``reliability``, ``place``. Stem and context are empty
    where only the backbone is read.

    Args:
        config: shapes of the network.
        extraction: how keypoints are chosen.
        backbone: the one that ``config`` names, where it uses one; :func:`semkey.model.building.build_detector` loads
            it.

    Raises:
        ConfigError: the configuration uses a backbone and none, or one with other layers, was given.
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        extraction: ExtractionConfig | None = None,
        *,
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__()
        self.config = config or ModelConfig()
        self.extraction = extraction or ExtractionConfig()
        self.backbone = _matching_backbone(self.config, backbone)
        self.vocabulary: VladVocabulary | None = None
        semantic = () if self.backbone is None else self.backbone.channels
        channels = self.config.grid_channels
        stem: tuple[int, ...] = self.config.stem_channels if self.config.uses_convolutions else ()
        coarse: tuple[int, ...] = self.config.context_channels if self.config.uses_convolutions else ()
        by_pixels = self.config.detector == "pixels"
        self.stem = Stem(stem)
        self.context = Context(stem, self.config.context_channels)
        guided = self.config.upsampling == "attention"
        self.pyramid = FeaturePyramid(stem, coarse, channels, self.config.descriptor_stride, semantic, guided=guided)
        # what is read around a keypoint beside the score map; by pixels, the score map has all there is
        detail_channels = 0 if by_pixels else self.config.detail_channels
        self.detail: PixelStem | DetailStem
        self.detail = (
            PixelStem(self.config.pixel_channels, self.config.pixel_layers)
            if by_pixels
            else DetailStem(detail_channels, self.config.detail_stride)
        )
        self.detector = ScoreHead(channels, self.config.detector_channels)
        self.smoothing = CellSmoothing() if by_pixels else None
        self.descriptor = SDDH(
            channels, self.config.descriptor_dim, self.config.descriptor_positions, self.config.descriptor_stride
        )
        self.offset: OffsetHead | WindowOffset = (
            WindowOffset() if by_pixels else OffsetHead(detail_channels, self.config.detail_stride)
        )
        self.reliability = (
            GridReliabilityHead(channels)
            if self.config.reliability == "grid"
            else KeypointReliabilityHead(
                channels, self.config.descriptor_stride, detail_channels, self.config.detail_stride
            )
        )
        self.covariance: CovarianceHead | None = None
        if self.config.covariance and isinstance(self.reliability, KeypointReliabilityHead):
            self.covariance = CovarianceHead(self.reliability.width)
        self.place = GlobalHead((*coarse, *semantic), self.config.global_dim)
        # What computes the dense maps of extraction instead of torch, see semkey.runtimes.
        self.computed_by: Callable[[torch.Tensor, torch.Tensor | None], DenseMaps] | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    def optimize(self) -> Self:
        """Evaluation mode with batch norms folded into convolutions: same results, less time; not trainable after."""
        self.eval().requires_grad_(False)
        fold_batch_norms(self)
        self.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload] (missing in torch's stubs)
        return self

    def forward(
        self,
        images: torch.Tensor,
        colors: torch.Tensor | None = None,
        *,
        semantic: BackboneFeatures | None = None,
        decoupled: bool = False,
    ) -> DenseMaps:
        """Dense maps.

        Args:
            images: (B, 1, H, W) normalised grey, H and W multiples of 32 (see ``model.preprocess``).
            colors: (B, 3, H, W) the same images as RGB in [0, 1]; needed where there is a backbone.
            semantic: what the backbone makes of ``colors``, where that is known already.
            decoupled: the detector learns nothing into the features that descriptors are made of; the maps are the
                same.

        Raises:
            InputError: there is a backbone, and neither ``colors`` nor ``semantic``.
        """
        stem = self.stem(images)
        coarse = self.context(stem)
        if self.backbone is None:
            semantic = None
        elif semantic is None:
            if colors is None:
                raise InputError("a network with a backbone needs the images in colour as well")
            semantic = self.backbone(colors)
        grid, fine = self.pyramid(stem, coarse, semantic, (images.shape[-2], images.shape[-1]))
        seen = grid.detach() if decoupled else grid
        if self.smoothing is not None:
            detail = images.new_zeros(len(images), 0, *grid.shape[-2:])
            log_probability = window_log_probability(
                self.smoothing(self.detector.logits(seen)) + self.detail(images).float()
            )
        else:
            detail, logits = self.detail(images)
            log_probability = self.detector(seen, logits)
        if semantic is not None:
            coarse = (*coarse, *semantic.maps)
        return DenseMaps(
            log_probability=log_probability, grid=grid, fine=fine, detail=detail, coarse=coarse, semantic=semantic
        )

    def describe_place(self, maps: DenseMaps) -> torch.Tensor:
        """Global descriptors (B, G) float32, unit norm, as ``extraction.place`` says.

        Raises:
            ConfigError: it names one over a backbone, and there is none; or "vlad" without its vocabulary.
        """
        if self.extraction.place == "trained":
            return self.place(maps.coarse)
        if maps.semantic is None or self.backbone is None:
            raise ConfigError(f"place '{self.extraction.place}' is over a backbone, which this network does not have")
        return place_descriptor(self.extraction.place, maps.semantic, self.backbone.layers, self.vocabulary)

    def describe(self, maps: DenseMaps, keypoints: torch.Tensor) -> torch.Tensor:
        """Descriptors (B, N, D), unit norm, at pixels (B, N, 2) of the network's input."""
        return self.descriptor(maps.fine, keypoints)

    def detect(self, scores: torch.Tensor, extraction: ExtractionConfig | None = None) -> Peaks:
        """Peaks of one score map (H, W) in [0, 1] under ``extraction`` (default: the detector's own)."""
        config = extraction or self.extraction
        return detect_peaks(
            scores,
            radius=config.nms_radius,
            window=config.window,
            temperature=config.temperature,
            count=config.max_keypoints,
            min_score=config.min_score,
            border=min(config.border, min(scores.shape) // 16),  # small images keep most of their area
        )

    def refine(self, detail: torch.Tensor, peaks: Peaks) -> torch.Tensor:
        """Keypoints (N, 2) of one image after the offset head, pixels; ``detail`` is that map of it."""
        if isinstance(self.offset, WindowOffset):
            return peaks.pixels + self.offset(peaks.windows)
        return peaks.keypoints + self.offset(detail, peaks.keypoints[None], peaks.windows[None])[0]

    def predict_reliability(self, maps: DenseMaps, keypoints: torch.Tensor, peaks: Peaks) -> torch.Tensor:
        """Reliability of all keypoints of one image, before the sigmoid.

        Args:
            maps: of the image, a batch of one.
            keypoints: (N, 2) pixels of the network's input, refined.
            peaks: the N maxima that they were refined from.

        Returns:
            (N,) float32; gradients reach the reliability head alone.
        """
        return self.judge(maps, keypoints, peaks)[0]

    def judge(
        self, maps: DenseMaps, keypoints: torch.Tensor, peaks: Peaks, *, attached: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Reliability and covariance of all keypoints of one image, from the same inputs.

        Args:
            maps: of the image, a batch of one.
            keypoints: (N, 2) pixels of the network's input, refined.
            peaks: the N maxima that they were refined from.
            attached: gradients reach the maps as well, which everything else is made of (docs/decoupling.md).

        Returns:
            (N,) float32 reliability before the sigmoid, and (N, 2, 2) float32 in squared pixels of the network's input,
            None where the network has no head for it; gradients reach these two heads alone.
        """
        if isinstance(self.reliability, GridReliabilityHead):
            return self.reliability(maps.grid, keypoints.detach()[None], attached=attached)[0], None
        if len(keypoints) == 0:
            return keypoints.new_zeros(0), None if self.covariance is None else keypoints.new_zeros(0, 2, 2)
        inputs = self.reliability.inputs(
            maps.log_probability, maps.fine, maps.detail, keypoints, peaks, attached=attached
        )
        logits = self.reliability.layers(inputs).float()[:, 0]
        return logits, None if self.covariance is None else self.covariance(inputs)

    def extract(self, image: ImageLike, usable: np.ndarray | None = None) -> Features:
        """Keypoints of one image.

        Args:
            image: path, uint8 (H, W, 3) RGB, uint8 (H, W), or float tensor (3, H, W) in [0, 1]; any size.
            usable: (H, W) bool, the pixels on which keypoints may lie; None for all of them.

        Returns:
            Features in pixels of the image as given, on the detector's device; empty where nothing can be detected.

        Raises:
            InputError: the image cannot be used; the message says why.
            ConfigError: the network was turned to half precision.
        """
        return self.extract_batch([image], [usable])[0]

    def extract_batch(
        self, images: Sequence[ImageLike], usable: Sequence[np.ndarray | None] | None = None
    ) -> list[Features]:
        """Keypoints of several images of any sizes; the same results as one by one.

        Images that have the same size are computed together on a GPU. On a CPU a batch gains nothing, and one at a time
        keeps memory low and results bit-identical.
        """
        found = self._extract_batch(images, usable or [None] * len(images))
        return [features.map(torch.clone) for features in found]  # ordinary tensors, not those of inference mode

    @torch.inference_mode()
    def _extract_batch(self, images: Sequence[ImageLike], usable: Sequence[np.ndarray | None]) -> list[Features]:
        self._make_ready()
        pixels = [load_pixels(image) for image in images]
        prepared = [prepare(to_gray(image).to(self.device), self.extraction.max_side) for image in pixels]
        group_size = 8 if self.device.type == "cuda" else 1
        results: list[Features | None] = [None] * len(prepared)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, item in enumerate(prepared):
            by_size.setdefault(tuple(item.tensor.shape), []).append(index)
        for indices in by_size.values():
            for start in range(0, len(indices), group_size):
                part = indices[start : start + group_size]
                maps = self._maps([pixels[index] for index in part], [prepared[index] for index in part])
                for row, index in enumerate(part):
                    results[index] = self._features(maps.image(row), prepared[index], usable[index])
        return [features for features in results if features is not None]

    def extract_and_describe(
        self, image: ImageLike, points: torch.Tensor, usable: np.ndarray | None = None
    ) -> tuple[Features, torch.Tensor]:
        """Keypoints of one image, and descriptors of given points from the same pass through the network.

        Args:
            image: as :meth:`extract`.
            points: (M, 2) pixels of the image as given; points outside are moved to its edge.
            usable: as :meth:`extract`; points are described in any case.

        Returns:
            What :meth:`extract` returns, and (M, D) float32 descriptors of unit norm.

        Raises:
            InputError: the image cannot be used; the message says why.
            ConfigError: the network was turned to half precision.
        """
        with torch.inference_mode():
            maps, prepared = self._maps_of(image)
            wanted = to_network_pixels(points.to(self.device, torch.float32), prepared)
            with self._reduced():
                described = self.describe(maps, wanted[None])[0]
            features = self._features(maps, prepared, usable)
        return features.map(torch.clone), described.clone()

    def describe_points(self, image: ImageLike, points: torch.Tensor) -> Features:
        """Features of given points, in their order: descriptors, and what the heads think of them.

        Args:
            image: as :meth:`extract`.
            points: (N, 2) float32 pixels of the image as given, within it.

        Raises:
            InputError: the image cannot be used; the message says why.
            ConfigError: the network was turned to half precision.
        """
        with torch.inference_mode():
            maps, prepared = self._maps_of(image)
            wanted = to_network_pixels(points.to(self.device), prepared)
            scores = score_from_log_probability(maps.log_probability[0, 0])
            features = self._described(maps, prepared, wanted, peaks_at(scores, wanted, self.extraction.window))
        return replace(features.map(torch.clone), keypoints=points.to(self.device).clone())

    def _make_ready(self) -> None:
        """To evaluation mode, and back to nothing else.

        Raises:
            ConfigError: the network was turned to half precision, whose 11 bits do not hold positions.
        """
        dtype = next(self.detector.parameters()).dtype
        if dtype != torch.float32:
            raise ConfigError(
                f"the network's weights are {dtype}: extraction computes in bfloat16 by itself where that is quicker "
                "(precision=), so load the detector again or call float() on the network"
            )
        if self.training:
            self.eval()

    def _maps_of(self, image: ImageLike) -> tuple[DenseMaps, PreparedImage]:
        self._make_ready()
        pixels = load_pixels(image)
        prepared = prepare(to_gray(pixels).to(self.device), self.extraction.max_side)
        return self._maps([pixels], [prepared]), prepared

    def _reduced(self) -> torch.autocast:
        """The precision that convolutions and products of matrices are computed in."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=uses_bfloat16(self.extraction.precision, self.device)
        )

    def _maps(self, pixels: Sequence[np.ndarray | torch.Tensor], prepared: Sequence[PreparedImage]) -> DenseMaps:
        """Dense maps, float32, of checked images that are prepared to one size."""
        batch = torch.cat([item.tensor for item in prepared])
        colors = None
        if self.backbone is not None:
            views = [
                prepare_colors(to_rgb(image).to(self.device), item)
                for image, item in zip(pixels, prepared, strict=True)
            ]
            colors = torch.cat(views)
        if self.computed_by is not None:
            return self.computed_by(batch, colors)
        reduced = uses_bfloat16(self.extraction.precision, self.device)
        with self._reduced():
            maps = self(batch.bfloat16() if reduced else batch, colors)
        return maps.map(torch.Tensor.float)

    def _features(self, maps: DenseMaps, image: PreparedImage, usable: np.ndarray | None = None) -> Features:
        width, height = image.valid_size
        scores = score_from_log_probability(maps.log_probability[0, 0, :height, :width])
        if usable is None:
            peaks = self.detect(scores)
            keypoints = self.refine(maps.detail, peaks)
        else:
            # Before maxima are looked for: what is masked must not suppress what is beside it, nor count as found.
            pixels = torch.from_numpy(shrink_mask(usable, image.valid_size)).to(scores.device)
            peaks = self.detect(scores * pixels)
            peaks = peaks.select(pixels[peaks.pixels[:, 1], peaks.pixels[:, 0]])
            keypoints = inside_mask(self.refine(maps.detail, peaks), peaks.pixels, pixels)
        limit = torch.tensor([width - 1.0, height - 1.0], device=keypoints.device)
        keypoints = torch.minimum(keypoints.clamp(min=0.0), limit)
        found = self._described(maps, image, keypoints, peaks)
        return found.select(has_structure(image.tensor[0, 0, :height, :width] * image.contrast, keypoints))

    def _described(self, maps: DenseMaps, image: PreparedImage, keypoints: torch.Tensor, peaks: Peaks) -> Features:
        """Features at pixels (N, 2) of the network's input, which were refined from ``peaks``."""
        with self._reduced():
            reliability, covariances = self.judge(maps, keypoints, peaks)
            descriptors = self.describe(maps, keypoints[None])[0]
        if covariances is not None:
            original, valid = (keypoints.new_tensor(size) for size in (image.original_size, image.valid_size))
            covariances = covariances * (original / valid)[:, None] * (original / valid)
        return Features(
            keypoints=to_original_pixels(keypoints, image),
            scores=peaks.scores,
            reliability=torch.sigmoid(reliability),
            covariances=covariances,
            descriptors=descriptors,
            global_descriptor=self.describe_place(maps)[0],
            image_size=image.original_size,
        )


def _matching_backbone(config: ModelConfig, backbone: Backbone | None) -> Backbone | None:
    if not config.uses_backbone:
        return None
    if backbone is None:
        raise ConfigError(f"a network over '{config.backbone}' needs that backbone: make it with build_detector")
    if config.upsampling != backbone.upsampling:
        raise ConfigError(f"the backbone's upsampling is '{backbone.upsampling}', the network's '{config.upsampling}'")
    if config.backbone_layers and config.backbone_layers != backbone.layers:
        raise ConfigError(f"the backbone gives layers {backbone.layers}, the network reads {config.backbone_layers}")
    return backbone
