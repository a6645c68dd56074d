"""LightGlue as one graph: keypoints and descriptors of two images in, matches out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from semkey.export.graph import BATCH, Axes, OnnxGraph
from semkey.matching.lightglue.assignment import partners_by_scores
from semkey.matching.lightglue.checkpoint import MatcherInfo
from semkey.matching.lightglue.network import Network, first_states, next_states

# Added to logits of rows that are no keypoints: their weight is 0, and where there are no others nothing becomes NaN.
_NEVER = -1e9
_COUNTS = ((2, 60, 47), (1, 90, 128), (1, 33, 17))
_TAKES = (
    "of image 0 and 1: keypoints (batch, n, 2) float32 pixels x y; descriptors (batch, n, {width}) float32 of unit "
    "norm, of '{features}'; valid (batch, n) bool, which rows are keypoints; size (batch, 2) float32 width and height "
    "of the images"
)


class MatcherGraph(OnnxGraph):
    """What :class:`semkey.matching.lightglue.trained.TrainedLightGlue` finds when it neither stops early nor prunes.

    Args:
        network: of a file of ``semkey train-matcher``, on the CPU.
        info: what the file says of it.
    """

    kind = "matcher"

    def __init__(self, network: Network, info: MatcherInfo) -> None:
        super().__init__()
        self.network, self.info = network.eval().requires_grad_(False), info

    @property
    def inputs(self) -> dict[str, Axes]:
        """Names of what it takes, in order: four of image 0, then the same of image 1."""
        axes: dict[str, Axes] = {}
        for number in (0, 1):
            rows = {0: "batch", 1: f"keypoints{number}"}
            axes |= {f"{name}{number}": rows for name in ("keypoints", "descriptors", "valid")}
            axes[f"size{number}"] = BATCH
        return axes

    @property
    def outputs(self) -> dict[str, Axes]:
        """Names of what it gives, in order."""
        rows = {0: "batch", 1: "keypoints0"}
        return {"matches": rows, "scores": rows}

    @property
    def takes(self) -> str:
        """The inputs in words."""
        return _TAKES.format(width=self.info.input_dim, features=self.info.features)

    def examples(self, number: int) -> tuple[torch.Tensor, ...]:
        """Random keypoints, of which image 1 shows half again with a little noise, in another order."""
        rng = torch.Generator().manual_seed(number)
        batch, *counts = _COUNTS[number]
        size = torch.tensor([[640.0, 480.0]]).expand(batch, 2)
        keypoints = [torch.rand(batch, count, 2, generator=rng) * size[:, None] for count in counts]
        descriptors = [torch.randn(batch, count, self.info.input_dim, generator=rng) for count in counts]
        for one in (keypoints, descriptors):
            common = min(counts) // 2
            one[1] = torch.cat([one[0][:, :common].flip(1), one[1][:, common:]], dim=1)
            one[1] = one[1] + 0.05 * torch.randn(one[1].shape, generator=rng)
        valid = [torch.rand(batch, count, generator=rng) < 0.9 for count in counts]
        rows = zip(keypoints, descriptors, valid, strict=True)
        return tuple(
            tensor
            for points, vectors, there in rows
            for tensor in (points, F.normalize(vectors, dim=2), there, size.clone())
        )

    def forward(
        self,
        keypoints0: torch.Tensor,
        descriptors0: torch.Tensor,
        valid0: torch.Tensor,
        size0: torch.Tensor,
        keypoints1: torch.Tensor,
        descriptors1: torch.Tensor,
        valid1: torch.Tensor,
        size1: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Match.

        Args:
            keypoints0: (B, M, 2) pixels of image 0.
            descriptors0: (B, M, D) of unit norm.
            valid0: (B, M) bool, which rows are keypoints.
            size0: (B, 2) width and height of image 0, pixels.
            keypoints1: (B, N, 2) likewise for image 1.
            descriptors1: (B, N, D).
            valid1: (B, N).
            size1: (B, 2).

        Returns:
            (B, M) int64, the keypoint of image 1 that each one of image 0 is matched with, -1 for none; and (B, M)
            float32, the confidence of its best partner in [0, 1], matched or not.
        """
        # A row more that is none: so an image may have no keypoints at all.
        keypoints0, keypoints1, descriptors0, descriptors1 = (
            F.pad(tensor, (0, 0, 0, 1)) for tensor in (keypoints0, keypoints1, descriptors0, descriptors1)
        )
        there = [F.pad(valid.float(), (0, 1)) > 0.5 for valid in (valid0, valid1)]
        bias0, bias1 = (torch.where(rows, 0.0, _NEVER)[:, None, None] for rows in there)
        states, codes = first_states(
            self.network, (keypoints0, keypoints1), (descriptors0, descriptors1), (size0, size1)
        )
        for layer in self.network.transformers:
            states = next_states(layer, states, codes, (bias0, bias1))
        scores = self._scores(states[0], states[1], bias0[:, 0, 0], bias1[:, 0, 0])
        scores = torch.where(there[0][:, :, None] & there[1][:, None], scores, _NEVER)
        partners, _, confidences = partners_by_scores(F.pad(scores, (0, 1, 0, 1)), self.info.filter_threshold)
        return partners[:, :-1], confidences[:, :-1]

    def _scores(
        self, state0: torch.Tensor, state1: torch.Tensor, bias0: torch.Tensor, bias1: torch.Tensor
    ) -> torch.Tensor:
        """Log assignment (B, M, N) of the last layer, as kornia computes it, among the rows that are keypoints."""
        last = self.network.log_assignment[-1]
        wide0, wide1 = (last.final_proj(state) / state.shape[-1] ** 0.25 for state in (state0, state1))
        similarity = wide0 @ wide1.transpose(1, 2)
        rows = F.log_softmax(similarity + bias1[:, None], dim=2)
        columns = F.log_softmax(similarity + bias0[:, :, None], dim=1)
        certain0, certain1 = (F.logsigmoid(last.matchability(state)) for state in (state0, state1))
        return rows + columns + certain0 + certain1.transpose(1, 2)
