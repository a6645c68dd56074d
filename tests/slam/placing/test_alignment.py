"""Keypoints that are moved to what landmarks first looked like."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, se3_exp, transform_points
from semkey.model.features import Features
from semkey.slam.config import MapConfig
from semkey.slam.frames.frame import PATCHES, ObservedFrame, observe_keypoints
from semkey.slam.frames.stereo import StereoView
from semkey.slam.map.association import Associations
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.alignment import _deformations, align_frame

CAMERA = PinholeCamera(fx=300.0, fy=310.0, cx=160.0, cy=118.0, width=320, height=240)
DISTANCE = 2.0
MOVED = se3_exp([0.08, -0.03, -0.12, 0.01, -0.02, 0.06])  # nearer, aside and rolled
JITTER_PX = 0.8


def wall(T_world_cam: NDArray[np.float64], seed: int = 4) -> NDArray[np.uint8]:
    """A wall at z = 2 m full of soft blobs, as a camera sees it; exact for every pixel."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    rays = np.stack([(x - CAMERA.cx) / CAMERA.fx, (y - CAMERA.cy) / CAMERA.fy, np.ones(x.shape)], axis=-1)
    rays = rays @ T_world_cam[:3, :3].T
    hits = T_world_cam[:3, 3] + rays * ((DISTANCE - T_world_cam[2, 3]) / rays[..., 2])[..., None]
    value = np.zeros(x.shape)
    for _ in range(60):
        direction, phase = rng.normal(size=2) * 45.0, rng.uniform(0, 2 * np.pi)
        value += np.sin(hits[..., 0] * direction[0] + hits[..., 1] * direction[1] + phase)
    return np.clip(128 + 14 * value, 0, 255).astype(np.uint8)


def observed(
    index: int, image: NDArray[np.uint8] | None, keypoints: NDArray[np.float64], depth: NDArray[np.float64]
) -> ObservedFrame:
    count = len(keypoints)
    descriptors = torch.nn.functional.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(1)))
    features = Features(
        keypoints=torch.from_numpy(keypoints.astype(np.float32)),
        scores=torch.ones(count),
        reliability=torch.ones(count),
        descriptors=descriptors,
        global_descriptor=torch.zeros(0),
        image_size=(CAMERA.width, CAMERA.height),
    )
    frame = observe_keypoints(
        index, 0.1 * index, features, depth, np.full(count, 0.01), np.tile(4.0 * np.eye(2), (count, 1, 1))
    )
    return frame if image is None else frame.with_image(image)


def scene(*, with_image: bool = True) -> tuple[SlamMap, ObservedFrame, Associations, NDArray[np.float64]]:
    """A map of one keyframe, a frame taken elsewhere with jittered keypoints, and where they should be."""
    rng = np.random.default_rng(2)
    first = np.stack([rng.uniform(60, 260, 120), rng.uniform(50, 190, 120)], axis=1).astype(np.float32).astype(float)
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    image = wall(np.eye(4)) if with_image else None
    slam_map.add_keyframe(observed(0, image, first, np.full(len(first), DISTANCE)), np.eye(4), None, 0)
    ids = slam_map.tree.newest.landmark_ids
    true = CAMERA.project(transform_points(inverse(MOVED), slam_map.landmarks.positions[ids]))
    frame = observed(1, wall(MOVED), true + rng.normal(0, JITTER_PX, true.shape), np.zeros(len(true)))
    found = Associations(landmark_ids=ids, keypoint_indices=np.arange(len(ids)), similarity=np.ones(len(ids)))
    return slam_map, frame, found, true


def errors(frame: ObservedFrame, true: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(frame.keypoints - true, axis=1)


def test_jitter_goes_and_what_is_left_is_as_large_as_is_said() -> None:
    slam_map, frame, found, true = scene()
    aligned = align_frame(slam_map, frame, found, MOVED, CAMERA)
    assert np.median(errors(frame, true)) > 0.7
    assert np.median(errors(aligned, true)) < 0.06
    assert np.quantile(errors(aligned, true), 0.9) < 0.25
    offset = (aligned.keypoints - true)[:, :, None]
    normalised = (offset.transpose(0, 2, 1) @ np.linalg.solve(aligned.covariances, offset))[:, 0, 0]
    assert np.median(normalised) < 2.0  # never surer than right; 1.39 is chi-square's median
    assert np.median(np.linalg.eigvalsh(aligned.covariances)[:, 1]) < 0.2**2
    # everything that holds places agrees
    np.testing.assert_array_equal(aligned.features.keypoints.numpy().astype(np.float64), aligned.keypoints)
    np.testing.assert_array_equal(aligned.tree.data, aligned.keypoints)
    np.testing.assert_array_equal(frame.keypoints, frame.features.keypoints.numpy().astype(np.float64))


def test_patches_follow_the_view() -> None:
    """Rolled by half a right angle and at two thirds of the distance nothing would be alike without that."""
    slam_map, _, found, _ = scene()
    pose = compose(se3_exp([0.0, 0.0, 0.65, 0.0, 0.0, 0.0]), se3_exp([0.0, 0.0, 0.0, 0.0, 0.0, 0.8]))
    true = CAMERA.project(transform_points(inverse(pose), slam_map.landmarks.positions[found.landmark_ids]))
    rng = np.random.default_rng(5)
    frame = observed(1, wall(pose), true + rng.normal(0, JITTER_PX, true.shape), np.zeros(len(true)))
    seen = CAMERA.contains(true) & (np.abs(true - [CAMERA.cx, CAMERA.cy]) < [140, 100]).all(axis=1)
    aligned = align_frame(slam_map, frame, found.select(seen), pose, CAMERA)
    assert seen.sum() > 40
    assert np.median(errors(aligned, true)[seen]) < 0.12
    np.testing.assert_array_equal(aligned.keypoints[~seen], frame.keypoints[~seen])


def test_deformations_are_the_derivatives_of_a_plane_that_faces_the_first_camera() -> None:
    first, second = se3_exp([0.1, 0.0, -0.2, 0.05, 0.02, 0.1]), se3_exp([0.3, -0.1, 0.1, -0.1, 0.15, -0.2])
    other = PinholeCamera(fx=500.0, fy=480.0, cx=300.0, cy=200.0, width=640, height=480)
    pixel, depth, step = np.array([[150.0, 100.0]]), np.array([1.7]), 1e-4

    def seen(places: NDArray[np.float64]) -> NDArray[np.float64]:
        points = transform_points(first, CAMERA.backproject(places, depth))
        return other.project(transform_points(inverse(second), points))

    columns = [(seen(pixel + d) - seen(pixel - d)) / (2 * step) for d in ([[step, 0.0]], [[0.0, step]])]
    point = transform_points(first, CAMERA.backproject(pixel, depth))
    found = _deformations(point, first, second, CAMERA, other)
    np.testing.assert_allclose(found[0], np.stack([column[0] for column in columns], axis=1), atol=1e-6)


@pytest.mark.parametrize("missing", ["patches", "image", "likeness"])
def test_without_anything_to_compare_keypoints_stay(missing: str) -> None:
    slam_map, frame, found, _ = scene(with_image=missing != "patches")
    if missing == "image":
        frame = replace(frame, grey=None)
    if missing == "likeness":  # another wall
        frame = frame.with_image(wall(MOVED, seed=9))
    aligned = align_frame(slam_map, frame, found, MOVED, CAMERA)
    moved = (aligned.keypoints != frame.keypoints).any(axis=1)
    # 169 pixels of smooth blobs are alike by chance now and then, within 3 px
    assert moved.mean() < (0.1 if missing == "likeness" else 1e-9)
    np.testing.assert_array_equal(aligned.covariances[~moved], frame.covariances[~moved].astype(np.float32))


def test_light_that_changes_does_not_matter() -> None:
    slam_map, frame, found, true = scene()
    darker = cv2.convertScaleAbs(wall(MOVED), alpha=0.5, beta=10)
    frame = frame.with_image(np.asarray(darker, np.uint8))
    assert np.median(errors(align_frame(slam_map, frame, found, MOVED, CAMERA), true)) < 0.08


def test_depths_are_those_of_where_keypoints_have_gone() -> None:
    """On a wall that is looked at aslant; a keypoint without depth gets none."""
    slam_map, frame, found, _ = scene()
    slope = np.tile(np.linspace(1.0, 3.0, CAMERA.width, dtype=np.float32), (CAMERA.height, 1))
    depth = np.interp(frame.keypoints[:, 0], np.arange(CAMERA.width), slope[0])
    depth[:10] = 0.0
    frame = replace(frame, depth=depth, depth_image=slope, depth_range=(0.3, 8.0))
    aligned = align_frame(slam_map, frame, found, MOVED, CAMERA)
    expected = np.interp(aligned.keypoints[:, 0], np.arange(CAMERA.width), slope[0])
    np.testing.assert_allclose(aligned.depth[10:], expected[10:], atol=0.01)
    np.testing.assert_array_equal(aligned.depth[:10], 0.0)
    assert np.abs(expected - depth)[10:].max() > 0.004


def test_a_pair_is_asked_again_where_keypoints_have_gone_and_there_alone() -> None:
    slam_map, frame, found, _ = scene()

    class Pair:
        """Depths that tell that they were asked for."""

        def depth_near(
            self, keypoints: NDArray[np.float64], depth: NDArray[np.float64]
        ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            assert (depth == 2.0).all()
            return 0.01 * keypoints[:, 0], np.full(len(keypoints), 0.5)

    depth = np.full(len(frame), 2.0)
    frame = replace(frame, depth=depth, depth_image=None, stereo=cast(StereoView, Pair()))
    aligned = align_frame(slam_map, frame, found, MOVED, CAMERA)
    moved = (aligned.keypoints != frame.keypoints).any(axis=1)
    assert moved.any()
    np.testing.assert_allclose(aligned.depth[moved], 0.01 * aligned.keypoints[moved, 0])
    np.testing.assert_array_equal(aligned.depth_sigma[moved], 0.5)
    np.testing.assert_array_equal(aligned.depth[~moved], 2.0)
    assert frame.kept().stereo is None
    assert frame.without_depth().stereo is None


def test_a_keyframe_keeps_patches_and_not_the_image() -> None:
    frame = scene()[0].tree.newest.frame
    side = 2 * PATCHES.radius + 3
    assert frame.grey is None
    assert frame.depth_image is None
    assert frame.patches is not None
    assert (frame.patches.shape, frame.patches.dtype) == ((120, side, side), np.uint8)
