"""Settings of stereo depth; every default is commented with why it has its value."""

from __future__ import annotations

from dataclasses import dataclass

from semkey.settings import Settings, require, require_within


@dataclass(frozen=True, kw_only=True)
class StereoConfig(Settings):
    """Settings of :func:`semkey.slam.stereo.stereo_depth`.

    Attributes:
        window_px: side of the compared patches, odd; 9 px blurs depth edges little and still tells patches apart.
        max_disparity_share: largest disparity, as a share of the image width; what is nearer gets no depth.
        min_correlation: smallest normalised correlation of two patches that show the same point.
        left_right_px: largest difference between the disparities found from the left and from the right image.
        max_relative_sigma: largest standard deviation of a depth, as a share of it; farther points get no depth, since
            their depth is no longer normally distributed (it is the inverse of what is measured).
    """

    window_px: int = 9
    max_disparity_share: float = 0.15
    min_correlation: float = 0.8
    left_right_px: float = 1.0
    max_relative_sigma: float = 0.1

    def __post_init__(self) -> None:
        require(
            self.window_px >= 3 and self.window_px % 2 == 1,
            f"window_px must be an odd number of at least 3, got {self.window_px}",
        )
        require_within(self, "(0, 1]", "max_disparity_share")
        require_within(self, "(0, 1)", "min_correlation", "max_relative_sigma")
        require_within(self, "(0, inf)", "left_right_px")
