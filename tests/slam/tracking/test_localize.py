"""Single images in a map of a world of points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("zoom", [0.71, 1.0, 1.4])
def test_an_image_of_another_lens_is_said_to_be_one(slam_map: SlamMap, zoom: float) -> None:
    """Its middle enlarged, as a longer lens takes it, or all of it smaller: the pose would be far from the truth."""
    pose = walk(20)[8]
    world = PointWorld([pose], pixel_noise=0.5)
    features = features_of(world, 0)
    centre = np.array([CAMERA.cx, CAMERA.cy])
    zoomed = (features.keypoints.numpy() - centre) * zoom + centre
    inside = CAMERA.contains(zoomed)
    features = features.select(torch.from_numpy(np.flatnonzero(inside)))
    features = replace(features, keypoints=torch.from_numpy(zoomed[inside].astype(np.float32)))
    localizer = Localizer(slam_map, SlamConfig())
    found = localizer.localize(features, CAMERA)
    if zoom == 1.0:
        assert found.T_world_cam is not None
        assert (found.focal_factor, found.remark) == (1.0, None)
        return
    assert found.T_world_cam is None
    assert found.focal_factor == pytest.approx(zoom, rel=0.02)
    assert found.remark is not None
    assert f"about {found.focal_factor:.2f} times" in found.remark
    own = replace(CAMERA, fx=zoom * CAMERA.fx, fy=zoom * CAMERA.fy)
    right = localizer.localize(features, own)
    assert right.T_world_cam is not None
    assert np.linalg.norm((inverse(pose) @ right.T_world_cam)[:3, 3]) < 0.02


def test_a_place_that_is_there_twice_is_not_found() -> None:
    """A photo of one of two rooms that are the same: nothing tells which."""
    made = run_slam(twice := PointWorld(walk(6), copies=(0.0, 0.7)), PointExtractor(twice)).slam_map
    assert made is not None
    found = Localizer(made, SlamConfig()).localize(features_of(PointWorld(walk(6)), 3), CAMERA)
    assert found.T_world_cam is None
