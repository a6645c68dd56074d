"""Ground truth between two images: hand-made scenes, plane-induced homographies, what is occluded or unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import InputError
from semkey.evaluation.data.pairs import (
    HomographyTruth,
    ImagePair,
    ImageSource,
    PairSet,
    PoseTruth,
    inside_image,
    join_sets,
    surface_depth,
)
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.homography import warp_points
from semkey.geometry.transforms import make_transform, so3_exp

SIZE = (161, 121)
CAMERA = PinholeCamera(fx=100.0, fy=100.0, cx=80.0, cy=60.0, width=SIZE[0], height=SIZE[1])


def grid(size: tuple[int, int], step: int = 7) -> np.ndarray:
    return (
        np.stack(np.meshgrid(np.arange(0, size[0], step), np.arange(0, size[1], step)), -1).reshape(-1, 2).astype(float)
    )


def wall_with_block() -> PoseTruth:
    """A wall at 2 m and a block at 1 m before it; camera 1 stands 0.2 m to the right of camera 0.

    The wall moves by 100 * 0.2 / 2 = 10 px to the left from view 0 to view 1, the block by 20 px: it covers
    x 60..79 of view 1 and x 80..99 of view 0, y 40..59 of both.
    """
    depth0, depth1 = (np.full((SIZE[1], SIZE[0]), 2.0, dtype=np.float32) for _ in range(2))
    depth0[40:60, 80:100] = 1.0
    depth1[40:60, 60:80] = 1.0
    depth0[100:110, 20:30] = 0.0  # a hole
    return PoseTruth(
        T_cam1_cam0=make_transform(np.eye(3), [-0.2, 0.0, 0.0]),
        camera0=CAMERA,
        camera1=CAMERA,
        read_depth0=lambda: depth0,
        read_depth1=lambda: depth1,
    )


@pytest.mark.parametrize(
    ("point", "mapped", "visible"),
    [
        ((30.0, 20.0), (20.0, 20.0), True),  # wall
        ((30.25, 20.75), (20.25, 20.75), True),  # wall, between pixels
        ((90.0, 50.0), (70.0, 50.0), True),  # block
        ((75.0, 50.0), (65.0, 50.0), False),  # wall, behind the block in view 1
        ((75.0, 61.0), (65.0, 61.0), True),  # wall, just below the block
        ((5.0, 50.0), (-5.0, 50.0), False),  # leaves view 1 on the left
        ((10.0, 0.0), (0.0, 0.0), True),  # the corner pixel of view 1
        ((9.9, 0.0), (-0.1, 0.0), False),
        ((160.0, 120.0), (150.0, 120.0), True),  # the last pixel of view 0
    ],
)
def test_a_point_of_a_scene_made_by_hand(
    point: tuple[float, float], mapped: tuple[float, float], visible: bool
) -> None:
    projected, seen = wall_with_block().project(np.array([point]), SIZE)
    np.testing.assert_allclose(projected[0], mapped, atol=1e-5)
    assert seen.tolist() == [visible]


@pytest.mark.parametrize(
    "point",
    [
        (79.5, 50.0),  # between wall and block
        (90.0, 59.5),
        (25.0, 105.0),  # in a hole
        (29.5, 105.0),  # half in a hole
        (-1.0, 20.0),
        (160.5, 20.0),
        (np.nan, 20.0),
    ],
)
def test_where_depth_is_not_known_nothing_is(point: tuple[float, float]) -> None:
    projected, seen = wall_with_block().project(np.array([point]), SIZE)
    assert np.isnan(projected).all()
    assert not seen.any()


def test_swapped_truth_maps_back_and_sees_what_is_hidden_the_other_way() -> None:
    truth = wall_with_block()
    points = np.array([[30.0, 20.0], [90.0, 50.0]])
    mapped, _ = truth.project(points, SIZE)
    back, seen = truth.swapped().project(mapped, SIZE)
    np.testing.assert_allclose(back, points, atol=1e-4)
    assert seen.all()
    # x 85 of view 1 is the wall, which in view 0 stands at x 95, behind the block.
    back, seen = truth.swapped().project(np.array([[85.0, 50.0]]), SIZE)
    np.testing.assert_allclose(back, [[95.0, 50.0]], atol=1e-4)
    assert not seen.any()


def test_swapping_twice_gives_the_same_truth() -> None:
    truth = wall_with_block()
    again = truth.swapped().swapped()
    np.testing.assert_allclose(again.T_cam1_cam0, truth.T_cam1_cam0, atol=1e-15)
    assert again.read_depth0 is truth.read_depth0
    assert again.depth_tolerance == truth.depth_tolerance


@pytest.mark.parametrize(("measured", "visible"), [(2.103, True), (2.107, False), (1.906, True), (1.902, False)])
def test_depth_may_differ_by_the_tolerance(measured: float, visible: bool) -> None:
    # |2 - measured| <= 0.05 * measured
    truth = PoseTruth(
        T_cam1_cam0=np.eye(4),
        camera0=CAMERA,
        camera1=CAMERA,
        read_depth0=lambda: np.full((121, 161), 2.0, dtype=np.float32),
        read_depth1=lambda: np.full((121, 161), measured, dtype=np.float32),
    )
    assert truth.project(np.array([[50.0, 50.0]]), SIZE)[1].tolist() == [visible]


def test_points_behind_camera_1_are_unknown() -> None:
    depth = np.full((121, 161), 2.0, dtype=np.float32)
    turned_round = make_transform(so3_exp([0.0, np.pi, 0.0]), np.zeros(3))
    truth = PoseTruth(
        T_cam1_cam0=turned_round, camera0=CAMERA, camera1=CAMERA, read_depth0=lambda: depth, read_depth1=lambda: depth
    )
    mapped, seen = truth.project(grid(SIZE), SIZE)
    assert np.isnan(mapped).all()
    assert not seen.any()


@pytest.mark.parametrize("side", [0, 1])
def test_without_both_depths_nothing_is_known(side: int) -> None:
    def read() -> np.ndarray:
        return np.ones((121, 161), dtype=np.float32)

    truth = PoseTruth(
        T_cam1_cam0=np.eye(4),
        camera0=CAMERA,
        camera1=CAMERA,
        read_depth0=read if side == 0 else None,
        read_depth1=read if side == 1 else None,
    )
    assert not truth.has_depth
    mapped, seen = truth.project(np.array([[3.0, 4.0], [5.0, 6.0]]), SIZE)
    assert mapped.shape == (2, 2)
    assert np.isnan(mapped).all()
    assert seen.tolist() == [False, False]


def test_no_points() -> None:
    for truth in (wall_with_block(), HomographyTruth(H10=np.eye(3))):
        mapped, seen = truth.project(np.zeros((0, 2)), SIZE)
        assert mapped.shape == (0, 2)
        assert seen.shape == (0,)


small = st.floats(-0.3, 0.3)


@settings(max_examples=40, deadline=None)
@given(st.tuples(small, small, small), st.tuples(small, small, small), st.tuples(small, small))
def test_a_plane_is_mapped_by_its_homography(
    rotation: tuple[float, ...], translation: tuple[float, ...], slope: tuple[float, float]
) -> None:
    """Depth, pose and two different cameras against the closed form K1 (R + t n^T / d) K0^-1."""
    camera1 = PinholeCamera(fx=130.0, fy=120.0, cx=95.0, cy=70.0, width=201, height=151)
    normal = np.array([*slope, 1.0])  # the plane: normal . X = 2
    R, t = so3_exp(rotation), np.array(translation)
    H10 = camera1.matrix @ (R + np.outer(t, normal) / 2.0) @ np.linalg.inv(CAMERA.matrix)
    plane1 = normal @ R.T / (2.0 + normal @ R.T @ t)  # plane1 . X1 = 1

    def depth_of(camera: PinholeCamera, plane: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[: camera.height, : camera.width]
        rays = camera.backproject(np.stack([x, y], -1).reshape(-1, 2), np.ones(camera.width * camera.height))
        inverse_depth = (rays @ plane).reshape(camera.height, camera.width)
        return np.where(inverse_depth > 1e-3, 1.0 / np.maximum(inverse_depth, 1e-3), 0.0).astype(np.float32)

    depth0, depth1 = depth_of(CAMERA, normal / 2.0), depth_of(camera1, plane1)
    truth = PoseTruth(
        T_cam1_cam0=make_transform(R, t),
        camera0=CAMERA,
        camera1=camera1,
        read_depth0=lambda: depth0,
        read_depth1=lambda: depth1,
    )
    points = grid(SIZE)
    mapped, seen = truth.project(points, (201, 151))
    expected, in_view = HomographyTruth(H10=H10).project(points, (201, 151))
    known = ~np.isnan(mapped[:, 0])
    assert known.any()
    np.testing.assert_allclose(mapped[known], expected[known], atol=1e-3)
    # All of the plane is visible where it is in view, but for points within float32 of the image's border.
    border = np.abs(expected - np.clip(expected, 0, [200, 150])).max(axis=1)
    clear = (border == 0) | (border > 1e-3)
    np.testing.assert_array_equal(seen[clear & known], in_view[clear & known])
    # Back again, at points between pixels: depth is interpolated there, which is not quite exact on a slope.
    back, _ = truth.swapped().project(mapped[seen], SIZE)
    known = ~np.isnan(back[:, 0])
    assert known.mean() > 0.5 or not seen.any()
    np.testing.assert_allclose(back[known], points[seen][known], atol=0.02)


def test_a_homography_maps_and_swaps() -> None:
    H10 = np.array([[2.0, 0.0, 10.0], [0.0, 2.0, -20.0], [0.0, 0.0, 1.0]])
    truth = HomographyTruth(H10=H10)
    mapped, seen = truth.project(np.array([[5, 15], [0, 0]]), (100, 100))
    np.testing.assert_allclose(mapped, [[20.0, 10.0], [10.0, -20.0]])
    assert seen.tolist() == [True, False]
    back, _ = truth.swapped().project(mapped, (100, 100))
    np.testing.assert_allclose(back, [[5.0, 15.0], [0.0, 0.0]], atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_points_beyond_the_horizon_are_unknown(scale: float) -> None:
    # w = 1 - 0.01 x: the horizon is at x = 100; x = 150 would be mapped to (-300, ...), x = 200 to (-200, ...).
    truth = HomographyTruth(H10=scale * np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.01, 0.0, 1.0]]))
    mapped, seen = truth.project(np.array([[50.0, 20.0], [100.0, 20.0], [150.0, 20.0]]), (640, 480))
    np.testing.assert_allclose(mapped[0], [100.0, 40.0])
    assert np.isnan(mapped[1:]).all()
    assert seen.tolist() == [True, False, False]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-0.2, 0.2), min_size=6, max_size=6),
    st.lists(st.floats(-30, 30), min_size=2, max_size=2),
    st.floats(0.3, 5) | st.floats(-5, -0.3),
)
def test_a_homography_and_its_swap_agree(linear: list[float], shift: list[float], scale: float) -> None:
    H10 = np.eye(3)
    H10[:2, :2] += np.reshape(linear[:4], (2, 2))
    H10[:2, 2] = shift
    H10[2, :2] = np.array(linear[4:]) / 100.0
    truth = HomographyTruth(H10=scale * H10)
    points = grid(SIZE)
    mapped, seen = truth.project(points, SIZE)
    back, seen_back = truth.swapped().project(mapped[seen], SIZE)
    np.testing.assert_allclose(back, points[seen], atol=1e-8)
    # Points on the border itself may fall out by rounding.
    inner = inside_image(points[seen] - 1, (SIZE[0] - 2, SIZE[1] - 2))
    assert seen_back[inner].all()
    np.testing.assert_allclose(mapped[seen], warp_points(H10, points[seen]), atol=1e-8)


def test_inside_is_on_the_pixels_borders_included() -> None:
    points = np.array([[0, 0], [9, 4], [9.001, 4], [-0.001, 0], [5, 4.001], [np.nan, 1], [np.inf, 1]])
    assert inside_image(points, (10, 5)).tolist() == [True, True, False, False, False, False, False]


# -- depth between pixels ------------------------------------------------------------------------------------------


def test_depth_is_bilinear() -> None:
    y, x = np.mgrid[:5, :6]
    depth = (10.0 + 0.1 * x + 0.02 * y).astype(np.float32)
    points = np.array([[0.0, 0.0], [5.0, 4.0], [2.5, 1.25], [4.99, 3.99]])
    expected = 10.0 + 0.1 * points[:, 0] + 0.02 * points[:, 1]
    np.testing.assert_allclose(surface_depth(depth, points, 0.05), expected, rtol=1e-6)


def test_depth_weights_of_all_four_neighbours() -> None:
    depth = np.array([[1.00, 1.01], [1.02, 1.04]], dtype=np.float32)
    expected = 0.75 * 0.6 * 1.00 + 0.25 * 0.6 * 1.01 + 0.75 * 0.4 * 1.02 + 0.25 * 0.4 * 1.04
    np.testing.assert_allclose(surface_depth(depth, np.array([[0.25, 0.4]]), 0.05), [expected], rtol=1e-6)


def test_depth_on_a_pixel_centre_is_that_pixels_own_beside_a_hole_or_an_edge() -> None:
    depth = np.array([[0.0, 2.0, 5.0], [2.0, 2.0, 5.0]], dtype=np.float32)
    points = np.array([[1.0, 0.0], [1.0, 0.5], [1.5, 1.0], [0.5, 0.0], [0.0, 0.0], [2.0, 0.3]])
    expected = [2.0, 2.0, np.nan, np.nan, np.nan, 5.0]
    np.testing.assert_allclose(surface_depth(depth, points, 0.05), expected)


@pytest.mark.parametrize(("step", "known"), [(0.099, True), (0.101, False)])
def test_an_edge_is_a_step_of_more_than_the_tolerance(step: float, known: bool) -> None:
    depth = np.array([[2.0, 2.0 + step], [2.0, 2.0]], dtype=np.float32)
    assert np.isfinite(surface_depth(depth, np.array([[0.5, 0.5]]), 0.05)).tolist() == [known]


def test_depth_outside_the_map_is_unknown() -> None:
    depth = np.ones((4, 5), dtype=np.float32)
    points = np.array([[-0.01, 1], [4.01, 1], [1, 3.01], [1, -2], [np.nan, 1], [1e9, 1e9]])
    assert np.isnan(surface_depth(depth, points, 0.05)).all()


def test_sets_taken_together_keep_their_pairs_and_become_parts() -> None:
    def source(key: str) -> ImageSource:
        return ImageSource(key=key, read=lambda: np.zeros((4, 4, 3), dtype=np.uint8))

    truth = HomographyTruth(H10=np.eye(3))
    pair = ImagePair(name="1-2", image0=source("1"), image1=source("2"), truth=truth, group="viewpoint")
    first = PairSet(name="graf", pairs=[pair], description="one")
    second = PairSet(name="wall", pairs=[pair, replace(pair, name="1-3")], description="two")
    joined = join_sets([first, second])
    assert [p.name for p in joined.pairs] == ["graf/1-2", "wall/1-2", "wall/1-3"]
    assert [p.group for p in joined.pairs] == ["graf", "wall", "wall"]
    assert joined.description == "graf: one; wall: two"
    with pytest.raises(InputError, match="no sets"):
        join_sets([])
