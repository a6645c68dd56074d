"""What a run leaves behind: its two trajectories, report.json, trajectory.png and report.html."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey import __version__
from semkey.errors import InputError
from semkey.files import atomic_write_bytes, atomic_write_text
from semkey.geometry.pose_covariance import ros_covariance
from semkey.geometry.trajectories import Trajectory, write_tum_trajectory
from semkey.metrics.trajectory import Alignment, absolute_trajectory_error, relative_pose_errors
from semkey.slam.output.lost_pictures import LostPicture
from semkey.slam.output.scale import scale_figures
from semkey.slam.records import evidence_of
from semkey.slam.result import SlamResult
from semkey.slam.solvers.evidence import MAX_LOG10_NFA

TRAJECTORY_FILE = "trajectory.txt"
LIVE_TRAJECTORY_FILE = "trajectory_live.txt"
JSON_FILE = "report.json"
COVARIANCE_FILE = "trajectory_covariance.csv"
PICTURE_FILE = "trajectory.png"
HTML_FILE = "report.html"


def check_out_dir(out_dir: str | Path) -> Path:
    """The folder as a path, after making sure before a long run that it can be written to.

    Raises:
        InputError: it is a file, or cannot be made.
    """
    path = Path(out_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be used as output folder ({error.strerror or error})") from None
    return path


def summarise(result: SlamResult) -> dict[str, Any]:
    """The figures of a run, as they go into ``report.json``.

    Errors against ground truth are root mean squares: ``ate_rmse_m`` over camera centres after SE(3) alignment (Sim(3)
    for a single camera, whose map has no scale),
    ``rpe_trans_m`` and ``rpe_rot_deg`` over the motions between consecutive tracked frames, all of the corrected
    trajectory; ``live_ate_rmse_m`` is that of the poses as they were first estimated. They are absent without ground
    truth, and null where fewer than three frames were tracked. ``stage_ms`` has by stage the mean over all frames,
    and median and 95th percentile over the frames that had the stage; ``frame`` is the wall time of whole frames.
    ``uncertainty`` has the standard deviations of tracked frames against the map around them, and their quality.
    ``evidence`` has what spoke for the pose of every frame, see :class:`semkey.slam.records.FrameRecord`; ``shortfall``
    says why less than half of the frames were tracked, and is null otherwise. ``scale`` says what is known of the unit
    of length of a single camera, see :func:`semkey.slam.output.scale.scale_figures`, and is null for maps in metres.
    """
    frames, tracked = len(result.frames) + result.left_out, result.tracked
    figures: dict[str, Any] = {
        "frames": frames,
        "tracked": tracked,
        "tracked_percent": round(100.0 * tracked / frames, 3) if frames else 0.0,
        "lost_events": len(result.lost_events),
        "dropped": result.dropped,
        "seconds": round(result.seconds, 4),
        "tracking_seconds": round(result.tracking_seconds, 4),
        "fps": round(frames / result.tracking_seconds, 3) if result.tracking_seconds > 0 else 0.0,
        "keyframes": len(result.keyframe_indices),
        "uncertainty": _uncertainty(result),
        "seed": result.config.seed,
    }
    if result.ground_truth:
        figures |= _errors(result)
    return figures | {
        "map": _map_figures(result),
        "submaps": _submaps(result),
        "loops": [asdict(loop) for loop in result.loops],
        "lost": [asdict(event) for event in result.lost_events],
        "problems": list(result.problems),
        "shortfall": result.shortfall,
        "scale": scale_figures(result),
        "evidence": [
            {
                "frame": record.index,
                "log10_nfa": None if record.log10_nfa is None else round(record.log10_nfa, 1),
                "visible": record.visible,
                "found": record.found,
            }
            for record in result.frames
        ],
        "stage_ms": _stages(result),
        "features": result.features,
        "sequence": result.sequence_name,
        "format": result.sequence_format,
        "camera": asdict(result.camera),
        "config": result.config.to_mapping(),
        "interrupted": result.interrupted,
        "version": __version__,
    }


def write_report(
    result: SlamResult,
    out_dir: str | Path,
    *,
    lost_pictures: Sequence[LostPicture] = (),
    colors: NDArray[np.uint8] | None = None,
) -> dict[str, Any]:
    """Write the six files into a folder, each atomically, and return the figures of :func:`summarise`.

    The trajectories come first: should the disk fill up, they are the part that cannot be made again.

    Args:
        result: the run.
        out_dir: made if missing.
        lost_pictures: what was seen where tracking was lost, for the HTML page.
        colors: (L, 3) uint8 RGB of all landmarks that the map ever had, for its map; None draws grey.

    Raises:
        InputError: the folder cannot be written to.
    """
    from semkey.slam.output.report_html import report_page

    out = check_out_dir(out_dir)
    write_tum_trajectory(out / TRAJECTORY_FILE, result.trajectory())
    write_tum_trajectory(out / LIVE_TRAJECTORY_FILE, result.live_trajectory())
    atomic_write_text(out / COVARIANCE_FILE, covariance_rows(result))
    figures = summarise(result)
    atomic_write_text(out / JSON_FILE, json.dumps(figures, indent=2, allow_nan=False) + "\n")
    picture = trajectory_picture(result)
    atomic_write_bytes(out / PICTURE_FILE, picture)
    atomic_write_text(out / HTML_FILE, report_page(result, figures, picture, lost_pictures, colors))
    return figures


def covariance_rows(result: SlamResult) -> str:
    """The covariance of every tracked frame as text: ``timestamp,quality`` and 36 numbers as ROS orders them.

    ``x y z rotX rotY rotZ`` in the axes of the world, row by row, metres (map units for a single camera) and radians.
    """
    header = ",".join(["timestamp", "quality", *(f"c{row}{column}" for row in range(6) for column in range(6))])
    lines = [header]
    for record in result.frames:
        pose = result.pose(record)
        if pose is None or record.covariance is None:
            continue
        numbers = ros_covariance(record.covariance, pose).reshape(-1)
        lines.append(f"{record.timestamp:.6f},{record.quality:.4f}," + ",".join(f"{number:.6e}" for number in numbers))
    return "\n".join(lines) + "\n"


def _uncertainty(result: SlamResult) -> dict[str, float | None]:
    """Median and 95th percentile of the standard deviations of tracked frames, all axes together, and their quality."""
    known = [record for record in result.frames if record.covariance is not None and record.method != "start"]
    if not known:
        return dict.fromkeys(("position_m", "position_95_m", "rotation_deg", "rotation_95_deg", "quality"))
    variances = np.stack([np.diag(record.covariance) for record in known if record.covariance is not None])
    position = np.sqrt(variances[:, :3].sum(axis=1))
    rotation = np.degrees(np.sqrt(variances[:, 3:].sum(axis=1)))
    return {
        "position_m": float(np.median(position)),
        "position_95_m": float(np.percentile(position, 95)),
        "rotation_deg": float(np.median(rotation)),
        "rotation_95_deg": float(np.percentile(rotation, 95)),
        "quality": float(np.median([record.quality for record in known])),
    }


def _errors(result: SlamResult) -> dict[str, Any]:
    estimated, reference = result.trajectory(), result.ground_truth_trajectory()
    figures: dict[str, Any] = {
        "ate_rmse_m": _ate(estimated, reference, result.alignment),
        "live_ate_rmse_m": _ate(result.live_trajectory(), reference, result.alignment),
        "rpe_trans_m": None,
        "rpe_rot_deg": None,
        "alignment": result.alignment,
    }
    try:
        relative = relative_pose_errors(estimated, reference)
    except InputError:
        return figures
    return figures | {
        "rpe_trans_m": round(relative.translation.rmse, 6),
        "rpe_rot_deg": round(relative.rotation_deg.rmse, 6),
    }


def _ate(estimated: Trajectory, reference: Trajectory, alignment: Alignment) -> float | None:
    try:
        error = absolute_trajectory_error(estimated, reference, alignment=alignment)
    except InputError:
        return None
    return round(error.statistics.rmse, 6)


def _map_figures(result: SlamResult) -> dict[str, int]:
    """How much there is in the map at the end."""
    slam_map = result.slam_map
    if slam_map is None or not slam_map.keyframes:
        return {"keyframes": 0, "landmarks": 0, "submaps": 0}
    landmarks = int(np.count_nonzero(slam_map.landmarks.alive))
    return {"keyframes": len(slam_map.keyframes), "landmarks": landmarks, "submaps": len(slam_map.tree.submaps)}


def _submaps(result: SlamResult) -> list[dict[str, int]]:
    """Tracked frames by the submap that they are in now; between submaps the motion of the camera is unknown."""
    by_submap: dict[int, list[int]] = {}
    for record in result.frames:
        if record.T_world_cam is not None:
            by_submap.setdefault(_submap_now(result, record.reference_keyframe, record.submap), []).append(record.index)
    return [
        {"submap": submap, "first_frame": indices[0], "last_frame": indices[-1], "tracked": len(indices)}
        for submap, indices in sorted(by_submap.items())
    ]


def _submap_now(result: SlamResult, keyframe_id: int | None, submap: int) -> int:
    """The submap of a frame's reference keyframe, which may have been merged into another or removed."""
    if result.slam_map is None or keyframe_id is None:
        return submap
    while keyframe_id in result.slam_map.tree.removed:
        keyframe_id = result.slam_map.tree.removed[keyframe_id].parent
    keyframe = result.slam_map.keyframes.get(keyframe_id)
    return submap if keyframe is None else keyframe.submap


def _stages(result: SlamResult) -> dict[str, dict[str, float]]:
    frames = max(len(result.frames), 1)
    stages = {}
    for name, samples in result.stage_samples.items():
        milliseconds = 1000.0 * np.asarray(samples)
        stages[name] = {
            "mean": round(float(milliseconds.sum()) / frames, 3),
            "median": round(float(np.median(milliseconds)), 3),
            "p95": round(float(np.percentile(milliseconds, 95)), 3),
        }
    return stages


def trajectory_picture(result: SlamResult) -> bytes:
    """PNG of the trajectory of a run, see :func:`semkey.visualization.trajectory.trajectory_figure`."""
    """PNG of the trajectory of a run, see :func:`semkey.visualization.trajectory.trajectory_figure`."""
    from semkey.slam.output.report_html import SENSOR_NAMES
    from semkey.visualization.trajectory import trajectory_figure

    records = result.frames
    estimated, live = result.trajectory(), result.live_trajectory()
    corrected = not np.allclose(estimated.poses, live.poses, atol=1e-6)
    return trajectory_figure(
        estimated,
        result.ground_truth_trajectory() if result.ground_truth else None,
        live=live if corrected else None,
        loop_timestamps=_loop_timestamps(result),
        frame_timestamps=[record.timestamp for record in records],
        lost_mask=np.array([record.T_world_cam is None for record in records], dtype=bool),
        inlier_counts=[record.inliers for record in records],
        log10_nfa=evidence_of(records),
        evidence_threshold=MAX_LOG10_NFA,
        alignment=result.alignment,
        title=f"{result.sequence_name}: {SENSOR_NAMES[result.sensor]} SLAM with {result.features}",
    )


def _loop_timestamps(result: SlamResult) -> list[tuple[float, float]]:
    """The times of the two keyframes of every loop; keyframes of an earlier session have none here."""
    stamps = {
        record.reference_keyframe: record.timestamp
        for record in result.frames
        if record.is_keyframe and record.reference_keyframe is not None
    }
    pairs = [(loop.matched_keyframe_id, loop.keyframe_id) for loop in result.loops]
    return [(stamps[first], stamps[second]) for first, second in pairs if first in stamps and second in stamps]
