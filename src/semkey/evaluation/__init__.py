"""Evaluation: methods side by side on pairs with ground truth, synthetic corners, speed and trajectories."""
