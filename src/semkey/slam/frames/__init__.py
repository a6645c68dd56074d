"""What one frame shows: keypoints with depth, segments, stereo, sensors."""
