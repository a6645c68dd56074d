from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semkey.datasets import BrokenFrame, Calibration, Frame, Lens, open_sequence
from semkey.datasets.readers.listing import rows_by_time
from semkey.errors import ConfigError, DatasetError, InputError, SemkeyError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.trajectories import Trajectory, associate_by_time, pose_at, write_tum_trajectory
from semkey.geometry.transforms import make_transform, rotation_angle_deg, so3_exp
from semkey.images import write_image

CAMERA = (50.0, 51.0, 15.5, 11.5)
SIZE = (32, 24)
STAMPS = [100.0, 100.1, 100.2, 100.3]


def pose(time: float) -> np.ndarray:
    """A camera that moves along x at 1 m/s and turns about y at 0.5 rad/s."""
    return make_transform(so3_exp([0.0, 0.5 * (time - 100.0), 0.0]), [time - 100.0, 0.0, 1.0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole sequence of four frames; image i is filled with 10 * i, depth i with 1 + i metres and one hole."""
    root = tmp_path / "room"
    for index, stamp in enumerate(STAMPS):
        write_image(root / f"rgb/{stamp:.6f}.png", np.full((SIZE[1], SIZE[0], 3), 10 * index, np.uint8))
        depth = np.full((SIZE[1], SIZE[0]), 5000 * (1 + index), np.uint16)
        depth[3, 5] = 0
        write_image(root / f"depth/{stamp + 0.01:.6f}.png", depth)
    write_list(root, "rgb", STAMPS)
    write_list(root, "depth", STAMPS, shift=0.01)
    truth_stamps = np.arange(99.995, 100.4, 0.01)
    write_tum_trajectory(root / "groundtruth.txt", Trajectory(truth_stamps, np.stack([pose(t) for t in truth_stamps])))
    (root / "camera.txt").write_text("# fx fy cx cy\n50 51 15.5 11.5\n")
    return root


def write_list(root: Path, kind: str, stamps: list[float], shift: float = 0.0) -> None:
    rows = [f"{stamp + shift:.6f} {kind}/{stamp + shift:.6f}.png" for stamp in stamps]
    (root / f"{kind}.txt").write_text("\n".join(["# a comment", "", *rows]) + "\n")


def replace_line(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


def test_frames_hold_image_depth_and_interpolated_pose(folder: Path) -> None:
    sequence = open_sequence(folder)
    assert (sequence.format, sequence.name, len(sequence)) == ("tum", "room", 4)
    assert sequence.has_depth
    assert sequence.has_ground_truth
    assert sequence.camera == PinholeCamera(fx=50, fy=51, cx=15.5, cy=11.5, width=32, height=24)
    np.testing.assert_allclose(sequence.timestamps, STAMPS)
    for index, frame in enumerate(sequence):
        assert frame.index == index
        assert frame.timestamp == STAMPS[index]
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (24, 32, 3)
        assert (frame.image == 10 * index).all()
        assert frame.depth is not None
        assert frame.depth.dtype == np.float32
        assert frame.depth[0, 0] == pytest.approx(1 + index)
        assert frame.depth[3, 5] == 0
        # Stamps lie half-way between ground-truth rows: the motion is uniform, so interpolation is exact.
        assert frame.T_world_cam is not None
        np.testing.assert_allclose(frame.T_world_cam, pose(STAMPS[index]), atol=1e-9)


def test_negative_and_out_of_range_indices(folder: Path) -> None:
    sequence = open_sequence(folder)
    assert sequence[-1].index == 3
    with pytest.raises(IndexError):
        sequence[4]
    with pytest.raises(IndexError):
        sequence[-5]


def test_images_without_depth_nearby_are_left_out(folder: Path) -> None:
    lines = (folder / "depth.txt").read_text().splitlines()
    del lines[3]  # the depth of the second image
    (folder / "depth.txt").write_text("\n".join(lines))
    sequence = open_sequence(folder)
    assert [fault.kind for fault in sequence.faults] == ["unpaired"]
    np.testing.assert_allclose(sequence.timestamps, [100.0, 100.2, 100.3])
    assert [int(frame.image[0, 0, 0]) for frame in sequence] == [0, 20, 30]


def test_depth_and_ground_truth_are_optional(folder: Path) -> None:
    (folder / "depth.txt").unlink()
    (folder / "groundtruth.txt").unlink()
    sequence = open_sequence(folder)
    assert len(sequence) == 4
    assert not sequence.has_depth
    assert not sequence.has_ground_truth
    assert sequence[0].depth is None
    assert sequence[0].T_world_cam is None


def test_a_gap_in_the_ground_truth_is_not_bridged(folder: Path) -> None:
    # Rows at 99.995 .. 100.005 and from 100.25 on: 100.1 lies 95 ms after one row but 150 ms before the next.
    rows = (folder / "groundtruth.txt").read_text().splitlines()
    kept = [row for row in rows[1:] if not 100.006 < float(row.split()[0]) < 100.25]
    (folder / "groundtruth.txt").write_text("\n".join(kept))
    assert [truth is not None for truth in open_sequence(folder).ground_truth] == [True, False, False, True]


def test_unordered_rows_are_sorted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("rgb.txt", "depth.txt", "groundtruth.txt"):
        rows = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join(reversed(rows)))
    sequence = open_sequence(folder)
    assert [int(frame.image[0, 0, 0]) for frame in sequence] == [0, 10, 20, 30]
    assert sequence.ground_truth[3] is not None
    np.testing.assert_allclose(sequence.ground_truth[3], pose(100.3), atol=1e-9)
    assert "not in order" in caplog.text


def _rows(stamps: list[float]) -> list[tuple[float, int, str]]:
    return [(stamp, line, f"{line}.png") for line, stamp in enumerate(stamps, start=1)]


@pytest.mark.parametrize("back", [0.4, 0.37])  # meeting earlier stamps exactly, or between them
def test_a_clock_that_was_set_back_is_an_error_and_not_sorted(tmp_path: Path, back: float) -> None:
    """Frames before and after would take turns: the camera would jump to and fro."""
    stamps = [round(0.1 * k - (back if k >= 15 else 0.0), 6) for k in range(30)]
    with pytest.raises(DatasetError, match=r"rgb\.txt:16: time jumps back by 0\.[23]\d* s, and frames .* mixed"):
        rows_by_time(_rows(stamps), tmp_path / "rgb.txt", strict=False)


def test_rows_of_another_order_are_no_jump(tmp_path: Path) -> None:
    ordered = [0.1 * k for k in range(30)]
    late = [*ordered[:9], *ordered[10:14], ordered[9], *ordered[14:]]  # one frame four rows late
    halves = [*ordered[15:], *ordered[:15]]  # the second file first
    by_name = [[float(name) for name in sorted(map(str, range(count)))] for count in (30, 300, 2000)]  # 1, 10, 11, 2
    for stamps in (late, halves, *by_name, ordered[::-1]):
        found, faults = rows_by_time(_rows(stamps), tmp_path / "rgb.txt", strict=False)
        assert [stamp for stamp, _ in found] == sorted(stamps)
        assert [fault.kind for fault in faults] == ["out-of-order"]


def test_windows_line_ends_and_byte_order_mark(folder: Path) -> None:
    text = (folder / "rgb.txt").read_text().replace("\n", "\r\n")
    (folder / "rgb.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(open_sequence(folder)) == 4


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (4, "100.1", "rgb.txt:4: expected 2 columns"),
        (4, "100.1 rgb/100.100000.png extra", "rgb.txt:4: expected 2 columns"),
        (5, "abc rgb/100.200000.png", "rgb.txt:5: 'abc' is not a number"),
        (5, "nan rgb/100.200000.png", "rgb.txt:5: 'nan' is not a finite number"),
        (5, "100.1 rgb/100.200000.png", "rgb.txt:5: timestamp 100.1 was already given in line 4"),
        (6, "100.3 rgb/nothing.png", "nothing.png: file is missing (listed in {}/rgb.txt:6)"),
        (6, "100.3 rgb", "rgb: file is missing"),
    ],
)
def test_broken_row_is_named(folder: Path, line: int, text: str, message: str) -> None:
    replace_line(folder / "rgb.txt", line, text)
    with pytest.raises(DatasetError) as caught:
        open_sequence(folder, strict=True)
    assert message.format(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100.0 0 0 0 0 0 0", "groundtruth.txt:2: expected 8 columns"),
        ("100.0 0 0 x 0 0 0 1", "groundtruth.txt:2: 'x' is not a number"),
        ("100.0 0 0 inf 0 0 0 1", "groundtruth.txt:2: 'inf' is not a finite number"),
        ("100.0 0 0 0 0 0 0 0", "groundtruth.txt:2: quaternion has length 0"),
    ],
)
def test_broken_ground_truth_is_named(folder: Path, text: str, message: str) -> None:
    replace_line(folder / "groundtruth.txt", 2, text)
    with pytest.raises(DatasetError, match=message):
        open_sequence(folder)


def test_missing_empty_and_binary_lists(folder: Path) -> None:
    (folder / "rgb.txt").write_text("# nothing\n")
    with pytest.raises(DatasetError, match=r"rgb\.txt: lists no files"):
        open_sequence(folder)
    (folder / "rgb.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DatasetError, match=r"rgb\.txt: is not a text file"):
        open_sequence(folder)
    (folder / "rgb.txt").unlink()
    with pytest.raises(DatasetError, match=r"rgb\.txt: file is missing"):
        open_sequence(folder)
    for name in ("depth.txt", "groundtruth.txt"):
        (folder / name).unlink()
    with pytest.raises(DatasetError, match=r"rgb\.txt: file is missing"):
        open_sequence(folder)


def test_empty_image_file(folder: Path) -> None:
    (folder / "rgb/100.200000.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"100\.200000\.png: file is empty \(0 bytes\) \(listed in .*rgb\.txt:5\)"):
        open_sequence(folder, strict=True)


def test_missing_and_empty_files_are_reported_and_those_frames_broken(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "rgb/100.200000.png").write_bytes(b"")
    (folder / "depth/100.310000.png").unlink()
    sequence = open_sequence(folder)
    assert [fault.kind for fault in sequence.faults] == ["missing", "missing"]
    assert "100.200000.png: file is empty (0 bytes) (and 1 more like this)" in caplog.text
    assert "100.310000.png: file is missing" in sequence.faults[1].message
    frames = list(sequence.frames())
    assert [isinstance(frame, Frame) for frame in frames] == [True, True, False, False]
    broken = frames[3]
    assert isinstance(broken, BrokenFrame)
    assert "100.310000.png: file is missing" in str(broken.error)
    # The pose of a broken frame is still known.
    assert broken.T_world_cam is not None
    np.testing.assert_allclose(broken.T_world_cam, pose(100.3), atol=1e-9)


def test_the_size_comes_from_the_first_image_that_can_be_read(folder: Path) -> None:
    (folder / "rgb/100.000000.png").unlink()
    sequence = open_sequence(folder)
    assert isinstance(sequence.read(0), BrokenFrame)
    assert sequence[1].image.shape == (24, 32, 3)
    for stamp in STAMPS[1:]:
        (folder / f"rgb/{stamp:.6f}.png").unlink()
    with pytest.raises(DatasetError, match=r"100\.000000\.png: file is missing"):
        open_sequence(folder)


def test_a_timestamp_given_twice_is_left_out_and_reported(folder: Path) -> None:
    with (folder / "rgb.txt").open("a") as file:
        file.write("100.1 rgb/100.300000.png\n")
    sequence = open_sequence(folder)
    assert [int(frame.image[0, 0, 0]) for frame in sequence] == [0, 10, 20, 30]
    assert [fault.kind for fault in sequence.faults] == ["duplicate", "out-of-order"]
    assert "rgb.txt:7: timestamp 100.1 was already given in line 4" in sequence.faults[0].message


def test_a_jump_in_time_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, shift in (("rgb", 0.0), ("depth", 0.01)):
        replace_line(folder / f"{name}.txt", 6, f"{105.0 + shift} {name}/{100.3 + shift:.6f}.png")
    sequence = open_sequence(folder)
    assert len(sequence) == 4
    assert [fault.kind for fault in sequence.faults] == ["gap"]
    assert "time jumps by 4.8 s between frames 2 and 3" in caplog.text


def test_truncated_image_fails_when_it_is_read(folder: Path) -> None:
    file = folder / "rgb/100.200000.png"
    file.write_bytes(file.read_bytes()[:-20])
    sequence = open_sequence(folder)
    assert sequence[1].index == 1
    with pytest.raises(InputError, match=r"100\.200000\.png"):
        sequence[2]


def test_depth_of_another_size_is_found_when_opened(folder: Path) -> None:
    write_image(folder / "depth/100.310000.png", np.zeros((12, 16), np.uint16))
    with pytest.raises(DatasetError, match=r"100\.310000\.png: depth is 16x12 but the images are 32x24"):
        open_sequence(folder, strict=True)


def test_image_of_another_size_is_found_when_read(folder: Path) -> None:
    write_image(folder / "rgb/100.300000.png", np.zeros((12, 16, 3), np.uint8))
    sequence = open_sequence(folder)
    with pytest.raises(DatasetError, match=r"100\.300000\.png: image is 16x12, the sequence is 32x24"):
        sequence[3]


def test_clocks_that_never_meet(folder: Path) -> None:
    rows = (folder / "depth.txt").read_text().replace("100.", "500.").splitlines()
    rows = [row.replace("depth/500.", "depth/100.") for row in rows]
    (folder / "depth.txt").write_text("\n".join(rows))
    with pytest.raises(DatasetError, match="do clocks differ"):
        open_sequence(folder)


def test_unknown_camera_says_how_to_pass_one(folder: Path) -> None:
    (folder / "camera.txt").unlink()
    with pytest.raises(DatasetError, match="--camera fx,fy,cx,cy"):
        open_sequence(folder)
    assert open_sequence(folder, camera=CAMERA).camera == open_sequence(folder, camera=list(CAMERA)).camera


def test_camera_argument_beats_the_file(folder: Path) -> None:
    sequence = open_sequence(folder, camera=(40.0, 40.0, 16.0, 12.0))
    assert sequence.camera is not None
    assert sequence.camera.fx == 40.0
    with pytest.raises(ConfigError, match="640x480"):
        open_sequence(folder, camera=PinholeCamera(fx=1, fy=1, cx=0, cy=0, width=640, height=480))
    with pytest.raises(ConfigError, match="3 numbers"):
        open_sequence(folder, camera=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("text", ["50 51 15.5", "50 51 15.5 x", "", "0 51 15 11", "1 2 3\n4 5 6\n7 8 9"])
def test_broken_camera_file_is_named(folder: Path, text: str) -> None:
    (folder / "camera.txt").write_text(text)
    with pytest.raises(DatasetError, match=r"camera\.txt"):
        open_sequence(folder)


def test_published_camera_needs_the_published_size(folder: Path) -> None:
    (folder / "camera.txt").unlink()
    renamed = folder.rename(folder.with_name("rgbd_dataset_freiburg1_desk"))
    with pytest.raises(DatasetError, match="camera unknown"):
        open_sequence(renamed)
    write_image(renamed / "rgb/100.000000.png", np.zeros((480, 640, 3), np.uint8))
    (renamed / "depth.txt").unlink()
    sequence = open_sequence(renamed)
    # The published lens pulls the corners in: the undistorted image is a little narrower.
    assert sequence.camera is not None
    assert 517.3 < sequence.camera.fx < 560
    assert sequence.camera.fy / sequence.camera.fx == pytest.approx(516.5 / 517.3)
    plain = open_sequence(renamed, camera=(517.3, 516.5, 318.6, 255.3))
    assert plain.camera is not None
    assert plain.camera.fx == 517.3


# As the benchmark publishes them (ROS default calibration, colour camera): fx fy cx cy, and k1 k2 p1 p2 k3.
PUBLISHED = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), ()),
}


@pytest.mark.parametrize("camera", PUBLISHED)
def test_published_lenses_are_those_of_the_benchmark(folder: Path, camera: str, rng: np.random.Generator) -> None:
    """Noise shows every fraction of a pixel by which an image was straightened differently."""
    (folder / "camera.txt").unlink()
    (folder / "depth.txt").unlink()
    write_image(folder / "rgb/100.000000.png", rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    intrinsics, distortion = PUBLISHED[camera]
    lens = Lens(
        model="radial-tangential" if distortion else "pinhole",
        intrinsics=intrinsics,
        distortion=distortion,
        size=(640, 480),
    )
    expected = open_sequence(folder, camera=Calibration(left=lens))
    straightened = expected[0].image
    found = open_sequence(folder.rename(folder.with_name(f"rgbd_dataset_{camera}_xyz")))
    assert found.camera == expected.camera
    np.testing.assert_array_equal(found[0].image, straightened)


@given(
    stamps0=st.lists(st.integers(0, 400), unique=True, max_size=12).map(sorted),
    stamps1=st.lists(st.integers(0, 400), unique=True, max_size=12).map(sorted),
)
def test_association_is_one_to_one_close_and_greedy(stamps0: list[int], stamps1: list[int]) -> None:
    times0, times1 = np.array(stamps0) / 500, np.array(stamps1) / 500
    pairs = associate_by_time(times0, times1, max_difference_s=0.02)
    # The text of the benchmark's associate.py, with dictionaries for its lists.
    first, second = dict.fromkeys(times0.tolist()), dict.fromkeys(times1.tolist())
    potential = sorted((abs(a - b), a, b) for a in first for b in second if abs(a - b) < 0.02)
    expected = []
    for _, a, b in potential:
        if a in first and b in second:
            del first[a]
            del second[b]
            expected.append((a, b))
    assert [(times0[i], times1[j]) for i, j in pairs] == sorted(expected)


def test_pose_at_never_extrapolates_and_interpolates_between_close_rows() -> None:
    trajectory = Trajectory(np.array([0.0, 0.1, 1.0]), np.stack([pose(100.0), pose(100.1), pose(101.0)]))
    assert pose_at(trajectory, -0.01) is None
    assert pose_at(trajectory, 1.01) is None
    assert pose_at(trajectory, 0.5) is None
    np.testing.assert_array_equal(pose_at(trajectory, 0.1), pose(100.1))
    np.testing.assert_array_equal(pose_at(trajectory, 1.00005), pose(101.0))
    middle = pose_at(trajectory, 0.025)
    assert middle is not None
    np.testing.assert_allclose(middle[:3, 3], [0.025, 0.0, 1.0], atol=1e-12)
    assert rotation_angle_deg(middle) == pytest.approx(np.degrees(0.0125))


_NUMBERS = ["100.0", "100.1", "nan", "-inf", "1e999", "0", "1"]
_NAMES = ["rgb/100.000000.png", "depth/100.010000.png", "..", "/", "#", "\x00", "a" * 300, "é", ",", "\r"]
_TOKENS = st.sampled_from([*_NUMBERS, *_NAMES])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["rgb.txt", "depth.txt", "groundtruth.txt", "camera.txt"]),
    rows=st.lists(st.lists(_TOKENS, max_size=9).map(" ".join), max_size=5),
)
def test_any_text_is_a_sequence_or_one_clear_line(folder: Path, name: str, rows: list[str]) -> None:
    before = (folder / name).read_text()
    (folder / name).write_text("\n".join(rows))
    try:
        sequence = open_sequence(folder)
    except SemkeyError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert len(list(sequence.frames())) == len(sequence) > 0
    finally:
        (folder / name).write_text(before)


def test_real_sequence(shared: Path) -> None:
    sequence = open_sequence(shared / "data/tum/rgbd_dataset_freiburg3_cabinet_subsampled")
    assert len(sequence) == 58
    assert sequence.camera == PinholeCamera(fx=535.4, fy=539.2, cx=320.1, cy=247.6, width=640, height=480)
    assert all(truth is not None for truth in sequence.ground_truth)
    frame = sequence[30]
    assert frame.image.shape == (480, 640, 3)
    assert frame.depth is not None
    assert frame.depth.shape == (480, 640)
    assert 0.5 < float(np.median(frame.depth[frame.depth > 0])) < 4.0
