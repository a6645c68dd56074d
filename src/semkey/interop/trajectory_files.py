"""Trajectories in the text formats of KITTI and EuRoC; TUM's is :mod:`semkey.geometry.trajectories`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semkey.files import atomic_write_text
from semkey.geometry.trajectories import Trajectory
from semkey.geometry.transforms import quaternion_xyzw_from_rotation

_NANOSECONDS = 1_000_000_000


def times_path(path: str | Path) -> Path:
    """Where the times of a KITTI trajectory are written: ``poses.txt`` has ``poses_times.txt`` beside it."""
    path = Path(path)
    return path.with_name(f"{path.stem}_times{path.suffix}")


def write_kitti_trajectory(path: str | Path, trajectory: Trajectory) -> None:
    """Write a row of 12 numbers per pose, the upper three rows of T_world_cam; times go into a file of their own.

    The format has no times and counts rows as frames: where frames were lost, the file of times (seconds, a row per
    pose) says which rows these are.

    Raises:
        InputError: a file cannot be written.
    """
    rows = [" ".join(f"{number:.12g}" for number in pose[:3].reshape(-1)) for pose in trajectory.poses]
    atomic_write_text(times_path(path), "".join(f"{stamp:.9f}\n" for stamp in trajectory.timestamps))
    atomic_write_text(path, "".join(f"{row}\n" for row in rows))


def write_euroc_trajectory(path: str | Path, trajectory: Trajectory) -> None:
    """Write rows ``timestamp [ns],p_x,p_y,p_z,q_w,q_x,q_y,q_z`` as of EuRoC's ground truth, of the camera.

    EuRoC's own files hold poses of the body (the IMU): multiply by T_cam_body on the right to compare with them.

    Raises:
        InputError: the file cannot be written.
    """
    names = ("p_RS_R_x [m]", "p_RS_R_y [m]", "p_RS_R_z [m]", "q_RS_w []", "q_RS_x []", "q_RS_y []", "q_RS_z []")
    lines = [",".join(("#timestamp", *names))]
    for stamp, pose in zip(trajectory.timestamps, trajectory.poses, strict=True):
        x, y, z, w = quaternion_xyzw_from_rotation(pose[:3, :3])
        numbers = np.array([*pose[:3, 3], w, x, y, z])
        lines.append(f"{round(stamp * _NANOSECONDS)}," + ",".join(f"{number:.12g}" for number in numbers))
    atomic_write_text(path, "\n".join(lines) + "\n")
