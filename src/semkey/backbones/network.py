"""The transformers themselves: those of the library ``transformers``, built from an :class:`Architecture`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from semkey.backbones import attention
from semkey.backbones.naming import assign_names
from semkey.backbones.specs import HALF, IMAGENET_MEAN, IMAGENET_STD, Architecture, Family, Triple
from semkey.errors import ConfigError

_MODEL_TYPES: dict[str, Family] = {
    "vit": "vit",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2-reg",
    "dinov3_vit": "dinov3",
}
"""``model_type`` of a ``config.json``, and our name of it."""


def import_transformers() -> Any:
    """The library, imported when a backbone is asked for: it takes seconds and is not needed otherwise.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "transformers":
            raise
        raise ConfigError("backbones run through transformers: pip install 'semkey[backbones]'") from None
    return transformers


def build_network(architecture: Architecture, tensors: Mapping[str, torch.Tensor] | None, source: str) -> nn.Module:
    """A network in evaluation mode without gradients.

    Args:
        architecture: its shape.
        tensors: canonical weights (:func:`semkey.backbones.naming.canonical_tensors`); None draws random ones from
            torch's generator.
        source: what the weights were read from, for messages.

    Raises:
        ConfigError: transformers is not installed.
        CheckpointError: the weights are of another network.
    """
    library = import_transformers()
    attention.register()
    common = {
        "attn_implementation": attention.NAME,
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "image_size": architecture.image,
        "patch_size": architecture.patch,
        "layer_norm_eps": architecture.norm_eps,
        **dict(architecture.options),
    }
    if architecture.family == "vit":
        config = library.ViTConfig(intermediate_size=architecture.hidden, **common)

        def make() -> nn.Module:
            return library.ViTModel(config, add_pooling_layer=False)
    elif architecture.family == "dinov3":
        registers = {"num_register_tokens": architecture.registers}
        config = library.DINOv3ViTConfig(intermediate_size=architecture.hidden, **registers, **common)

        def make() -> nn.Module:
            return library.DINOv3ViTModel(config)
    else:
        common["mlp_ratio"] = architecture.hidden // architecture.width
        if architecture.family == "dinov2":
            config = library.Dinov2Config(**common)

            def make() -> nn.Module:
                return library.Dinov2Model(config)
        else:
            config = library.Dinov2WithRegistersConfig(num_register_tokens=architecture.registers, **common)

            def make() -> nn.Module:
                return library.Dinov2WithRegistersModel(config)

    if tensors is None:
        network = make()
    else:
        from transformers.initialization import no_init_weights

        with no_init_weights():  # random numbers for a large network take longer than reading it
            network = make()
        own = [(name, value.shape) for name, value in network.state_dict().items()]
        network.load_state_dict(assign_names(own, tensors, source), assign=True)
    return network.eval().requires_grad_(False)


def read_architecture(config: Mapping[str, Any], processor: Mapping[str, Any], source: str) -> Architecture:
    """The architecture that a ``config.json`` of transformers states.

    Args:
        config: of the network.
        processor: content of ``preprocessor_config.json``, for the colours; may be empty.
        source: where they were read from, for messages.

    Raises:
        ConfigError: another kind of network, or a value that is missing.
    """
    kind = config.get("model_type")
    if kind not in _MODEL_TYPES:
        raise ConfigError(f"{source}: its network is '{kind}', backbones are one of {', '.join(_MODEL_TYPES)}")
    family = _MODEL_TYPES[kind]
    if config.get("use_swiglu_ffn") or config.get("use_gated_mlp"):
        raise ConfigError(f"{source}: networks with a gated MLP (the giant sizes) are not supported")
    mean, std = (HALF, HALF) if family == "vit" else (IMAGENET_MEAN, IMAGENET_STD)
    try:
        width = int(config["hidden_size"])
        ratio = int(config.get("mlp_ratio", 4))
        options = {"qkv_bias": config.get("qkv_bias", True)} if family != "dinov3" else {}
        if family == "dinov3":
            options = {
                name: config[name] for name in ("rope_theta", "query_bias", "key_bias", "value_bias") if name in config
            }
        return Architecture(
            family=family,
            patch=_side(config.get("patch_size", 16)),
            width=width,
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            hidden=int(config.get("intermediate_size", ratio * width)) if "dinov2" not in family else ratio * width,
            image=_side(config.get("image_size", 224)),
            registers=int(config.get("num_register_tokens", 0)) if family != "dinov2" else 0,
            norm_eps=float(config.get("layer_norm_eps", 1e-6)),
            mean=_triple(processor.get("image_mean", mean)),
            std=_triple(processor.get("image_std", std)),
            options=tuple(sorted(options.items())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: its config.json cannot be used ({type(error).__name__}: {error})") from None


def _side(value: Any) -> int:
    if isinstance(value, list | tuple):
        if len(set(value)) != 1:
            raise ValueError(f"{value} is not square")
        value = value[0]
    return int(value)


def _triple(value: Any) -> Triple:
    red, green, blue = (float(number) for number in value)
    return red, green, blue
