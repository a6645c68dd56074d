"""Features of many images in one NumPy archive, for those who read nothing else."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable

import numpy as np

from semkey.errors import InputError
from semkey.files import atomic_write_bytes
from semkey.model.features import Features


def write_features_npz(path: str | os.PathLike[str], features: Iterable[tuple[str, Features]]) -> None:
    """Write ``NAME/keypoints`` (N, 2) pixels, ``NAME/descriptors`` (N, D), ``NAME/scores``, ``NAME/reliability`` (N,).

    All float32; ``NAME/image_size`` is (width, height), and ``NAME/covariances`` (N, 2, 2) px^2 is there where features
    have them. ``numpy.load(path)["a.jpg/keypoints"]`` reads one.

    Args:
        path: ending in ``.npz``.
        features: (name, features) of each image, no name twice.

    Raises:
        InputError: the file cannot be written, or two images have the same name.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, one in features:
        if f"{name}/keypoints" in arrays:
            raise InputError(f"cannot write {path}: two images are named '{name}'")
        values = one.numpy()
        arrays |= {
            f"{name}/keypoints": values.keypoints.astype(np.float32),
            f"{name}/descriptors": values.descriptors.astype(np.float32),
            f"{name}/scores": values.scores.astype(np.float32),
            f"{name}/reliability": values.reliability.astype(np.float32),
            f"{name}/image_size": np.array(values.image_size, dtype=np.int64),
        }
        if values.covariances is not None:
            arrays[f"{name}/covariances"] = values.covariances.astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # ty: ignore[invalid-argument-type] (names are no Python names)
    atomic_write_bytes(path, buffer.getvalue())
