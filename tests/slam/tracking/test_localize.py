"""Single images in a map of a world of points."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.errors import ConfigError
from semkey.geometry.pixels import resize_keypoints
from semkey.geometry.transforms import inverse, rotation_angle_deg
from semkey.model.features import Features
from semkey.slam import SlamConfig, SlamMap, run_slam
from semkey.slam.output.session import Session, session_content
from semkey.slam.tracking.localize import Localizer, camera_of_image
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk


@pytest.fixture(scope="module")
def slam_map() -> SlamMap:
    world = PointWorld(walk(20))
    made = run_slam(world, PointExtractor(world)).slam_map
    assert made is not None
    return made


def features_of(world: PointWorld, index: int) -> Features:
    return PointExtractor(world).extract(world[index].image)


def test_images_between_the_keyframes_are_found(slam_map: SlamMap) -> None:
    poses = [pose @ shift for pose in walk(20)[2:18:5] for shift in walk(3, step=(0.05, -0.04, 0.03, 0.05, -0.05, 0.1))]
    world = PointWorld(poses, pixel_noise=0.5)
    before = slam_map.landmarks.to_arrays()
    localizer = Localizer(slam_map, SlamConfig())
    for index, pose in enumerate(poses):
        found = localizer.localize(features_of(world, index), CAMERA)
        assert found.T_world_cam is not None
        error = inverse(pose) @ found.T_world_cam
        assert np.linalg.norm(error[:3, 3]) < 0.02
        assert rotation_angle_deg(error) < 0.3
        assert found.inliers >= 50
        assert found.keyframe_id in slam_map.keyframes
        # Where the landmarks should be and where they are seen differ by the noise.
        assert np.median(np.linalg.norm(found.projected - found.keypoints, axis=1)) < 2
    for name, array in slam_map.landmarks.to_arrays().items():
        np.testing.assert_array_equal(array, before[name], err_msg="localising changes nothing")


def test_images_of_another_place_or_of_nothing_are_not_found(slam_map: SlamMap) -> None:
    world = PointWorld(walk(4), elsewhere=[0, 1], blank=[2])
    localizer = Localizer(slam_map, SlamConfig())
    for index in (0, 1, 2):
        found = localizer.localize(features_of(world, index), CAMERA)
        assert found.T_world_cam is None
        assert (found.inliers, found.keyframe_id, found.submap) == (0, None, None)


def test_an_image_of_another_size_has_the_camera_resized(slam_map: SlamMap) -> None:
    world = PointWorld(walk(8))
    features = features_of(world, 6)
    large = Features(
        keypoints=resize_keypoints(features.keypoints, (320, 240), (960, 720)),
        scores=features.scores,
        reliability=features.reliability,
        descriptors=features.descriptors,
        global_descriptor=features.global_descriptor,
        image_size=(960, 720),
    )
    found = Localizer(slam_map, SlamConfig()).localize(large, camera_of_image(CAMERA, (960, 720)))
    assert found.T_world_cam is not None
    np.testing.assert_allclose(found.T_world_cam, walk(8)[6], atol=0.01)


def test_the_camera_of_an_image() -> None:
    assert camera_of_image(CAMERA, (320, 240)) == CAMERA
    half = camera_of_image(CAMERA, (160, 120))
    assert (half.fx, half.cx, half.width) == (130.0, 79.5, 160)
    given = camera_of_image(CAMERA, (300, 240), (1.0, 2.0, 3.0, 4.0))
    assert (given.fx, given.fy, given.cx, given.cy, given.width) == (1.0, 2.0, 3.0, 4.0, 300)
    with pytest.raises(ConfigError, match="300x240 and those of the map 320x240"):
        camera_of_image(CAMERA, (300, 240))


def test_a_map_of_nothing_tracked_has_no_session() -> None:
    world = PointWorld(walk(2), blank=[0, 1])
    result = run_slam(world, PointExtractor(world))
    with pytest.raises(Exception, match="no frame was tracked"):
        session_content(Session(result=result))
