"""Learning from a trained detector: a small network imitates the score map and the descriptors of a larger one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F

from semkey.errors import ConfigError
from semkey.losses.detection import cell_cross_entropy, pixel_cross_entropy
from semkey.model.checkpoint import load_checkpoint, read_config
from semkey.model.config import ModelConfig
from semkey.model.dense import DenseMaps
from semkey.model.presets import presets
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.stage_config import IMITATION_LOSSES


class Guide:
    """A frozen detector and how to imitate it.

    Args:
        source: name of a preset, or path of a checkpoint.
        learner: shapes of the network that imitates it; descriptors must have the same width.
        device: where to compute.
        shifts: probabilities are averaged over so many shifts of the images, 1 to 8, see :func:`shift_averaged`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ConfigError: descriptors differ in width.
    """

    def __init__(self, source: str, learner: ModelConfig, device: torch.device, *, shifts: int = 1) -> None:
        self.shifts = shifts
        preset = presets().get(source)
        model = load_checkpoint(preset.path, preset.sha256) if preset else load_checkpoint(source)
        if model.config.descriptor_dim != learner.descriptor_dim:
            raise ConfigError(
                f"guide {source} has descriptors of width {model.config.descriptor_dim}, the model to train has"
                f" {learner.descriptor_dim}: set model.descriptor_dim"
            )
        self.model = model.optimize().to(device)

    def losses(
        self,
        model: SemanticKeypointDetector,
        maps: DenseMaps,
        guide_maps: DenseMaps,
        batch: Mapping[str, torch.Tensor],
        wanted: set[str],
    ) -> dict[str, torch.Tensor]:
        """Those of :data:`IMITATION_LOSSES` that are wanted.

        Args:
            model: that learns.
            maps: its maps of 2B images, view 0 of each pair, then view 1.
            guide_maps: of the guide for the same images.
            batch: the pairs; their points are where descriptors are compared.
            wanted: names of losses.
        """
        losses: dict[str, torch.Tensor] = {}
        if "imitate_scores" in wanted:
            targets = guide_maps.log_probability[:, 0].exp()
            valid = torch.ones_like(targets, dtype=torch.bool)
            cross_entropy = pixel_cross_entropy if model.config.detector == "pixels" else cell_cross_entropy
            losses["imitate_scores"] = cross_entropy(maps.log_probability[:, 0], targets, valid)
        if "imitate_descriptors" in wanted:
            points = torch.cat([batch["points0"], batch["points1"]])
            with torch.no_grad():
                targets = self.model.describe(guide_maps, points)
            losses["imitate_descriptors"] = 1.0 - (model.describe(maps, points) * targets).sum(dim=-1).mean()
        return losses

    @torch.no_grad()
    def maps(self, images: torch.Tensor, colors: torch.Tensor | None = None) -> DenseMaps:
        """Dense float32 maps of the guide, in the precision of the surrounding autocast."""
        maps = self.model(images, colors).map(torch.Tensor.float)
        if self.shifts == 1:
            return maps
        return replace(
            maps, log_probability=shift_averaged(self.model, maps.log_probability, images, colors, self.shifts)
        )


@torch.no_grad()
def shift_averaged(
    model: SemanticKeypointDetector,
    log_probability: torch.Tensor,
    images: torch.Tensor,
    colors: torch.Tensor | None,
    shifts: int,
) -> torch.Tensor:
    """What a detector says of images on average over places of its grid.

    The images are moved by (k, 3 k mod 8) pixels, their edges repeated, and the probabilities moved back: after eight
    shifts every pixel has been in each column and each row of an 8 x 8 cell. Averaged so, the shipped detector with
    cells matches far better than by itself (docs/training.md), and an edge, whose place in the cell decided where along
    it a keypoint appeared, is spread out while a corner stays.

    Args:
        model: the detector.
        log_probability: (B, 1, H, W) of the images as they are.
        images: (B, 1, H, W) normalised.
        colors: (B, 3, H, W), where the detector has a backbone.
        shifts: how many, 2 to 8, the images as they are included.

    Returns:
        (B, 1, H, W) log of the mean probability.
    """
    total = log_probability.exp()
    height, width = images.shape[-2:]
    for number in range(1, shifts):
        x, y = number, 3 * number % 8
        moved = [
            None if values is None else F.pad(values, (x, 0, y, 0), mode="replicate")[..., :height, :width].contiguous()
            for values in (images, colors)
        ]
        shown = model(moved[0], moved[1]).log_probability.float().exp()
        back = total / number  # what the shift moves out of the picture
        back[..., : height - y, : width - x] = shown[..., y:, x:]
        total = total + back
    return (total / shifts).clamp(min=1e-12).log()


def guide_reads_colors(source: str) -> bool:
    """Whether a guide has a backbone, and so needs the views in colour."""
    preset = presets().get(source)
    return read_config(preset.path if preset else source).uses_backbone


def wants_guide(weights: Mapping[str, float]) -> bool:
    """Whether any of the losses needs a guide."""
    return any(weights.get(name, 0.0) > 0 for name in IMITATION_LOSSES)
