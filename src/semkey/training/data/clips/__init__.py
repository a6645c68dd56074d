"""Clips: frames of one recording without poses or depth; optical flow says where points go."""
