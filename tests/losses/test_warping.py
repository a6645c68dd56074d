"""Points and maps of view 0 in view 1, through homographies and dense warps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.geometry.homography import warp_points
from semkey.losses.warping import dense_warp, project_points, warp_map

NO_HOMOGRAPHY = torch.full((3, 3), float("nan"), dtype=torch.float64)
NO_WARP = torch.zeros(24, 32, 2)  # of pairs that have a homography; its size is the view's


def matrix(*rows: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


SHIFT = matrix((1, 0, 5), (0, 1, 3), (0, 0, 1))


@given(
    values=st.lists(st.floats(-0.3, 0.3), min_size=4, max_size=4),
    shift=st.lists(st.floats(-9, 9), min_size=2, max_size=2),
    slope=st.lists(st.floats(-0.005, 0.005), min_size=2, max_size=2),
    scale=st.floats(-3, 3).filter(lambda s: abs(s) > 0.1),
)
@settings(max_examples=50, deadline=None)
def test_homography_and_its_dense_warp_agree_with_the_geometry_package(
    values: list[float], shift: list[float], slope: list[float], scale: float
) -> None:
    a, b, c, d = values
    H = scale * matrix((1 + a, b, shift[0]), (c, 1 + d, shift[1]), (slope[0], slope[1], 1))
    points = torch.tensor([[0.0, 0.0], [31.0, 23.0], [12.0, 7.0], [30.0, 1.0]])
    expected = warp_points(H.numpy(), points.numpy())
    projected, seen = project_points(points, H, NO_WARP)
    np.testing.assert_allclose(projected.numpy(), expected, atol=1e-3)
    inside = (expected >= 0).all(axis=1) & (expected <= [31, 23]).all(axis=1)
    near_border = (np.abs(expected - np.clip(expected, 0, [31, 23])) < 1e-3).all(axis=1)
    assert (seen.numpy() == inside)[~near_border | inside].all()
    dense = dense_warp(H[None], NO_WARP[None])
    through_map, _ = project_points(points, NO_HOMOGRAPHY, dense[0])
    np.testing.assert_allclose(through_map.numpy(), expected, atol=1e-2)


def test_sub_pixel_points_of_a_dense_warp_are_read_bilinearly() -> None:
    warp = dense_warp(matrix((1.5, 0.2, 1), (-0.1, 0.8, 2), (0, 0, 1))[None], NO_WARP[None])[0]
    projected, _ = project_points(torch.tensor([[10.25, 4.75]]), NO_HOMOGRAPHY, warp)
    torch.testing.assert_close(projected, torch.tensor([[1.5 * 10.25 + 0.2 * 4.75 + 1, -1.025 + 3.8 + 2]]))


def test_mirrored_views_are_seen() -> None:
    mirror = matrix((-1, 0, 31), (0, 1, 0), (0, 0, 1))
    projected, seen = project_points(torch.tensor([[4.0, 2.0]]), mirror, NO_WARP)
    assert projected.tolist() == [[27.0, 2.0]]
    assert seen.all()


def test_points_beyond_the_horizon_are_not_seen() -> None:
    """The line x = 24 goes to infinity; what lies behind it is mapped into the image but is not there."""
    H = matrix((1, 0, 0), (0, 1, 0), (-1 / 24, 0, 1))
    points = torch.tensor([[12.0, 6.0], [24.0, 6.0], [31.0, -3.0], [30.0, 0.0]], requires_grad=True)
    projected, seen = project_points(points, H, NO_WARP)
    assert seen.tolist() == [True, False, False, False]
    assert projected[0].tolist() == pytest.approx([24.0, 12.0])
    projected.sum().backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()
    dense = dense_warp(H[None], NO_WARP[None])[0]
    assert torch.isfinite(dense[:, :24]).all()
    assert torch.isnan(dense[:, 24:]).all()


def test_a_batch_may_mix_homographies_and_dense_warps() -> None:
    given_warp = torch.rand(24, 32, 2)
    dense = dense_warp(torch.stack([SHIFT, NO_HOMOGRAPHY]), torch.stack([NO_WARP, given_warp]))
    assert dense[0, 2, 7].tolist() == [12.0, 5.0]
    assert torch.equal(dense[1], given_warp)
    assert dense.dtype == torch.float32


def test_points_next_to_unseen_pixels_are_not_seen_and_keep_gradients_finite() -> None:
    warp = dense_warp(SHIFT[None], NO_WARP[None])[0]
    warp[10, 10] = float("nan")
    points = torch.tensor([[9.5, 9.5], [8.5, 8.5], [10.9, 10.9]], requires_grad=True)
    projected, seen = project_points(points, NO_HOMOGRAPHY, warp)
    assert seen.tolist() == [False, True, False]
    projected.square().sum().backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()


def test_no_points() -> None:
    for H in (SHIFT, NO_HOMOGRAPHY):
        projected, seen = project_points(torch.zeros(0, 2), H, NO_WARP)
        assert projected.shape == (0, 2)
        assert seen.shape == (0,)


def test_projection_gradient() -> None:
    H = matrix((1.1, 0.1, 2), (-0.2, 0.9, 3), (0.002, 0.001, 1))
    warp = dense_warp(H[None], NO_WARP[None].double())[0]
    points = torch.tensor([[3.3, 4.6], [20.2, 9.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: project_points(p, H, NO_WARP)[0], points)
    assert torch.autograd.gradcheck(lambda p: project_points(p, NO_HOMOGRAPHY, warp)[0], points)


def test_a_map_is_warped_to_where_view_0_sees_it() -> None:
    maps = torch.rand(1, 2, 24, 32, generator=torch.Generator().manual_seed(0))
    warped, inside = warp_map(maps, dense_warp(SHIFT[None], NO_WARP[None]))
    torch.testing.assert_close(warped[0, :, :21, :27], maps[0, :, 3:, 5:])
    assert inside[0, :21, :27].all()
    assert not inside[0, 21:].any()
    assert (warped[0, :, 21:] == 0).all()
    half = matrix((1, 0, 0.5), (0, 1, 0), (0, 0, 1))
    warped, _ = warp_map(maps, dense_warp(half[None], NO_WARP[None]))
    torch.testing.assert_close(warped[0, :, :, 0], maps[0, :, :, :2].mean(dim=2))


def test_unseen_pixels_do_not_spoil_gradients() -> None:
    maps = torch.rand(1, 1, 24, 32, requires_grad=True)
    warped, inside = warp_map(maps, torch.full((1, 24, 32, 2), float("nan")))
    warped.sum().backward()
    assert not inside.any()
    assert maps.grad is not None
    assert (maps.grad == 0).all()
