"""Finding landmarks in a frame: which pairs are compared, and which win."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.matching.background import background_similarity, pair_similarity
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.frames.frame import ObservedFrame, observe_frame
from semkey.slam.map.association import match_by_projection
from semkey.slam.map.landmarks import LandmarkMap
from synthetic_world import PointExtractor, PointWorld


def test_similarities_of_pairs_are_cosines_however_few_pairs_there_are(rng: np.random.Generator) -> None:
    descriptors0 = rng.normal(size=(40, 64)).astype(np.float32)
    descriptors1 = rng.normal(size=(30, 64)).astype(np.float32)
    for count in (0, 1, 10, 100, 1200):
        rows, columns = rng.integers(40, size=count), rng.integers(30, size=count)
        expected = [float(descriptors0[r] @ descriptors1[c]) for r, c in zip(rows, columns, strict=True)]
        found = pair_similarity(descriptors0, descriptors1, rows, columns)
        assert found.shape == (count,)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def brute_force(frame: ObservedFrame, landmarks: LandmarkMap, ids: np.ndarray, pixels: np.ndarray, radius: float):
    """Pairs within the radius that are more similar than every other such pair of either of the two."""
    distances = np.linalg.norm(pixels[:, None] - frame.keypoints[None], axis=2)
    similarity = np.where(distances <= radius, landmarks.descriptors[ids] @ frame.descriptors.T, -np.inf)
    best = (similarity == similarity.max(axis=0)) & (similarity == similarity.max(axis=1)[:, None])
    rows, columns = np.nonzero(
        best & (similarity > background_similarity(landmarks.descriptors[ids], frame.descriptors))
    )
    return sorted(zip(ids[rows].tolist(), columns.tolist(), strict=True))


@pytest.mark.parametrize("radius", [3.0, 12.0, 500.0])
def test_guided_pairs_are_the_most_similar_ones_within_the_radius(radius: float, rng: np.random.Generator) -> None:
    """Few pairs and all of them: the two ways to compare descriptors give the same matches."""
    world = PointWorld([np.eye(4)], points=2000)
    taken = world[0]
    assert taken.depth is not None
    features = PointExtractor(world).extract(taken.image)
    frame = observe_frame(
        0, 0.0, features, taken.depth, isotropic_covariances(len(features), 1.0), min_depth=0.3, max_depth=8.0
    )
    count = len(frame)
    landmarks = LandmarkMap()
    noisy = frame.descriptors + 0.1 * rng.normal(size=frame.descriptors.shape).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    ids = landmarks.add(np.ones((count, 3)), np.tile(np.eye(3), (count, 1, 1)), noisy, np.zeros(3), 0)
    pixels = frame.keypoints + 0.5 * rng.normal(size=(count, 2))
    found = match_by_projection(frame, landmarks, ids, pixels, radius_px=radius)
    pairs = sorted(zip(found.landmark_ids.tolist(), found.keypoint_indices.tolist(), strict=True))
    assert pairs == brute_force(frame, landmarks, ids, pixels, radius)
    assert len(pairs) > 0.5 * count
