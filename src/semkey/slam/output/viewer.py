"""A run in Rerun: live in its viewer, or as a recording for later.

What is logged, below the application ``semkey`` on the timelines ``frame`` (index in the sequence) and ``time``
(seconds from the first frame):

- ``world/camera``: pose and camera of the frame; ``.../image`` the image, ``.../image/tracked`` and
  ``.../image/untracked`` its keypoints, ``.../image/matches`` lines from where the tracked ones were a frame ago
- ``world/points``: landmarks; ``world/tracked``: those that the frame sees
- ``world/lines``, ``world/camera/image/lines``: lines of the map and segments of the frame, where lines are used
- ``world/keyframes``: frustums, one colour per submap; ``world/loops``: loop closures
- ``world/trajectory``: all poses with their corrections; ``world/trail``: the last poses as they were estimated;
  ``world/ground_truth``: where it is known, laid on the first tracked frame
- ``plots/inliers``, ``plots/keypoints``; ``log``: losses, relocalisations and loops
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, transform_points
from semkey.slam.events import FrameEvent, KeyframeEvent, LoopEvent, SlamListener
from semkey.slam.output.colors import LandmarkColors
from semkey.untrusted import one_line
from semkey.visualization.palette import ESTIMATE, LOST, TRUTH, rgb

if TYPE_CHECKING:
    from semkey.slam.map.slam_map import SlamMap
    from semkey.slam.result import SlamResult

Array = NDArray[np.float64]

# The whole map and trajectory are sent again when they have grown by this share: all sendings together stay within
# a constant multiple of the last one.
_GROWTH = 0.1
_TRAIL_FRAMES = 60
_JPEG_QUALITY = 80
_VIEWER_PORT = 9876
# Frustums are drawn this deep, as a share of the median distance of landmarks from their keyframe.
_FRUSTUM_SHARE = 0.08

_LIVE_RGB, _TRUTH_RGB, _LOOP_RGB = rgb(ESTIMATE), rgb(TRUTH), rgb(LOST)
_LINE_RGB = (86, 180, 233)
_TRACKED_RGB, _UNTRACKED_RGB = (40, 220, 80), (235, 150, 60)
# Told apart with every kind of colour vision (Okabe and Ito).
_SUBMAP_RGB = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233))


class RerunListener(SlamListener):
    """Sends a run to Rerun.

    Args:
        record: an ``.rrd`` file to write, which a viewer can open during the run and after it; None for none.
        live: whether to open Rerun's viewer.
        colors: colours of the landmarks of a map that is continued.

    Raises:
        ConfigError: rerun-sdk is not installed, or a viewer is asked for where there is no screen.
        InputError: the file cannot be written.
    """

    def __init__(
        self, *, record: str | Path | None = None, live: bool = False, colors: NDArray[np.uint8] | None = None
    ) -> None:
        self._rr = _import_rerun()
        if live:
            _require_screen()
        self._stream = self._rr.RecordingStream("semkey")
        self._open(None if record is None else Path(record), live=live)
        self._colors = LandmarkColors(colors)
        self._camera: PinholeCamera | None = None
        self._result: SlamResult | None = None
        self._start_time: float | None = None
        self._trail: list[Array] = []
        self._sent = {"points": 0, "trajectory": 0}
        self._last_pixels: dict[int, tuple[float, float]] = {}
        self._was_lost = False

    def on_start(self, result: SlamResult, slam_map: SlamMap) -> None:
        """See :class:`SlamListener`."""
        self._result, self._camera = result, result.camera
        rr, camera = self._rr, result.camera
        # The world's axes are those of the first camera: x right, y down, z forward.
        self._stream.log("world", rr.ViewCoordinates.RDF, static=True)
        self._stream.log(
            "world/camera/image",
            rr.Pinhole(
                image_from_camera=camera.matrix,
                resolution=(camera.width, camera.height),
                camera_xyz=rr.ViewCoordinates.RDF,
                image_plane_distance=0.3,
            ),
            static=True,
        )
        if slam_map.keyframes:
            self._send_map(slam_map)

    def on_keyframe(self, event: KeyframeEvent) -> None:
        """See :class:`SlamListener`."""
        self._set_time(event.keyframe.frame.index, event.keyframe.frame.timestamp)
        self._send_keyframes(event.slam_map)

    def on_loop(self, event: LoopEvent) -> None:
        """See :class:`SlamListener`."""
        loop = event.loop
        what = "loop closed" if loop.kind == "loop" else "submaps merged"
        self._say(
            f"{what}: keyframe {loop.keyframe_id} sees what {loop.matched_keyframe_id} saw, {loop.inliers} matches, "
            f"corrected by {loop.correction_m:.3f} m and {loop.correction_deg:.2f} deg"
        )
        self._send_map(event.slam_map)

    def on_frame(self, event: FrameEvent) -> None:
        """See :class:`SlamListener`."""
        self._colors.on_frame(event)
        record = event.record
        self._set_time(record.index, record.timestamp)
        self._send_image(event)
        self._send_pose(event)
        rr = self._rr
        self._stream.log("plots/inliers", rr.Scalars(record.inliers))
        self._stream.log("plots/keypoints", rr.Scalars(record.keypoints))
        lost = record.T_world_cam is None
        if lost and not self._was_lost:
            self._say(f"lost at frame {record.index}", warn=True)
        elif self._was_lost and not lost:
            self._say(f"tracking again at frame {record.index} ({record.method})")
        self._was_lost = lost
        if event.slam_map.keyframes:
            self._send_grown(event.slam_map)

    def on_end(self, result: SlamResult, slam_map: SlamMap) -> None:
        """See :class:`SlamListener`."""
        if slam_map.keyframes:
            self._send_map(slam_map)
        self._stream.flush()
        self._stream.disconnect()

    def _open(self, record: Path | None, *, live: bool) -> None:
        rr = self._rr
        blueprint = _blueprint()
        sinks: list[Any] = []
        if live:
            self._stream.spawn(port=_VIEWER_PORT, connect=False)
            sinks.append(rr.GrpcSink(f"rerun+http://127.0.0.1:{_VIEWER_PORT}/proxy"))
        if record is not None:
            try:
                record.parent.mkdir(parents=True, exist_ok=True)
                # Rerun itself only logs that a file cannot be written.
                record.open("ab").close()
            except OSError as error:
                raise InputError(f"cannot write {record}: {error.strerror or error}") from None
            sinks.append(rr.FileSink(str(record)))
        try:
            self._stream.set_sinks(*sinks, default_blueprint=blueprint)
        except RuntimeError as error:  # a full disk
            raise InputError(f"cannot write {record}: {one_line(str(error))}") from None

    def _set_time(self, index: int, timestamp: float) -> None:
        if self._start_time is None:
            self._start_time = timestamp
        self._stream.set_time("frame", sequence=index)
        self._stream.set_time("time", duration=timestamp - self._start_time)

    def _say(self, text: str, *, warn: bool = False) -> None:
        level = self._rr.TextLogLevel.WARN if warn else self._rr.TextLogLevel.INFO
        self._stream.log("log", self._rr.TextLog(text, level=level))

    def _send_image(self, event: FrameEvent) -> None:
        import cv2

        rr, place = self._rr, "world/camera/image"
        if event.frame is not None:
            bgr = cv2.cvtColor(event.frame.image, cv2.COLOR_RGB2BGR)
            done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            if done:
                self._stream.log(place, rr.EncodedImage(contents=encoded.tobytes(), media_type="image/jpeg"))
        keypoints = np.zeros((0, 2)) if event.observed is None else event.observed.keypoints
        tracked = event.landmark_ids >= 0
        self._stream.log(f"{place}/tracked", rr.Points2D(keypoints[tracked], colors=[_TRACKED_RGB], radii=[2.0]))
        self._stream.log(f"{place}/untracked", rr.Points2D(keypoints[~tracked], colors=[_UNTRACKED_RGB], radii=[1.2]))
        # Rows of the map may be taken by other landmarks from frame to frame; serial numbers are not.
        serials = event.slam_map.landmarks.serials[event.landmark_ids[tracked]] if tracked.any() else ()
        pixels = {int(serial): (float(x), float(y)) for serial, (x, y) in zip(serials, keypoints[tracked], strict=True)}
        moved = [(self._last_pixels[key], pixel) for key, pixel in pixels.items() if key in self._last_pixels]
        self._stream.log(f"{place}/matches", rr.LineStrips2D(moved, colors=[_TRACKED_RGB], radii=[0.6]))
        self._last_pixels = pixels
        if event.observed is not None and event.observed.lines is not None:
            segments = event.observed.lines.segments.endpoints
            self._stream.log(f"{place}/lines", rr.LineStrips2D(list(segments), colors=[_LINE_RGB], radii=[0.6]))

    def _send_pose(self, event: FrameEvent) -> None:
        rr, pose = self._rr, event.record.T_world_cam
        if pose is None:
            self._stream.log("world/tracked", rr.Clear(recursive=False))
            return
        self._stream.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        self._trail = [*self._trail[1 - _TRAIL_FRAMES :], pose[:3, 3]]
        self._stream.log("world/trail", rr.LineStrips3D([np.stack(self._trail)], colors=[_LIVE_RGB]))
        ids = event.landmark_ids[event.landmark_ids >= 0]
        points = event.slam_map.landmarks.positions[ids] if len(ids) else np.zeros((0, 3))
        self._stream.log("world/tracked", rr.Points3D(points, colors=[_TRACKED_RGB]))

    def _send_grown(self, slam_map: SlamMap) -> None:
        """Send points and trajectory if there are many more of them than when they were sent last."""
        if np.count_nonzero(slam_map.landmarks.alive) > (1 + _GROWTH) * self._sent["points"]:
            self._send_points(slam_map)
        if self._result is not None and len(self._result.frames) > (1 + _GROWTH) * self._sent["trajectory"]:
            self._send_trajectory()

    def _send_map(self, slam_map: SlamMap) -> None:
        self._send_points(slam_map)
        self._send_keyframes(slam_map)
        self._send_trajectory()

    def _send_points(self, slam_map: SlamMap) -> None:
        alive = slam_map.landmarks.alive
        self._sent["points"] = int(np.count_nonzero(alive))
        colors = self._colors.colors(len(alive))[alive]
        self._stream.log("world/points", self._rr.Points3D(slam_map.landmarks.positions[alive], colors=colors))

    def _send_keyframes(self, slam_map: SlamMap) -> None:
        keyframes = list(slam_map.keyframes.values())
        if self._camera is None or not keyframes:
            return
        depth = _FRUSTUM_SHARE * _scene_depth(slam_map)
        shape = frustum_lines(self._camera, depth)
        strips = [line for keyframe in keyframes for line in _moved(shape, keyframe.T_world_cam)]
        colors = [_SUBMAP_RGB[keyframe.submap % len(_SUBMAP_RGB)] for keyframe in keyframes for _ in shape]
        self._stream.log("world/keyframes", self._rr.LineStrips3D(strips, colors=colors))
        if slam_map.lines is not None:
            ends = list(slam_map.lines.points_world())
            self._stream.log("world/lines", self._rr.LineStrips3D(ends, colors=[_LINE_RGB]))
        loops = [] if self._result is None else self._result.loops
        places = {keyframe.id: keyframe.T_world_cam[:3, 3] for keyframe in keyframes}
        pairs = [(loop.keyframe_id, loop.matched_keyframe_id) for loop in loops]
        edges = [(places[a], places[b]) for a, b in pairs if a in places and b in places]
        self._stream.log("world/loops", self._rr.LineStrips3D(edges, colors=[_LOOP_RGB]))

    def _send_trajectory(self) -> None:
        if self._result is None:
            return
        self._sent["trajectory"] = len(self._result.frames)
        trajectory = self._result.trajectory()
        if not len(trajectory):
            return
        self._stream.log("world/trajectory", self._rr.LineStrips3D([trajectory.positions], colors=[_LIVE_RGB]))
        truth = self._result.ground_truth
        anchor = next((r for r in self._result.frames if r.T_world_cam is not None and r.index in truth), None)
        if anchor is not None and anchor.T_world_cam is not None:
            T_world_truth = compose(anchor.T_world_cam, inverse(truth[anchor.index]))
            places = transform_points(T_world_truth, np.stack([truth[key][:3, 3] for key in sorted(truth)]))
            self._stream.log("world/ground_truth", self._rr.LineStrips3D([places], colors=[_TRUTH_RGB]))


def frustum_lines(camera: PinholeCamera, depth: float) -> list[Array]:
    """Polylines (M, 3) in camera coordinates that draw the pyramid of the image down to ``depth`` metres."""
    right, bottom = camera.width - 0.5, camera.height - 0.5
    corners = camera.backproject([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]], np.full(4, depth))
    apex = np.zeros(3)
    return [
        np.stack([corners[0], corners[1], corners[2], corners[3], corners[0]]),
        np.stack([corners[0], apex, corners[1]]),
        np.stack([corners[2], apex, corners[3]]),
    ]


def _moved(lines: Sequence[Array], T_world_cam: Array) -> list[Array]:
    return [transform_points(T_world_cam, line) for line in lines]


def _scene_depth(slam_map: SlamMap) -> float:
    """Median distance of the newest keyframe's landmarks from it; 1 where it has none."""
    keyframe = list(slam_map.keyframes.values())[-1]
    ids = keyframe.landmark_ids[keyframe.observed]
    if not len(ids):
        return 1.0
    distances = np.linalg.norm(slam_map.landmarks.positions[ids] - keyframe.T_world_cam[:3, 3], axis=1)
    return float(np.median(distances))


def _blueprint() -> Any:
    import rerun.blueprint as rrb

    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial3DView(origin="world", name="Map"),
            rrb.Vertical(
                rrb.Spatial2DView(origin="world/camera/image", name="Frame"),
                rrb.TimeSeriesView(origin="plots", name="Inliers and keypoints"),
                rrb.TextLogView(origin="log", name="Events"),
                row_shares=[3, 2, 1],
            ),
            column_shares=[3, 2],
        ),
        collapse_panels=True,
    )


def _import_rerun() -> Any:
    try:
        import rerun
    except ImportError:
        raise ConfigError("the viewer needs the package rerun-sdk: pip install 'semkey[viewer]'") from None
    return rerun


def _require_screen() -> None:
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError("no screen for the viewer (DISPLAY is not set); record with --record FILE.rrd instead")
