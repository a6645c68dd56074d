"""What a run leaves behind: trajectory.txt, report.json, trajectory.png and report.html."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from semkey import __version__
from semkey.errors import InputError
from semkey.images.writing import atomic_write_bytes, atomic_write_text
from semkey.metrics.trajectory import absolute_trajectory_error, relative_pose_errors, write_tum_trajectory
from semkey.slam.system import SlamResult

TRAJECTORY_FILE = "trajectory.txt"
JSON_FILE = "report.json"
PICTURE_FILE = "trajectory.png"
HTML_FILE = "report.html"

# RGB-D has metric scale: only the choice of the world frame is taken out.
_ALIGNMENT = "se3"


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


def summarize(result: SlamResult) -> dict[str, Any]:
    """The figures of a run, as they go into ``report.json``.

    Errors against ground truth are root mean squares: ``ate_rmse_m`` over camera centres after SE(3) alignment,
    ``rpe_trans_m`` and ``rpe_rot_deg`` over the motions between consecutive tracked frames. They are absent without
    ground truth, and null where fewer than three frames were tracked.
    """
    frames, tracked = len(result.frames), result.tracked
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
        "seed": result.config.seed,
    }
    if result.ground_truth:
        figures |= _errors(result)
    return figures | {
        "submaps": _submaps(result),
        "lost": [asdict(event) for event in result.lost_events],
        "problems": list(result.problems),
        "stage_ms": {name: round(1000.0 * s / max(frames, 1), 3) for name, s in result.stage_seconds.items()},
        "features": result.features,
        "sequence": result.sequence_name,
        "format": result.sequence_format,
        "camera": asdict(result.camera),
        "config": result.config.to_mapping(),
        "interrupted": result.interrupted,
        "version": __version__,
    }


def write_report(result: SlamResult, out_dir: str | Path) -> dict[str, Any]:
    """Write the four files into a folder, each atomically, and return the figures of :func:`summarize`.

    Raises:
        InputError: the folder cannot be written to.
    """
    out = check_out_dir(out_dir)
    figures = summarize(result)
    picture = _picture(result)
    write_tum_trajectory(out / TRAJECTORY_FILE, result.trajectory())
    atomic_write_text(out / JSON_FILE, json.dumps(figures, indent=2, allow_nan=False) + "\n")
    atomic_write_bytes(out / PICTURE_FILE, picture)
    atomic_write_text(out / HTML_FILE, _html(result, figures, picture))
    return figures


def _errors(result: SlamResult) -> dict[str, Any]:
    estimated, reference = result.trajectory(), result.ground_truth_trajectory()
    errors: dict[str, Any] = {"ate_rmse_m": None, "rpe_trans_m": None, "rpe_rot_deg": None, "alignment": _ALIGNMENT}
    try:
        absolute = absolute_trajectory_error(estimated, reference, alignment=_ALIGNMENT)
        relative = relative_pose_errors(estimated, reference)
    except InputError:
        return errors
    return errors | {
        "ate_rmse_m": round(absolute.statistics.rmse, 6),
        "rpe_trans_m": round(relative.translation.rmse, 6),
        "rpe_rot_deg": round(relative.rotation_deg.rmse, 6),
    }


def _submaps(result: SlamResult) -> list[dict[str, int]]:
    """Tracked frames by submap; between submaps the motion of the camera is unknown."""
    by_submap: dict[int, list[int]] = {}
    for record in result.frames:
        if record.T_world_cam is not None:
            by_submap.setdefault(record.submap, []).append(record.index)
    return [
        {"submap": submap, "first_frame": indices[0], "last_frame": indices[-1], "tracked": len(indices)}
        for submap, indices in sorted(by_submap.items())
    ]


def _picture(result: SlamResult) -> bytes:
    from semkey.visualization.trajectory import trajectory_figure

    records = result.frames
    return trajectory_figure(
        result.trajectory(),
        result.ground_truth_trajectory() if result.ground_truth else None,
        frame_timestamps=[record.timestamp for record in records],
        lost_mask=np.array([record.T_world_cam is None for record in records], dtype=bool),
        inlier_counts=[record.inliers for record in records],
        alignment=_ALIGNMENT,
        title=f"{result.sequence_name}: RGB-D SLAM with {result.features}",
    )


def _html(result: SlamResult, figures: dict[str, Any], picture: bytes) -> str:
    from semkey.visualization.html import KeyFigures, Paragraph, Picture, Section, Table, html_report

    key_figures = {
        "Frames": str(figures["frames"]),
        "Tracked": f"{figures['tracked_percent']:.1f} %",
        "Lost events": str(figures["lost_events"]),
        "Keyframes": str(figures["keyframes"]),
        "Frames per second": f"{figures['fps']:.1f}",
    }
    if figures.get("ate_rmse_m") is not None:
        key_figures["ATE RMSE"] = f"{figures['ate_rmse_m']:.4f} m"
        key_figures["RPE, translation"] = f"{figures['rpe_trans_m']:.4f} m"
        key_figures["RPE, rotation"] = f"{figures['rpe_rot_deg']:.3f}°"
    sections = [
        Section("Result", [KeyFigures(key_figures), Picture(picture, "Trajectory, error and inliers over time")]),
        Section("Lost frames", _lost_blocks(result)),
        Section("Input", _problem_blocks(result)),
        Section(
            "Time per stage",
            [Table(["stage", "ms per frame"], [[name, float(ms)] for name, ms in figures["stage_ms"].items()])],
        ),
        Section(
            "Settings",
            [
                Table(
                    ["setting", "value"],
                    [[name, str(value)] for name, value in _flat(figures["camera"] | figures["config"])],
                ),
                Paragraph(
                    "The world frame is the camera frame of the first tracked frame. Errors are root mean squares: ATE "
                    "over camera centres after SE(3) alignment, RPE over motions between consecutive tracked frames."
                ),
            ],
        ),
    ]
    stopped = ", interrupted" if result.interrupted else ""
    subtitle = f"RGB-D SLAM with {result.features} on {result.sequence_format} input{stopped}"
    return html_report(
        result.sequence_name, sections, subtitle=subtitle, footer=f"semkey {__version__}, seed {figures['seed']}"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their whole name, as in ``tracking.min_inliers``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _problem_blocks(result: SlamResult) -> list[Any]:
    from semkey.visualization.html import Code, Paragraph

    blocks: list[Any] = []
    if result.dropped:
        blocks.append(Paragraph(f"{result.dropped} frames were dropped because they would have come too late."))
    if result.problems:
        blocks.append(Code("\n".join(result.problems)))
    return blocks or [Paragraph("Every frame could be read, in order of time.")]


def _lost_blocks(result: SlamResult) -> list[Any]:
    from semkey.visualization.html import Paragraph, Table

    if not result.lost_events:
        return [Paragraph("No frame was lost.")]
    rows = [[event.first_frame, event.last_frame, event.recovered] for event in result.lost_events]
    explanation = (
        "Lost frames have no row in the trajectory. 'relocalised' means that the old map was found again; after a "
        "'new submap' the trajectory continues at the last known pose although the motion in between is unknown."
    )
    return [Table(["first frame", "last frame", "ended by"], rows), Paragraph(explanation)]
