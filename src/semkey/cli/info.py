"""``semkey info``: version, device, presets and where their weights lie."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from semkey import __version__
from semkey.cli.console import print_table

if TYPE_CHECKING:
    from semkey.model.presets import Preset


def info() -> None:
    """Show the version, the device that auto picks, the presets, and where their weights lie.

    [bold]Example[/]

        semkey info
    """
    import platform
    from importlib.metadata import version

    import cv2
    import torch

    from semkey.model.presets import presets
    from semkey.runtime import select_device

    device = select_device("auto")
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    rows = [
        ["semkey", __version__],
        ["python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"],
        ["torch", torch.__version__],
        ["opencv", cv2.__version__],
        ["poselib", version("poselib")],
        ["device", f"{device} ({hardware})"],
    ]
    for name, preset in presets().items():
        rows += [
            [f"preset {name}", preset.summary],
            [f"weights of {name}", f"{preset.path} ({_weights_state(preset)})"],
        ]
    rows.append(["backbones", _backbones_state()])
    rows.append(["classical features", "orb, sift (RootSIFT): no weights needed"])
    rows.append(["peers", _peers_state()])
    print_table(["", "value"], rows)


def _weights_state(preset: Preset) -> str:
    """Size of the weights and whether their hash is the expected one."""
    if not preset.path.is_file():
        return "missing: install semkey again"
    data = preset.path.read_bytes()
    whole = hashlib.sha256(data).hexdigest() == preset.sha256
    return f"{len(data) / 1e6:.1f} MB, {'SHA-256 checked' if whole else 'damaged: install semkey again'}"


def _backbones_state() -> str:
    """Names of the frozen backbones, and whether what they need is installed."""
    import importlib.util

    from semkey.backbones.specs import BACKBONES

    found = importlib.util.find_spec("transformers") is not None
    needed = "transformers is installed" if found else "pip install semkey[backbones] for them"
    return f"{', '.join(BACKBONES)} ({needed})"


def _peers_state() -> str:
    """Names of the peers and whether what they need is installed."""
    import importlib.util

    from semkey.extractors.peers import PEERS

    found = importlib.util.find_spec("kornia") is not None
    needed = "kornia is installed" if found else "pip install semkey[peers] for all but clidd"
    return f"{', '.join(PEERS)} ({needed})"
