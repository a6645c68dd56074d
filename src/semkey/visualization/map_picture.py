"""A map from above with cameras in it, and how an image agrees with a map."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.trajectories import Trajectory
from semkey.visualization.draw import INLIER_RGB, OUTLIER_RGB, SUBPIXEL_BITS, with_caption
from semkey.visualization.palette import ESTIMATE, START, TRUTH
from semkey.visualization.trajectory import choose_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOTS_PER_INCH = 110
_KEYFRAMES, _LOCATED = ESTIMATE, START
# Far mismatches would leave the rest of the map a dot: the picture shows all cameras, and all but this share of the
# points on each side.
_OUTSIDE_SHARE = 0.01
_MANY_LABELS = 30
# Letters of a label along an arrow, and the height of a line in letters.
_LABEL_SPAN, _LINE_HEIGHT = 5.0, 2.2


def map_figure(
    points: NDArray[np.float64],
    colors: NDArray[np.uint8] | None,
    keyframe_poses: Sequence[NDArray[np.float64]],
    located: Sequence[tuple[str, NDArray[np.float64]]] = (),
    *,
    title: str = "",
    unit: str = "m",
) -> bytes:
    """Draw a map as PNG, from above.

    Args:
        points: (N, 3) landmarks.
        colors: (N, 3) uint8 RGB; None draws grey.
        keyframe_poses: T_world_cam (4, 4) of the keyframes, in order of time.
        located: names and poses T_world_cam (4, 4) of cameras to mark, with an arrow along the optical axis.
        title: a heading.
        unit: of lengths.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stamps = np.arange(len(keyframe_poses), dtype=np.float64)
    trajectory = Trajectory(stamps, np.stack(keyframe_poses) if len(keyframe_poses) else np.zeros((0, 4, 4)))
    view = choose_view(trajectory)
    across, upward = view.right, view.forward

    figure = Figure(figsize=(10.0, 8.0), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    shade = TRUTH if colors is None else colors.astype(np.float64) / 255.0
    axes.scatter(points[:, across], points[:, upward], s=4, c=shade, linewidths=0, label=f"{len(points)} landmarks")
    places = trajectory.positions
    axes.plot(places[:, across], places[:, upward], ".", color=_KEYFRAMES, markersize=7, label="keyframes")
    cameras = np.concatenate([places, *(pose[None, :3, 3] for _, pose in located)])
    _limit(axes, points[:, (across, upward)], cameras[:, (across, upward)])
    length = 0.04 * max(np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim()))
    for number, (_, pose) in enumerate(located):
        x, y = pose[across, 3], pose[upward, 3]
        tip = (x + length * pose[across, 2], y + length * pose[upward, 2])
        axes.annotate("", xytext=(x, y), xy=tip, arrowprops={"color": _LOCATED, "width": 1.5, "headwidth": 6})
        label = "located images" if number == 0 else None
        axes.plot(x, y, "o", color=_LOCATED, markersize=6, label=label)
    if len(located) <= _MANY_LABELS:
        spots = [(name, (float(pose[across, 3]), float(pose[upward, 3]))) for name, pose in located]
        for text, place in grouped_labels(spots, per_unit=_LABEL_SPAN / max(length, 1e-9)):
            axes.annotate(text, place, xytext=(6, 6), textcoords="offset points", fontsize=8, color=_LOCATED)
    axes.set_aspect("equal", adjustable="box")
    if not view.forward_is_up_the_page:
        axes.invert_yaxis()
    axes.set_xlabel(f"{'xyz'[across]} ({unit})")
    axes.set_ylabel(f"{'xyz'[upward]} ({unit})")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="upper right", markerscale=1.5, framealpha=0.85)
    if title:
        axes.set_title(title, fontsize=12)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def grouped_labels(
    spots: Sequence[tuple[str, tuple[float, float]]], *, per_unit: float
) -> list[tuple[str, tuple[float, float]]]:
    """Labels that do not lie on each other: of names too near to one before, that one says how many more there are.

    Args:
        spots: names and where they belong.
        per_unit: letters that fit side by side into a unit of the picture.
    """
    labels: list[tuple[str, tuple[float, float], int]] = []
    for name, (x, y) in spots:
        for index, (first, place, more) in enumerate(labels):
            wide = max(len(first) + len(" and 9 more"), len(name)) / per_unit
            if abs(x - place[0]) < wide and abs(y - place[1]) < _LINE_HEIGHT / per_unit:
                labels[index] = (first, place, more + 1)
                break
        else:
            labels.append((name, (x, y), 0))
    return [(f"{name} and {more} more" if more else name, place) for name, place, more in labels]


def draw_reprojections(
    image: NDArray[np.uint8], keypoints: NDArray[np.float64], projected: NDArray[np.float64], caption: str
) -> NDArray[np.uint8]:
    """Draw keypoints as green circles, and in red lines how far the landmarks of the map project from them.

    Args:
        image: (H, W, 3) uint8 RGB.
        keypoints: (M, 2) pixels.
        projected: (M, 2) pixels, where the landmarks should be by the estimated pose.
        caption: a line below the image.

    Raises:
        InputError: the image is not 8-bit RGB, or the points do not belong together.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"expected an image (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if keypoints.shape != projected.shape:
        raise InputError(f"{len(keypoints)} keypoints and {len(projected)} projected landmarks do not belong together")
    canvas = image.copy()
    radius = max(2.0, float(np.hypot(*image.shape[:2])) / 250)
    scale = 2**SUBPIXEL_BITS
    for seen, expected in zip(np.round(keypoints * scale), np.round(projected * scale), strict=True):
        centre, end = (int(seen[0]), int(seen[1])), (int(expected[0]), int(expected[1]))
        cv2.line(canvas, centre, end, OUTLIER_RGB, 1, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.circle(canvas, centre, round(radius * scale), INLIER_RGB, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    return with_caption(canvas, caption)


def _limit(axes: Axes, points: NDArray[np.float64], cameras: NDArray[np.float64]) -> None:
    """Show the bulk of the points (N, 2) and all cameras (M, 2), with a margin."""
    ends = []
    if len(points):
        ends.append(np.quantile(points, [_OUTSIDE_SHARE, 1 - _OUTSIDE_SHARE], axis=0))
    if len(cameras):
        ends.append(np.stack([cameras.min(axis=0), cameras.max(axis=0)]))
    if not ends:
        return
    low, high = np.min([pair[0] for pair in ends], axis=0), np.max([pair[1] for pair in ends], axis=0)
    margin = 0.08 * np.maximum(high - low, 0.1)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
