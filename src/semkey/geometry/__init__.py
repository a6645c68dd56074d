"""Geometry that depends on nothing else in semkey: transforms, cameras, homographies, pixels, error metrics."""
