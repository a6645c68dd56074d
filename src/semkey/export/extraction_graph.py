"""The whole extraction as one graph: image in; keypoints, descriptors and reliability out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from semkey.export.gate_graph import StructureGate
from semkey.export.graph import BATCH, IMAGES, Axes, OnnxGraph
from semkey.model.dense import DenseMaps
from semkey.model.dkd import soft_argmax
from semkey.model.gate import LEAST_RATIO
from semkey.model.heads import QuadraticOffset, score_from_log_probability
from semkey.model.preprocess import PAD_MULTIPLE, without_frame
from semkey.model.reliability import GridReliabilityHead, KeypointReliabilityHead
from semkey.model.semantic_detector import SemanticKeypointDetector

#: Names of the graph's outputs in order; ``covariances`` only where the network has a head for it.
OUTPUTS = ("keypoints", "scores", "reliability", "descriptors", "global_descriptor", "valid", "covariances")
# Grey levels of an image of eight bits, which the gate counts in.
_LEVELS = 255.0
_NOTHING = -1.0
_LARGEST_BORDER_SHARE = 16
_LEAST_CONTRAST = 0.02
_SIDES = ((130, 201), (160, 224), (256, 96))
_TAKES = {
    1: "image (batch, 1, height, width) float32 grey (OpenCV's RGB2GRAY) in [0, 1], sides of 32 pixels and more",
    3: "image (batch, 3, height, width) float32 RGB in [0, 1], sides of 32 pixels and more",
}


class ExtractionGraph(OnnxGraph):
    """What :meth:`SemanticKeypointDetector.extract` does, in operations that a graph can hold.

    Every image gets the same number of rows; those that stand for a keypoint are ``valid``. Images are not scaled down:
    larger ones than ``max_side`` are to be resized before.

    Args:
        detector: in evaluation mode; its ``extraction`` says how keypoints are chosen.
    """

    kind = "extraction"

    def __init__(self, detector: SemanticKeypointDetector) -> None:
        super().__init__()
        self.detector = detector
        # A frozen backbone is in nobody's parameters; registered here, its weights are in the file once.
        self.transformer = None if detector.backbone is None else detector.backbone.network
        self.gate = StructureGate()

    @property
    def channels(self) -> int:
        """Of the images that it takes: grey, or colours for a backbone."""
        return 1 if self.detector.backbone is None else 3

    @property
    def inputs(self) -> dict[str, Axes]:
        """The name of what it takes."""
        return {"image": IMAGES}

    @property
    def outputs(self) -> dict[str, Axes]:
        """Names of what it gives, in order."""
        return dict.fromkeys(OUTPUTS if self.detector.covariance is not None else OUTPUTS[:-1], BATCH)

    @property
    def takes(self) -> str:
        """The input in words."""
        return _TAKES[self.channels]

    @property
    def compared(self) -> list[str]:
        """Keypoints of nearly equal scores may change places: what is equal in order are the scores."""
        return ["scores", "global_descriptor"]

    def examples(self, number: int) -> tuple[torch.Tensor, ...]:
        """Noise of the shape that it takes."""
        rng = torch.Generator().manual_seed(number)
        return (torch.rand(1 if number else 2, self.channels, *_SIDES[number], generator=rng),)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Extract.

        Args:
            image: (B, 1, H, W) float32 grey in [0, 1], over a backbone (B, 3, H, W) RGB; H and W at least 32.

        Returns:
            For K = ``max_keypoints``, strongest first: keypoints (B, K, 2) pixels x y, pixel centres at integers;
            scores (B, K); reliability (B, K) in [0, 1]; descriptors (B, K, D) of unit norm; the global descriptor
            (B, G); valid (B, K) bool; and covariances (B, K, 2, 2) in pixels squared where the network has them.
        """
        height, width = image.shape[-2:]
        gray = image if self.channels == 1 else _grey(image)
        picture = without_frame(gray)
        centred = picture - picture.mean(dim=(2, 3), keepdim=True)
        contrast = centred.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp(min=_LEAST_CONTRAST)
        rows = torch.arange(_padded(height)).clamp(max=height - 1)
        columns = torch.arange(_padded(width)).clamp(max=width - 1)
        padded = (centred / contrast).index_select(2, rows).index_select(3, columns)
        colors = None if self.channels == 1 else image.index_select(2, rows).index_select(3, columns)
        maps = self.detector(padded, colors)
        scores = score_from_log_probability(maps.log_probability[:, 0])
        pixels, values, windows = self._peaks(scores, height, width)
        limit = torch.stack([_number(width), _number(height)]).to(scores.dtype) - 1.0
        keypoints = torch.minimum(self._refined(maps, pixels, windows).clamp(min=0.0), limit)
        found = values > max(self.detector.extraction.min_score, 0.0)
        reliability, covariances = self._judged(maps, scores, pixels, keypoints, values, found)
        descriptors = self.detector.describe(maps, keypoints)
        valid = found & (self.gate(_LEVELS * (gray - 0.5), keypoints) >= LEAST_RATIO)
        place = self.detector.describe_place(maps)
        outputs = (keypoints, values.clamp(min=0.0), reliability, descriptors, place, valid)
        return outputs if covariances is None else (*outputs, covariances)

    def _peaks(self, scores: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The strongest maxima (B, K, 2) of maps (B, H, W), their scores (B, K) and windows (B, K, w * w)."""
        extraction = self.detector.extraction
        radius, count, window = extraction.nms_radius, extraction.max_keypoints, extraction.window
        side, rows, columns = 2 * radius + 1, scores.shape[1], scores.shape[2]
        shorter = torch.minimum(_number(height), _number(width)) // _LARGEST_BORDER_SHARE
        border = shorter.clamp(max=extraction.border).clamp(min=window // 2)
        y, x = torch.arange(rows)[:, None], torch.arange(columns)[None, :]
        inside = (y >= border) & (y < height - border) & (x >= border) & (x < width - border)
        inner = torch.where(inside, scores, _NOTHING)[:, None]
        highest = F.max_pool2d(inner, side, stride=1, padding=radius)
        # Of equal neighbours the first in row order wins: what lies above, and before in the same row, is lower.
        above = F.max_pool2d(F.pad(inner, (radius, radius, radius, 0), value=_NOTHING), (radius, side), stride=1)
        before = F.max_pool2d(F.pad(inner, (radius, 0, 0, 0), value=_NOTHING), (1, radius), stride=1)
        earlier = torch.maximum(above[..., :rows, :], before[..., :columns])
        peaks = (inner >= highest) & (inner > earlier) & (inner > 0.0)
        ranked = F.pad(torch.where(peaks, inner, _NOTHING).flatten(1), (0, count), value=_NOTHING)
        values, flat = torch.topk(ranked, count, dim=1)
        reach = window // 2
        row = flat // columns
        column = flat - row * columns  # % is not converted for sizes that are not known
        column = torch.clamp(column, min=reach).clamp(max=columns - 1 - reach)
        row = torch.clamp(row, min=reach).clamp(max=rows - 1 - reach)
        pixels = torch.stack([column, row], dim=-1)
        return pixels, values, _windows(scores, pixels, reach)

    def _refined(self, maps: DenseMaps, pixels: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Keypoints (B, K, 2)."""
        offset = self.detector.offset
        if isinstance(offset, QuadraticOffset):
            shifts = offset(windows.flatten(0, 1)).reshape(pixels.shape)
            return pixels.float() + shifts
        places = pixels.float() + soft_argmax(windows, self.detector.extraction.temperature)
        return places + offset(maps.detail, places, windows)

    def _judged(
        self,
        maps: DenseMaps,
        scores: torch.Tensor,
        pixels: torch.Tensor,
        keypoints: torch.Tensor,
        values: torch.Tensor,
        found: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Reliability (B, K), and covariances (B, K, 2, 2) or None."""
        head = self.detector.reliability
        if isinstance(head, GridReliabilityHead):
            return torch.sigmoid(head(maps.grid, keypoints)), None
        inputs = _head_inputs(head, maps, scores, pixels, keypoints, values, found)
        reliability = torch.sigmoid(head.layers(inputs)[..., 0])
        return reliability, None if self.detector.covariance is None else self.detector.covariance(inputs)


def _head_inputs(
    head: KeypointReliabilityHead,
    maps: DenseMaps,
    scores: torch.Tensor,
    pixels: torch.Tensor,
    keypoints: torch.Tensor,
    values: torch.Tensor,
    found: torch.Tensor,
) -> torch.Tensor:
    """What :meth:`KeypointReliabilityHead.inputs` gives for one image, for a batch: (B, K, inputs)."""
    from semkey.model.layers import sample_map

    weights = found.to(values.dtype)
    mean = (values * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1.0)
    lowest = torch.where(found, values, 2.0).amin(dim=1, keepdim=True)
    around = _windows(scores, pixels, head.radius) - values[..., None]
    standing = torch.stack([values, values - mean, values - lowest], dim=-1)
    parts = [10.0 * around, 10.0 * standing, sample_map(maps.fine, keypoints, head.fine_stride)]
    if maps.detail.shape[1] > 0:
        parts.append(sample_map(maps.detail, keypoints[:, :, None] + head.patch, head.detail_stride).flatten(2))
    return torch.cat(parts, dim=-1)


def _windows(scores: torch.Tensor, pixels: torch.Tensor, reach: int) -> torch.Tensor:
    """Scores (B, K, s * s) of maps (B, H, W) around pixels (B, K, 2), s = 2 reach + 1; the border is repeated."""
    height, width = scores.shape[1], scores.shape[2]
    steps = torch.arange(-reach, reach + 1)
    rows = (pixels[..., 1, None] + steps).clamp(min=0).clamp(max=height - 1)
    columns = (pixels[..., 0, None] + steps).clamp(min=0).clamp(max=width - 1)
    flat = (rows[..., :, None] * width + columns[..., None, :]).flatten(1)
    return scores.flatten(1).gather(1, flat).reshape(pixels.shape[0], pixels.shape[1], (2 * reach + 1) ** 2)


def _grey(image: torch.Tensor) -> torch.Tensor:
    """OpenCV's RGB2GRAY of images of eight bits (B, 3, H, W) in [0, 1]: whole levels, in fractions of 2^15."""
    levels = torch.round(image * _LEVELS)
    weighted = 9798.0 * levels[:, :1] + 19235.0 * levels[:, 1:2] + 3735.0 * levels[:, 2:]
    return torch.floor((weighted + 16384.0) / 32768.0) / _LEVELS


def _number(side: int) -> torch.Tensor:
    """A side of an image; where a graph is traced it is a tensor already, and stays one that changes with the image."""
    return torch.as_tensor(side)


def _padded(side: int) -> int:
    return (side + PAD_MULTIPLE - 1) // PAD_MULTIPLE * PAD_MULTIPLE
