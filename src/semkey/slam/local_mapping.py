"""Keeping the map right and small around every new keyframe: bundle adjustment in the background, and culling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Self

import numpy as np

from semkey.slam.background import BackgroundProcess, BackgroundProcessError
from semkey.slam.bundle_adjustment import BundleProblem, BundleResult, prepare, solve_bundle
from semkey.slam.config import MapConfig
from semkey.slam.culling import cull_keyframes
from semkey.slam.distortion import solve_with_distortion
from semkey.slam.map import SlamMap
from semkey.slam.timing import StageTimer

logger = logging.getLogger(__name__)

# Steps of the adjustment of a whole submap, which starts farther from its optimum than a local one.
_SUBMAP_ITERATIONS = 15


class LocalMapping:
    """What is done with the map whenever a keyframe was added.

    The neighbourhood of the keyframe is adjusted in another process while tracking goes on. Its result is taken over
    just before the next keyframe is added, and waited for if need be, so that runs repeat exactly; with ``realtime``
    it is taken over before whichever frame comes next, and a keyframe that comes while the process is busy is not
    adjusted on its own.

    Args:
        slam_map: the map.
        config: settings.
        timer: where the time is added up.
        realtime: never wait.
        distortion_sigma: of the radial distortion that is looked for when a whole submap is adjusted at the end, see
            :mod:`semkey.slam.distortion`; 0 trusts the calibration.
    """

    def __init__(
        self,
        slam_map: SlamMap,
        config: MapConfig,
        timer: StageTimer | None = None,
        *,
        realtime: bool = False,
        distortion_sigma: float = 0.0,
    ) -> None:
        self._map = slam_map
        self._config = config
        self._timer = timer or StageTimer()
        self._realtime = realtime
        self._distortion_sigma = distortion_sigma
        self._pending: Future[BundleResult] | None = None
        self._process = BackgroundProcess(prepare) if config.adjustment == "background" else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before_frame(self) -> None:
        """Take over a result that is there; only with ``realtime``."""
        if self._realtime and self._pending is not None and self._pending.done():
            self.settle()

    def before_keyframe(self) -> None:
        """Take over the result of the last keyframe's adjustment."""
        if not self._realtime:
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
                max_iterations=config.adjustment_iterations,
            )
        if problem is not None:
            self._solve(problem)

    def adjust_submap(self, submap: int, *, max_keyframes: int, distortion_sigma: float = 0.0) -> None:
        """Start to adjust a whole submap, after a correction has moved much of it; not if it has more keyframes.

        With ``distortion_sigma`` the radial distortion of its keypoints is found as well.
        """
        members = [key for key, keyframe in self._map.keyframes.items() if keyframe.submap == submap]
        if self._config.adjustment == "none" or self._pending is not None or len(members) > max_keyframes:
            return
        with self._timer.stage("map"):
            problem = bundle_problem(self._map, members, [], max_iterations=_SUBMAP_ITERATIONS)
        if problem is not None:
            self._solve(problem, distortion_sigma)

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
            self.adjust_submap(
                submap, max_keyframes=self._config.final_keyframes, distortion_sigma=self._distortion_sigma
            )
            self.settle()

    def _solve(self, problem: BundleProblem, distortion_sigma: float = 0.0) -> None:
        if self._process is not None:
            if distortion_sigma:
                self._pending = self._process.submit(solve_with_distortion, problem, distortion_sigma)
            else:
                self._pending = self._process.submit(solve_bundle, problem)
            return
        with self._timer.stage("adjust"):
            result = self._outcome(
                lambda: solve_with_distortion(problem, distortion_sigma) if distortion_sigma else solve_bundle(problem)
            )
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
    slam_map: SlamMap, free: Iterable[int], fixed: Iterable[int], *, max_iterations: int = 8
) -> BundleProblem | None:
    """The problem of moving keyframes ``free`` and what they see, while keyframes ``fixed`` hold it in place.

    Takes the landmarks that at least one free keyframe and two keyframes altogether see. The root of a submap is its
    world and always fixed; the oldest keyframe is fixed where none is. None if no free keyframe or no such landmark is
    left.
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


def local_problem(
    slam_map: SlamMap, keyframe_id: int, *, keyframes: int, fixed_keyframes: int, max_iterations: int
) -> BundleProblem | None:
    """The problem around one keyframe: it and those covisible with it move, the others that see the same are fixed.

    Args:
        slam_map: the map.
        keyframe_id: in the middle.
        keyframes: how many move at most.
        fixed_keyframes: how many are fixed at most, those that see most of the same.
        max_iterations: steps of the solver at most.
    """
    covisible = [k for k, _ in slam_map.covisible(keyframe_id)][: keyframes - 1]
    free = [keyframe_id, *covisible]
    seen = np.unique(slam_map.observations(keyframe_ids=free).landmark_ids)
    others = [k for k, _ in slam_map.observers(seen) if k not in set(free)]
    return bundle_problem(slam_map, free, others[:fixed_keyframes], max_iterations=max_iterations)


def apply_bundle(slam_map: SlamMap, result: BundleResult) -> None:
    """Move the map to where an adjustment has put it.

    What was removed from the map meanwhile is left out. Landmarks that took no part move with their reference
    keyframe. Observations that did not fit are taken out of the map, and landmarks that nobody sees any more as well.
    """
    there = [k for k, keyframe_id in enumerate(result.keyframe_ids.tolist()) if keyframe_id in slam_map.keyframes]
    ids = result.keyframe_ids[there].tolist()
    scales = dict(zip(ids, result.scales[there].tolist(), strict=True))
    slam_map.set_poses(dict(zip(ids, result.poses[there], strict=True)), scales)
    if result.distortion.any():
        k1, k2 = result.distortion
        logger.info("the images have radial distortion beyond their calibration: k1 %.4f, k2 %.4f", k1, k2)
    if slam_map.lines is not None:
        slam_map.lines.adjust(result.line_serials, result.line_points)
    landmarks = slam_map.landmarks
    same = landmarks.alive[result.landmark_ids]
    same &= landmarks.serials[result.landmark_ids] == result.landmark_serials
    landmarks.positions[result.landmark_ids[same]] = result.positions[same]
    alive = np.isin(result.outlier_landmark_ids, result.landmark_ids[same])
    for keyframe_id in np.unique(result.outlier_keyframe_ids[alive]).tolist():
        wrong = alive & (result.outlier_keyframe_ids == keyframe_id)
        slam_map.remove_observations(keyframe_id, result.outlier_landmark_ids[wrong])
