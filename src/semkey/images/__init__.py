"""Reading images and depth maps with clear errors, and writing files atomically."""

from semkey.images.reading import read_depth, read_image
from semkey.images.writing import atomic_write_bytes, atomic_write_text, write_image

__all__ = ["atomic_write_bytes", "atomic_write_text", "read_depth", "read_image", "write_image"]
