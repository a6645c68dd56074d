"""Finding landmarks in a frame: which pairs are compared, and when a prediction makes RANSAC needless."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.geometry.transforms import compose, inverse, rotation_angle_deg, se3_exp
from semkey.slam import SlamResult, locating, run_slam
from semkey.slam.association import pair_similarity
from synthetic_world import PointExtractor, PointWorld, walk


def test_similarities_of_pairs_are_cosines_however_few_pairs_there_are(rng: np.random.Generator) -> None:
    descriptors0 = rng.normal(size=(40, 64)).astype(np.float32)
    descriptors1 = rng.normal(size=(30, 64)).astype(np.float32)
    for count in (0, 1, 10, 100, 1200):
        rows, columns = rng.integers(40, size=count), rng.integers(30, size=count)
        expected = [float(descriptors0[r] @ descriptors1[c]) for r, c in zip(rows, columns, strict=True)]
        found = pair_similarity(descriptors0, descriptors1, rows, columns)
        assert found.shape == (count,)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def run_counting(world: PointWorld, monkeypatch: pytest.MonkeyPatch) -> tuple[SlamResult, int]:
    """A run, and how often RANSAC was asked."""
    calls = 0
    solve = locating.estimate_absolute_pose

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        return solve(*args, **kwargs)

    monkeypatch.setattr(locating, "estimate_absolute_pose", counted)
    result = run_slam(world, PointExtractor(world))
    assert result.tracked == len(world)
    return result, calls


def errors(result: SlamResult, world: PointWorld) -> tuple[float, float]:
    steps = [
        inverse(pose) @ truth
        for pose, truth in zip(result.poses, world.ground_truth, strict=True)
        if pose is not None and truth is not None
    ]
    return max(float(np.linalg.norm(step[:3, 3])) for step in steps), max(rotation_angle_deg(step) for step in steps)


def test_steady_motion_needs_ransac_only_before_its_velocity_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PointWorld(walk(15, unsteadiness=0.0), pixel_noise=0.3, points=1200)
    result, calls = run_counting(world, monkeypatch)
    assert calls == 1, "the second frame has no prediction"
    assert errors(result, world)[0] < 0.01


def test_a_prediction_that_is_wrong_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera jumps by several search radii: what is found around the prediction cannot agree with it."""
    poses = walk(15, unsteadiness=0.0)
    poses[8:] = [compose(se3_exp([0, 0, 0, 0.02, 0.3, 0.03]), pose) for pose in poses[8:]]
    world = PointWorld(poses, pixel_noise=0.3, points=1200)
    result, calls = run_counting(world, monkeypatch)
    assert calls > 1
    metres, degrees = errors(result, world)
    assert metres < 0.02
    assert degrees < 0.5


def test_wrong_descriptors_do_no_harm_where_the_prediction_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the keypoints look like others, which are seldom within the search circle of those."""
    world = PointWorld(walk(15, unsteadiness=0.0), pixel_noise=0.3, outlier_share=0.5, points=1200)
    result, _ = run_counting(world, monkeypatch)
    assert errors(result, world)[0] < 0.03
