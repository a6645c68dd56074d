"""The HTML page of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey import __version__
from semkey.errors import InputError
from semkey.metrics.trajectory import absolute_trajectory_error
from semkey.slam.output.lost_pictures import LostPicture
from semkey.slam.records import evidence_of
from semkey.slam.result import SlamResult
from semkey.slam.solvers.evidence import MAX_LOG10_NFA
from semkey.visualization.html import (
    Block,
    Cell,
    Code,
    Embedded,
    Folded,
    Gallery,
    KeyFigures,
    Paragraph,
    Picture,
    Section,
    Table,
    html_report,
)
from semkey.visualization.palette import ESTIMATE, TRUTH
from semkey.visualization.turntable import turntable_html

SENSOR_NAMES = {"rgbd": "RGB-D", "stereo": "Stereo", "mono": "Monocular"}

_ALIGNMENTS = {"se3": "SE(3)", "sim3": "Sim(3)"}

_STAGES = {
    "frame": "whole frame",
    "wait": "waiting for the next frame",
    "read": "reading",
    "extract": "extracting features",
    "depth": "depth of keypoints",
    "match": "matching to the map",
    "pose": "pose",
    "map": "making keyframes",
    "adjust": "bundle adjustment, waiting for it",
    "relocalise": "relocalising",
    "loops": "looking for loops, closing them",
    "listeners": "viewer, automatic saving",
}


def report_page(
    result: SlamResult,
    figures: Mapping[str, Any],
    picture: bytes,
    lost_pictures: Sequence[LostPicture],
    colors: NDArray[np.uint8] | None = None,
) -> str:
    """The page as one self-contained HTML text.

    Args:
        result: the run.
        figures: of :func:`semkey.slam.output.report.summarise`.
        picture: PNG of the trajectory.
        lost_pictures: what was seen where tracking was lost.
        colors: (L, 3) uint8 RGB of all landmarks that the map ever had; None draws grey.
    """
    sections = [
        Section(
            "Result",
            [
                KeyFigures(_key_figures(figures)),
                *_scale_blocks(figures),
                Picture(picture, "Trajectory, error and inliers over time"),
            ],
        ),
        Section("Evidence", _evidence_blocks(result, figures)),
        Section("Lost frames", _lost_blocks(result, lost_pictures)),
        Section("Input", _input_blocks(figures)),
        Section("Map", [*_turntable(result, colors), *_map_blocks(figures)]),
        Section("Time per stage", _time_blocks(figures)),
        Section("Settings", _setting_blocks(figures)),
    ]
    sensor = SENSOR_NAMES[result.sensor]
    stopped = ", interrupted" if result.interrupted else ""
    return html_report(
        result.sequence_name,
        sections,
        subtitle=f"{sensor} SLAM with {result.features} on {result.sequence_format} input{stopped}",
        footer=f"semkey {__version__}, seed {figures['seed']}",
    )


def map_view(result: SlamResult, colors: NDArray[np.uint8] | None) -> str:
    """HTML of the landmarks and the way of the camera, to be turned with the mouse; empty without a map.

    Args:
        result: the run, in the world of whose map all is shown.
        colors: (L, 3) uint8 RGB of all landmarks that the map ever had; None draws grey.
    """
    slam_map = result.slam_map
    if slam_map is None or not slam_map.keyframes:
        return ""
    alive = slam_map.landmarks.ids
    trajectory, truth = result.trajectory(), result.ground_truth_trajectory()
    paths = [("estimate", ESTIMATE, trajectory.positions)]
    try:
        aligned = absolute_trajectory_error(truth, trajectory, alignment=result.alignment)
        paths.insert(0, ("ground truth", TRUTH, truth.mapped(aligned.similarity).positions))
    except InputError:  # there is none, or too little of it
        pass
    down = trajectory.poses[:, :3, 1].mean(axis=0) if len(trajectory) else np.array([0.0, 1.0, 0.0])
    shades = None if colors is None else colors[alive]
    return turntable_html(
        slam_map.landmarks.positions[alive], shades, paths, up=-down, caption=f"{len(alive)} landmarks"
    )


def _turntable(result: SlamResult, colors: NDArray[np.uint8] | None) -> list[Block]:
    shown = map_view(result, colors)
    return [Embedded(shown)] if shown else []


def _key_figures(figures: Mapping[str, Any]) -> dict[str, str]:
    shown = {
        "Frames": str(figures["frames"]),
        "Tracked": f"{figures['tracked_percent']:.1f} %",
        "Lost events": str(figures["lost_events"]),
        "Loops": str(len(figures["loops"])),
        "Keyframes": str(figures["map"]["keyframes"]),
        "Landmarks": str(figures["map"]["landmarks"]),
        "Frames per second": f"{figures['fps']:.1f}",
    }
    for key, name, unit in (
        ("ate_rmse_m", "ATE RMSE", " m"),
        ("live_ate_rmse_m", "ATE as first estimated", " m"),
        ("rpe_trans_m", "RPE, translation", " m"),
        ("rpe_rot_deg", "RPE, rotation", "°"),
    ):
        # Without corrections the two trajectories are one.
        same = key == "live_ate_rmse_m" and figures.get(key) == figures.get("ate_rmse_m")
        if figures.get(key) is not None and not same:
            shown[name] = f"{figures[key]:.4f}{unit}"
    return shown


def _scale_blocks(figures: Mapping[str, Any]) -> list[Block]:
    """What is known of the unit of length, where it is not the metre."""
    scale = figures["scale"]
    return [] if scale is None else [Paragraph(f"{scale['statement'].capitalize()}.")]


def _evidence_blocks(result: SlamResult, figures: Mapping[str, Any]) -> list[Block]:
    """What speaks for the poses over time, and how that is to be read."""
    from semkey.visualization.panels_over_time import evidence_strip

    records = result.frames
    values = evidence_of(records)
    lost = np.array([record.T_world_cam is None for record in records], dtype=bool)
    stamps = [record.timestamp for record in records]
    blocks: list[Block] = []
    if figures["shortfall"]:
        blocks.append(Paragraph(f"{figures['shortfall']}."))
    strip = evidence_strip(stamps, values, lost, threshold=MAX_LOG10_NFA)
    blocks.append(Picture(strip, "Decades by which chance is ruled out, frame by frame; lost frames are red"))
    known = -values[np.isfinite(values) & ~lost]
    if len(known):
        blocks.append(
            Paragraph(
                f"Of {len(known)} poses the weakest has {known.min():.1f} decades, the median {np.median(known):.0f}: "
                "so improbable is it that as much agrees with a pose by chance. A pose is believed from "
                f"{-MAX_LOG10_NFA:g} decades on, and needs more where little of what should be in view was found."
            )
        )
    return blocks


def _lost_blocks(result: SlamResult, pictures: Sequence[LostPicture]) -> list[Block]:
    if not result.lost_events:
        return [Paragraph("No frame was lost.")]
    blocks: list[Block] = [
        Table(
            ["first frame", "last frame", "frames", "ended by"],
            [
                [
                    event.first_frame,
                    event.last_frame,
                    sum(event.first_frame <= record.index <= event.last_frame for record in result.frames),
                    event.recovered,
                ]
                for event in result.lost_events
            ],
        ),
        Paragraph(
            "Lost frames have no row in the trajectory. 'relocalised' means that the old map was found again; after a "
            "'new submap' the trajectory continues at the last known pose although the motion in between is unknown, "
            "until the submaps are merged."
        ),
    ]
    for first_lost in dict.fromkeys(picture.first_lost for picture in pictures):
        of_one = [p for p in pictures if p.first_lost == first_lost and p.image is not None]
        if of_one:
            blocks.append(Gallery([_lost_picture(picture) for picture in of_one]))
    unreadable = [str(picture.index) for picture in pictures if picture.image is None]
    if unreadable:
        blocks.append(Paragraph(f"Frames that could not be read: {', '.join(unreadable)}"))
    return blocks


def _lost_picture(picture: LostPicture) -> Picture:
    import cv2

    assert picture.image is not None
    bgr = cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return Picture(data, f"Frame {picture.index}: {picture.role}, {picture.keypoints} keypoints")


def _input_blocks(figures: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    if figures["dropped"]:
        blocks.append(Paragraph(f"{figures['dropped']} frames were dropped because they would have come too late."))
    if figures["problems"]:
        blocks.append(Code("\n".join(figures["problems"])))
    return blocks or [Paragraph("Every frame could be read, in order of time.")]


def _map_blocks(figures: Mapping[str, Any]) -> list[Block]:
    submaps = [
        [entry["submap"], entry["first_frame"], entry["last_frame"], entry["tracked"]] for entry in figures["submaps"]
    ]
    blocks: list[Block] = [Table(["submap", "first frame", "last frame", "tracked frames"], submaps)]
    if not figures["loops"]:
        return [*blocks, Paragraph("No loop was closed.")]
    rows = [
        [
            "loop closed" if loop["kind"] == "loop" else "submaps merged",
            loop["frame_index"],
            loop["keyframe_id"],
            loop["matched_keyframe_id"],
            loop["inliers"],
            round(loop["correction_m"], 4),
            round(loop["correction_deg"], 3),
            round(loop["scale"], 4),
        ]
        for loop in figures["loops"]
    ]
    header = ["event", "frame", "keyframe", "sees again", "matches", "moved, m", "turned, °", "scaled by"]
    return [*blocks, Table(header, rows)]


def _time_blocks(figures: Mapping[str, Any]) -> list[Block]:
    stages = figures["stage_ms"]
    order = [*(name for name in _STAGES if name in stages), *(name for name in stages if name not in _STAGES)]
    whole = stages["frame"]["mean"] if "frame" in stages else 0.0
    rows = [
        [
            _STAGES.get(name, name),
            *(Cell(f"{stages[name][key]:.1f}") for key in ("mean", "median", "p95")),
            Cell(f"{100 * stages[name]['mean'] / whole:.0f} %") if whole > 0 else None,
        ]
        for name in order
    ]
    return [
        Table(["stage", "mean, ms", "median, ms", "95th percentile, ms", "share"], rows),
        Paragraph(
            "Means are over all frames, median and percentile over the frames that had the stage. Frames are read and "
            "their features extracted ahead, at the same time as the other stages, which may wait for them: shares can "
            "add up to more than 100 %."
        ),
    ]


def _setting_blocks(figures: Mapping[str, Any]) -> list[Block]:
    rows = [[name, str(value)] for name, value in _flat(figures["camera"] | figures["config"])]
    return [
        Folded("Camera and settings", [Table(["setting", "value"], rows)]),
        Paragraph(
            "The world frame is the camera frame of the first tracked frame. Errors are root mean squares: ATE over "
            f"camera centres after {_ALIGNMENTS[figures.get('alignment', 'se3')]} alignment, RPE over motions between "
            "consecutive tracked frames."
        ),
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their whole name, as in ``tracking.min_inliers``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
