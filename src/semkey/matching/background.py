"""How similar unrelated descriptors are, and cosines of chosen pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# Rows and columns of the sample of unrelated pairs that tells how similar unrelated descriptors are.
_BACKGROUND_SAMPLE = 64
_BACKGROUND_QUANTILE = 0.8
# A pair on its own costs as much as so many pairs of a product of two matrices (64 to 256 columns).
_GATHERING_COST = 80


def unrelated_similarities(descriptors0: NDArray[np.float32], descriptors1: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines (B,) of a sample of pairs of these two sets (N, D) and (M, D), nearly all of which are unrelated."""
    rows = descriptors0[:: max(1, len(descriptors0) // _BACKGROUND_SAMPLE)]
    columns = descriptors1[:: max(1, len(descriptors1) // _BACKGROUND_SAMPLE)]
    return (rows @ columns.T).reshape(-1)


def background_similarity(descriptors0: NDArray[np.float32], descriptors1: NDArray[np.float32]) -> float:
    """A cosine that most unrelated descriptors of these two sets (N, D) and (M, D) do not exceed.

    The 80th percentile over a sample of all pairs, nearly all of which are unrelated. It adapts itself to descriptor
    and scene: cosines of unrelated SIFT descriptors lie near 0.6 (0.9 on blank walls), those of ORB near 0.
    """
    if not len(descriptors0) or not len(descriptors1):
        return 0.0
    return float(np.quantile(unrelated_similarities(descriptors0, descriptors1), _BACKGROUND_QUANTILE))


def pair_similarity(
    descriptors0: NDArray[np.float32], descriptors1: NDArray[np.float32], rows: Indices, columns: Indices
) -> NDArray[np.float32]:
    """Cosines (P,) of P pairs of descriptors, (N, D) and (M, D), given by their rows (P,) in either set."""
    if len(rows) * _GATHERING_COST > len(descriptors0) * len(descriptors1):
        return (descriptors0 @ descriptors1.T)[rows, columns]
    return np.einsum("pd,pd->p", descriptors0[rows], descriptors1[columns])


def first_of_each(values: Indices) -> NDArray[np.bool_]:
    """Which entries of ``values`` occur there for the first time."""
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first
