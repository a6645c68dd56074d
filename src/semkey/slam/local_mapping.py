"""Keeping the map right and small around every new keyframe: bundle adjustment in the background, and culling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Self

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse
from semkey.slam.background import BackgroundProcess, BackgroundProcessError
from semkey.slam.bundle_adjustment import BundleProblem, BundleResult, prepare, solve_bundle
from semkey.slam.config import MapConfig
from semkey.slam.culling import cull_keyframes
from semkey.slam.map import Observations, SlamMap
from semkey.slam.timing import StageTimer

Indices = NDArray[np.int64]

logger = logging.getLogger(__name__)

# Steps of the adjustment of a whole submap, which starts farther from its optimum than a local one.
_SUBMAP_ITERATIONS = 15
# Cells across and down of an image in which an adjustment with few landmarks keeps some.
_COVERAGE_GRID = (8, 6)


class LocalMapping:
    """What is done with the map whenever a keyframe was added.

    The neighbourhood of the keyframe is adjusted in another process while tracking goes on. Its result is taken over
    just before a keyframe is added, the first that comes at least ``MapConfig.adjustment_lag`` frames later, and waited
    for if need be, so that runs repeat exactly; with ``realtime`` it is taken over before whichever frame comes next. A
    keyframe that comes in between is not adjusted on its own, but with its neighbours the next time.

    Args:
        slam_map: the map.
        config: settings.
        timer: where the time is added up.
        realtime: never wait.
    """

    def __init__(
        self, slam_map: SlamMap, config: MapConfig, timer: StageTimer | None = None, *, realtime: bool = False
    ) -> None:
        self._map = slam_map
        self._config = config
        self._timer = timer or StageTimer()
        self._realtime = realtime
        self._pending: Future[BundleResult] | None = None
        self._frames_pending = 0
        self._process = BackgroundProcess(prepare) if config.adjustment == "background" else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before_frame(self) -> None:
        """Count the frame, and take over a result that is there; only with ``realtime``."""
        self._frames_pending += 1
        if self._realtime and self._pending is not None and self._pending.done():
            self.settle()

    def before_keyframe(self) -> None:
        """Take over the result of an adjustment that was started long enough ago."""
        if not self._realtime and self._frames_pending >= self._config.adjustment_lag:
            self.settle()

    def after_keyframe(self, keyframe_id: int) -> None:
        """Cull around a keyframe that was just added, and start to adjust its neighbourhood."""
        config = self._config
        with self._timer.stage("map"):
            cull_keyframes(
                self._map,
                keyframe_id,
                share=config.redundant_share,
                observers=config.redundant_observers,
                recent=config.recent_keyframes,
            )
            if config.adjustment == "none" or self._pending is not None:
                return
            problem = local_problem(
                self._map,
                keyframe_id,
                keyframes=config.adjusted_keyframes,
                fixed_keyframes=config.fixed_keyframes,
                landmarks_each=config.adjusted_landmarks,
                max_iterations=config.adjustment_iterations,
            )
        if problem is not None:
            self._solve(problem)

    def adjust_submap(self, submap: int, *, max_keyframes: int) -> None:
        """Start to adjust a whole submap, after a correction has moved much of it; not if it has more keyframes."""
        members = [key for key, keyframe in self._map.keyframes.items() if keyframe.submap == submap]
        if self._config.adjustment == "none" or self._pending is not None or len(members) > max_keyframes:
            return
        with self._timer.stage("map"):
            each = self._config.adjusted_landmarks
            problem = bundle_problem(self._map, members, [], landmarks_each=each, max_iterations=_SUBMAP_ITERATIONS)
        if problem is not None:
            self._solve(problem)

    def settle(self) -> None:
        """Wait for an adjustment under way, if there is one, and take it over: call it before moving the map."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        with self._timer.stage("adjust"):
            result = self._outcome(pending.result)
        if result is not None:
            with self._timer.stage("map"):
                apply_bundle(self._map, result)

    def finish(self) -> None:
        """Settle, and adjust every submap as a whole once more, unless it is larger than the settings allow."""
        self.settle()
        for submap in self._map.submaps:
            self.adjust_submap(submap, max_keyframes=self._config.final_keyframes)
            self.settle()

    def _solve(self, problem: BundleProblem) -> None:
        if self._process is not None:
            self._pending = self._process.submit(solve_bundle, problem)
            self._frames_pending = 0
            return
        with self._timer.stage("adjust"):
            result = self._outcome(lambda: solve_bundle(problem))
        if result is not None:
            apply_bundle(self._map, result)

    def _outcome(self, solve: Callable[[], BundleResult]) -> BundleResult | None:
        """A result, or None with a warning: tracking goes on without this adjustment."""
        try:
            return solve()
        except BackgroundProcessError:
            logger.warning("the process for bundle adjustment has died; adjusting in the main process from now on")
            if self._process is not None:
                self._process.close()
                self._process = None
        except RuntimeError as error:  # how GTSAM reports a problem that it cannot solve
            logger.warning("a bundle adjustment failed and is left out: %s", error)
        return None

    def close(self) -> None:
        """End the process; a result not taken over yet is lost."""
        self._pending = None
        if self._process is not None:
            self._process.close()


def bundle_problem(
    slam_map: SlamMap,
    free: Iterable[int],
    fixed: Iterable[int],
    *,
    landmarks_each: int | None = None,
    max_iterations: int = 8,
) -> BundleProblem | None:
    """The problem of moving keyframes ``free`` and what they see, while keyframes ``fixed`` hold it in place.

    Takes the landmarks that at least one free keyframe and two keyframes altogether see. The root of a submap is its
    world and always fixed; the oldest keyframe is fixed where none is. None if no free keyframe or no such landmark is
    left.

    Args:
        slam_map: the map.
        free: ids of keyframes that move.
        fixed: ids of keyframes that stay.
        landmarks_each: so many landmarks take part for every keyframe, chosen by :func:`covering_landmarks`; None for
            all.
        max_iterations: steps of the solver at most.
    """
    roots = {k for k in free if slam_map.keyframes[k].parent is None}
    free_ids = sorted(set(free) - roots)
    fixed_ids = sorted((set(fixed) | roots) - set(free_ids))
    if not fixed_ids:
        fixed_ids, free_ids = free_ids[:1], free_ids[1:]
    if not free_ids:
        return None
    seen = np.unique(slam_map.observations(keyframe_ids=free_ids).landmark_ids)
    observations = slam_map.observations(keyframe_ids=[*free_ids, *fixed_ids], landmark_ids=seen)
    times = np.bincount(observations.landmark_ids, minlength=1)
    used = times[observations.landmark_ids] >= 2
    if not used.any():
        return None
    if landmarks_each is not None:
        count = landmarks_each * (len(free_ids) + len(fixed_ids))
        chosen = covering_landmarks(observations.select(used), slam_map.camera, count)
        used &= np.isin(observations.landmark_ids, chosen)
    landmark_ids, landmark_rows = np.unique(observations.landmark_ids[used], return_inverse=True)
    keyframe_ids = np.array(sorted([*free_ids, *fixed_ids]), dtype=np.int64)
    lines = None if slam_map.lines is None else slam_map.lines.bundle(keyframe_ids)
    spread = 1.0 / np.sqrt(observations.weights[used])
    return BundleProblem(
        camera=slam_map.camera,
        keyframe_ids=keyframe_ids,
        poses=np.stack([slam_map.keyframes[k].T_world_cam for k in keyframe_ids.tolist()]),
        fixed=np.isin(keyframe_ids, fixed_ids),
        landmark_ids=landmark_ids,
        landmark_serials=slam_map.landmarks.serials[landmark_ids],
        positions=slam_map.landmarks.positions[landmark_ids],
        keyframe_rows=np.searchsorted(keyframe_ids, observations.keyframe_ids[used]),
        landmark_rows=landmark_rows,
        keypoints=observations.keypoints[used],
        pixel_sigma=slam_map.pixel_sigma * spread,
        depth=observations.depth[used],
        # A keypoint that may be mistaken makes its depth doubtful as well: with the sensor's own deviation the error on
        # fr3_cabinet is 6 % larger.
        depth_sigma=observations.depth_sigma[used] * spread,
        lines=lines,
        max_iterations=max_iterations,
    )


def covering_landmarks(observations: Observations, camera: PinholeCamera, count: int) -> Indices:
    """The ids of ``count`` landmarks, or all if there are fewer, that say most about the keyframes that see them.

    In every cell of every keyframe's image landmarks are ranked by how many keyframes see them; those come first whose
    best rank is best. So each keyframe keeps landmarks all over its image, and the most connected ones.

    Args:
        observations: who sees what.
        camera: of all keyframes.
        count: how many, positive.
    """
    ids, rows, times = np.unique(observations.landmark_ids, return_inverse=True, return_counts=True)
    if len(ids) <= count:
        return ids
    size = np.array([camera.width, camera.height])
    cells = np.clip((observations.keypoints / size * _COVERAGE_GRID).astype(np.int64), 0, np.array(_COVERAGE_GRID) - 1)
    order = np.lexsort((rows, -times[rows], cells[:, 1], cells[:, 0], observations.keyframe_ids))
    groups = np.stack([observations.keyframe_ids, *cells.T])[:, order]
    starts = np.flatnonzero(np.concatenate([[True], (groups[:, 1:] != groups[:, :-1]).any(axis=0)]))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    best = np.full(len(ids), len(order))
    np.minimum.at(best, rows, ranks)
    return np.sort(ids[np.lexsort((ids, -times, best))[:count]])


def local_problem(
    slam_map: SlamMap,
    keyframe_id: int,
    *,
    keyframes: int,
    fixed_keyframes: int,
    landmarks_each: int | None = None,
    max_iterations: int,
) -> BundleProblem | None:
    """The problem around one keyframe: it and those covisible with it move, the others that see the same are fixed.

    Args:
        slam_map: the map.
        keyframe_id: in the middle.
        keyframes: how many move at most.
        fixed_keyframes: how many are fixed at most, those that see most of the same.
        landmarks_each: how many landmarks take part for every keyframe; None for all.
        max_iterations: steps of the solver at most.
    """
    covisible = [k for k, _ in slam_map.covisible(keyframe_id)][: keyframes - 1]
    free = [keyframe_id, *covisible]
    seen = np.unique(slam_map.observations(keyframe_ids=free).landmark_ids)
    others = [k for k, _ in slam_map.observers(seen) if k not in set(free)]
    return bundle_problem(slam_map, free, others[:fixed_keyframes], landmarks_each=landmarks_each, max_iterations=max_iterations)


def apply_bundle(slam_map: SlamMap, result: BundleResult) -> None:
    """Move the map to where an adjustment has put it.

    What was removed from the map meanwhile is left out. Landmarks that took no part move with their reference
    keyframe, and keyframes made since the adjustment began with their parent. Observations that did not fit are taken
    out of the map, and landmarks that nobody sees any more as well.
    """
    free = zip(result.keyframe_ids.tolist(), result.poses, strict=True)
    poses = {k: pose for k, pose in free if k in slam_map.keyframes}
    for keyframe in slam_map.keyframes.values():  # older ones, and with them parents, first
        parent = keyframe.parent
        if keyframe.id > result.newest_keyframe_id and parent in poses:
            seen_from_parent = compose(inverse(slam_map.keyframes[parent].T_world_cam), keyframe.T_world_cam)
            poses[keyframe.id] = compose(poses[parent], seen_from_parent)
    slam_map.set_poses(poses)
    if slam_map.lines is not None:
        slam_map.lines.adjust(result.line_serials, result.line_points)
    landmarks = slam_map.landmarks
    same = landmarks.alive[result.landmark_ids]
    same &= landmarks.serials[result.landmark_ids] == result.landmark_serials
    landmarks.positions[result.landmark_ids[same]] = result.positions[same]
    there = np.isin(result.outlier_landmark_ids, result.landmark_ids[same])
    for keyframe_id in np.unique(result.outlier_keyframe_ids[there]).tolist():
        wrong = there & (result.outlier_keyframe_ids == keyframe_id)
        slam_map.remove_observations(keyframe_id, result.outlier_landmark_ids[wrong])
