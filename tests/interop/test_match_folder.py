"""Folders of images matched into hloc's HDF5 layout: contents, going on after a stop, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import semkey
from command_line import Run
from semkey.errors import DatasetError, InputError
from semkey.extractors import Detector
from semkey.images import write_image
from semkey.interop.hloc import pair_key, read_features, read_matches, write_features
from semkey.interop.match_folder import match_folder
from semkey.matching import create_matcher
from semkey.matching.image_pairs import exhaustive_pairs
from semkey.model.features import Features

h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py, extra 'h5'")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    photo = data.astronaut()
    for number in range(4):
        name = f"inner/img{number}.png" if number > 1 else f"img{number}.png"
        write_image(folder / name, np.ascontiguousarray(photo[10 * number : 10 * number + 300, 100:500]))
    return folder


class Counting(Detector):
    """ORB that counts its images, and stops where it is told to."""

    def __init__(self, stop_at: int = 1000) -> None:
        self._orb = semkey.load("orb", max_keypoints=80)
        self.name, self.max_keypoints, self.device = self._orb.name, self._orb.max_keypoints, self._orb.device
        self.settings = self._orb.settings
        self.count, self.stop_at = 0, stop_at

    def extract(self, image, mask=None) -> Features:
        self.count += 1
        if self.count > self.stop_at:
            raise KeyboardInterrupt
        return self._orb.extract(image, mask)


def everything(names, descriptors):
    return exhaustive_pairs(len(names))


def test_the_files_have_hlocs_layout_and_are_read_back(photos: Path, tmp_path: Path) -> None:
    detector, matcher = semkey.load("orb", max_keypoints=80), create_matcher("mnn")
    result = match_folder(photos, tmp_path / "out", detector, matcher, everything)
    assert result.images == ("img0.png", "img1.png", "inner/img2.png", "inner/img3.png")
    assert result.pairs == 6
    features = [detector.extract(photos / name) for name in result.images]
    expected = semkey.match(features[1], features[2])
    with h5py.File(result.features_file) as file:
        group = file["inner/img2.png"]
        np.testing.assert_array_equal(group["keypoints"][:], features[2].keypoints.numpy())
        assert group["keypoints"].dtype == np.float32
        assert group["descriptors"].shape == (256, len(features[2]))
        assert group["image_size"][:].tolist() == [400, 300]
    with h5py.File(result.matches_file) as file:
        partners = file["img1.png/inner-img2.png/matches0"][:]
        assert len(partners) == len(features[1])
        np.testing.assert_array_equal(partners[expected.indices[:, 0]], expected.indices[:, 1])
        assert (partners >= 0).sum() == len(expected) > 20
        assert file["img1.png/inner-img2.png/matching_scores0"].shape == partners.shape
    back = read_features(result.features_file, "inner/img2.png")
    torch.testing.assert_close(back.descriptors, features[2].descriptors, rtol=0, atol=0)
    assert back.method == "orb"
    forth = read_matches(result.matches_file, "img1.png", "inner/img2.png")
    assert torch.equal(forth.indices, expected.indices)
    turned = read_matches(result.matches_file, "inner/img2.png", "img1.png")
    assert {tuple(p) for p in turned.indices.flip(1).tolist()} == {tuple(p) for p in expected.indices.tolist()}
    assert (tmp_path / "out/pairs.txt").read_text().splitlines()[0] == "img0.png img1.png"
    assert not (tmp_path / "out/.parts").exists()
    assert pair_key("a/b.png", "c.png") == "a-b.png/c.png"


def test_what_was_stopped_goes_on_and_a_changed_image_is_extracted_again(photos: Path, tmp_path: Path) -> None:
    out, matcher = tmp_path / "out", create_matcher("mnn")
    stopped = Counting(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        match_folder(photos, out, stopped, matcher, everything)
    assert not (out / "features.h5").exists()
    write_image(photos / "img0.png", data.camera())
    part = next((out / ".parts").rglob("*.safetensors"))
    rest = Counting()
    match_folder(photos, out, rest, matcher, everything)
    assert rest.count == 3, f"one of two was kept ({part})"
    whole = Counting()
    match_folder(photos, tmp_path / "whole", whole, matcher, everything)
    assert whole.count == 4
    for name in ("features.h5", "matches.h5"):
        assert dump(out / name) == dump(tmp_path / "whole" / name)


def dump(path: Path) -> dict[str, list]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()].tolist()} if hasattr(item, "shape") else {}))
    return found


def test_a_damaged_part_is_made_again(photos: Path, tmp_path: Path) -> None:
    out, matcher = tmp_path / "out", create_matcher("mnn")
    with pytest.raises(KeyboardInterrupt):
        match_folder(photos, out, Counting(stop_at=3), matcher, everything)
    parts = sorted((out / ".parts").rglob("*.safetensors"))
    assert len(parts) == 3
    parts[0].write_bytes(parts[0].read_bytes()[:100])
    rest = Counting()
    match_folder(photos, out, rest, matcher, everything)
    assert rest.count == 2


def test_bad_images_are_named_together(photos: Path, tmp_path: Path) -> None:
    (photos / "img1.png").write_bytes(b"no image")
    (photos / "inner/img3.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"2 of 4 images cannot be used: .*img1.png.*img3.png"):
        match_folder(photos, tmp_path / "out", semkey.load("orb"), create_matcher("mnn"), everything)
    assert not (tmp_path / "out/features.h5").exists()
    write_image(tmp_path / "one/a.png", data.camera())
    with pytest.raises(DatasetError, match="one image, two or more"):
        match_folder(tmp_path / "one", tmp_path / "out", semkey.load("orb"), create_matcher("mnn"), everything)


def test_outputs_replace_nothing_but_files(tmp_path: Path) -> None:
    (tmp_path / "features.h5").mkdir()
    with pytest.raises(InputError, match="no regular file"):
        write_features(tmp_path / "features.h5", [])
    with pytest.raises(InputError, match=r"nowhere.h5: cannot be read as HDF5"):
        read_features(tmp_path / "nowhere.h5", "a")


def test_the_command_line(photos: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "matched"
    arguments = ("match-all", photos, "-f", "orb", "-n", "60", "-o", out)
    done = run(*arguments, "--sequential", "1", "--matcher", "ratio")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].split("\t")[:2] == ["4", "3"]
    assert len((out / "pairs.txt").read_text().splitlines()) == 3
    both = run(*arguments, "--sequential", "1", "--exhaustive")
    assert both.code == 2
    assert "--exhaustive and --sequential exclude each other" in both.err
    without = run(*arguments)
    assert without.code == 2
    assert "no global descriptors: use --exhaustive" in without.err
    listed = tmp_path / "list.txt"
    listed.write_text("img0.png img9.png\n")
    wrong = run(*arguments, "--pairs", listed)
    assert wrong.code == 2
    assert "list.txt:1: there is no image 'img9.png'" in wrong.err
