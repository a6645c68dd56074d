from __future__ import annotations

import numpy as np

from semkey.metrics.two_view import sampson_errors

# A camera that moved along x: matched points have the same row.
SIDEWAYS = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def test_sampson_errors_of_a_sideways_motion() -> None:
    """Rows that differ by d are corrected by d/2 in each image: the distance in both together is d / sqrt(2)."""
    points0 = np.array([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]])
    points1 = points0 + np.array([[5.0, 0.0], [-7.0, 3.0], [2.0, -0.5]])
    np.testing.assert_allclose(sampson_errors(SIDEWAYS, points0, points1), np.array([0, 3, 0.5]) / np.sqrt(2))
    np.testing.assert_allclose(sampson_errors(-40 * SIDEWAYS, points0, points1), np.array([0, 3, 0.5]) / np.sqrt(2))


def test_sampson_errors_without_an_answer() -> None:
    points = np.array([[1.0, 2.0], [np.nan, 2.0]])
    errors = sampson_errors(SIDEWAYS, points, points)
    assert errors[0] == 0
    assert np.isnan(errors[1])
    assert sampson_errors(np.zeros((3, 3)), points[:1], points[:1]).tolist() == [0.0]
    assert sampson_errors(SIDEWAYS, np.zeros((0, 2)), np.zeros((0, 2))).shape == (0,)
