"""Settings of line segments in SLAM; every default is commented with why it has its value."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from semkey.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LineConfig:
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
        if self.detection_width < 32:
            raise ConfigError(f"detection_width must be at least 32 pixels, got {self.detection_width}")
        if self.max_lines < 1 or self.min_lines < 1:
            raise ConfigError(f"max_lines and min_lines must be positive, got {self.max_lines} and {self.min_lines}")
        for name in ("min_length", "pixel_sigma"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("merge_angle_deg", "search_angle_deg"):
            if not 0 < getattr(self, name) < 90:
                raise ConfigError(f"{name} must be in (0, 90), got {getattr(self, name)}")
        for name in ("merge_distance", "merge_gap"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.min_overlap <= 1:
            raise ConfigError(f"min_overlap must be in (0, 1], got {self.min_overlap}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> LineConfig:
        """Build from a parsed configuration file; an unknown key raises :class:`ConfigError` naming the nearest."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
                raise ConfigError(f"unknown setting of lines '{key}': {hint}")
        return cls(**values)
