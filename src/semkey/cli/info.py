"""``semkey info``: version, device, presets and where their weights lie."""

from __future__ import annotations

from semkey.cli.console import package_version, print_table


def info() -> None:
    """Show the version, the device that auto picks, the presets, and where their weights lie.

    [bold]Example[/]

        semkey info
    """
    import platform
    from importlib.metadata import version

    import cv2
    import torch

    rows = [
        ["semkey", package_version()],
        ["python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"],
        ["torch", f"{torch.__version__}, {torch.get_num_threads()} CPU threads"],
        ["opencv", cv2.__version__],
        ["poselib", version("poselib")],
    ]
    print_table(["", "value"], rows)
