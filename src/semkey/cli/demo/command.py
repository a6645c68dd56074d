"""``semkey demo``: everything once, on a rendered room, without any download."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semkey.cli.console import print_table, progress_bar
from semkey.cli.demo.report import DemoRun, readable, write_demo_report
from semkey.cli.inputs import FeatureOptions
from semkey.cli.options import configured, field_option
from semkey.rendering.config import RoomConfig, Texture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semkey.datasets import Frame, FrameSequence
    from semkey.extractors import Extractor
    from semkey.geometry.camera import PinholeCamera
    from semkey.slam import SlamResult

_FPS = 15.0
# The matched pair is the one farthest apart within this turn, so that it shows most of the same things.
_PAIR_MAX_ANGLE_DEG = 18.0
_RIGHT_MATCH_PX = 3.0


@configured
def demo(
    *,
    out: Path = typer.Option(Path("semkey-demo"), "--out", "-o", metavar="DIR", help="Where everything goes."),
    frames: int = typer.Option(75, min=5, help="Number of rendered frames."),
    seed: int = field_option(RoomConfig, "seed", min=0),
    texture: Texture = field_option(RoomConfig, "texture"),
    features: FeatureOptions,
) -> None:
    """See semkey work: render a room, detect, match, track the camera, and compare with the truth.

    Needs no data, no download and no argument, and about a minute on two cores. Writes room/ (the rendered input in
    the TUM RGB-D layout), overview.jpg, keypoints.png, matches.png, trajectory.png, slam/ (as semkey slam),
    summary.json and report.html, which shows it all.

    [bold]Examples[/]

        semkey demo

        semkey demo --seed 7 --texture low --out low-texture

        semkey demo --features orb --out orb
    """
    from semkey.datasets import open_sequence
    from semkey.rendering import RoomConfig, write_room
    from semkey.rendering.dataset import check_room_dir
    from semkey.slam.output.report import check_out_dir

    run = DemoRun(out=check_out_dir(out))
    room = out / "room"
    check_room_dir(room, replace=True)
    start = time.perf_counter()
    extractor = features.create()
    config = RoomConfig(seed=seed, frames=frames, fps=_FPS, texture=texture)
    with run.step("render", f"rendering {frames} frames of a room"), progress_bar("Rendering") as progress:
        write_room(room, config, progress, replace=True)
    sequence = open_sequence(room, format="tum")
    first, second = _choose_pair(sequence)
    _show_frames(run, sequence)
    with run.step("detect and match", f"detecting and matching in frames {first} and {second}"):
        _detect_and_match(run, extractor, sequence, first, second)
    with run.step("track", "tracking the camera"):
        result = _track(run, extractor, sequence, seed)
    _draw_overview(run, sequence, result)
    run.figures["seconds"] = round(time.perf_counter() - start, 3)
    run.figures |= {"step_seconds": run.seconds, "features": extractor.name, "seed": seed, "texture": texture}
    write_demo_report(run)
    print_table(["figure", "value"], list(readable(run.figures).items()))
    typer.echo(f"look at {out / 'report.html'} (or {', '.join(_PICTURES)} in {out})")


_PICTURES = ("overview.jpg", "keypoints.png", "matches.png", "trajectory.png")


def _choose_pair(sequence: FrameSequence) -> tuple[int, int]:
    """A frame a quarter into the sequence, and the later one farthest from it that looks at the same things."""
    import numpy as np

    from semkey.geometry.transforms import inverse, rotation_angle_deg

    poses = [pose for pose in sequence.ground_truth if pose is not None]
    first = len(poses) // 4
    best, farthest = first + 1, -1.0
    for index in range(first + 1, len(poses)):
        motion = inverse(poses[index]) @ poses[first]
        distance = float(np.linalg.norm(motion[:3, 3]))
        if rotation_angle_deg(motion) <= _PAIR_MAX_ANGLE_DEG and distance > farthest:
            best, farthest = index, distance
    return first, best


def _show_frames(run: DemoRun, sequence: FrameSequence) -> None:
    """A strip of images above their depth, near yellow and far blue."""
    import cv2
    import numpy as np

    columns = []
    for index in np.linspace(0, len(sequence) - 1, 5).astype(int).tolist():
        frame = sequence[index]
        assert frame.depth is not None
        near = np.clip(255.0 * (1.0 - (frame.depth - 0.5) / 5.0), 0, 255).astype(np.uint8)
        depth = cv2.cvtColor(cv2.applyColorMap(near, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        column = np.concatenate([frame.image, depth])
        columns.append(cv2.resize(column, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    run.keep("frames.png", np.concatenate(columns, axis=1).astype(np.uint8))


def _detect_and_match(run: DemoRun, extractor: Extractor, sequence: FrameSequence, first: int, second: int) -> None:
    import numpy as np

    from semkey.geometry.transforms import inverse
    from semkey.matching import match
    from semkey.matching.robust import estimate_relative_pose
    from semkey.metrics.two_view import relative_pose_error
    from semkey.visualization import draw_keypoints, draw_matches

    frame0, frame1, camera = sequence[first], sequence[second], sequence.camera
    assert camera is not None
    assert frame0.T_world_cam is not None
    assert frame1.T_world_cam is not None
    features0, features1 = (extractor.extract(frame.image).to("cpu") for frame in (frame0, frame1))
    matches = match(features0, features1)
    points0 = features0.keypoints[matches.indices[:, 0]].numpy().astype(np.float64)
    points1 = features1.keypoints[matches.indices[:, 1]].numpy().astype(np.float64)
    estimate = estimate_relative_pose(points0, points1, camera, camera)
    T_cam1_cam0 = inverse(frame1.T_world_cam) @ frame0.T_world_cam
    rotation_error, translation_error = relative_pose_error(estimate.model, T_cam1_cam0)
    run.keep("keypoints.png", draw_keypoints(frame0.image, features0).pixels)
    drawn = draw_matches(frame0.image, frame1.image, features0, features1, matches, estimate.inliers)
    run.keep("matches.png", drawn.pixels)
    told = f"{estimate.inlier_count} of {len(matches)} matches agree with one motion"
    above = draw_matches(
        frame0.image, frame1.image, features0, features1, matches, estimate.inliers, layout="vertical", caption=told
    )
    run.above = above.pixels
    run.figures |= {
        "frame_pair": [first, second],
        "keypoints": [len(features0), len(features1)],
        "matches": len(matches),
        "inliers": estimate.inlier_count,
        "inlier_share": _share(estimate.inlier_count, len(matches)),
        "right_matches_share": _right_share(points0, points1, frame0, camera, T_cam1_cam0),
        "baseline_m": round(float(np.linalg.norm(T_cam1_cam0[:3, 3])), 4),
        "rotation_error_deg": _finite(rotation_error),
        "translation_error_deg": _finite(translation_error),
    }


def _right_share(
    points0: NDArray[np.float64],
    points1: NDArray[np.float64],
    frame0: Frame,
    camera: PinholeCamera,
    T_cam1_cam0: NDArray[np.float64],
) -> float | None:
    """Share of matches within three pixels of the truth that depth and poses give."""
    import numpy as np

    from semkey.geometry.transforms import transform_points

    assert frame0.depth is not None
    if len(points0) == 0:
        return None
    columns, rows = np.round(points0).astype(int).T
    height, width = frame0.depth.shape
    depth = frame0.depth[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    truth = camera.project(transform_points(T_cam1_cam0, camera.backproject(points0, depth)))
    right = np.linalg.norm(truth - points1, axis=1) <= _RIGHT_MATCH_PX
    return _share(int(right.sum()), len(points0))


def _track(run: DemoRun, extractor: Extractor, sequence: FrameSequence, seed: int) -> SlamResult:
    from semkey.slam import FrameRecord, SlamConfig, run_slam
    from semkey.slam.output.report import write_report

    with progress_bar("Tracking") as progress:

        def advance(record: FrameRecord) -> None:
            if progress is not None:
                progress(record.index + 1, len(sequence))

        result = run_slam(sequence, extractor, SlamConfig(seed=seed), progress=advance)
    figures = write_report(result, run.out / "slam")
    names = ("frames", "tracked", "tracked_percent", "lost_events", "keyframes", "fps")
    run.figures |= {name: figures[name] for name in (*names, "ate_rmse_m", "rpe_trans_m", "rpe_rot_deg")}
    picture = (run.out / "slam" / "trajectory.png").read_bytes()
    run.pictures["trajectory.png"] = picture
    return result


def _draw_overview(run: DemoRun, sequence: FrameSequence, result: SlamResult) -> None:
    """Matches, and the room as keyframes saw it from where SLAM found them: the picture of the README."""
    from semkey.visualization.scene import draw_overview, draw_scene

    poses = {record.index: record.T_world_cam for record in result.frames if record.T_world_cam is not None}
    seen = [(frame.image, frame.depth, poses[index]) for index in list(poses)[::6] if (frame := sequence[index])]
    if run.above is None or sequence.camera is None or not seen:
        return
    scene = draw_scene(
        [(image, depth, pose) for image, depth, pose in seen if depth is not None],
        sequence.camera,
        list(poses.values()),
        (800, 720),
    )
    run.keep("overview.jpg", draw_overview(run.above, scene))


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _finite(value: float) -> float | None:
    import math

    return round(value, 4) if math.isfinite(value) else None
