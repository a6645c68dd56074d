"""Which segment sees which line, when two views place one, and how uncertain the residuals are: by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.geometry.transforms import se3_exp, so3_exp, transform_points
from semkey.slam.config import LineConfig
from semkey.slam.frames.observed_lines import ObservedLines, observe_lines
from semkey.slam.frames.segments import Segments
from semkey.slam.frames.segments_in_space import SpatialSegments
from semkey.slam.map.line_association import (
    LineAssociations,
    VisibleLines,
    complete_by_triangulation,
    line_observations,
    match_lines,
)
from synthetic_world import CAMERA

CONFIG = LineConfig(enabled=True, min_overlap=0.4)
# One line of the map, 2 m before the camera and parallel to the image's rows: 200 pixels of it are in the picture.
LINE = np.array([[-0.7, 0.1, 2.0], [0.8384615384615385, 0.1, 2.0]])
PIXELS = CAMERA.project(LINE)


def segments(*ends: NDArray[np.float64], names: tuple[int, ...] | None = None) -> Segments:
    """Segments of which each looks like its number, or like the given one."""
    numbers = np.arange(len(ends)) if names is None else np.array(names)
    return Segments(endpoints=np.array(ends, dtype=np.float64), descriptors=np.eye(8, dtype=np.float32)[numbers])


def without_depth(seen: Segments) -> ObservedLines:
    return observe_lines(seen, None, CAMERA, min_depth=0.3, max_depth=8.0)


def visible_line(covariances: NDArray[np.float64]) -> VisibleLines:
    return VisibleLines(
        rows=np.array([0]),
        points_world=LINE[None],
        covariances=covariances[None],
        pixels=PIXELS[None],
        points_cam=LINE[None],
        descriptors=np.eye(8, dtype=np.float32)[:1],
    )


CERTAIN = np.tile(1e-12 * np.eye(3), (2, 1, 1))


@pytest.mark.parametrize(("share", "found"), [(0.25, 0), (0.35, 0), (0.45, 1), (1.0, 1)])
def test_a_segment_of_which_too_little_lies_beside_the_line_is_another_one(share: float, found: int) -> None:
    """Both are 200 px long; the segment begins where this share of the line is left. 40 % is needed."""
    shifted = PIXELS + np.array([(1 - share) * 200.0, 0.5])
    # A second segment far away keeps the first one from being alike to everything that is seen.
    observed = without_depth(segments(shifted, np.array([[20.0, 200.0], [120.0, 220.0]])))
    matched = match_lines(observed, visible_line(CERTAIN), CONFIG, radius_px=1.0)
    assert len(matched) == found
    everything = match_lines(observed, visible_line(CERTAIN), replace(CONFIG, min_overlap=0.01), radius_px=1.0)
    assert len(everything) == 1


@pytest.mark.parametrize("turned", [0.0, 0.7])
def test_residuals_are_as_uncertain_as_segment_and_line_together(turned: float) -> None:
    """A line 3 cm uncertain in y and 5 cm in z, at 2 m: 260 * 0.03 / 2 = 3.9 px across it, 5 cm along the rays."""
    T_world_cam = np.eye(4)
    T_world_cam[:3, :3] = so3_exp([0.0, turned, 0.0])
    rotation = T_world_cam[:3, :3]
    covariance = rotation @ np.diag([1.0, 0.03**2, 0.05**2]) @ rotation.T
    visible = replace(
        visible_line(np.stack([covariance, covariance])), points_world=transform_points(T_world_cam, LINE)[None]
    )
    level = np.array([[-0.7, 0.0, 2.0], [0.8, 0.0, 2.0]])  # at the height of the camera: rays and depth are one
    spatial = SpatialSegments(valid=np.array([True]), points=level[None], sigma=np.full((1, 2), 0.04))
    observed = ObservedLines(segments=segments(PIXELS), spatial=spatial)
    pair = LineAssociations(lines=np.array([0]), segments=np.array([0]), similarity=np.ones(1))
    seen = line_observations(observed, visible, pair, T_world_cam, CAMERA, pixel_sigma=0.5)
    along_y, along_z = 260.0 * 0.03 / 2.0, 260.0 * 0.1 / 4.0 * 0.05
    np.testing.assert_allclose(seen.pixel_sigma, np.sqrt(0.5**2 + along_y**2 + along_z**2), rtol=1e-9)
    np.testing.assert_allclose(seen.range_sigma, np.hypot(0.04, 0.05), rtol=1e-9)
    exact = line_observations(
        observed,
        replace(visible, covariances=CERTAIN[None]),
        pair,
        T_world_cam,
        CAMERA,
        pixel_sigma=0.5,
    )
    np.testing.assert_allclose(exact.pixel_sigma, 0.5, rtol=1e-6)
    np.testing.assert_allclose(exact.range_sigma, 0.04, rtol=1e-6)


def test_two_views_place_a_line_only_where_the_second_shows_the_same_part_of_it() -> None:
    """A segment farther along the same straight line looks alike (a fence, a row of windows) and is another one."""
    T_other_cam = se3_exp([0.0, 0.3, 0.0, 0.0, 0.0, 0.0])
    in_other = CAMERA.project(transform_points(T_other_cam, LINE))
    unlike = np.array([[20.0, 10.0], [120.0, 30.0]])
    observed = without_depth(segments(PIXELS, names=(0,)))
    beside = without_depth(segments(in_other + np.array([10.0, 0.0]), unlike))
    placed = complete_by_triangulation(observed, beside, T_other_cam, CAMERA, CONFIG, pixel_sigma=0.5)
    assert placed.spatial.valid.tolist() == [True]
    np.testing.assert_allclose(placed.spatial.points[0], LINE, atol=1e-9)
    farther = without_depth(segments(in_other + np.array([190.0, 0.0]), unlike))
    refused = complete_by_triangulation(observed, farther, T_other_cam, CAMERA, CONFIG, pixel_sigma=0.5)
    assert refused.spatial.valid.tolist() == [False]
