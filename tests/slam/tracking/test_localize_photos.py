"""Photos in maps of rendered rooms: of the room, of another one, upside down, and of another lens."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.datasets import FrameSequence, open_sequence
from semkey.extractors import create_extractor
from semkey.geometry.transforms import inverse, rotation_angle_deg
from semkey.rendering import RoomConfig, write_room
from semkey.slam import SlamConfig, run_slam
from semkey.slam.tracking.localize import Localization, Localizer

Image = NDArray[np.uint8]
FEATURES = create_extractor("nano", max_keypoints=500, device="cpu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    room: FrameSequence
    localizer: Localizer

    def localize(self, image: Image) -> Localization:
        assert self.room.camera is not None
        return self.localizer.localize(FEATURES.extract(image), self.room.camera, image)


def rendered(folder: str, seed: int, factory: pytest.TempPathFactory) -> FrameSequence:
    options = RoomConfig(seed=seed, frames=16, width=320, height=240)
    return open_sequence(write_room(factory.mktemp("photos") / folder, options))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    room = rendered("here", 21, tmp_path_factory)
    made = run_slam(room, FEATURES, every=2).slam_map
    assert made is not None
    return Place(room=room, localizer=Localizer(made, SlamConfig()))


def error(place: Place, index: int, found: Localization) -> tuple[float, float]:
    """Metres and degrees; the world of the map is the first frame."""
    first, truth = place.room.ground_truth[0], place.room.ground_truth[index]
    assert first is not None
    assert truth is not None
    assert found.T_world_cam is not None
    off = inverse(inverse(first) @ truth) @ found.T_world_cam
    return float(np.linalg.norm(off[:3, 3])), rotation_angle_deg(off)


def test_photos_of_the_room_are_found(place: Place) -> None:
    for index in (3, 9, 13):
        metres, degrees = error(place, index, place.localize(place.room[index].image))
        assert metres < 0.02
        assert degrees < 1.0


def test_photos_of_another_room_are_not_found(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = rendered("there", 5, tmp_path_factory)
    assert all(place.localize(other[index].image).T_world_cam is None for index in (0, 7, 15))


def test_photos_upside_down_are_right_or_not_found(place: Place) -> None:
    half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    for index in (2, 6, 10, 14):
        found = place.localize(np.ascontiguousarray(place.room[index].image[::-1, ::-1]))
        if found.T_world_cam is not None:
            first, truth = place.room.ground_truth[0], place.room.ground_truth[index]
            assert first is not None
            assert truth is not None
            off = inverse(inverse(first) @ truth @ half_turn) @ found.T_world_cam
            assert np.linalg.norm(off[:3, 3]) < 0.05
            assert rotation_angle_deg(off) < 3.0


def test_a_photo_by_a_longer_lens_says_so_or_is_not_found(place: Place) -> None:
    """The middle of an image, 1.4 times enlarged."""
    height, width = 240, 320
    rows, columns = round(height / 1.4), round(width / 1.4)
    top, left = (height - rows) // 2, (width - columns) // 2
    remarks = 0
    for index in (4, 8, 12):
        middle = place.room[index].image[top : top + rows, left : left + columns]
        found = place.localize(cv2.resize(middle, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8))
        assert found.T_world_cam is None or error(place, index, found)[0] < 0.05
        if found.remark is not None:
            remarks += 1
            assert found.focal_factor == pytest.approx(1.4, abs=0.3)
    assert remarks >= 1
