"""Directions of edges in images where they are known."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.images.structure_tensor import structure_tensors
from semkey.metrics.edges import along_and_across, edge_directions


def half_plane(angle_deg: float, size: int = 65) -> np.ndarray:
    """An edge through the middle; its normal is turned by ``angle_deg`` from x."""
    x, y = np.meshgrid(np.arange(size) - size // 2, np.arange(size) - size // 2)
    distance = np.cos(np.radians(angle_deg)) * x + np.sin(np.radians(angle_deg)) * y
    return np.clip(128 + 60 * distance, 20, 235).astype(np.uint8)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120])
def test_along_is_the_direction_of_the_edge(angle: float) -> None:
    directions, is_edge = edge_directions(structure_tensors(half_plane(angle), [[32.0, 32.0]]))
    along = np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    assert is_edge[0]
    assert abs(directions[0] @ along) > 0.999


def test_a_corner_and_a_flat_place_are_no_edges() -> None:
    image = np.full((64, 64), 40, np.uint8)
    image[32:, 32:] = 200
    _, is_edge = edge_directions(structure_tensors(image, [[32.0, 32.0], [50.0, 32.0], [10.0, 10.0]]))
    assert is_edge.tolist() == [False, True, False]


def test_errors_are_split_in_two_parts() -> None:
    direction = np.array([[0.6, 0.8]])
    along, across = along_and_across(np.array([[0.6, 0.8]]) * 2 + np.array([[-0.8, 0.6]]) * 0.5, direction)
    assert along[0] == pytest.approx(2.0)
    assert across[0] == pytest.approx(0.5)
