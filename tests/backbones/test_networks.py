"""The transformers: names of published tensors, a reference by hand, positions, layers, and that they are frozen."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semkey.backbones.naming import canonical_name, canonical_tensors, content_hash
from semkey.backbones.specs import BACKBONES, Architecture
from semkey.errors import CheckpointError, ConfigError

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import FAMILIES, tiny, tiny_backbone
from semkey.backbones.loading import load_backbone, random_backbone, read_tensors
from semkey.backbones.network import build_network, read_architecture

VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"


def official_names(family: str, architecture: Architecture) -> dict[str, torch.Size]:
    """Names and shapes of the hub's files, written down from their listings (not from the library)."""
    width, hidden, patch = architecture.width, architecture.hidden, architecture.patch
    tokens = (architecture.image // patch) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {"embeddings.cls_token": (1, 1, width)}
    if family == "dinov3":
        shapes["embeddings.mask_token"] = (1, 1, width)
        shapes["embeddings.patch_embeddings.weight"] = (width, 3, patch, patch)
        shapes["embeddings.patch_embeddings.bias"] = (width,)
    else:
        shapes["embeddings.position_embeddings"] = (1, tokens, width)
        shapes["embeddings.patch_embeddings.projection.weight"] = (width, 3, patch, patch)
        shapes["embeddings.patch_embeddings.projection.bias"] = (width,)
    if family.startswith("dinov2"):
        shapes["embeddings.mask_token"] = (1, width)
    if architecture.registers:
        shapes["embeddings.register_tokens"] = (1, architecture.registers, width)
    for layer in range(architecture.layers):
        prefix = f"layer.{layer}." if family == "dinov3" else f"encoder.layer.{layer}."
        if family == "dinov3":
            names = {
                "attention.q_proj": "qb",
                "attention.k_proj": "q",
                "attention.v_proj": "qb",
                "attention.o_proj": "qb",
            }
            names |= {"mlp.up_proj": "up", "mlp.down_proj": "down"}
        else:
            names = {f"attention.attention.{part}": "qb" for part in ("query", "key", "value")}
            names["attention.output.dense"] = "qb"
            first, second = ("intermediate.dense", "output.dense") if family == "vit" else ("mlp.fc1", "mlp.fc2")
            names |= {first: "up", second: "down"}
        for name, kind in names.items():
            rows, columns = {"up": (hidden, width), "down": (width, hidden)}.get(kind, (width, width))
            shapes[f"{prefix}{name}.weight"] = (rows, columns)
            if kind != "q":
                shapes[f"{prefix}{name}.bias"] = (rows,)
        norms = ("layernorm_before", "layernorm_after") if family == "vit" else ("norm1", "norm2")
        for norm in norms:
            shapes |= {f"{prefix}{norm}.weight": (width,), f"{prefix}{norm}.bias": (width,)}
        if family != "vit":
            shapes |= {f"{prefix}layer_scale{n}.lambda1": (width,) for n in (1, 2)}
    last = "norm" if family == "dinov3" else "layernorm"
    shapes |= {f"{last}.weight": (width,), f"{last}.bias": (width,)}
    return {name: torch.Size(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_official_key_names_load_strictly(family) -> None:
    architecture = tiny(family)
    generator = torch.Generator().manual_seed(0)
    published = {n: torch.randn(s, generator=generator) for n, s in official_names(family, architecture).items()}
    if family == "vit":
        published |= {"pooler.dense.weight": torch.zeros(32, 32), "pooler.dense.bias": torch.zeros(32)}
    network = build_network(architecture, canonical_tensors(published), "published")
    own = {canonical_name(name): value for name, value in network.state_dict().items()}
    for name, value in published.items():
        if "mask_token" not in name and "pooler" not in name:
            assert torch.equal(own[canonical_name(name)], value), name
    for broken, words in (
        ({n: v for n, v in published.items() if ".1." not in n}, "is missing"),
        (published | {"lora.weight": torch.zeros(1)}, "foreign tensor 'lora.weight'"),
        (published | {"embeddings.cls_token": torch.zeros(1, 1, 31)}, "has shape"),
    ):
        with pytest.raises(CheckpointError, match=words):
            build_network(architecture, canonical_tensors(broken), "published")


@pytest.mark.parametrize("preset", BACKBONES.values(), ids=BACKBONES)
def test_presets_have_as_many_numbers_as_the_published_files(preset) -> None:
    """Their sizes are known to the byte or the megabyte; a safetensors header has some tens of kilobytes."""
    shapes = official_names(preset.architecture.family, preset.architecture)
    count = sum(math.prod(shape) for shape in shapes.values())
    exact = {"dinov2-small": 88_249_960, "dinov2-large": 1_217_522_888, "dinov3-small": 86_406_384}
    exact["dinov3-base"] = 342_662_192
    if preset.name in exact:
        assert 0 < exact[preset.name] - 4 * count < 60_000
    elif preset.name == "vit-tiny":
        count += 1000 * 192 + 1000  # its classifier, which is not used
        assert 4 * count / 1e6 == pytest.approx(preset.source.megabytes, abs=0.6)
    else:
        assert 4 * count / 1e6 == pytest.approx(preset.source.megabytes, abs=0.6)


def test_every_preset_is_pinned() -> None:
    for preset in BACKBONES.values():
        source = preset.source
        assert len(source.revision) == 40 or (source.revision == "main" and len(source.content) == 64)
        assert len(source.sha256) in (0, 64)
        assert preset.architecture.default_layers()[-1] == preset.architecture.layers


# -- a real network ----------------------------------------------------------------------------------------------------


def reference_vit(tensors: dict[str, torch.Tensor], images: torch.Tensor, norm_eps: float = 1e-6) -> list[torch.Tensor]:
    """A plain ViT-Ti/16 forward from timm's tensors: tokens after every block, then normalised ones."""
    patches = F.conv2d(images, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=16)
    x = patches.flatten(2).transpose(1, 2)
    x = torch.cat([tensors["cls_token"].expand(len(x), -1, -1), x], dim=1) + tensors["pos_embed"]
    states = []
    for block in range(12):

        def get(name: str, at: int = block) -> torch.Tensor:
            return tensors[f"blocks.{at}.{name}"]

        y = F.layer_norm(x, (192,), get("norm1.weight"), get("norm1.bias"), norm_eps)
        qkv = (y @ get("attn.qkv.weight").T + get("attn.qkv.bias")).reshape(len(x), -1, 3, 3, 64).permute(2, 0, 3, 1, 4)
        attention = (qkv[0] @ qkv[1].transpose(-1, -2) / 8.0).softmax(dim=-1) @ qkv[2]
        y = attention.transpose(1, 2).reshape(x.shape)
        x = x + y @ get("attn.proj.weight").T + get("attn.proj.bias")
        y = F.layer_norm(x, (192,), get("norm2.weight"), get("norm2.bias"), norm_eps)
        y = F.gelu(y @ get("mlp.fc1.weight").T + get("mlp.fc1.bias"))
        x = x + y @ get("mlp.fc2.weight").T + get("mlp.fc2.bias")
        states.append(F.layer_norm(x, (192,), tensors["norm.weight"], tensors["norm.bias"], norm_eps))
    return states


def test_vit_tiny_computes_what_a_hand_written_forward_does(shared: Path) -> None:
    from safetensors.torch import load_file

    backbone = load_backbone("vit-tiny", (2, 7, 12))
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    states = reference_vit(load_file(shared / "weights" / VIT_TINY), (images - 0.5) / 0.5)
    features = backbone(images)
    for layer, feature_map in zip(backbone.layers, features.maps, strict=True):
        wanted = states[layer - 1][:, 1:].transpose(1, 2).reshape(2, 192, 14, 14)
        torch.testing.assert_close(feature_map, wanted, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(features.class_token, states[11][:, 0], atol=2e-3, rtol=1e-3)


def test_vit_tiny_recognises_what_a_picture_shows(shared: Path) -> None:
    """With its classifier the class token names the class: the weights, the colours and the names are right."""
    from safetensors.torch import load_file

    skimage = pytest.importorskip("skimage", reason="scikit-image comes with the extra 'dev'")
    image = torch.from_numpy(skimage.data.coffee().copy()).permute(2, 0, 1)[None].float() / 255.0
    square = F.interpolate(image[..., 40:360, 140:460], (224, 224), mode="bilinear", antialias=True)
    tensors = load_file(shared / "weights" / VIT_TINY)
    token = load_backbone("vit-tiny")(square).class_token
    logits = token @ tensors["head.weight"].T + tensors["head.bias"]
    assert {967, 968, 504} & set(logits[0].topk(3).indices.tolist()), "espresso, cup or coffee mug"


def test_the_hash_of_tensors_does_not_depend_on_their_spelling(shared: Path) -> None:
    tensors = read_tensors(shared / "weights" / VIT_TINY)
    network = load_backbone("vit-tiny").network
    assert content_hash(canonical_tensors(network.state_dict())) == content_hash(tensors)
    assert content_hash(tensors) == BACKBONES["vit-tiny"].source.content
    changed = {**tensors, "norm.bias": tensors["norm.bias"] + 1e-3}
    assert content_hash(changed) != content_hash(tensors)


# -- positions, layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["vit", "dinov2", "dinov2-reg"])
def test_positions_are_interpolated_as_the_library_does(family) -> None:
    """With blocks that change nothing, a token is its patch plus its position: compared with the library's own call."""
    backbone = tiny_backbone(family)
    network: Any = backbone.network
    with torch.no_grad():
        network.embeddings.position_embeddings.normal_()
    seen: list[torch.Tensor] = []
    first = network.layers[0] if family == "vit" else network.encoder.layer[0]
    handle = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 7 * backbone.patch - 3, 5 * backbone.patch)
    backbone(images)
    handle.remove()
    padded = F.pad((images - backbone.mean) / backbone.std, (0, 0, 0, 3), mode="replicate")
    patches = network.embeddings.patch_embeddings(padded)
    positions = network.embeddings.interpolate_pos_encoding(
        torch.zeros(1, patches.shape[1] + 1, 32), padded.shape[-2], padded.shape[-1]
    )
    torch.testing.assert_close(seen[0][:, -patches.shape[1] :], patches + positions[:, 1:], atol=1e-5, rtol=1e-5)
    grid = network.embeddings.position_embeddings[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    plain = F.interpolate(grid, (7, 5), mode="bicubic", align_corners=False, antialias=family == "dinov2-reg")
    torch.testing.assert_close(positions[0, 1:].T.reshape(32, 7, 5), plain[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_those_asked_for(family) -> None:
    every = tiny_backbone(family, layers=(1, 2, 3, 4))
    images = torch.rand(1, 3, 64, 80)
    maps = every(images).maps
    assert len({float(m[0, 0].abs().sum()) for m in maps}) == 4
    some = tiny_backbone(family, layers=(2, 4))(images).maps
    assert torch.equal(some[0], maps[1])
    assert torch.equal(some[1], maps[3])
    for m in maps:  # all are after the last norm, which has weight 1 and bias 0 here
        torch.testing.assert_close(m.mean(dim=1), torch.zeros_like(m[:, 0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(m.std(dim=1, correction=0), torch.ones_like(m[:, 0]), atol=1e-2, rtol=0)


@pytest.mark.parametrize("layers", [(0, 4), (3, 2), (2, 2), (5,)])
def test_layers_that_do_not_exist_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="layers 1 to 4"):
        tiny_backbone(layers=layers)


def test_other_networks_and_broken_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="its network is 'swin'"):
        read_architecture({"model_type": "swin"}, {}, "folder")
    with pytest.raises(ConfigError, match="gated MLP"):
        read_architecture({"model_type": "dinov2", "use_swiglu_ffn": True}, {}, "folder")
    with pytest.raises(ConfigError, match=r"config\.json cannot be used \(KeyError: 'hidden_size'\)"):
        read_architecture({"model_type": "dinov2"}, {}, "folder")


# -- frozen ------------------------------------------------------------------------------------------------------------


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.backbone = tiny_backbone()


def test_frozen_means_frozen() -> None:
    holder = Holder()
    holder.train().requires_grad_(True)
    network = holder.backbone.network
    assert holder.head.training
    assert not any(module.training for module in [holder.backbone, *network.modules()])
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert [name for name, _ in holder.named_parameters()] == ["head.weight", "head.bias"]
    assert list(holder.state_dict()) == ["head.weight", "head.bias"]
    images = torch.rand(1, 3, 56, 56, requires_grad=True)
    assert not holder.backbone(images).maps[0].requires_grad


def test_copies_share_the_network_and_moving_moves_it() -> None:
    holder = Holder()
    twin = copy.deepcopy(holder)
    assert twin.backbone.network is holder.backbone.network
    assert twin.backbone is not holder.backbone
    twin.double()
    assert next(twin.backbone.network.parameters()).dtype == torch.float64


def test_random_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (random_backbone(tiny(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.rand(1, 3, 56, 56)
    assert torch.equal(first(images).maps[-1], again(images).maps[-1])
    assert not torch.equal(first(images).maps[-1], other(images).maps[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_reduced_weights_compute_what_autocast_does(family) -> None:
    images = torch.rand(1, 3, 70, 84)
    backbone = tiny_backbone(family)
    exact = backbone(images)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = backbone(images)
    bytes_before = backbone.weight_bytes
    found = backbone.reduce()(images)
    for own, other, whole in zip(found.maps, wanted.maps, exact.maps, strict=True):
        assert torch.equal(own, other)
        assert float(F.cosine_similarity(own.float().flatten(), whole.flatten(), dim=0)) > 0.999
    assert backbone.weight_bytes < 0.8 * bytes_before
    assert copy.deepcopy(backbone).is_reduced
