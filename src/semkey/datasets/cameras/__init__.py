"""Calibrations, lenses, undistortion and rectification."""
