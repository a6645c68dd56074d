"""Names of a transformer's tensors: the same network is published under several spellings.

| spelling | a query of the first block |
|---|---|
| timm, the original DINOv2 and ViT files | ``blocks.0.attn.qkv.weight`` (query, key and value in one) |
| the hub's DINOv2 and ViT | ``encoder.layer.0.attention.attention.query.weight`` |
| the hub's DINOv3 | ``layer.0.attention.q_proj.weight`` |
| transformers 5 | ``layers.0.``, ``encoder.layer.0.`` or ``model.layer.0.`` and ``attention.q_proj.weight`` |

Both sides are brought to one canonical spelling, and must then agree name by name and shape by shape.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

import torch

from semkey.errors import CheckpointError

# In this order; each applies to what the one before made.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(?:vit|dinov2|dinov2_with_registers|dinov3_vit|backbone)\.", ""),
        (r"^(?:encoder\.layer|encoder\.layers|model\.layer|model\.layers|layers|layer|blocks)\.(\d+)\.", r"layer.\1."),
        (r"^model\.", ""),
        (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
        (r"\.attention\.q_proj\.", ".attention.query."),
        (r"\.attention\.k_proj\.", ".attention.key."),
        (r"\.attention\.v_proj\.", ".attention.value."),
        (r"\.(?:attention\.output\.dense|attention\.o_proj|attn\.proj)\.", ".attention.out."),
        (r"\.attn\.qkv\.", ".attention.qkv."),
        (r"^(layer\.\d+)\.(?:intermediate\.dense|mlp\.fc1|mlp\.up_proj)\.", r"\1.mlp.first."),
        (r"^(layer\.\d+)\.(?:output\.dense|mlp\.fc2|mlp\.down_proj)\.", r"\1.mlp.second."),
        (r"^(layer\.\d+)\.(?:layernorm_before|norm1)\.", r"\1.norm1."),
        (r"^(layer\.\d+)\.(?:layernorm_after|norm2)\.", r"\1.norm2."),
        (r"^(layer\.\d+)\.(?:layer_scale|ls)([12])\.(?:lambda1|gamma)$", r"\1.scale\2"),
        (r"^(?:embeddings\.)?(?:patch_embeddings\.projection|patch_embeddings|patch_embed\.proj)\.", "patches."),
        (r"^(?:embeddings\.)?cls_token$", "class_token"),
        (r"^(?:embeddings\.)?mask_token$", "mask_token"),
        (r"^(?:embeddings\.)?(?:register_tokens|storage_tokens)$", "registers"),
        (r"^(?:embeddings\.)?(?:position_embeddings|pos_embed)$", "positions"),
        (r"^(?:layernorm|norm)\.", "norm."),
    )
)

# Parts that are of no use here: classifiers, poolers, what pre-training masks with, and constants that are computed.
_UNUSED = re.compile(r"^(?:head|head_dist|fc_norm|classifier|pooler|pre_logits|decoder)\.|^mask_token$|inv_freq$|rope_")


def canonical_name(name: str) -> str:
    """The canonical spelling of a tensor's name."""
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name


def canonical_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under their canonical names, in float32, without the parts that are of no use here."""
    result: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        short = canonical_name(name)
        if _UNUSED.search(short):
            continue
        if ".attention.qkv." in short:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                result[short.replace(".qkv.", f".{part}.")] = piece.float()
        else:
            result[short] = value.float()
    return result


def content_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of canonical tensors: the same for the same weights, however the file spells and orders them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def assign_names(
    own: Iterable[tuple[str, torch.Size]], tensors: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """Canonical tensors under the names that a network has for them.

    Args:
        own: names and shapes of the network's tensors.
        tensors: canonical ones.
        source: what they were read from, for messages.

    Returns:
        A complete state dict.

    Raises:
        CheckpointError: one is missing, foreign, or of another shape.
    """
    left = dict(tensors)
    result: dict[str, torch.Tensor] = {}
    for name, shape in own:
        short = canonical_name(name)
        if _UNUSED.search(short):  # such as the mask token: never read, so any value will do
            result[name] = torch.zeros(shape)
            continue
        value = left.pop(short, None)
        if value is None:
            raise CheckpointError(f"{source}: tensor '{short}' is missing: these are weights of another network")
        if value.shape != shape:
            raise CheckpointError(
                f"{source}: tensor '{short}' has shape {tuple(value.shape)}, expected {tuple(shape)}: these are "
                "weights of another network"
            )
        result[name] = value
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise CheckpointError(f"{source}: foreign tensor '{min(left)}'{more}: these are weights of another network")
    return result
