"""Photos of the kinds that look at single images: files as they are, and some of each folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semkey.datasets.readers.folder import require_images
from semkey.errors import DatasetError


def find_photos(paths: Sequence[Path], most: int) -> list[Path]:
    """The image files to measure on: files as they are, and up to ``most`` of each folder, evenly spaced by name.

    Raises:
        DatasetError: a path is missing, or a folder holds no images.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            images = require_images(path)
            chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), most)).round().astype(int))
            found += [images[index] for index in chosen]
        elif path.is_file():
            found.append(path)
        else:
            raise DatasetError(f"{path}: no such file or folder")
    return found
