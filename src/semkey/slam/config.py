"""Settings of SLAM; every default is commented with why it has its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from semkey.settings import Settings, require, require_choice, require_within

if TYPE_CHECKING:
    from semkey.geometry.camera import PinholeCamera

# The width for which the configuration's pixel values are meant.
_REFERENCE_WIDTH = 640

Adjustment = Literal["background", "foreground", "none"]
Residuals = Literal["anisotropic", "isotropic"]
Retrieval = Literal["votes", "global", "joined"]


def image_scale(camera: PinholeCamera) -> float:
    """The scale factor of pixel values for the images of a camera, see :func:`width_scale`."""
    return width_scale(camera.width)


def width_scale(width: int) -> float:
    """The scale factor of pixel values, which everywhere are for images 640 pixels wide, at another width."""
    return width / _REFERENCE_WIDTH


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(Settings):
    """How one frame is placed in the map, and when it becomes a keyframe.

    Pixel values are for images 640 pixels wide and scale with the image's width; metres and seconds are absolute.

    Attributes:
        min_depth: nearest trusted depth, metres; structured light is blind below about 0.4 m.
        max_depth: farthest trusted depth, metres; at 8 m a Kinect's standard deviation is 11 cm.
        residuals: ``anisotropic`` judges every residual by the 2x2 covariance of its keypoint, which is long along the
            edge on which the keypoint lies, see :class:`semkey.matching.keypoint_noise.KeypointNoise`; ``isotropic``
            takes ``pixel_sigma`` in all directions for every keypoint.
        pixel_sigma: standard deviation of a keypoint's position with isotropic residuals, pixels.
        alignment: move the keypoints of a frame to where it looks most like the patches of its landmarks in the
            keyframes that first saw them, see :func:`semkey.slam.placing.alignment.align_frame`.
        edge_sigma: standard deviation across an edge of good contrast with anisotropic residuals, pixels.
        along_edge_sigma: ... along a straight edge, and where the image shows nothing.
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
    residuals: Residuals = "anisotropic"
    pixel_sigma: float = 2.0
    alignment: bool = True
    edge_sigma: float = 0.2
    along_edge_sigma: float = 3.0
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
        require_choice(self, "residuals")
        require_within(self, "(0, inf)", "pixel_sigma", "edge_sigma", "along_edge_sigma")
        require_within(self, "(0, inf)", "ransac_error_px", "search_radius_px")
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
        require_choice(self, "adjustment")


@dataclass(frozen=True, kw_only=True)
class LineConfig(Settings):
    """Line segments beside keypoints.

    Pixel values are for images 640 pixels wide and scale with the image's width.

    Attributes:
        enabled: whether lines are used at all.
        detection_width: width of the image in which segments are looked for, pixels; LSD at half of 640 finds the
            same long segments in a third of the time, and endpoints along the normal stay good to 0.01 px.
        max_lines: longest segments kept per image.
        min_length: shortest segment, pixels; shorter ones come and go, and their direction is uncertain.
        merge_angle_deg: pieces of one edge differ by at most this much in direction.
        merge_distance: ... lie at most so far beside each other, pixels.
        merge_gap: ... and follow each other with a gap of at most this share of the shorter piece.
        pixel_sigma: standard deviation of a segment's endpoint across the segment, pixels: what exposure, rolling
            shutter and a moving shadow leave of the detector's own tenth of a pixel.
        search_angle_deg: a segment is at most so far turned from where its line is expected.
        min_overlap: share of the shorter of the seen and the expected segment that the two have in common.
        min_lines: fewest line inliers that count as support of a pose.
    """

    enabled: bool = False
    detection_width: int = 320
    max_lines: int = 80
    min_length: float = 30.0
    merge_angle_deg: float = 2.0
    merge_distance: float = 1.5
    merge_gap: float = 0.3
    pixel_sigma: float = 1.0
    search_angle_deg: float = 10.0
    min_overlap: float = 0.4
    min_lines: int = 3

    def __post_init__(self) -> None:
        require_within(self, "[32, inf)", "detection_width")
        require_within(self, "(0, inf)", "max_lines", "min_lines", "min_length", "pixel_sigma")
        require_within(self, "(0, 90)", "merge_angle_deg", "search_angle_deg")
        require_within(self, "[0, inf)", "merge_distance", "merge_gap")
        require_within(self, "(0, 1]", "min_overlap")


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Settings):
    """How places are recognised again and the map corrected, and what is done while the camera is lost.

    Pixel values are for images 640 pixels wide and scale with the image's width.

    Attributes:
        enabled: look for loops and join submaps; relocalisation when lost works either way.
        retrieval_keypoints: strongest keypoints of a keyframe that vote for places; on redkitchen 128, 200 and 300
            find a right place among the first five for 97, 97 and 98 % of the revisits (the global descriptor: 83 %).
        retrieval: what candidates are chosen by: "votes" of local descriptors, "global" descriptors where the features
            have one, or both "joined"; see :meth:`semkey.slam.loops.retrieval.PlaceIndex.scores`.
        retrieval_prefilter: keyframes that are compared by local descriptors; a larger map is reduced to so many by
            global descriptor first, where the features have one.
        candidates: groups of keyframes that are verified for each new keyframe; each takes some ten milliseconds.
        group_size: covisible keyframes that join a candidate in its group.
        consistency: consecutive keyframes that must find the same place before it is verified.
        min_gap_seconds: a keyframe of the same submap is a loop candidate when it is at least so much older; within
            less, odometry drifts too little to be worth a correction.
        min_inliers: fewest landmarks of the place that the keyframe sees at one pose.
        min_coverage: of the image cells where the place has landmarks and the keyframe has keypoints, the least share
            with an inlier. Two rooms with the same poster agree in the poster's cells only. Right pairs of redkitchen
            with compact have 0.39 to 0.89; pairs more than 0.15 m or 8 degrees off have mostly up to 0.26, a few more.
        min_supporters: fewest neighbours of the keyframe that see the place from where the loop says they are.
        supporter_inliers: fewest landmarks that such a neighbour sees where they should be.
        max_drift: largest correction of a keyframe inside a submap, as a share of the path (metres and degrees) that
            leads to it from the place in the map; odometry on keypoints drifts by a few per cent. Without depth the
            scale may have drifted as well, see :mod:`semkey.slam.loops.plausibility`. Between submaps, whose relation
            is unknown, there is no such limit.
        drift_floor_m: what is allowed on top of that, metres (without depth ``drift_floor_depths``) ...
        drift_floor_depths: ... or median depths of the place ...
        drift_floor_deg: ... and degrees.
        strong_covisibility: keyframes that share so many landmarks are joined by an edge of the pose graph.
        fuse_radius_px: after a correction, landmarks within this many pixels of each other that look alike are one.
        adjusted_keyframes: after a correction a submap of at most so many keyframes is bundle-adjusted as a whole, in
            the background; 100 keyframes take a second or two. 0 leaves it at the pose graph.
        new_submap_seconds: a lost camera starts a new submap after this time.
        relocalisation_candidates: groups of keyframes tried for each lost frame.
        relocalisation_coverage: what ``min_coverage`` is for a lost frame, which the place that it has just seen
            should not escape.
    """

    enabled: bool = True
    retrieval: Retrieval = "votes"
    retrieval_keypoints: int = 160
    retrieval_prefilter: int = 300
    candidates: int = 2
    group_size: int = 8
    consistency: int = 2
    min_gap_seconds: float = 3.0
    min_inliers: int = 30
    min_coverage: float = 0.45
    min_supporters: int = 2
    supporter_inliers: int = 12
    max_drift: float = 0.15
    drift_floor_m: float = 0.3
    drift_floor_depths: float = 0.3
    drift_floor_deg: float = 10.0
    strong_covisibility: int = 100
    fuse_radius_px: float = 4.0
    adjusted_keyframes: int = 100
    new_submap_seconds: float = 1.0
    relocalisation_candidates: int = 4
    relocalisation_coverage: float = 0.3

    def __post_init__(self) -> None:
        require_choice(self, "retrieval")
        require_within(self, "[1, inf)", "retrieval_keypoints", "retrieval_prefilter", "candidates", "consistency")
        require_within(self, "[1, inf)", "supporter_inliers", "strong_covisibility", "relocalisation_candidates")
        require_within(self, "[0, inf)", "group_size", "adjusted_keyframes", "min_gap_seconds", "min_supporters")
        require_within(self, "[0, inf)", "max_drift", "drift_floor_m", "drift_floor_deg", "new_submap_seconds")
        require_within(self, "[0, inf)", "drift_floor_depths")
        # Three points fix a pose; with a fourth RANSAC can tell a right one from a wrong one.
        require_within(self, "[4, inf)", "min_inliers")
        require_within(self, "[0, 1]", "min_coverage", "relocalisation_coverage")
        require_within(self, "(0, inf)", "fuse_radius_px")


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


@dataclass(frozen=True, kw_only=True)
class StereoConfig(Settings):
    """Settings of :func:`semkey.slam.frames.stereo.stereo_depth`.

    Attributes:
        window_px: side of the compared patches, odd; 9 px blurs depth edges little and still tells patches apart.
        max_disparity_share: largest disparity, as a share of the image width; what is nearer gets no depth.
        min_correlation: smallest normalised correlation of two patches that show the same point.
        left_right_px: largest difference between the disparities found from the left and from the right image.
        max_relative_sigma: largest standard deviation of a depth, as a share of it; farther points get no depth, since
            their depth is no longer normally distributed (it is the inverse of what is measured).
        disparity_offset: what is added to every disparity, pixels; a run that finds out about it (``offset_sigma``)
            writes it here.
        offset_sigma: standard deviation of what calibrations leave of that, pixels, looked for while the camera moves,
            see :mod:`semkey.slam.solvers.stereo_offset`: a hundredth of a degree between the cameras is 0.13 px at
            KITTI's focal length. 0 trusts the calibration.
    """

    window_px: int = 9
    max_disparity_share: float = 0.15
    min_correlation: float = 0.8
    left_right_px: float = 1.0
    max_relative_sigma: float = 0.1
    disparity_offset: float = 0.0
    offset_sigma: float = 0.5

    def __post_init__(self) -> None:
        require(
            self.window_px >= 3 and self.window_px % 2 == 1,
            f"window_px must be an odd number of at least 3, got {self.window_px}",
        )
        require_within(self, "(0, 1]", "max_disparity_share")
        require_within(self, "(0, 1)", "min_correlation", "max_relative_sigma")
        require_within(self, "(0, inf)", "left_right_px")
        require_within(self, "(-inf, inf)", "disparity_offset")
        require_within(self, "[0, inf)", "offset_sigma")


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

    Example:
        >>> import semkey
        >>> config = semkey.SlamConfig().with_changes(["lines.enabled=true", "tracking.min_inliers=20"])
        >>> config.lines.enabled, config.tracking.min_inliers
        (True, 20)
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
