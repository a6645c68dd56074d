"""Photos as training data: bad and large files, the split, targets of a teacher, mixtures of sources."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from semkey.errors import ConfigError, DatasetError
from semkey.images.writing import write_image
from semkey.training.data import Counter, DataConfig, PairMixture, cache_folder, open_data, photos, tune_worker
from semkey.training.data.photos import PhotoFolder, PhotoPairs, open_photos, split_of
from semkey.training.data.teacher import TeacherTargets, prepare_targets, strength

SIZE = (128, 96)


def scene(seed: int, width: int = 200, height: int = 160) -> np.ndarray:
    """Colourful blobs and boxes on all scales."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.uint8)
    for _ in range(150):
        x, y, w, h = rng.integers(0, width), rng.integers(0, height), *rng.integers(4, 40, 2)
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), color, -1)
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve photos, some in a subfolder."""
    for index in range(12):
        write_image(tmp_path / "photos" / ("more" if index > 8 else "") / f"{index}.png", scene(index))
    return tmp_path / "photos"


def make_config(folder: Path, **values: object) -> DataConfig:
    shared = {"photos": str(folder), "cache": str(folder.parent / "cache"), "width": 128, "height": 96, "points": 48}
    return DataConfig.from_mapping({**shared, "shares": {"rooms": 0, "shapes": 0}, "val_share": 0.3, **values})


# -- the folder ----------------------------------------------------------------------------------------------------


def test_photos_of_subfolders_are_found_hidden_files_are_not(folder: Path, tmp_path: Path) -> None:
    write_image(folder / ".hidden" / "a.png", scene(50))
    (folder / "notes.txt").write_text("no photo")
    found = open_photos(folder, tmp_path / "cache", SIZE)
    assert [photo.name for photo in found.photos] == [
        *(f"{i}.png" for i in range(9)),
        *(f"more/{i}.png" for i in (9, 10, 11)),
    ]
    assert found.bad == ()


def test_bad_photos_are_named_and_left_out(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    write_image(folder / "tiny.png", scene(0, 40, 40))
    with caplog.at_level(logging.WARNING):
        found = open_photos(folder, tmp_path / "cache", SIZE)
    assert len(found.photos) == 12
    assert [name for name, _ in found.bad] == ["cut.png", "tiny.png"]
    assert "truncated" in found.bad[0][1]
    assert "40x40 is too small" in found.bad[1][1]
    assert "cut.png" in caplog.text
    assert "tiny.png" in caplog.text


def test_many_bad_photos_are_an_error(folder: Path, tmp_path: Path) -> None:
    for index in range(4):
        (folder / f"bad{index}.jpg").write_bytes(b"no image at all")
    with pytest.raises(DatasetError, match=r"4 of 16 photos cannot be used, the first is bad0\.jpg"):
        open_photos(folder, tmp_path / "cache", SIZE)


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        open_photos(tmp_path / "none", tmp_path / "cache", SIZE)
    with pytest.raises(DatasetError, match="no images in this folder"):
        open_photos(tmp_path, tmp_path / "cache", SIZE)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="is a file"):
        open_photos(tmp_path / "file", tmp_path / "cache", SIZE)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"none of 1 photos can be used; a\.png"):
        open_photos(tmp_path, tmp_path / "cache", SIZE)


def test_copies_are_used_once(folder: Path, tmp_path: Path) -> None:
    (folder / "z.png").write_bytes((folder / "3.png").read_bytes())
    found = open_photos(folder, tmp_path / "cache", SIZE)
    assert len(found.photos) == 12
    assert found.duplicates == 1
    assert "z.png" not in {photo.name for photo in found.photos}


def test_large_photos_are_shrunk_once(folder: Path, tmp_path: Path) -> None:
    large = scene(99, 900, 600)
    write_image(folder / "large.png", large)
    cache = tmp_path / "cache"
    photo = next(p for p in open_photos(folder, cache, SIZE).photos if p.name == "large.png")
    small = photo.read()
    assert small.shape == (256, 384, 3)  # the short side is twice the view's width
    assert photo.path.parent == cache / "photos"
    expected = cv2.resize(large, (384, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 6
    photo.path.unlink()
    assert next(p for p in open_photos(folder, cache, SIZE).photos if p.name == "large.png").read().shape == small.shape


def test_known_photos_are_not_read_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, read = tmp_path / "cache", []
    first = open_photos(folder, cache, SIZE, lambda done, total, what: read.append(done))
    assert len(read) == 12
    decode = photos.read_image
    names: list[str] = []
    monkeypatch.setattr(photos, "read_image", lambda path: names.append(Path(path).name) or decode(path))
    assert open_photos(folder, cache, SIZE) == first
    assert names == []
    write_image(folder / "5.png", scene(77))
    changed = open_photos(folder, cache, SIZE)
    assert names == ["5.png"]
    assert changed.photos[5].key != first.photos[5].key
    next((cache / "photos").glob("*.json")).write_text('{"5.png": 3}')
    assert open_photos(folder, cache, SIZE) == changed


# -- the split -----------------------------------------------------------------------------------------------------


def test_the_split_is_disjoint_complete_and_stable(folder: Path, tmp_path: Path) -> None:
    found = open_photos(folder, tmp_path / "cache", SIZE)
    train, val = found.split("train", 0.4), found.split("val", 0.4)
    assert {p.key for p in train} & {p.key for p in val} == set()
    assert len(train) + len(val) == 12
    assert train
    assert val
    write_image(folder / "new.png", scene(1000))
    later = open_photos(folder, tmp_path / "cache", SIZE)
    assert set(train) <= set(later.split("train", 0.4))
    assert set(val) <= set(later.split("val", 0.4))


def test_the_split_has_the_share_that_was_asked_for() -> None:
    sides = [split_of(f"photo-{index}.jpg", 0.1) for index in range(4000)]
    assert 0.08 < sides.count("val") / 4000 < 0.12
    assert [split_of(f"photo-{index}.jpg", 0.1) for index in range(4000)] == sides


def test_pairs_of_both_sides_show_different_photos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, set[str]] = {"train": set(), "val": set()}
    for split, names in shown.items():
        data = open_data(make_config(folder), split=split)  # ty: ignore[invalid-argument-type]
        read = photos.Photo.read
        monkeypatch.setattr(
            photos.Photo, "read", lambda photo, names=names, read=read: names.add(photo.name) or read(photo)
        )
        for index in range(25):
            data[index]
        monkeypatch.undo()
    assert shown["train"]
    assert shown["val"]
    assert not shown["train"] & shown["val"]


def test_a_side_without_photos_is_an_error(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"data\.val_share"):
        open_data(make_config(folder, val_share=1e-6), split="val")


def test_training_and_validation_of_the_development_photos_are_disjoint(shared: Path, tmp_path: Path) -> None:
    names = [path.name for path in (shared / "data" / "photos" / "train").iterdir()]
    sides = {side: {n for n in names if split_of(n, 0.05) == side} for side in ("train", "val")}
    assert not sides["train"] & sides["val"]
    assert 0.03 * len(names) < len(sides["val"]) < 0.07 * len(names)


# -- pairs ---------------------------------------------------------------------------------------------------------


def test_pairs_depend_on_seed_and_index_alone(folder: Path) -> None:
    first, second = (open_data(make_config(folder), split="train", seed=3) for _ in range(2))
    for _ in range(3):
        second[7]  # reading other pairs changes nothing
    for index in (0, 5):
        one, two = first[index], second[index]
        assert one.keys() == two.keys()
        for key in one:
            assert torch.equal(one[key].nan_to_num(-1.0), two[key].nan_to_num(-1.0)), key
    other = open_data(make_config(folder), split="train", seed=4)
    assert not torch.equal(first[0]["image0"], other[0]["image0"])
    assert not torch.equal(first[0]["image0"], first[1]["image0"])


def test_without_a_teacher_there_are_no_targets_but_points_on_corners(folder: Path) -> None:
    pair = open_data(make_config(folder), split="train")[0]
    assert not pair["targets0"].any()
    assert not pair["targets1"].any()
    assert pair["is_scene"] == 1
    assert "teacher" not in pair


def test_views_that_never_share_enough_are_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "planar_pair", lambda *_: None)
    with pytest.raises(DatasetError, match=r"no pair with 48 common points .*: lower data\.points"):
        open_data(make_config(folder), split="train")[0]


def test_photos_that_vanish_are_named(folder: Path) -> None:
    data = open_data(make_config(folder), split="train")
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(Exception, match=r"image not found: .*\.png"):
        data[0]


# -- the teacher ---------------------------------------------------------------------------------------------------


def test_targets_are_the_teachers_keypoints(folder: Path) -> None:
    config = make_config(folder, teacher={"name": "orb", "keypoints": 200})
    data = open_data(config, split="train")
    found = open_photos(folder, cache_folder(config), SIZE)
    targets = prepare_targets(config.teacher, cache_folder(config), found.photos)
    from semkey.extractors import create_extractor

    photo = found.photos[0]
    expected = create_extractor("orb", max_keypoints=200).extract(photo.read())
    keypoints, strengths, descriptors = targets(photo)
    np.testing.assert_allclose(keypoints, expected.keypoints.numpy())
    np.testing.assert_allclose(strengths, np.sqrt(expected.scores.numpy()), atol=1e-6)
    assert descriptors is None
    assert (data[0]["targets0"][:, 2] > 0).sum() > 10


def test_the_teacher_sees_each_photo_once(folder: Path, tmp_path: Path) -> None:
    config = make_config(folder, teacher={"name": "sift", "keypoints": 50})
    cache = tmp_path / "cache"
    found = open_photos(folder, cache, SIZE)
    done: list[int] = []

    def progress(count: int, total: int, what: str) -> None:
        assert what == "keypoints of sift"
        done.append(count)

    prepare_targets(config.teacher, cache, found.photos[:5], progress)
    assert done == [1, 2, 3, 4, 5]
    prepare_targets(config.teacher, cache, found.photos, progress)  # goes on where it stopped
    assert done[5:] == [1, 2, 3, 4, 5, 6, 7]
    (folder / "0.png").rename(folder / "renamed.png")
    write_image(folder / "1.png", scene(500))
    prepare_targets(config.teacher, cache, open_photos(folder, cache, SIZE).photos, progress)
    assert done[12:] == [1]
    other = make_config(folder, teacher={"name": "sift", "keypoints": 40}).teacher
    assert prepare_targets(other, cache, []).folder != prepare_targets(config.teacher, cache, []).folder


def test_damaged_targets_are_named(folder: Path, tmp_path: Path) -> None:
    config = make_config(folder, teacher={"name": "orb"})
    found = open_photos(folder, tmp_path / "cache", SIZE)
    targets = prepare_targets(config.teacher, tmp_path / "cache", found.photos[:1])
    file = next(targets.folder.iterdir())
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DatasetError, match=r"not readable targets of 0\.png"):
        targets(found.photos[0])
    with pytest.raises(DatasetError, match=r"not readable targets of 1\.png"):
        TeacherTargets(targets.folder, with_descriptors=False)(found.photos[1])


def test_strength_follows_the_teachers_scale() -> None:
    scores = np.array([0.0, 0.25, 1.0], np.float32)
    np.testing.assert_allclose(strength(scores, "peer"), [0.0, 0.5, 1.0])
    # 1 + log(p) / 10 of p = 0.05 and p = 0.0005
    own = np.array([1 + np.log(0.05) / 10, 1 + np.log(0.0005) / 10], np.float32)
    np.testing.assert_allclose(strength(own, "semkey"), [1.0, 0.1], atol=1e-5)


def test_an_own_checkpoint_teaches(folder: Path, tmp_path: Path) -> None:
    config = make_config(folder, teacher={"name": "compact", "keypoints": 1500})
    photo = open_photos(folder, tmp_path / "cache", SIZE).photos[:1]
    keypoints, strengths, _ = prepare_targets(config.teacher, tmp_path / "cache", photo)(photo[0])
    assert len(keypoints) > 20
    assert strengths.dtype == np.float32
    assert 0 <= strengths.min() < strengths.max() <= 1


def test_an_unknown_teacher_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown features 'alikd'"):
        open_data(make_config(folder, teacher={"name": "alikd"}), split="train")
    with pytest.raises(ConfigError, match="code that a file names is not run"):
        open_data(make_config(folder, teacher={"name": "textwrap:dedent"}), split="train")


# -- mixtures ------------------------------------------------------------------------------------------------------


class Numbered:
    """Pairs that say which source they come from."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"source": torch.tensor(self.number), "index": torch.tensor(index)}


def test_sources_are_drawn_by_their_shares() -> None:
    mixture = PairMixture(
        {"a": Numbered(0), "b": Numbered(1), "c": Numbered(2)}, {"a": 3.0, "b": 1.0, "c": 0.0}, (0, 0)
    )
    assert set(mixture.sources) == {"a", "b"}
    drawn = [mixture.source_of(index) for index in range(2000)]
    assert 0.71 < drawn.count("a") / 2000 < 0.79
    assert [int(mixture[index]["source"]) for index in range(20)] == [{"a": 0, "b": 1}[name] for name in drawn[:20]]
    assert int(mixture[17]["index"]) == 17
    assert drawn != [PairMixture(mixture.sources, {"a": 3.0, "b": 1.0}, (1, 0)).source_of(i) for i in range(2000)]
    with pytest.raises(ConfigError, match="no source"):
        PairMixture({"a": Numbered(0)}, {"a": 0.0}, (0,))


def test_a_counter_shares_the_pairs_out() -> None:
    first, second = iter(Counter(10, 2)), iter(Counter(11, 2))
    assert [next(first) for _ in range(3)] == [10, 12, 14]
    assert [next(second) for _ in range(3)] == [11, 13, 15]


def test_pairs_of_all_sources_make_a_batch(folder: Path) -> None:
    config = make_config(
        folder,
        shares={"photos": 1, "shapes": 1, "rooms": 0},
        teacher={"name": "sift", "keypoints": 100, "descriptors": True},
    )
    data = open_data(config, split="train")
    names = [data.source_of(index) for index in range(8)]
    assert set(names) == {"photos", "shapes"}
    batch = default_collate([data[index] for index in range(8)])
    assert batch["teacher"].shape == (8, 48, 128)
    for name, teacher in zip(names, batch["teacher"], strict=True):
        norms = teacher.norm(dim=1)
        assert (norms > 0).any() == (name == "photos")
        torch.testing.assert_close(norms[norms > 0], torch.ones(int((norms > 0).sum())), atol=2e-3, rtol=0)


def test_worker_processes_give_the_same_pairs(folder: Path) -> None:
    data = open_data(make_config(folder), split="train")
    assert torch.equal(pickle.loads(pickle.dumps(data))[2]["image0"], data[2]["image0"])  # for processes that spawn
    loader = DataLoader(data, batch_size=2, sampler=Counter(4), num_workers=2, worker_init_fn=tune_worker)
    batches = iter(loader)
    for first in (4, 6):
        batch = next(batches)
        for row in (0, 1):
            assert torch.equal(batch["image1"][row], data[first + row]["image1"])
            assert torch.equal(batch["points1"][row], data[first + row]["points1"])


def test_sources_that_have_nothing_to_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.photos is not set"):
        open_data(DataConfig(cache=tmp_path), split="train")
    config = DataConfig.from_mapping(
        {"cache": str(tmp_path), "shares": {"photos": 0, "shapes": 0, "rooms": 0, "sequences": 1}}
    )
    with pytest.raises(ConfigError, match=r"data\.sequences\.folders is empty"):
        open_data(config, split="train")
    with pytest.raises(ConfigError, match="seed"):
        open_data(config, split="train", seed=-1)
    with pytest.raises(DatasetError, match="no photos on this side"):
        PhotoPairs([], config, (0,))
    assert PhotoFolder(photos=(), bad=(), duplicates=0).split("val", 0.5) == ()


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(DataConfig()) == tmp_path / "semkey" / "training"
    assert cache_folder(DataConfig(cache=Path("here"))) == Path("here")
