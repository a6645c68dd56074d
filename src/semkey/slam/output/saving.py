"""Saving a run where the folder of the results cannot be written: the trajectory is saved somewhere else."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.trajectories import write_tum_trajectory
from semkey.slam.output.lost_pictures import LostPicture
from semkey.slam.output.report import TRAJECTORY_FILE, write_report
from semkey.slam.result import SlamResult


def save_run(
    result: SlamResult,
    out_dir: str | Path,
    *,
    lost_pictures: Sequence[LostPicture] = (),
    colors: NDArray[np.uint8] | None = None,
) -> dict[str, Any]:
    """What :func:`semkey.slam.output.report.write_report` does; where that fails, at least the trajectory is saved.

    Raises:
        InputError: the folder cannot be written to (the disk is full, or the like); the message also says where the
            trajectory is: in the folder, or in a new one among the system's temporary files.
    """
    try:
        return write_report(result, out_dir, lost_pictures=lost_pictures, colors=colors)
    except InputError as error:
        problem = str(error)
    length = len(result.trajectory())
    for folder in (Path(out_dir), None):
        path = None
        try:
            path = (folder or Path(tempfile.mkdtemp(prefix="semkey-"))) / TRAJECTORY_FILE
            write_tum_trajectory(path, result.trajectory())
        except (InputError, OSError):
            if folder is None and path is not None:
                path.parent.rmdir()
            continue
        raise InputError(f"{problem}; the trajectory of {length} frames is in {path}")
    raise InputError(f"{problem}; the trajectory could not be saved")
