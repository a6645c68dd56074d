"""LightGlue's network (Lindenberger et al. 2023) of any size, through kornia; it starts as a dual softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from semkey.errors import ConfigError
from semkey.settings import Settings, require, require_within

Network = Any
"""``kornia.feature.LightGlue``; kornia is loaded only where a network is built."""
Pair = tuple[torch.Tensor, torch.Tensor]
Masks = Pair | tuple[None, None]

# A cosine of 1 counts as much as a logit of this size where training begins: what a dual softmax of compact's
# descriptors works best with lies between 15 and 30.
_START_TEMPERATURE = 20.0
_START_MATCHABILITY = 1.0


@dataclass(frozen=True, kw_only=True)
class LightGlueShape(Settings):
    """Size of the network.

    Attributes:
        layers: of self-attention and cross-attention each.
        width: of the state of a keypoint; less than the width of the descriptors loses some of what they say.
        heads: of every attention; ``width`` is a multiple of four times this.
    """

    layers: int = 4
    width: int = 96
    heads: int = 4

    def __post_init__(self) -> None:
        require_within(self, "[1, 32]", "layers")
        require_within(self, "[8, 1024]", "width")
        require_within(self, "[1, 64]", "heads")
        require(self.width % (4 * self.heads) == 0, f"width {self.width} is no multiple of 4 x {self.heads} heads")


def build_network(
    input_dim: int,
    shape: LightGlueShape,
    *,
    filter_threshold: float = 0.1,
    depth_confidence: float | None = None,
    width_confidence: float | None = None,
) -> Network:
    """The network with random weights, on the CPU; takes no caller's random numbers.

    Args:
        input_dim: width of the descriptors.
        shape: its size.
        filter_threshold: smallest confidence of a match.
        depth_confidence: :mod:`semkey.matching.lightglue.adaptive` stops after a layer at which more than this share of
            keypoints are sure of their matches; None: never.
        width_confidence: and leaves keypoints out that are sure, and unmatchable with more than this probability; None:
            none.

    Raises:
        ConfigError: kornia is not installed.
    """
    try:
        from kornia.feature import LightGlue
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "kornia":
            raise
        raise ConfigError("LightGlue runs through kornia: pip install 'semkey[peers]'") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = LightGlue(
            None,  # ty: ignore[invalid-argument-type] (documented: builds the network without a download)
            input_dim=input_dim,
            descriptor_dim=shape.width,
            n_layers=shape.layers,
            num_heads=shape.heads,
            depth_confidence=-1 if depth_confidence is None else depth_confidence,
            width_confidence=-1 if width_confidence is None else width_confidence,
            filter_threshold=filter_threshold,
        )
        # kornia leaves it out where the widths are equal; here it also gives states a norm that suits layer norms.
        network.input_proj = nn.Linear(input_dim, shape.width)
    return network


def start_as_dual_softmax(network: Network) -> None:
    """Set first weights with which every layer assigns by a dual softmax of the descriptors' cosines.

    The last layer of every residual branch is 0, descriptors enter by an isometry, and the projections before the
    assignment are a multiple of the identity. So training starts from what nearest neighbours find, and attention only
    has to learn what they do not know; from random weights the first hours go by to find that alone.
    """
    width = network.conf.descriptor_dim
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nn.init.orthogonal_(network.input_proj.weight, gain=width**0.5)
        nn.init.zeros_(network.input_proj.bias)
        for layer in network.transformers:
            for block in (layer.self_attn, layer.cross_attn):
                nn.init.zeros_(block.ffn[3].weight)
                nn.init.zeros_(block.ffn[3].bias)
        for assignment in network.log_assignment:
            # Descriptors of norm sqrt(width) give products of width x cosine, divided by sqrt(width).
            assignment.final_proj.weight.copy_((_START_TEMPERATURE / width**0.5) ** 0.5 * torch.eye(width))
            nn.init.zeros_(assignment.final_proj.bias)
            nn.init.zeros_(assignment.matchability.weight)
            nn.init.constant_(assignment.matchability.bias, _START_MATCHABILITY)


def layer_states(
    network: Network,
    keypoints: tuple[torch.Tensor, torch.Tensor],
    descriptors: tuple[torch.Tensor, torch.Tensor],
    sizes: tuple[torch.Tensor, torch.Tensor],
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The states (B, M, width) and (B, N, width) of both images' keypoints after each layer.

    Args:
        network: as built.
        keypoints: (B, M, 2) and (B, N, 2) pixels.
        descriptors: (B, M, D) and (B, N, D) of unit norm.
        sizes: (B, 2) each, width and height of the images, pixels.
    """
    pair, codes = first_states(network, keypoints, descriptors, sizes)
    states = []
    for layer in network.transformers:
        pair = next_states(layer, pair, codes)
        states.append(pair)
    return states


def first_states(
    network: Network,
    keypoints: tuple[torch.Tensor, torch.Tensor],
    descriptors: tuple[torch.Tensor, torch.Tensor],
    sizes: tuple[torch.Tensor, torch.Tensor],
) -> tuple[Pair, Pair]:
    """The states before the first layer, and the codes of places (2, B, 1, N, head) that every layer takes."""
    points0, points1 = (normalised(points, size) for points, size in zip(keypoints, sizes, strict=True))
    states = network.input_proj(descriptors[0]), network.input_proj(descriptors[1])
    return states, (_place_codes(network.posenc, points0), _place_codes(network.posenc, points1))


def _place_codes(encoding: Network, points: torch.Tensor) -> torch.Tensor:
    """Places (B, N, 2) as (2, B, 1, N, head), the numbers of kornia, whose repetition a graph for ONNX cannot hold."""
    angles = encoding.Wr(points)
    parts = torch.stack([torch.cos(angles), torch.sin(angles)], dim=0)[:, :, None]
    return torch.stack([parts, parts], dim=5).flatten(4)


def next_states(layer: Network, states: Pair, codes: Pair, biases: Pair | None = None) -> Pair:
    """The states after one of the network's layers.

    Args:
        layer: of the network.
        states: before it.
        codes: of :func:`first_states`.
        biases: (B, 1, 1, M) and (B, 1, 1, N) what is added to the logits of attention to each keypoint: very low where
            a row is none; None: all rows are.
    """
    masks: Masks = biases or (None, None)
    attended = layer.self_attn(states[0], codes[0], masks[0]), layer.self_attn(states[1], codes[1], masks[1])
    return _cross_attention(layer.cross_attn, attended, masks)


def _cross_attention(block: Network, states: Pair, biases: Masks) -> Pair:
    """The block of kornia by torch's fused attention: on a CPU its own writes every matrix of attention weights out."""
    queries = [block.to_qk(state).unflatten(-1, (block.heads, -1)).transpose(1, 2) for state in states]
    values = [block.to_v(state).unflatten(-1, (block.heads, -1)).transpose(1, 2) for state in states]
    moved = []
    seen = zip(queries[::-1], values[::-1], biases[::-1], strict=True)
    for state, query, (key, value, bias) in zip(states, queries, seen, strict=True):
        message = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        told = block.to_out(message.transpose(1, 2).flatten(start_dim=-2))
        moved.append(state + block.ffn(torch.cat([state, told], dim=-1)))
    return moved[0], moved[1]


def normalised(keypoints: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Keypoints (B, N, 2) from the image's centre in halves of its longer side, as LightGlue takes them."""
    half = size.float() / 2
    return (keypoints - half[:, None]) / half.max(dim=1).values[:, None, None]
