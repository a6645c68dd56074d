"""What ``semkey info`` says of each preset: what in it is trained, what is frozen, and where the weights lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semkey.backbones.specs import BackbonePreset
    from semkey.model.presets import Preset


def preset_rows(names: Sequence[str] | None = None) -> list[list[str]]:
    """Rows of a table: of each preset a row with what it is, and one with what of it is trained and what is frozen.

    Args:
        names: of presets; None for all.
    """
    from semkey.backbones.specs import BACKBONES
    from semkey.model.checkpoint import read_config
    from semkey.model.presets import HALF, preset_names, presets

    rows = []
    for name in preset_names() if names is None else names:
        backbone = BACKBONES.get(name)
        shipped, start = presets().get(name), ""
        if shipped is not None:
            rows += [
                [f"preset {name}", shipped.summary],
                [f"weights of {name}", f"{shipped.path} ({_weights_state(shipped)})"],
            ]
            layers = read_config(shipped.path).backbone_layers if shipped.path.is_file() and backbone else ()
            trained = f"heads, and laterals over {_layers(backbone, layers)}" if backbone else "all of it"
        else:
            assert backbone is not None
            rows.append([f"preset {name}", f"keypoints and descriptors of {HALF}, global descriptor of the backbone"])
            trained = f"the convolutional half, that of {HALF}"
            start = f"; at zero until semkey train {name}: laterals over {_layers(backbone, ())}"
        frozen = "nothing" if backbone is None else _frozen(backbone)
        rows.append([f"parts of {name}", f"trained: {trained}{start}; frozen: {frozen}"])
    return rows


def _layers(backbone: BackbonePreset | None, chosen: tuple[int, ...]) -> str:
    layers = chosen or (backbone.architecture.default_layers() if backbone else ())
    return f"layers {', '.join(map(str, layers))}"


def _frozen(backbone: BackbonePreset) -> str:
    from semkey.backbones.local_files import weights_on_disk

    source, found = backbone.source, weights_on_disk(backbone)
    where = f"{found}, checked when loaded" if found else "not here, fetched on first use"
    return f"{source.repository.split('/')[1]} ({source.megabytes} MB, {source.licence}; {where})"


def _weights_state(preset: Preset) -> str:
    """Size of the weights and whether their hash is the expected one."""
    if not preset.path.is_file():
        return "missing: install semkey again"
    data = preset.path.read_bytes()
    whole = hashlib.sha256(data).hexdigest() == preset.sha256
    return f"{len(data) / 1e6:.1f} MB, {'SHA-256 checked' if whole else 'damaged: install semkey again'}"
