"""Photos and videos that are stored turned: shown upright, and their camera turned with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exif_files import set_rotation, write_turned, write_variable_rate, write_video
from pictures import blocks
from semkey.datasets import Calibration, Lens, open_sequence
from semkey.datasets.cameras.turning import turned_argument, turned_camera, turned_lens
from semkey.geometry.camera import PinholeCamera
from semkey.images.orientation import shown_size, turn_directions, turn_points, turn_upright

SIZE = (64, 48)
CAMERA = (50.0, 52.0, 30.0, 25.0)
LENSES = [
    Lens(model="radial-tangential", intrinsics=CAMERA, distortion=(-0.2, 0.05, 0.01, -0.02, 0.001), size=SIZE),
    Lens(model="fisheye", intrinsics=CAMERA, distortion=(0.01, -0.02, 0.001, 0.0), size=SIZE),
    Lens(model="pinhole", intrinsics=CAMERA, size=SIZE),
]


@pytest.mark.parametrize("code", range(1, 9))
@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.model)
def test_a_turned_lens_sees_turned_rays_at_turned_pixels(lens: Lens, code: int) -> None:
    rng = np.random.default_rng(0)
    rays = np.concatenate([rng.uniform(-0.4, 0.4, (50, 2)), np.ones((50, 1))], axis=1)
    turned = np.concatenate([turn_directions(rays[:, :2], code), rays[:, 2:]], axis=1)
    expected = turn_points(lens.project(rays), SIZE, code)
    np.testing.assert_allclose(turned_lens(lens, code).project(turned), expected, atol=1e-9)
    assert turned_lens(lens, code).size == shown_size(SIZE, code)


def test_whose_camera_it_is_is_told_by_size_or_principal_point() -> None:
    stored = PinholeCamera(fx=50, fy=52, cx=30, cy=25, width=64, height=48)
    upright = turned_camera(stored, 6)
    assert (upright.width, upright.cx, upright.cy) == (48, 48 - 1 - 25, 30)
    for argument, is_turned in ((stored, True), (upright, False), (CAMERA, True), ((52.0, 50.0, 22.0, 30.0), False)):
        camera, note = turned_argument(argument, 6, SIZE)
        assert (camera != argument) == is_turned
        assert note is not None
        assert "turned by 90 degrees clockwise" in note
        assert ("with them" in note) == is_turned
    calibration = Calibration(left=LENSES[0])
    camera, _ = turned_argument(calibration, 3, SIZE)
    assert isinstance(camera, Calibration)
    assert camera.left.intrinsics == (50, 52, 33, 22)
    assert turned_argument(CAMERA, 1, SIZE) == (CAMERA, None)


@pytest.mark.parametrize(("degrees", "code"), [(0, 1), (90, 6), (180, 3), (270, 8)])
def test_a_turned_video_is_upright_and_its_camera_with_it(tmp_path: Path, degrees: int, code: int) -> None:
    stored = blocks(48, 64, size=16)
    set_rotation(write_video(tmp_path / "v.mp4", [stored] * 4), degrees)
    sequence = open_sequence(tmp_path / "v.mp4", camera=CAMERA)
    shown = turn_upright(stored, code)
    assert sequence[1].image.shape == shown.shape
    assert np.abs(sequence[1].image.astype(int) - shown).mean() < 12
    assert sequence.camera is not None
    cx, cy = turn_points(CAMERA[2:], SIZE, code).tolist()
    assert (sequence.camera.cx, sequence.camera.cy) == (cx, cy)
    assert (sequence.camera.width, sequence.camera.height) == shown_size(SIZE, code)
    assert (len(sequence.notes) == 1) == (degrees != 0)


def test_a_folder_is_turned_as_its_first_photo(tmp_path: Path) -> None:
    shown = blocks(64, 48, size=16)
    for k in range(3):
        write_turned(tmp_path / f"{k}.jpg", shown, 6)
    sequence = open_sequence(tmp_path, camera=CAMERA)
    assert np.abs(sequence[2].image.astype(int) - shown).mean() < 8
    assert sequence.camera == turned_camera(PinholeCamera(fx=50, fy=52, cx=30, cy=25, width=64, height=48), 6)
    assert sequence.faults == ()
    # A phone that looked at the floor thought that it was held the other way round.
    (tmp_path / "2.jpg").write_bytes((tmp_path / "1.jpg").read_bytes().replace(b"\0\x06\0\0\0\0", b"\0\x08\0\0\0\0", 1))
    sequence = open_sequence(tmp_path, camera=CAMERA)
    assert np.abs(sequence[2].image.astype(int) - shown).mean() < 8
    assert [fault.kind for fault in sequence.faults] == ["turned"]


def test_time_of_a_variable_frame_rate_is_that_of_the_container(tmp_path: Path) -> None:
    ticks = np.cumsum([0, 1, 7, 2, 2, 9, 1, 1, 5, 3, 4, 8])
    frames = [np.full((48, 64, 3), 20 * k, np.uint8) for k in range(len(ticks))]
    video = write_variable_rate(tmp_path / "v.mkv", frames, ticks.tolist())
    sequence = open_sequence(video)
    np.testing.assert_allclose(sequence.timestamps, ticks / 60, atol=1e-3)  # Matroska keeps milliseconds
    assert [abs(float(frame.image.mean()) - 20 * frame.index) < 8 for frame in sequence] == [True] * len(ticks)
    assert "16 to 150 ms apart" in sequence.notes[0] or "17 to 150 ms apart" in sequence.notes[0]
    regular = open_sequence(write_video(tmp_path / "regular.mp4", frames, 20.0))
    np.testing.assert_array_equal(regular.timestamps, np.arange(len(frames)) / 20.0)
    assert regular.notes == ()
