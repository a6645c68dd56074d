"""How similar unrelated descriptors are, and what comes first."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.matching.background import background_similarity, first_of_each


def at_cosines(*cosines: float) -> np.ndarray:
    """Unit descriptors with these cosines to the first axis."""
    values = np.array(cosines)
    return np.stack([values, np.sqrt(1 - values**2)], axis=1).astype(np.float32)


def test_four_of_five_unrelated_pairs_are_less_similar() -> None:
    """The 80th percentile of 0, 0.1, 0.2, 0.3 and 0.9 lies a fifth of the way from 0.3 to 0.9."""
    axis = np.array([[1.0, 0.0]], dtype=np.float32)
    assert background_similarity(axis, at_cosines(0.9, 0.1, 0.0, 0.3, 0.2)) == pytest.approx(0.42, abs=1e-6)
    assert background_similarity(axis, axis[:0]) == 0.0
    assert background_similarity(axis[:0], axis) == 0.0


def test_a_few_true_pairs_among_many_do_not_count(rng: np.random.Generator) -> None:
    descriptors = rng.normal(size=(500, 64)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    assert background_similarity(descriptors, descriptors) == pytest.approx(0.84 / 8, abs=0.02)


def test_first_of_each() -> None:
    assert first_of_each(np.array([3, 1, 3, 2, 1, 1])).tolist() == [True, True, False, True, False, False]
    assert first_of_each(np.zeros(0, dtype=np.int64)).tolist() == []
