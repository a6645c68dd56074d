"""Settings of monocular SLAM; every default is commented with why it has its value."""

from __future__ import annotations

from dataclasses import dataclass

from semkey.settings import Settings, require_within


@dataclass(frozen=True, kw_only=True)
class MonoConfig(Settings):
    """Settings of a camera without depth: how a map starts, and how it gets new landmarks.

    Pixel values are for images 640 pixels wide and scale with the image's width.

    Attributes:
        pixel_sigma: standard deviation of a keypoint's coordinates that matches of two views are judged by, pixels;
            less than what tracking assumes, since a wrong landmark does more harm than a missing one.
        homography_ratio: a homography explains the first two views if its score has more than this share of the sum of
            both models' scores (0.45 in Mur-Artal, Montiel and Tardos 2015, section IV).
        min_initial_matches: fewest matches of the first two views; with fewer the first view is replaced.
        min_initial_landmarks: fewest landmarks of a first map.
        min_initial_share: fewest of the matches that agree with the motion, as a share; below, the motion is a guess.
        min_initial_motion_px: the median match has to move this far before two views are tried.
        min_initial_parallax_deg: smallest median angle between the two rays of a landmark of the first map.
        max_initial_frames: after this many frames without a map the first view is replaced.
        min_parallax_deg: smallest angle between the rays of a landmark that is triangulated later.
        max_error_px: largest reprojection error of a triangulated landmark in either view.
        neighbours: covisible keyframes with which a new keyframe triangulates.
        min_baseline_ratio: keyframes closer to each other than this share of the median depth are no pair.
        velocity_change: standard deviation of the change of velocity along each axis, in median depths per second.
        adjusted_landmarks: in place of ``MapConfig.adjusted_landmarks``: without depth many landmarks have to hold the
            scale. With 50 it breaks at a street corner of KITTI 07 (ATE with ORB 2.9 m instead of 0.3 m).
        adjustment_iterations: in place of ``MapConfig.adjustment_iterations``.
        distortion_sigma: standard deviation of the radial distortion (k1, k2) that a calibration leaves, looked for in
            the adjustment at the end: without depth, a turning camera makes a drift of scale of it. KITTI's rectified
            images have about 0.007. 0 trusts the calibration.
    """

    pixel_sigma: float = 1.0
    homography_ratio: float = 0.45
    min_initial_matches: int = 80
    min_initial_landmarks: int = 50
    min_initial_share: float = 0.4
    min_initial_motion_px: float = 12.0
    min_initial_parallax_deg: float = 1.0
    max_initial_frames: int = 30
    min_parallax_deg: float = 0.5
    max_error_px: float = 3.0
    neighbours: int = 10
    min_baseline_ratio: float = 0.01
    velocity_change: float = 0.06
    adjusted_landmarks: int = 1000
    adjustment_iterations: int = 5
    distortion_sigma: float = 0.01

    def __post_init__(self) -> None:
        require_within(self, "(0, 1)", "homography_ratio")
        # Eight matches determine two views; a first map of fewer landmarks than PnP needs could not be tracked.
        require_within(self, "[8, inf)", "min_initial_matches", "min_initial_landmarks")
        require_within(self, "[1, inf)", "max_initial_frames", "neighbours")
        require_within(self, "(0, inf)", "pixel_sigma", "max_error_px", "velocity_change", "min_initial_motion_px")
        require_within(self, "[1, inf)", "adjusted_landmarks", "adjustment_iterations")
        require_within(self, "[0, inf)", "distortion_sigma")
        require_within(self, "[0, 1)", "min_initial_share", "min_baseline_ratio")
        require_within(self, "(0, 90)", "min_initial_parallax_deg", "min_parallax_deg")
