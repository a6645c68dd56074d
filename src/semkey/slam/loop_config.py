"""Settings of loop closing, relocalisation and submaps; every default is commented with why it has its value."""

from __future__ import annotations

from dataclasses import dataclass

from semkey.settings import Settings, require_within


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Settings):
    """Settings of :class:`semkey.slam.loop_closing.LoopCloser`, and of what is done while the camera is lost.

    Pixel values are for images 640 pixels wide and scale with the image's width.

    Attributes:
        enabled: look for loops and join submaps; relocalisation when lost works either way.
        retrieval_keypoints: strongest keypoints of a keyframe that vote for places; on redkitchen 128, 200 and 300
            find a right place among the first five for 97, 97 and 98 % of the revisits (the global descriptor: 83 %).
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
            scale may have drifted as well, see :mod:`semkey.slam.loop_plausibility`. Between submaps, whose relation
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
        require_within(self, "[1, inf)", "retrieval_keypoints", "retrieval_prefilter", "candidates", "consistency")
        require_within(self, "[1, inf)", "supporter_inliers", "strong_covisibility", "relocalisation_candidates")
        require_within(self, "[0, inf)", "group_size", "adjusted_keyframes", "min_gap_seconds", "min_supporters")
        require_within(self, "[0, inf)", "max_drift", "drift_floor_m", "drift_floor_deg", "new_submap_seconds")
        require_within(self, "[0, inf)", "drift_floor_depths")
        # Three points fix a pose; with a fourth RANSAC can tell a right one from a wrong one.
        require_within(self, "[4, inf)", "min_inliers")
        require_within(self, "[0, 1]", "min_coverage", "relocalisation_coverage")
        require_within(self, "(0, inf)", "fuse_radius_px")
