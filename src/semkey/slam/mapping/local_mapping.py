"""Keeping the map right and small around every new keyframe: bundle adjustment in the background, and culling."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from semkey.slam.config import MapConfig, MonoConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.adjustment import apply_bundle, bundle_problem, local_problem
from semkey.slam.mapping.background import BackgroundProcess, BackgroundProcessError
from semkey.slam.mapping.culling import cull_keyframes
from semkey.slam.mapping.new_landmarks import triangulate_new_landmarks
from semkey.slam.solvers.bundle import BundleProblem, BundleResult, prepare, solve_bundle
from semkey.slam.solvers.distortion import solve_with_distortion
from semkey.slam.timing import StageTimer

Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

# Steps of the adjustment of a whole submap, which starts farther from its optimum than a local one.
_SUBMAP_ITERATIONS = 15
# Longer than an adjustment takes on the busiest machine: the process is stopped, or hangs.
_LIMIT_S = 180.0


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
        triangulation: how keypoints without depth become landmarks; None leaves them without.
        distortion_sigma: of the radial distortion that is looked for when a whole submap is adjusted at the end, see
            :mod:`semkey.slam.solvers.distortion`; 0 trusts the calibration.
    """

    def __init__(
        self,
        slam_map: SlamMap,
        config: MapConfig,
        timer: StageTimer | None = None,
        *,
        realtime: bool = False,
        triangulation: MonoConfig | None = None,
        distortion_sigma: float = 0.0,
    ) -> None:
        self._map = slam_map
        self._config = config
        self._timer = timer or StageTimer()
        self._realtime = realtime
        self._triangulation = triangulation
        self._distortion_sigma = distortion_sigma
        self._pending: Future[BundleResult] | None = None
        self._again: Callable[[], BundleResult]  # what is pending, for the case that its process does not answer
        self._frames_pending = 0
        self._process = BackgroundProcess(prepare) if config.adjustment == "background" else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_keyframe(
        self,
        frame: ObservedFrame,
        T_world_cam: Array,
        found: Associations | None,
        *,
        submap: int,
        parent: int | None = None,
        covariance: Array | None = None,
    ) -> Keyframe:
        """Keep a frame, with new landmarks for what it sees and the map does not know.

        Args:
            frame: the frame.
            T_world_cam: (4, 4) its pose.
            found: the landmarks that it sees; None for the first keyframe of a submap.
            submap: the submap.
            parent: the keyframe above it in the tree where no landmark tells.
            covariance: (6, 6) of the pose, see :meth:`semkey.slam.map.slam_map.SlamMap.add_keyframe`.
        """
        with self._timer.stage("map"):
            keyframe = self._map.add_keyframe(frame, T_world_cam, found, submap, covariance=covariance)
            if self._triangulation is not None:
                scale = image_scale(self._map.camera)
                triangulate_new_landmarks(self._map, keyframe.id, self._triangulation, image_scale=scale)
            if found is not None and keyframe.parent is None:
                keyframe.parent = parent
        return keyframe

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

    def adjust_submap(self, submap: int, *, max_keyframes: int, is_final: bool = False) -> None:
        """Start to adjust a whole submap, after a correction has moved much of it; not if it has more keyframes.

        A final adjustment looks for the distortion that the calibration has left.
        """
        members = [key for key, keyframe in self._map.keyframes.items() if keyframe.submap == submap]
        if self._config.adjustment == "none" or self._pending is not None or len(members) > max_keyframes:
            return
        with self._timer.stage("map"):
            problem = bundle_problem(self._map, members, [], max_iterations=_SUBMAP_ITERATIONS)
        if problem is not None:
            self._solve(problem, self._distortion_sigma if is_final else 0.0)

    def settle(self) -> None:
        """Wait for an adjustment under way, if there is one, and take it over: call it before moving the map."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        with self._timer.stage("adjust"):
            result = self._outcome(lambda: pending.result(timeout=_LIMIT_S))
            if result is None and self._process is None:
                result = self._outcome(self._again)
        if result is not None:
            with self._timer.stage("map"):
                apply_bundle(self._map, result)

    def finish(self) -> None:
        """Settle, and adjust every submap as a whole once more, unless it is larger than the settings allow."""
        self.settle()
        for submap in self._map.tree.submaps:
            self.adjust_submap(submap, max_keyframes=self._config.final_keyframes, is_final=True)
            self.settle()

    def _solve(self, problem: BundleProblem, distortion_sigma: float = 0.0) -> None:
        solve = partial(solve_with_distortion, sigma=distortion_sigma) if distortion_sigma else solve_bundle
        if self._process is not None:
            self._pending = self._process.submit(solve, problem)
            self._again = lambda: solve(problem)
            self._frames_pending = 0
            return
        with self._timer.stage("adjust"):
            result = self._outcome(lambda: solve(problem))
        if result is not None:
            apply_bundle(self._map, result)

    def _outcome(self, solve: Callable[[], BundleResult]) -> BundleResult | None:
        """A result, or None with a warning: tracking goes on without this adjustment."""
        try:
            return solve()
        except (BackgroundProcessError, TimeoutError) as error:
            hung = isinstance(error, TimeoutError)
            state = f"does not answer for {_LIMIT_S:g} s" if hung else "has died"
            logger.warning("the process for bundle adjustment %s; adjusting in the main process from now on", state)
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
