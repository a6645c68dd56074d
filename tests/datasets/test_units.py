"""What people's files have: stamps in nanoseconds, depth in millimetres, pairs with gaps, folders behind links."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import Calibration, Lens, open_sequence
from semkey.datasets.clocks import find_clock
from semkey.errors import ConfigError, DatasetError
from tum_folder import DISTANCE, FOCAL, HEIGHT, WIDTH, write_tum

CAMERA = (FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
PINHOLE = Lens(model="pinhole", intrinsics=CAMERA, size=(WIDTH, HEIGHT))
PAIR = Calibration(left=PINHOLE, right=PINHOLE, T_left_right=np.eye(4) + 0.1 * np.eye(4, k=3))


def restamp(
    folder: Path, per_second: int, *, start: int = 0, names: tuple[str, ...] = ("rgb", "depth", "groundtruth")
) -> None:
    for name in names:
        rows = [line.split(maxsplit=1) for line in (folder / f"{name}.txt").read_text().splitlines()]
        stamps = [start * per_second + round((float(stamp) - 100) * per_second) for stamp, _ in rows]
        lines = [f"{stamp} {rest}" for stamp, (_, rest) in zip(stamps, rows, strict=True)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("start", [0, 1_700_000_000])
@pytest.mark.parametrize(("per_second", "word"), [(10**3, "milli"), (10**6, "micro"), (10**9, "nano")])
def test_stamps_in_other_units_are_recognised(tmp_path: Path, per_second: int, word: str, start: int) -> None:
    restamp(write_tum(tmp_path / "s"), per_second, start=start)
    sequence = open_sequence(tmp_path / "s", camera=CAMERA)
    np.testing.assert_allclose(sequence.timestamps, start + 0.1 * np.arange(8), atol=1e-6)
    assert [f"{word}seconds" in note for note in sequence.notes] == [True] * 3
    assert all(pose is not None for pose in sequence.ground_truth)


def test_ground_truth_may_have_another_unit(tmp_path: Path) -> None:
    """Images in nanoseconds since 1970, poses in seconds."""
    folder = write_tum(tmp_path / "s")
    restamp(folder, 10**9, start=1_700_000_000, names=("rgb", "depth"))
    rows = [line.split(maxsplit=1) for line in (folder / "groundtruth.txt").read_text().splitlines()]
    lines = [f"{float(stamp) - 100 + 1_700_000_000:.4f} {rest}" for stamp, rest in rows]
    (folder / "groundtruth.txt").write_text("\n".join(lines))
    sequence = open_sequence(folder, camera=CAMERA)
    assert all(pose is not None for pose in sequence.ground_truth)


def test_poses_closer_than_images_follow_the_images_clock() -> None:
    """100 Hz in milliseconds look like one every ten seconds, but for the images that they belong to."""
    assert find_clock([0, 10, 20, 30], "gt", poses=True).unit == "s"
    assert find_clock([5000, 5010, 5020, 5030], "gt", poses=True, span_s=(5.0, 6.0)).unit == "ms"


@pytest.mark.parametrize("step", [1e-5, 1e11])
def test_a_step_that_no_camera_has_is_told(tmp_path: Path, step: float) -> None:
    folder = write_tum(tmp_path / "s")
    for name in ("rgb", "depth"):
        rows = [line.split()[1] for line in (folder / f"{name}.txt").read_text().splitlines()]
        (folder / f"{name}.txt").write_text("".join(f"{k * step:.6f} {file}\n" for k, file in enumerate(rows)))
    with pytest.raises(DatasetError, match=r"rgb\.txt: stamps are typically 1e.* s apart, not 1 ms to 10 s"):
        open_sequence(folder, camera=CAMERA)


def in_millimetres(folder: Path) -> Path:
    for file in (folder / "depth").iterdir():
        cv2.imwrite(str(file), np.full((HEIGHT, WIDTH), round(DISTANCE * 1000), np.uint16))
    return folder


def test_depth_in_millimetres_is_suspected_and_can_be_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = in_millimetres(write_tum(tmp_path / "s"))
    sequence = open_sequence(folder, camera=CAMERA)
    assert float(sequence[0].depth.max()) == pytest.approx(DISTANCE / 5)  # ty: ignore[missing-union-attribute]
    assert [fault.kind for fault in sequence.faults] == ["depth"]
    assert "--depth-scale 1000" in caplog.text
    assert sequence.limited_to("mono").faults == ()
    caplog.clear()
    told = open_sequence(folder, camera=CAMERA, depth_scale=1000)
    assert float(told[3].depth.max()) == pytest.approx(DISTANCE)  # ty: ignore[missing-union-attribute]
    assert told.faults == ()
    assert caplog.text == ""
    assert open_sequence(write_tum(tmp_path / "right"), camera=CAMERA).faults == ()


def test_a_depth_scale_needs_depth(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "s")
    with pytest.raises(ConfigError, match="positive"):
        open_sequence(folder, camera=CAMERA, depth_scale=0)
    (folder / "depth.txt").unlink()
    with pytest.raises(ConfigError, match="no depth images"):
        open_sequence(folder, camera=CAMERA, depth_scale=1000)


def test_float_depth_in_the_tum_layout(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "s")
    rows = []
    for k, line in enumerate((folder / "depth.txt").read_text().splitlines()):
        cv2.imwrite(str(folder / f"depth/{k}.tif"), np.full((HEIGHT, WIDTH), DISTANCE, np.float32))
        rows.append(f"{line.split()[0]} depth/{k}.tif")
    (folder / "depth.txt").write_text("\n".join(rows))
    depth = open_sequence(folder, camera=CAMERA)[0].depth
    assert depth is not None
    assert np.unique(depth).tolist() == [DISTANCE]


def write_pair(folder: Path, lefts: dict[str, int], rights: dict[str, int]) -> Path:
    """Images whose grey level tells which instant they are of."""
    for side, names in (("left", lefts), ("right", rights)):
        (folder / side).mkdir(parents=True)
        for name, level in names.items():
            cv2.imwrite(str(folder / side / name), np.full((HEIGHT, WIDTH), level, np.uint8))
    return folder


STAMPS = {k: f"{1403636579763555584 + k * 50_000_000}" for k in range(6)}
JITTERED = {k: f"{1403636579763555584 + k * 50_000_000 + (-1) ** k * 900_000}" for k in range(6)}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({k: f"{k:06d}.png" for k in range(6)}, {k: f"{k:06d}.png" for k in range(6)}),
        ({k: f"{k}.png" for k in range(6)}, {k: f"{k}.jpg" for k in range(6)}),
        ({k: f"img_left_{k}.png" for k in range(6)}, {k: f"img_right_{k}.png" for k in range(6)}),
        ({k: f"L{k:03d}.png" for k in range(6)}, {k: f"R{k:03d}.png" for k in range(6)}),
        ({k: f"{k:010d}.png" for k in range(6)}, {k: f"{k:010d}.png" for k in range(6)}),
        ({k: f"{STAMPS[k]}.png" for k in range(6)}, {k: f"{STAMPS[k]}.png" for k in range(6)}),
        ({k: f"{STAMPS[k]}.png" for k in range(6)}, {k: f"{JITTERED[k]}.png" for k in range(6)}),
        ({k: f"{100 + k / 20:.6f}.png" for k in range(6)}, {k: f"{100.001 + k / 20:.6f}.png" for k in range(6)}),
    ],
    ids=["same", "other-ending", "side-inside", "side-first", "ten-digits", "stamps", "near-stamps", "seconds"],
)
def test_pairs_belong_together_where_frames_are_missing(
    tmp_path: Path, left: dict[int, str], right: dict[int, str]
) -> None:
    """The left camera has lost frame 1, the right one frames 3 and 4: as many images, but not the same."""
    lefts = {name: 20 * k for k, name in left.items() if k != 1}
    rights = {name: 20 * k for k, name in right.items() if k not in (3, 4)}
    sequence = open_sequence(write_pair(tmp_path, lefts, rights), camera=PAIR)
    levels = []
    for frame in sequence:
        assert frame.right is not None
        levels.append((round(float(frame.image.mean())), round(float(frame.right.mean()))))
    assert levels == [(0, 0), (40, 40), (100, 100)]
    assert "2 of 5 images in left, 1 of 4 images in right have no partner" in sequence.faults[0].message
    if left[0].startswith("1"):
        np.testing.assert_allclose(sequence.timestamps, [0, 0.1, 0.25], atol=1e-6)


def test_names_that_do_not_pair_are_told(tmp_path: Path) -> None:
    folder = write_pair(tmp_path, {"a.png": 0, "b.png": 1}, {"c.png": 0, "d.png": 1})
    with pytest.raises(DatasetError, match=r"no image in left has one in right.*a\.png, c\.png"):
        open_sequence(folder, camera=PAIR)


def test_a_folder_is_known_by_the_name_that_the_user_gave(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "disk" / "0007")
    for file in (folder / "rgb").iterdir():
        cv2.imwrite(str(file), np.zeros((480, 640), np.uint8))
    for file in (folder / "depth").iterdir():
        cv2.imwrite(str(file), np.full((480, 640), 10000, np.uint16))
    link = tmp_path / "rgbd_dataset_freiburg3_x"
    link.symlink_to(folder)
    sequence = open_sequence(link)
    assert sequence.name == "rgbd_dataset_freiburg3_x"
    assert sequence.camera is not None
    assert sequence.camera.fx == 535.4
    with pytest.raises(DatasetError, match="camera unknown"):
        open_sequence(folder)
    # The other way round: a short name for a folder of the benchmark.
    renamed = tmp_path / "rgbd_dataset_freiburg3_y"
    folder.rename(renamed)
    (tmp_path / "short").symlink_to(renamed)
    short = open_sequence(tmp_path / "short")
    assert (short.name, short.camera.fx) == ("short", 535.4)  # ty: ignore[missing-union-attribute]
