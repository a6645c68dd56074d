"""Where the camera is: prediction, association, pose, and when a frame becomes a keyframe."""
