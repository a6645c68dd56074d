"""Errors of positions along and across the local edge, by structure tensors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

EDGE_RATIO = 0.1
"""A point lies on an edge where the smaller eigenvalue is less than this share of the larger one."""


def edge_directions(tensors: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Unit vectors (N, 2) along the edges of structure tensors (N, 2, 2), and (N,) whether it is an edge alone.

    Tensors are those of :func:`semkey.images.structure_tensor.structure_tensors`.

    Along is the direction in which the image changes least. Where it changes equally, or not at all, any direction
    is as good as another, and it is no edge.
    """
    matrices = np.asarray(tensors, dtype=np.float64).reshape(-1, 2, 2)
    values, vectors = np.linalg.eigh(matrices)
    return vectors[:, :, 0], values[:, 0] < EDGE_RATIO * values[:, 1]


def along_and_across(errors: ArrayLike, directions: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lengths (N,) of the parts of errors (N, 2) along unit directions (N, 2) and across them."""
    vectors, along = (np.asarray(values, dtype=np.float64).reshape(-1, 2) for values in (errors, directions))
    parallel = (vectors * along).sum(axis=1)
    perpendicular = vectors[:, 0] * along[:, 1] - vectors[:, 1] * along[:, 0]
    return np.abs(parallel), np.abs(perpendicular)
