"""Settings of line segments in SLAM; every default is commented with why it has its value."""

from __future__ import annotations

from dataclasses import dataclass

from semkey.settings import Settings, require_within


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
