"""Clips: flow finds where a known picture went, and pairs of a recording agree with it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from semkey.errors import ConfigError, DatasetError
from semkey.training.data import ClipsConfig, DataConfig, open_data
from semkey.training.data.clips.flow import follow_points
from semkey.training.data.config import LightConfig
from semkey.training.data.pictures import measure_pair

STEP = np.array([3.0, 1.5])


def frame(number: int, size: tuple[int, int] = (220, 180)) -> np.ndarray:
    """A fixed random picture, ``number`` steps further."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (400, 500)).astype(np.float32), (0, 0), 2.5)
    picture = ((picture - picture.min()) / np.ptp(picture) * 255).astype(np.uint8)
    move = np.array([[1, 0, -40 - number * STEP[0]], [0, 1, -40 - number * STEP[1]]], dtype=np.float64)
    return cv2.warpAffine(picture, move, size, flags=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    for number in range(24):
        cv2.imwrite(str(folder / f"{number}.png"), frame(number))
    return folder


def config(folder: Path, cache: Path, **clips: object) -> DataConfig:
    return DataConfig.from_mapping(
        {
            "width": 128,
            "height": 96,
            "points": 64,
            "cache": str(cache),
            "shares": {"photos": 0, "shapes": 0, "rooms": 0, "clips": 1},
            "clips": {"folders": [str(folder)], "frames": 4, "max_gap": 2, "min_tracks": 16, **clips},
            "light": LightConfig.off().to_mapping(),
            "val_share": 0.2,
        }
    )


def test_flow_follows_a_picture_that_moves() -> None:
    places = follow_points([frame(number) for number in range(4)], 0.7)
    moved = places[3] - places[0]
    inner = moved[30:-30, 30:-30]
    assert np.isfinite(inner).mean() > 0.95
    assert np.nanmedian(np.linalg.norm(inner + 3 * STEP, axis=-1)) < 0.15


def test_what_leaves_the_picture_or_is_covered_is_lost() -> None:
    places = follow_points([frame(0), frame(4)], 0.7)
    assert np.isnan(places[1][:, :11]).all()  # moved left by 12 pixels
    covered = frame(0).copy()
    covered[60:120, 80:140] = np.random.default_rng(5).integers(0, 255, (60, 60))
    lost = np.isnan(follow_points([frame(0), covered], 0.7)[1][70:110, 90:130, 0]).mean()
    assert lost > 0.5


def test_pairs_of_a_clip_agree_with_the_flow_between_them(recording: Path, tmp_path: Path) -> None:
    data = open_data(config(recording, tmp_path), split="train")
    for index in range(4):
        pair = data[index]
        assert measure_pair(pair).agreement > 0.95
        tracks = pair["tracks"]
        assert tracks.shape == (64, 4, 2)
        assert torch.equal(tracks[:, 0], pair["points0"])
        assert torch.equal(tracks[:, -1], pair["points1"])
        steps = tracks[:, 1:] - tracks[:, :-1]  # the same between all frames, and for all points
        assert float((steps - steps.mean(dim=(0, 1))).norm(dim=-1).median()) < 0.2
        assert float(steps.norm(dim=-1).min()) > 1.0
        assert pair["frames"].shape == (2, 1, 96, 128)


def test_the_frames_between_show_the_tracked_points(recording: Path, tmp_path: Path) -> None:
    pair = open_data(config(recording, tmp_path), split="train")[0]
    frames = torch.cat([pair["image0"][None], pair["frames"], pair["image1"][None]])
    tracks = pair["tracks"][:48].round().long()
    values = torch.stack([frames[t, 0, tracks[:, t, 1], tracks[:, t, 0]] for t in range(4)])
    for later in values[1:]:
        assert float(torch.corrcoef(torch.stack([values[0], later]))[0, 1]) > 0.9


def test_a_clip_depends_on_its_index_alone_and_sides_share_no_frame(recording: Path, tmp_path: Path) -> None:
    train, again = (open_data(config(recording, tmp_path), split="train") for _ in range(2))
    assert torch.equal(train[5]["image0"], again[5]["image0"])
    assert not torch.equal(train[5]["image0"], train[6]["image0"])
    source = train.sources["clips"]
    val = open_data(config(recording, tmp_path), split="val").sources["clips"]
    frames = [set(part._recordings[0].frames) for part in (source, val)]  # ty: ignore[missing-attribute]
    assert frames == [set(range(19)), set(range(19, 24))]


def test_a_video_is_copied_once_and_gives_the_same(tmp_path: Path, recording: Path) -> None:
    file = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (220, 180))
    for number in range(24):
        writer.write(cv2.cvtColor(frame(number), cv2.COLOR_GRAY2BGR))
    writer.release()
    pair = open_data(config(file, tmp_path / "cache"), split="train")[0]
    assert measure_pair(pair).agreement > 0.95
    (folder,) = (tmp_path / "cache" / "clips").iterdir()
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(stamps) == 25
    open_data(config(file, tmp_path / "cache"), split="train")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps


def test_damaged_frames_are_passed_over(recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for number in range(24):
        data = (recording / f"{number}.png").read_bytes()
        (folder / f"{number}.png").write_bytes(data[:100] if number == 7 else data)
    data = open_data(config(folder, tmp_path), split="train")
    assert all(data[index]["clip"] == 0 for index in range(6))


def test_pairs_of_other_sources_fit_into_the_same_batch(recording: Path, tmp_path: Path) -> None:
    both = config(recording, tmp_path).with_changes(["shares.shapes=0.5", "shares.clips=0.5"])
    data = open_data(both, split="train", colors=True)
    names = [data.source_of(index) for index in range(6)]
    assert {"shapes", "clips"} == set(names)
    batch = default_collate([data[index] for index in range(6)])
    assert (batch["clip"] >= 0).tolist() == [name == "clips" for name in names]
    assert batch["frame_colors"].shape == (6, 2, 3, 96, 128)


def test_what_cannot_be_a_clip_is_told(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match="24 frames, of which 8 are for training; a clip has 16"):
        open_data(config(recording, tmp_path, frames=16), split="train")
    with pytest.raises(ConfigError, match=r"data\.clips\.folders is empty"):
        open_data(config(recording, tmp_path).with_changes(["clips.folders=[]"]), split="train")
    monkeypatch.setattr("semkey.training.data.clips.pairs._ATTEMPTS", 3)
    with pytest.raises(DatasetError, match="no clip with 5000 points tracked"):
        open_data(config(recording, tmp_path, min_tracks=5000), split="train")[0]
    with pytest.raises(ConfigError):
        ClipsConfig(frames=1)
