"""The offset of all disparities: found from how points move, and not where nothing tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import semkey
from semkey.datasets import open_sequence
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, se3_exp, se3_log, transform_points
from semkey.matching import match
from semkey.matching.keypoint_noise import KeypointNoise, isotropic_covariances, keypoint_covariances
from semkey.matching.robust import estimate_relative_pose
from semkey.slam.frames.stereo import match_rows
from semkey.slam.solvers.stereo_offset import OffsetPair, estimate_offset

CAMERA = PinholeCamera(fx=700.0, fy=700.0, cx=620.0, cy=180.0, width=1240, height=370)
BASELINE = 0.54
MOTION = inverse(se3_exp([0.05, -0.02, 2.2, 0.004, 0.01, -0.003]))
"""Of a car, as camera 1 sees camera 0."""


def pair(
    offset: float, noise: float = 0.0, *, motion: np.ndarray = MOTION, seed: int = 0, count: int = 400
) -> OffsetPair:
    """What a pair of cameras sees whose disparities have to be raised by ``offset``."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform([20, 20], [1220, 350], (count, 2))
    depth = 1.0 / rng.uniform(1 / 80, 1 / 6, count)
    moved = CAMERA.project(transform_points(motion, CAMERA.backproject(pixels, depth)))
    disparity = CAMERA.fx * BASELINE / depth - offset
    keep = np.isfinite(moved).all(axis=1) & (disparity > 0.5)
    return OffsetPair(
        keypoints0=pixels[keep],
        disparities=(disparity + noise * rng.normal(size=count))[keep],
        disparity_sigmas=np.full(keep.sum(), max(noise, 0.01)),
        keypoints1=(moved + noise * rng.normal(size=(count, 2)))[keep],
        covariances=isotropic_covariances(int(keep.sum()), max(noise, 0.01)),
    )


@pytest.mark.parametrize("offset", [-0.7, 0.0, 0.8])
def test_motion_and_offset_are_found_together(offset: float) -> None:
    found = estimate_offset(pair(offset), np.eye(4), CAMERA, BASELINE)
    assert found.offset == pytest.approx(offset, abs=1e-6)
    np.testing.assert_allclose(found.T_cam1_cam0, MOTION, atol=1e-6)


def test_its_information_is_that_of_its_errors() -> None:
    normalised = []
    for seed in range(60):
        found = estimate_offset(pair(0.8, 0.3, seed=seed), MOTION, CAMERA, BASELINE)
        normalised.append((found.offset - 0.8) * np.sqrt(found.information))
        assert found.information > 1 / 0.2**2
    assert abs(np.mean(normalised)) < 0.5
    assert 0.7 < np.std(normalised) < 1.4


def test_keypoints_that_are_more_exact_than_told_count_as_they_are() -> None:
    told = pair(0.8, 0.3)
    vague = replace(told, covariances=100 * told.covariances, disparity_sigmas=10 * told.disparity_sigmas)
    found, vaguely = (estimate_offset(one, MOTION, CAMERA, BASELINE) for one in (told, vague))
    assert vaguely.information == pytest.approx(found.information, rel=0.3)


def test_a_camera_that_stands_or_turns_says_nothing() -> None:
    turned = inverse(se3_exp([0.0, 0.0, 0.0, 0.01, 0.05, 0.0]))
    for motion in (np.eye(4), turned):
        found = estimate_offset(pair(0.8, 0.3, motion=motion), motion, CAMERA, BASELINE)
        assert found.information < 1.0, found


def test_a_known_offset_leaves_the_motion() -> None:
    seen = pair(0.8)
    found = estimate_offset(seen, np.eye(4), CAMERA, BASELINE, fixed=0.8)
    assert found.offset == 0.8
    np.testing.assert_allclose(found.T_cam1_cam0, MOTION, atol=1e-6)
    wrong = estimate_offset(seen, MOTION, CAMERA, BASELINE, fixed=0.0)
    # Points that are put too far away make the camera go too far.
    assert 1.01 < np.linalg.norm(wrong.T_cam1_cam0[:3, 3]) / np.linalg.norm(MOTION[:3, 3]) < 1.3


def test_things_that_move_are_outvoted() -> None:
    seen = pair(0.8, 0.1)
    moving = seen.keypoints1.copy()
    moving[::5] += [15.0, 0.0]
    found = estimate_offset(replace(seen, keypoints1=moving), MOTION, CAMERA, BASELINE)
    assert found.offset == pytest.approx(0.8, abs=0.1)
    assert np.abs(se3_log(found.T_cam1_cam0 @ inverse(MOTION))).max() < 0.02


@pytest.mark.parametrize(("first", "second"), [(20, 24), (24, 28)])
def test_a_motion_that_goes_with_the_wrong_disparities_does_not_hold_them(
    shared: Path, first: int, second: int
) -> None:
    """A motorway: guard rails repeat along their epipolar lines, and there is always something that agrees."""
    sequence = open_sequence(shared / "data" / "kitti" / "sequences" / "01")
    assert sequence.camera is not None
    assert sequence.baseline is not None
    frames, camera = [sequence[index] for index in (first, second)], sequence.camera
    features = [semkey.load("compact", max_keypoints=1024).extract(frame.image) for frame in frames]
    noise = KeypointNoise(across=0.2, largest=3.0).scaled(camera.width / 640)
    covariances = [keypoint_covariances(one, frame.image, noise) for one, frame in zip(features, frames, strict=True)]
    rows0, rows1 = match(*features).indices.numpy().T
    keypoints = [one.keypoints.numpy().astype(np.float64) for one in features]
    found = estimate_relative_pose(keypoints[0][rows0], keypoints[1][rows1], camera, camera, max_error_px=2.0)
    rows0, rows1 = rows0[found.inliers], rows1[found.inliers]
    assert frames[0].right is not None
    seen = match_rows(keypoints[0][rows0], frames[0].image, frames[0].right)
    rows0, rows1, known = rows0[seen.disparity > 3], rows1[seen.disparity > 3], seen.disparity > 3
    points = OffsetPair(
        keypoints0=keypoints[0][rows0],
        disparities=seen.disparity[known],
        disparity_sigmas=seen.sigma[known],
        keypoints1=keypoints[1][rows1],
        covariances=covariances[0][rows0] + covariances[1][rows1],
    )
    assert frames[0].T_world_cam is not None
    assert frames[1].T_world_cam is not None
    true = inverse(frames[1].T_world_cam) @ frames[0].T_world_cam
    too_far = true.copy()
    too_far[:3, 3] *= 1.15
    of_true, of_wrong = (estimate_offset(points, start, camera, sequence.baseline).offset for start in (true, too_far))
    assert of_true > 0.6
    assert of_wrong > 0.6, "0.2 to 0.3 without the wider kernels"
