"""Settings of SLAM; every default is commented with why it has its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from semkey.geometry.camera import PinholeCamera
from semkey.settings import Settings, require, require_within
from semkey.slam.line_config import LineConfig
from semkey.slam.loop_config import LoopConfig
from semkey.slam.mono_config import MonoConfig
from semkey.slam.stereo_config import StereoConfig

# The width for which the configuration's pixel values are meant.
_REFERENCE_WIDTH = 640

Adjustment = Literal["background", "foreground", "none"]


def image_scale(camera: PinholeCamera) -> float:
    """By what the configuration's pixel values, which are for images 640 pixels wide, are multiplied."""
    return camera.width / _REFERENCE_WIDTH


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(Settings):
    """How one frame is placed in the map, and when it becomes a keyframe.

    Pixel values are for images 640 pixels wide and scale with the image's width; metres and seconds are absolute.

    Attributes:
        min_depth: nearest trusted depth, metres; structured light is blind below about 0.4 m.
        max_depth: farthest trusted depth, metres; at 8 m a Kinect's standard deviation is 11 cm.
        pixel_sigma: standard deviation of a keypoint's position, pixels.
        ransac_error_px: inlier threshold of PnP-RANSAC, pixels.
        search_radius_px: radius of guided matching around a projected landmark when the prediction is sure, pixels.
        max_search_radius_px: radius up to which guided matching grows with the predicted motion, pixels.
        min_inliers: fewest inliers of an accepted pose while tracking.
        min_relocalisation_inliers: fewest inliers of an accepted pose after a loss, where no prediction backs it.
        keyframe_tracked_share: a new keyframe is made when fewer than this share of the reference's landmarks is seen.
        keyframe_uncovered_share: ... or in more than this share of the image keypoints have depth but no landmark.
        keyframe_parallax: ... or the camera moved this far from the reference, as a share of the median depth.
        keyframe_rotation_deg: ... or it turned this far from the reference.
        keyframe_seconds: ... or this much time passed since, and the camera moved at all.
    """

    min_depth: float = 0.3
    max_depth: float = 8.0
    pixel_sigma: float = 2.0
    ransac_error_px: float = 4.0
    search_radius_px: float = 8.0
    max_search_radius_px: float = 60.0
    min_inliers: int = 12
    min_relocalisation_inliers: int = 20
    keyframe_tracked_share: float = 0.6
    keyframe_uncovered_share: float = 0.25
    keyframe_parallax: float = 0.12
    keyframe_rotation_deg: float = 15.0
    keyframe_seconds: float = 2.0

    def __post_init__(self) -> None:
        require_within(self, "(0, inf)", "pixel_sigma", "ransac_error_px", "search_radius_px")
        require_within(self, "(0, inf)", "keyframe_parallax", "keyframe_rotation_deg", "keyframe_seconds")
        require_within(self, "(0, 1]", "keyframe_tracked_share", "keyframe_uncovered_share")
        # Three points fix a pose; with a fourth RANSAC can tell a right one from a wrong one.
        require_within(self, "[4, inf)", "min_inliers", "min_relocalisation_inliers")
        require(
            0 <= self.min_depth < self.max_depth,
            f"need 0 <= min_depth < max_depth, got {self.min_depth} and {self.max_depth}",
        )
        require(
            self.max_search_radius_px >= self.search_radius_px,
            f"max_search_radius_px ({self.max_search_radius_px}) is below search_radius_px ({self.search_radius_px})",
        )


@dataclass(frozen=True, kw_only=True)
class MapConfig(Settings):
    """What the map keeps, how it is adjusted, and which part of it a frame is matched to.

    Attributes:
        local_keyframes: keyframes whose landmarks form the local map: those that share most with the last frame.
        nearby_keyframes: ... and so many that look from nearby and share nothing yet.
        adjustment: where the bundle adjustment of a new keyframe's neighbourhood is done: in a process of its own
            (``background``), while tracking waits (``foreground``), or not at all (``none``).
        adjusted_keyframes: the new keyframe and its best covisible ones that move, at most; on one core as many take
            about a third of a second.
        fixed_keyframes: others that see the same and hold those in place, at most.
        adjusted_landmarks: for every keyframe of a local adjustment at most so many landmarks take part, well-connected
            ones from all over each image. The others follow their reference keyframes. Whole submaps take all. With
            50 a loop's keyframes were 4 cm off in a rendered room, with 150 less than 2 cm.
        adjustment_iterations: steps of the solver; the start is good, and what is left comes with the next keyframe:
            after three steps keyframes of fr3_cabinet are within 0.3 mm of where ten take them.
        adjustment_lag: the result is taken over at the first keyframe that comes at least so many frames later, and
            waited for if need be, so that tracking rarely waits and runs repeat exactly.
        final_keyframes: at the end of a run a submap of at most so many keyframes is adjusted as a whole; 100 of them
            take some seconds. 0 leaves that out.
        redundant_share: a keyframe is removed when this share of its landmarks is seen by
        redundant_observers: ... so many others from no farther away.
        recent_keyframes: so many newest keyframes are never removed.
    """

    local_keyframes: int = 15
    nearby_keyframes: int = 5
    adjustment: Adjustment = "background"
    adjusted_keyframes: int = 8
    fixed_keyframes: int = 8
    adjusted_landmarks: int = 150
    adjustment_iterations: int = 3
    adjustment_lag: int = 2
    final_keyframes: int = 300
    redundant_share: float = 0.9
    redundant_observers: int = 3
    recent_keyframes: int = 3

    def __post_init__(self) -> None:
        positive = ("local_keyframes", "adjusted_keyframes", "adjusted_landmarks", "adjustment_iterations")
        require_within(self, "[1, inf)", *positive, "adjustment_lag", "redundant_observers")
        require_within(self, "[0, inf)", "nearby_keyframes", "fixed_keyframes", "final_keyframes", "recent_keyframes")
        require_within(self, "(0, 1]", "redundant_share")
        modes = get_args(Adjustment)
        require(self.adjustment in modes, f"adjustment is {self.adjustment!r}, must be one of {', '.join(modes)}")


@dataclass(frozen=True, kw_only=True)
class SlamConfig(Settings):
    """Settings of :func:`semkey.slam.run_slam`, by subject.

    Attributes:
        seed: seed of every random choice (RANSAC); the same seed gives the same trajectory.
        tracking: how one frame is placed in the map, and when it becomes a keyframe.
        map: what the map keeps, how it is adjusted, and which part of it a frame is matched to.
        lines: line segments beside keypoints.
        loops: how places are recognised again, and what is done while the camera is lost.
        stereo: depth of keypoints from stereo pairs.
        mono: how a map starts without depth, and how it gets new landmarks.
    """

    seed: int = 0
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    map: MapConfig = field(default_factory=MapConfig)
    lines: LineConfig = field(default_factory=LineConfig)
    loops: LoopConfig = field(default_factory=LoopConfig)
    stereo: StereoConfig = field(default_factory=StereoConfig)
    mono: MonoConfig = field(default_factory=MonoConfig)

    def __post_init__(self) -> None:
        require_within(self, "[0, inf)", "seed")
