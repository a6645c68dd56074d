"""The map: keyframes, landmarks, lines, who sees what."""
