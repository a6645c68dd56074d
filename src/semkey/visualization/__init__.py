"""Pictures of keypoints, matches and trajectories."""

from semkey.visualization.draw import draw_keypoints, draw_matches

__all__ = ["draw_keypoints", "draw_matches"]
