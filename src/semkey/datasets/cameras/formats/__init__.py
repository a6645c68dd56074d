"""Calibration files: semkey's own and those of other tools, one format per file."""
