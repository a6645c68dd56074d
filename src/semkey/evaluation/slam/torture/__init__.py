"""What SLAM does when its input is broken, covered, dark or foreign: cases with ground truth, and their verdicts."""
