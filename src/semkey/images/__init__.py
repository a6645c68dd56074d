"""Reading images and depth maps with clear errors, and writing images atomically."""

from semkey.images.reading import read_depth, read_image
from semkey.images.writing import write_image

__all__ = ["read_depth", "read_image", "write_image"]
