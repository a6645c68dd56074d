"""``semkey info``: version, device, presets and where their weights lie; or what an input holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semkey import __version__
from semkey.cli.console import print_table
from semkey.cli.interop import map_files

if TYPE_CHECKING:
    from semkey.datasets import FrameSequence


def info(
    path: Path | None = typer.Argument(
        None,
        metavar="[INPUT]",
        help="A bag, sequence, video, folder of images, map or running camera (webcam:0, realsense:, oak:), or a "
        "preset's name; without it, the installation.",
    ),
) -> None:
    """Show what an input holds: the topics of a bag, or frames, camera and sensor of a sequence.

    Of a preset: what in it is trained, what is frozen, and where the weights lie. Without an input: the version, the
    device that auto picks, and all presets.

    [bold]Examples[/]

        semkey info

        semkey info recording.mcap

        semkey info rgbd_dataset_freiburg3_cabinet

        semkey info dinov2-small
    """
    if path is None:
        _installation()
    elif not path.exists() and _is_preset(str(path)):
        from semkey.cli.info_presets import preset_rows

        print_table(["", "value"], preset_rows([str(path)]))
    elif path.suffix == ".semkey":
        map_files.info(path)
    elif path.exists() and _is_bag(path):
        _topics(path)
    else:
        from semkey.datasets import open_sequence

        print_table(["", "value"], sequence_rows(open_sequence(path)))


def _is_preset(name: str) -> bool:
    from semkey.model.presets import preset_names

    return name in preset_names()


def _is_bag(path: Path) -> bool:
    from semkey.datasets.bags.reader import is_bag

    return is_bag(path)


def _topics(path: Path) -> None:
    """A row per topic, with what semkey would take it for."""
    from dataclasses import asdict

    from semkey.datasets.bags.reader import BagReader
    from semkey.datasets.bags.topics import find_topics
    from semkey.errors import DatasetError

    with BagReader(path) as reader:
        topics = reader.topics
        try:
            roles, note = asdict(find_topics(reader, {})), None
        except DatasetError as error:
            roles, note = {}, str(error)
    uses = {topic: role for role, topic in roles.items() if topic is not None}
    rows = [[topic.name, topic.kind, topic.count, uses.get(topic.name, "-")] for topic in topics]
    print_table(["topic", "type", "messages", "taken as"], rows)
    if note is not None:
        typer.echo(note, err=True)


def sequence_rows(sequence: FrameSequence) -> list[tuple[str, str]]:
    """What a sequence offers, as rows of a table."""
    import numpy as np

    camera, times = sequence.camera, sequence.timestamps
    known = times[np.isfinite(times)]
    truth = sum(pose is not None for pose in sequence.ground_truth)
    numbers = "" if camera is None else f"{camera.fx:.2f} {camera.fy:.2f} {camera.cx:.2f} {camera.cy:.2f}"
    rows = [
        ("input", f"{sequence.name} ({sequence.format})"),
        ("frames", "as they come" if sequence.is_live else str(len(sequence))),
        ("seconds", f"{known[-1] - known[0]:.2f}" if len(known) > 1 else "-"),
        ("sensor", sequence.sensor),
        ("camera", "unknown" if camera is None else f"{camera.width}x{camera.height}, fx fy cx cy {numbers}"),
        ("ground truth", f"{truth} frames" if truth else "none"),
    ]
    if sequence.baseline is not None:
        rows.append(("baseline, m", f"{sequence.baseline:.4f}"))
    if sequence.imu is not None:
        rows.append(("imu rows", str(len(sequence.imu))))
    return rows + [(fault.kind, fault.message) for fault in sequence.faults]


def _installation() -> None:
    import platform
    from importlib.metadata import version

    import cv2
    import torch

    from semkey.cli.info_presets import preset_rows
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
    rows += preset_rows()
    rows.append(["backbones", _backbones_state()])
    rows.append(["classical features", "orb, sift (RootSIFT): no weights needed"])
    rows.append(["peers", _peers_state()])
    print_table(["", "value"], rows)


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
