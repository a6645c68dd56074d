"""Posed photos: axes, pixel centres and lenses of nerfstudio's files, the choice of pairs, and two real sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.data.pairs import PoseTruth
from semkey.evaluation.data.transforms_json import read_posed_photos, transforms_sets
from semkey.geometry.transforms import inverse
from semkey.images import write_image

WIDTH, HEIGHT = 64, 48
INTRINSICS = {"w": WIDTH, "h": HEIGHT, "fl_x": 60.0, "fl_y": 61.0, "cx": 32.0, "cy": 24.0}


def looking_at_origin(angle_deg: float, radius: float = 4.0) -> np.ndarray:
    """OpenGL camera to world, on a circle around the origin, z up."""
    angle = np.radians(angle_deg)
    position = radius * np.array([np.cos(angle), np.sin(angle), 0.0])
    back, up = position / radius, np.array([0.0, 0.0, 1.0])
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = np.cross(up, back), up, back, position
    return matrix


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve photos ten degrees apart, listed from last to first."""
    (tmp_path / "images").mkdir()
    for index in range(12):
        write_image(tmp_path / f"images/{index}.png", np.full((HEIGHT, WIDTH, 3), 10 * index, np.uint8))
    write(tmp_path, [frame(index) for index in reversed(range(12))])
    return tmp_path


def frame(index: int, **more: Any) -> dict[str, Any]:
    return {
        "file_path": f"images/{index}.png",
        "transform_matrix": looking_at_origin(10.0 * index).tolist(),
        **more,
    }


def write(folder: Path, frames: list[Any], **top: Any) -> None:
    stored = {"camera_model": "OPENCV", **INTRINSICS, "k1": 0.01, "frames": frames, **top}
    (folder / "transforms.json").write_text(json.dumps(stored))


def test_axes_and_pixel_centres(folder: Path) -> None:
    """The origin is straight ahead of each camera, z is up in its image, the principal point is half a pixel less."""
    photos = read_posed_photos(folder / "transforms.json")
    assert [photo.source.key for photo in photos] == [f"images/{index}.png" for index in range(12)]
    for photo in photos:
        camera = photo.lens.pinhole
        assert (camera.cx, camera.cy) == (31.5, 23.5)
        inside = inverse(photo.T_world_cam) @ np.array([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.5, 1.0]]).T
        np.testing.assert_allclose(inside[:3, 0], [0.0, 0.0, 4.0], atol=1e-12)
        above = camera.project(inside[:3, 1:].T)[0]
        np.testing.assert_allclose(above, [31.5, 23.5 - 61.0 * 0.5 / 4.0], atol=1e-9)


def test_sets_by_angle_are_deterministic_and_bounded(folder: Path) -> None:
    sets = transforms_sets(folder, angles=(5, 15, 25, 95), min_overlap=0.2, max_pairs=5)
    assert [found.name.split("-angle-")[1] for found in sets] == ["5-15", "15-25", "25-95"]
    assert len(sets[0].pairs) == len(sets[1].pairs) == 5
    assert "5 of 11 pairs" in sets[0].description
    again = transforms_sets(folder / "transforms.json", angles=(5, 15, 25, 95), min_overlap=0.2, max_pairs=5)
    assert [pair.name for found in sets for pair in found.pairs] == [p.name for found in again for p in found.pairs]
    for pair in sets[0].pairs:
        truth = pair.truth
        assert isinstance(truth, PoseTruth)
        assert not truth.has_depth
        assert truth.lens0 is not None
        turned = np.degrees(np.arccos((np.trace(truth.T_cam1_cam0[:3, :3]) - 1) / 2))
        assert turned == pytest.approx(10.0, abs=1e-6)


def test_overlap_leaves_out_backs_and_close_ups(folder: Path) -> None:
    """From 90 degrees on a camera looks at the back; a quarter of the distance shows a sixteenth of the picture."""
    near = frame(5, transform_matrix=looking_at_origin(50.0, radius=1.0).tolist())
    write(folder, [near if index == 5 else frame(index) for index in range(12)])
    (found,) = transforms_sets(folder, angles=(0, 180), min_overlap=0.2, max_pairs=1000)
    indices = [[int(name[7:-4]) for name in pair.name.split(" - ")] for pair in found.pairs]
    assert max(second - first for first, second in indices) == 8
    (few,) = transforms_sets(folder, angles=(0, 25), min_overlap=0.2, max_pairs=1000)
    assert not any("images/5.png" in pair.name for pair in few.pairs)
    (more,) = transforms_sets(folder, angles=(0, 25), min_overlap=0.05, max_pairs=1000)
    assert any("images/5.png" in pair.name for pair in more.pairs)


@pytest.mark.parametrize(
    ("frames", "top", "message"),
    [
        ([], {}, "no list 'frames'"),
        ([{"file_path": 3}], {}, "frame 0: has no 'file_path'"),
        ([frame(0, transform_matrix=[[1, 2]])], {}, "4 x 4 numbers"),
        ([frame(0, transform_matrix=np.diag([1.0, 1.0, -1.0, 1.0]).tolist())], {}, "not a rigid transform"),
        ([frame(99)], {}, "99.png"),
        ([frame(0)], {"w": 65}, "64x48 pixels, the file says 65x48"),
        ([frame(0)], {"camera_model": "OMNI"}, "camera model 'OMNI' is unknown"),
        ([frame(0)], {"fl_x": "long"}, "'fl_x' must be a number"),
        ([frame(0)], {"fl_x": -1.0}, "focal lengths must be positive"),
        ([frame(0), frame(0)], {}, "twice"),
    ],
)
def test_damaged_files_are_named_with_their_frame(
    folder: Path, frames: list[Any], top: dict[str, Any], message: str
) -> None:
    write(folder, frames, **top)
    with pytest.raises(DatasetError, match=message) as caught:
        transforms_sets(folder)
    assert "\n" not in str(caught.value)
    assert "transforms.json" in str(caught.value)


def test_options_out_of_range(folder: Path) -> None:
    for options in ({"angles": (5,)}, {"angles": (15, 5)}, {"min_overlap": 1.0}, {"max_pairs": 0}):
        with pytest.raises(ConfigError):
            transforms_sets(folder, **options)  # ty: ignore[invalid-argument-type]
    with pytest.raises(DatasetError, match="no pair 150 to 160"):
        transforms_sets(folder, angles=(150, 160))
    (folder / "transforms.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot be read as JSON"):
        transforms_sets(folder)


@pytest.mark.parametrize("name", ["desk", "toy"])
def test_real_matches_lie_on_the_epipolar_lines(name: str, shared: Path) -> None:
    """SIFT with the ratio test on views 5 to 15 degrees apart; with axes or lens wrong, hardly any match would."""
    from semkey.evaluation.kinds.posed import PosedProtocol
    from semkey.extractors import create_extractor
    from semkey.matching import match

    sift, protocol = create_extractor("sift", max_keypoints=1000), PosedProtocol()
    (found,) = transforms_sets(shared / "data/posed-photos" / name, angles=(5, 15), max_pairs=4)
    rows = []
    for pair in found.pairs:
        features0, features1 = sift.extract(pair.image0.read()), sift.extract(pair.image1.read())
        rows.append(protocol.measure(pair, features0, features1, match(features0, features1, ratio=0.8)))
    metrics = protocol.summarise(rows).metrics
    assert metrics["epipolar@3"] > 0.85  # 0.90 and 0.93 measured
    assert metrics["auc@10"] > 0.9  # 0.95 and 0.97
