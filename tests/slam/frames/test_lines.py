"""Line segments: detection, merging, descriptors along them, lines in space, residuals, and the pose from them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import ConfigError, InputError
from semkey.extractors import create_extractor, extract_and_describe
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, rotation_angle_deg, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.model.features import Features
from semkey.slam.config import LineConfig
from semkey.slam.frames.segments import (
    FeaturesWithSegments,
    SegmentExtractor,
    Segments,
    detect_segments,
    directions_of,
    image_lines,
    lengths,
    mean_descriptors,
    merge_segments,
    normals_of,
    segment_points,
)
from semkey.slam.frames.segments_in_space import SpatialSegments, lift_segments, segments_in_view, triangulate_segments
from semkey.slam.solvers.pose import PoseObservations, refine_pose
from semkey.slam.solvers.pose_lines import LineObservations, line_residuals_and_jacobian

CAMERA = PinholeCamera(fx=525.0, fy=525.0, cx=319.5, cy=239.5, width=640, height=480)
TRUE_POSE = se3_exp([0.1, -0.2, 0.3, 0.05, -0.1, 0.2])  # T_cam_world


def half_plane(angle: float, offset: float, *, size: tuple[int, int] = (320, 240), supersampling: int = 4):
    """A step edge at a known place: bright where ``normal . (p - middle) > offset``, pixels being area means."""
    width, height = size
    y, x = (np.mgrid[0 : height * supersampling, 0 : width * supersampling] + 0.5) / supersampling - 0.5
    normal = np.array([np.cos(angle), np.sin(angle)])
    middle = np.array([width / 2, height / 2])
    bright = (x - middle[0]) * normal[0] + (y - middle[1]) * normal[1] > offset
    image = np.where(bright, 190.0, 70.0).reshape(height, supersampling, width, supersampling).mean(axis=(1, 3))
    noisy = cv2.GaussianBlur(image, (0, 0), 0.7) + np.random.default_rng(0).normal(0, 2, image.shape)
    return noisy.round().clip(0, 255).astype(np.uint8), normal, normal @ middle + offset


# -- detection ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detection_width", [128, 160, 256])
def test_segments_lie_on_the_edge_whatever_the_scale_of_detection(detection_width: int) -> None:
    """A half-pixel error of the size change would show as a shift by up to 0.75 px here."""
    shifts, normals = [], []
    for k, angle in enumerate(np.linspace(0, 2 * np.pi, 12, endpoint=False) + 0.05):
        image, normal, distance = half_plane(angle, 0.25 * (k % 4))
        segments = detect_segments(image, LineConfig(detection_width=detection_width))
        assert len(segments), angle
        shifts.append((segments[0] @ normal - distance).mean())
        normals.append(normal)
        assert lengths(segments)[0] > 150
        across = normals_of(segments)[0] @ normal
        assert across == pytest.approx(-1, abs=1e-3), "the brighter side is on the left"
    constant = np.linalg.lstsq(np.array(normals), np.array(shifts), rcond=None)[0]
    assert np.abs(constant).max() < 0.03
    assert np.abs(shifts).max() < 0.1


def test_nothing_is_found_in_blank_tiny_and_noisy_images_nor_along_the_rim(rng: np.random.Generator) -> None:
    assert detect_segments(np.full((240, 320), 128, np.uint8)).shape == (0, 2, 2)
    assert detect_segments(np.zeros((3, 4), np.uint8)).shape == (0, 2, 2)
    assert len(detect_segments(rng.integers(0, 255, (240, 320)).astype(np.uint8))) == 0
    rimmed = np.full((240, 320), 128, np.uint8)
    rimmed[-2:] = rimmed[:, -2:] = 20
    assert len(detect_segments(rimmed)) == 0
    with pytest.raises(InputError, match="uint8"):
        detect_segments(np.zeros((10, 10), dtype=np.float32))  # ty: ignore[invalid-argument-type]


def test_a_square_has_four_segments_and_few_are_kept_if_few_are_asked_for() -> None:
    image = np.full((240, 320), 60, np.uint8)
    image[60:180, 100:220] = 200
    segments = detect_segments(image)
    assert len(segments) == 4
    assert np.diff(lengths(segments)).max() <= 1e-9, "longest first"
    np.testing.assert_allclose(lengths(segments), 119, atol=6)
    assert len(detect_segments(image, LineConfig(max_lines=2))) == 2
    assert len(detect_segments(image, LineConfig(min_length=300.0))) == 0, "600 px at a width of 640"


def test_pieces_of_one_edge_are_joined_and_others_left_alone() -> None:
    pieces = np.array(
        [
            [[0.0, 0.0], [40.0, 0.0]],
            [[45.0, 0.2], [90.0, 0.1]],  # follows the first
            [[45.0, 9.0], [90.0, 9.0]],  # beside
            [[90.0, 0.0], [0.0, 0.0]],  # the other way: the other side of a thin bar
            [[300.0, 0.0], [340.0, 0.0]],  # far along
            [[92.0, 0.0], [120.0, 16.0]],  # turned
        ]
    )
    merged = merge_segments(pieces, max_angle_deg=2.0, max_distance=1.5, max_gap=0.3)
    assert len(merged) == 5
    longest = merged[np.argmax(lengths(merged))]
    np.testing.assert_allclose(longest[[0, 1], 0].sum(), 90.0, atol=0.5)
    np.testing.assert_allclose(merge_segments(pieces[:1], max_angle_deg=2, max_distance=1, max_gap=1), pieces[:1])
    assert merge_segments(np.zeros((0, 2, 2)), max_angle_deg=2, max_distance=1, max_gap=1).shape == (0, 2, 2)


def test_the_order_of_pieces_does_not_matter(rng: np.random.Generator) -> None:
    pieces = np.stack([[[k * 50.0, 0.1 * (k % 2)], [k * 50.0 + 45, 0.0]] for k in range(5)])
    options = {"max_angle_deg": 2.0, "max_distance": 1.5, "max_gap": 0.3}
    reference = merge_segments(pieces, **options)
    assert len(reference) == 1
    for _ in range(5):
        np.testing.assert_allclose(merge_segments(pieces[rng.permutation(5)], **options), reference, atol=1e-9)


# -- description --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def textured() -> np.ndarray:
    rng = np.random.default_rng(5)
    noise = cv2.GaussianBlur(rng.normal(128, 200, (240, 320)), (0, 0), 3).clip(0, 255).astype(np.uint8)
    image = cv2.cvtColor(noise, cv2.COLOR_GRAY2RGB)
    cv2.rectangle(image, (80, 60), (240, 180), (250, 250, 240), -1)
    return image


@pytest.mark.parametrize("name", ["compact", "orb", "sift"])
def test_points_are_described_as_keypoints_are(name: str, textured: np.ndarray) -> None:
    extractor = create_extractor(name, max_keypoints=200, device="cpu")
    plain = extractor.extract(textured)
    features, described = extract_and_describe(extractor, textured, plain.keypoints)
    assert torch.equal(features.keypoints, plain.keypoints), "the keypoints are those of extract"
    assert torch.equal(features.descriptors, plain.descriptors)
    assert described.shape == plain.descriptors.shape
    norms = described.norm(dim=1)
    assert bool(((norms - 1).abs() < 1e-4)[norms > 0].all())
    if name == "compact":
        assert torch.allclose(described, plain.descriptors, atol=1e-5)


@pytest.mark.parametrize("name", ["compact", "orb", "sift"])
def test_points_are_recognised_in_a_shifted_image(name: str, textured: np.ndarray) -> None:
    extractor = create_extractor(name, max_keypoints=50, device="cpu")
    x, y = np.meshgrid(np.arange(48, 240, 24), np.arange(48, 180, 24))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    points = points[(points[:, 0] < 78) | (points[:, 0] > 242) | (points[:, 1] < 58) | (points[:, 1] > 182)]
    _, here = extract_and_describe(extractor, textured, points)
    _, there = extract_and_describe(extractor, textured[8:, 16:], points - [16.0, 8.0])
    nearest = (here @ there.T).argmax(dim=1)
    assert float((nearest == torch.arange(len(points))).float().mean()) > 0.9


def test_points_outside_and_no_points_are_no_errors(textured: np.ndarray) -> None:
    for name in ("compact", "orb", "sift"):
        extractor = create_extractor(name, max_keypoints=50, device="cpu")
        features, none = extract_and_describe(extractor, textured, np.zeros((0, 2)))
        assert none.shape == (0, features.descriptors.shape[1])
        _, outside = extract_and_describe(extractor, textured, [[-50.0, 3.0], [1000.0, 1000.0]])
        assert bool(torch.isfinite(outside).all())
    with pytest.raises(InputError, match="points"):
        extract_and_describe(extractor, textured, [[np.nan, 1.0]])


def test_an_extractor_that_describes_only_its_own_keypoints_gets_sift_points(textured: np.ndarray) -> None:
    class Plain:
        name = "plain"

        def extract(self, image: object) -> Features:
            assert isinstance(image, np.ndarray)
            return create_extractor("orb", max_keypoints=10, device="cpu").extract(image)

    features, described = extract_and_describe(Plain(), textured, [[160.0, 60.0]])
    assert features.descriptors.shape[1] == 256
    assert described.shape == (1, 128)


def test_extraction_with_segments(textured: np.ndarray) -> None:
    extractor = SegmentExtractor(create_extractor("compact", max_keypoints=100, device="cpu"), LineConfig(enabled=True))
    features = extractor.extract(textured)
    assert extractor.name == "compact"
    assert isinstance(features, FeaturesWithSegments)
    assert len(features.segments) >= 4
    np.testing.assert_allclose(np.linalg.norm(features.segments.descriptors, axis=1), 1.0, atol=1e-5)
    kept = features.to("cpu").select(torch.arange(3))
    assert isinstance(kept, FeaturesWithSegments), "segments stay with the features"
    assert len(kept) == 3
    blank = extractor.extract(np.full((64, 64, 3), 99, np.uint8))
    assert isinstance(blank, FeaturesWithSegments)
    assert blank.segments.descriptors.shape == (0, 64)


def test_descriptors_of_a_segment_are_the_direction_of_the_mean() -> None:
    points = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]], dtype=np.float32)
    np.testing.assert_allclose(mean_descriptors(points), [[0.5**0.5, 0.5**0.5], [0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(segment_points(np.array([[[0.0, 0.0], [8.0, 4.0]]]), 2), [[[2.0, 1.0], [6.0, 3.0]]])


def test_wrong_shapes_and_settings_are_refused() -> None:
    with pytest.raises(InputError, match="endpoints"):
        Segments(endpoints=np.zeros((3, 4)), descriptors=np.zeros((3, 8), np.float32))
    with pytest.raises(InputError, match="descriptors"):
        Segments(endpoints=np.zeros((3, 2, 2)), descriptors=np.zeros((2, 8), np.float32))
    with pytest.raises(ConfigError, match="min_length"):
        LineConfig(min_length=0.0)
    with pytest.raises(ConfigError, match="min_overlap"):
        LineConfig.from_mapping({"min_overlap": 1.5})
    with pytest.raises(ConfigError, match="did you mean 'max_lines'"):
        LineConfig.from_mapping({"max_line": 3})


# -- lines in space -----------------------------------------------------------------------------------------------


def plane_depth(normal: np.ndarray, distance: float) -> np.ndarray:
    """Depth image of the plane ``normal . p = distance``."""
    y, x = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = CAMERA.backproject(np.stack([x.ravel(), y.ravel()], axis=1), np.ones(x.size))
    return (distance / (rays @ normal)).reshape(x.shape).astype(np.float32)


SLANTED = np.array([0.3, -0.1, 0.95]) / np.linalg.norm([0.3, -0.1, 0.95])
SEGMENTS = np.array([[[100.0, 100.0], [500.0, 300.0]], [[320.0, 50.0], [320.0, 400.0]], [[30.0, 420.0], [90.0, 410.0]]])


def test_depth_along_a_segment_gives_the_line_in_space(rng: np.random.Generator) -> None:
    depth = plane_depth(SLANTED, 2.0)
    lifted = lift_segments(SEGMENTS, depth, CAMERA)
    assert lifted.valid.all()
    np.testing.assert_allclose(lifted.points @ SLANTED, 2.0, atol=1e-4)
    np.testing.assert_allclose(CAMERA.project(lifted.points.reshape(-1, 3)).reshape(-1, 2, 2), SEGMENTS, atol=1e-6)
    holes = depth.copy()
    holes[:, 200:320] = 0
    wrong = rng.random(holes.shape) < 0.2
    holes[wrong] *= 0.6
    robust = lift_segments(SEGMENTS, holes, CAMERA)
    assert robust.valid.tolist() == [True, True, True]
    np.testing.assert_allclose(robust.points @ SLANTED, 2.0, atol=0.01)


def test_a_segment_ends_in_space_where_depth_does_and_few_samples_are_no_line() -> None:
    depth = plane_depth(SLANTED, 2.0)
    depth[:, 400:] = 0
    lifted = lift_segments(SEGMENTS[:1], depth, CAMERA)
    end = CAMERA.project(lifted.points[0])[1]
    assert lifted.valid[0]
    assert 370 < end[0] <= 410
    depth[:, 250:] = 0
    assert not lift_segments(SEGMENTS[:1], depth, CAMERA).valid[0], "under half of it"
    depth[:] = np.nan
    assert not lift_segments(SEGMENTS, depth, CAMERA).valid.any()
    assert len(lift_segments(np.zeros((0, 2, 2)), depth, CAMERA)) == 0


def test_an_occluding_edge_belongs_to_the_nearer_object() -> None:
    depth = np.full((480, 640), 3.0, np.float32)
    depth[:, :320] = 1.5
    edge = np.array([[[319.6, 100.0], [319.6, 400.0]]])
    lifted = lift_segments(edge, depth, CAMERA)
    assert lifted.valid[0]
    np.testing.assert_allclose(lifted.points[0, :, 2], 1.5, atol=1e-6)


def test_the_stated_uncertainty_is_that_of_the_fit(rng: np.random.Generator) -> None:
    from semkey.slam.frames.depth import depth_sigma

    clean = plane_depth(SLANTED, 3.0)
    errors = []
    for _ in range(40):
        noise = rng.normal(0, 1, (24, 32)).repeat(20, axis=0).repeat(20, axis=1)
        lifted = lift_segments(SEGMENTS, (clean + noise * depth_sigma(clean)).astype(np.float32), CAMERA)
        z = clean[SEGMENTS[:, :, 1].astype(int), SEGMENTS[:, :, 0].astype(int)]
        errors.append(np.where(lifted.valid[:, None], (lifted.points[:, :, 2] - z) / lifted.sigma, np.nan))
    assert 0.3 < np.nanstd(errors) < 2.0


def test_two_views_give_the_line_in_space() -> None:
    points = lift_segments(SEGMENTS, plane_depth(SLANTED, 2.0), CAMERA).points
    T_cam1_cam0 = se3_exp([0.3, -0.2, 0.05, 0.02, -0.05, 0.03])
    in_view1 = CAMERA.project(transform_points(T_cam1_cam0, points.reshape(-1, 3))).reshape(-1, 2, 2)
    # Other ends of the same lines: only the lines count.
    cut = segment_points(in_view1, 4)[:, [1, 3]]
    found = triangulate_segments(SEGMENTS, cut, T_cam1_cam0, CAMERA, CAMERA)
    assert found.valid.all()
    np.testing.assert_allclose(found.points, points, atol=1e-6)
    # One pixel in view 1 moves the points by what sigma says, the rest being view 0's part.
    shifted = triangulate_segments(SEGMENTS, cut + normals_of(cut)[:, None], T_cam1_cam0, CAMERA, CAMERA)
    moved = np.abs(shifted.points[:, :, 2] - points[:, :, 2])
    assert (moved < 1.1 * found.sigma).all()
    assert (moved > 0.4 * found.sigma).all()


def test_a_line_in_the_plane_of_both_centres_cannot_be_triangulated() -> None:
    along = np.array([[[100.0, 239.5], [500.0, 239.5]]])
    T_cam1_cam0 = se3_exp([0.3, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert not triangulate_segments(along, along, T_cam1_cam0, CAMERA, CAMERA).valid[0]
    upright, shift = np.array([[[320.0, 100.0], [320.0, 300.0]]]), np.array([60.0, 0.0])
    assert triangulate_segments(upright, upright + shift, T_cam1_cam0, CAMERA, CAMERA).valid[0]
    assert not triangulate_segments(upright, upright - shift, T_cam1_cam0, CAMERA, CAMERA).valid[0], "behind"


def test_what_of_a_line_is_in_view() -> None:
    world = np.array(
        [
            [[-10.0, 0.0, 2.0], [10.0, 0.0, 2.0]],  # crosses the image
            [[0.0, 0.0, 1.0], [0.0, 0.5, -3.0]],  # ends behind the camera
            [[0.0, 0.0, -1.0], [1.0, 0.0, -2.0]],  # behind
            [[5.0, 0.0, 1.0], [9.0, 0.0, 1.0]],  # beside
            [[0.1, 0.1, 2.0], [0.2, 0.1, 2.0]],  # inside
        ]
    )
    seen, visible, points = segments_in_view(world, np.eye(4), CAMERA)
    assert seen.tolist() == [True, True, False, False, True]
    np.testing.assert_allclose(visible[0], [[0.0, 239.5], [639.0, 239.5]], atol=1e-9)
    assert np.isfinite(visible[1]).all()
    assert (visible[1] >= 0).all()
    np.testing.assert_allclose(visible[4], CAMERA.project(world[4]))
    np.testing.assert_allclose(CAMERA.project(points[seen].reshape(-1, 3)), visible[seen].reshape(-1, 2), atol=1e-6)
    on_line = np.cross(points[1] - world[1, 0], world[1, 1] - world[1, 0])
    np.testing.assert_allclose(on_line, 0.0, atol=1e-9)


# -- residuals and the pose ---------------------------------------------------------------------------------------


def observe_lines(rng: np.random.Generator, count: int = 20, *, noise: float = 0.0, with_depth: bool = True):
    segments = rng.uniform([20, 20], [620, 460], (count, 2, 2))
    z = rng.uniform(0.8, 4.0, (count, 2))
    cam = CAMERA.backproject(segments.reshape(-1, 2), z.reshape(-1)).reshape(count, 2, 3)
    # The map knows other points of the same lines than the image shows.
    in_map = cam[:, :1] + np.array([0.1, 0.8])[None, :, None] * (cam[:, 1:] - cam[:, :1])
    world = transform_points(inverse(TRUE_POSE), in_map.reshape(-1, 3)).reshape(count, 2, 3)
    seen = segments + rng.normal(0, 1, segments.shape) * noise
    lifted = SpatialSegments(valid=np.full(count, with_depth), points=cam, sigma=np.full((count, 2), 0.01))
    planes, range_sigma = lifted.range_planes()
    return LineObservations(
        points_world=world,
        lines=image_lines(seen),
        pixel_sigma=np.ones((count, 2)),
        range_planes=planes,
        range_sigma=range_sigma,
        weights=np.ones(count),
    )


def no_points() -> PoseObservations:
    nothing = np.zeros(0)
    return PoseObservations(
        points_world=np.zeros((0, 3)),
        keypoints=np.zeros((0, 2)),
        covariances=np.zeros((0, 2, 2)),
        depth=nothing,
        depth_sigma=nothing,
        weights=nothing,
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_jacobian_of_lines_matches_finite_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    observations = observe_lines(rng, 6, with_depth=bool(seed % 2))
    pose = compose(se3_exp(rng.normal(0, 0.03, 6)), TRUE_POSE)
    _, jacobian = line_residuals_and_jacobian(pose, observations, CAMERA)
    step = 1e-6
    for k in range(6):
        xi = np.zeros(6)
        xi[k] = step
        ahead, _ = line_residuals_and_jacobian(compose(se3_exp(xi), pose), observations, CAMERA)
        behind, _ = line_residuals_and_jacobian(compose(se3_exp(-xi), pose), observations, CAMERA)
        np.testing.assert_allclose(jacobian[:, :, k], (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-2)


def test_residuals_are_distances_and_vanish_on_the_line(rng: np.random.Generator) -> None:
    observations = observe_lines(rng)
    residuals, _ = line_residuals_and_jacobian(TRUE_POSE, observations, CAMERA)
    np.testing.assert_allclose(residuals, 0.0, atol=1e-9)
    # A horizontal line at depth 2, moved down by 0.01 m and away by 0.1 m
    world = np.array([[[-0.5, 0.0, 2.0], [0.5, 0.0, 2.0]]])
    lifted = SpatialSegments(valid=np.ones(1, bool), points=world, sigma=np.full((1, 2), 0.02))
    planes, sigma = lifted.range_planes()
    one = LineObservations(
        points_world=world + np.array([0.3, 0.01, 0.0]),
        lines=image_lines(CAMERA.project(world[0])[None]),
        pixel_sigma=np.full((1, 2), 0.5),
        range_planes=planes,
        range_sigma=sigma,
        weights=np.ones(1),
    )
    residuals, _ = line_residuals_and_jacobian(np.eye(4), one, CAMERA)
    np.testing.assert_allclose(np.abs(residuals[0, :2]), 525 * 0.01 / 2 / 0.5)
    np.testing.assert_allclose(residuals[0, 2:], 0.0, atol=1e-9)
    farther = replace(one, points_world=world + np.array([0.3, 0.0, 0.1]))
    np.testing.assert_allclose(line_residuals_and_jacobian(np.eye(4), farther, CAMERA)[0][0, 2:], 0.1 / 0.02)


@pytest.mark.parametrize("with_depth", [True, False])
def test_lines_alone_give_the_pose(with_depth: bool, rng: np.random.Generator) -> None:
    start = compose(se3_exp(rng.uniform(-0.05, 0.05, 6)), TRUE_POSE)
    lines = observe_lines(rng, with_depth=with_depth)
    refined = refine_pose(start, no_points(), CAMERA, lines=lines, max_iterations=50)
    np.testing.assert_allclose(refined.T_cam_world, TRUE_POSE, atol=1e-6)
    assert refined.line_inliers.all()
    assert refined.inliers.shape == (0,)
    with pytest.raises(InputError, match="three"):
        refine_pose(start, no_points(), CAMERA, lines=lines.select(np.arange(20) < 2))


def test_wrong_lines_hardly_move_the_pose(rng: np.random.Generator) -> None:
    lines = observe_lines(rng, 30, noise=0.5)
    wrong = lines.lines.copy()
    wrong[:8, 2] += rng.choice([-1, 1], 8) * rng.uniform(15, 40, 8)
    refined = refine_pose(TRUE_POSE, no_points(), CAMERA, lines=replace(lines, lines=wrong))
    difference = compose(refined.T_cam_world, inverse(TRUE_POSE))
    assert np.linalg.norm(difference[:3, 3]) < 0.02
    assert rotation_angle_deg(difference) < 0.5
    assert not refined.line_inliers[:8].any()
    assert refined.line_inliers[8:].mean() > 0.85


def test_lines_help_where_points_are_few(rng: np.random.Generator) -> None:
    with_lines, without = [], []
    for _ in range(20):
        keypoints = rng.uniform([250, 180], [390, 300], (6, 2))  # all in one corner of the image
        z = rng.uniform(1.5, 3.0, 6)
        points = PoseObservations(
            points_world=transform_points(inverse(TRUE_POSE), CAMERA.backproject(keypoints, z)),
            keypoints=keypoints + rng.normal(0, 1, (6, 2)),
            covariances=isotropic_covariances(6, 1.0),
            depth=z + rng.normal(0, 0.01, 6),
            depth_sigma=np.full(6, 0.01),
            weights=np.ones(6),
        )
        lines = observe_lines(rng, 8, noise=1.0)
        for result, given_lines in ((with_lines, lines), (without, None)):
            pose = refine_pose(TRUE_POSE, points, CAMERA, lines=given_lines).T_cam_world
            result.append(rotation_angle_deg(compose(pose, inverse(TRUE_POSE))))
    assert np.median(with_lines) < 0.5 * np.median(without)


def test_a_line_behind_the_camera_is_an_outlier_not_a_crash(rng: np.random.Generator) -> None:
    lines = observe_lines(rng)
    points = lines.points_world.copy()
    points[0] = transform_points(inverse(TRUE_POSE), [[0.1, 0.1, -1.0], [0.4, 0.1, -1.0]])
    refined = refine_pose(TRUE_POSE, no_points(), CAMERA, lines=replace(lines, points_world=points))
    assert np.isfinite(refined.T_cam_world).all()
    assert not refined.line_inliers[0]
    with pytest.raises(InputError, match="weights"):
        replace(lines, weights=np.ones(3))


def test_directions_are_units() -> None:
    np.testing.assert_allclose(directions_of(SEGMENTS)[1], [0.0, 1.0])
    np.testing.assert_allclose(normals_of(SEGMENTS)[1], [-1.0, 0.0])


def test_no_segment_on_or_along_masked_pixels() -> None:
    image = np.full((240, 320), 60, np.uint8)
    for x in (60, 160, 260):
        image[20:220, x - 12 : x + 12] = 200
    usable = np.ones(image.shape, dtype=bool)
    usable[:, 140:180] = False  # the second bar, whose edges are the mask's
    usable[100:120, 255:320] = False  # a part of the third
    whole, masked = detect_segments(image), detect_segments(image, None, usable)
    assert len(whole) >= 6
    middle = masked[:, :, 0].mean(axis=1)
    assert ((middle < 100) | (middle > 230)).all()
    assert (middle < 100).sum() >= 2, "the first bar is as before"
    for segment in masked:
        points = segment[0] + np.linspace(0, 1, 300)[:, None] * (segment[1] - segment[0])
        x, y = np.round(points).astype(int).T
        assert usable[y, x].all()


def test_an_extractor_with_segments_takes_masks() -> None:
    from skimage import data

    mask = np.full((512, 512), 255, np.uint8)
    mask[:, :256] = 0
    extractor = SegmentExtractor(create_extractor("orb", max_keypoints=200, device="cpu"), LineConfig(enabled=True))
    features = extractor.extract(data.camera(), mask)
    assert len(features) > 150
    assert len(features.segments) > 3
    assert float(features.keypoints[:, 0].min()) > 255
    assert features.segments.endpoints[..., 0].min() > 255
