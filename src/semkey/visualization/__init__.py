"""Pictures of keypoints, matches and trajectories."""

from semkey.visualization.draw import draw_keypoints, draw_matches
from semkey.visualization.picture import Picture

__all__ = ["Picture", "draw_keypoints", "draw_matches"]
