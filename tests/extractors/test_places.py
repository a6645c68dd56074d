"""Global descriptors of backbones beside other features: names, what is replaced, and what is joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import semkey
from semkey.errors import ConfigError
from semkey.extractors import create_extractor, create_stored_extractor
from semkey.extractors.places import DetectorWithPlaces, PlaceName, name_with_places, parse_place, split_places

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import write_folder
from semkey.backbones.feature_cache import compute_features
from semkey.backbones.global_descriptors import gem_descriptor, train_vlad
from semkey.backbones.loading import load_backbone
from semkey.model.precision import uses_bfloat16


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_folder(tmp_path_factory.mktemp("nets") / "net"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(data.coffee()[:120, :160])


def wanted_gem(net: str, image: np.ndarray) -> torch.Tensor:
    reduced = uses_bfloat16("auto", torch.device("cpu"))
    backbone = load_backbone(net)
    return gem_descriptor(compute_features(backbone.reduce() if reduced else backbone, image, bfloat16=reduced))[0]


def test_names() -> None:
    assert parse_place("vit-tiny:gem") == PlaceName(backbone="vit-tiny", kind="gem")
    assert parse_place("a/b:vlad=w.safetensors") == PlaceName(
        backbone="a/b", kind="vlad", vocabulary=Path("w.safetensors")
    )
    for wrong in ("vit-tiny", "vit-tiny:max", ":gem", "vit-tiny:gem=w", "module:function"):
        assert parse_place(wrong) is None, wrong
    assert split_places("compact@own@vit-tiny:gem") == ("compact", ("own", "vit-tiny:gem"))
    assert split_places("module:function@net:cls") == ("module:function", ("net:cls",))
    for plain in ("compact", "compact@2", "@vit-tiny:gem", "compact@vit-tiny", "module:function"):
        assert split_places(plain) == (plain, ()), plain
    with pytest.raises(ConfigError, match="places 'vit-tiny' are not"):
        name_with_places("compact", "vit-tiny")


def test_a_file_with_such_a_name_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "heads@vit-tiny:gem"
    path.touch()
    assert split_places(str(path)) == (str(path), ())


@pytest.mark.parametrize("base", ["compact", "orb"])
def test_only_the_global_descriptor_is_another(base: str, net: str, image: np.ndarray) -> None:
    plain = semkey.load(base, device="cpu").extract(image)
    detector = semkey.load(f"{base}@{net}:gem", device="cpu")
    found = detector.extract(image)
    for name in ("keypoints", "scores", "reliability", "descriptors"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name
    torch.testing.assert_close(found.global_descriptor, wanted_gem(net, image))
    assert detector.name == found.method == f"{base}@{net}:gem"
    features, described = detector.extract_and_describe(image, torch.tensor([[50.0, 60.0]]))
    assert torch.equal(features.global_descriptor, found.global_descriptor)
    assert described.shape == (1, plain.descriptors.shape[1])


def test_joined_cosines_are_the_means(net: str, image: np.ndarray) -> None:
    other = np.ascontiguousarray(image[::-1])
    names = ("compact", f"compact@{net}:gem", f"compact@own@{net}:gem")
    cosines = []
    for name in names:
        detector = semkey.load(name, device="cpu")
        first, second = (detector.extract(one).global_descriptor for one in (image, other))
        assert float(first.norm()) == pytest.approx(1.0, abs=1e-5)
        cosines.append(float(first @ second))
    assert cosines[2] == pytest.approx((cosines[0] + cosines[1]) / 2, abs=1e-5)
    assert abs(cosines[0] - cosines[1]) > 1e-3


def test_any_kind_of_image(net: str, image: np.ndarray) -> None:
    detector = semkey.load(f"orb@{net}:gem", device="cpu")
    wanted = detector.extract(image).global_descriptor
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255.0
    torch.testing.assert_close(detector.extract(tensor).global_descriptor, wanted)
    gray = image[..., 0].copy()
    torch.testing.assert_close(
        detector.extract(gray).global_descriptor,
        detector.extract(np.repeat(gray[..., None], 3, axis=2)).global_descriptor,
    )


def test_vlad_reads_its_vocabulary(net: str, image: np.ndarray, tmp_path: Path) -> None:
    words = tmp_path / "words.safetensors"
    train_vlad(load_backbone(net), [image], clusters=3).write(words)
    detector = semkey.load(f"orb@{net}:vlad={words}", device="cpu")
    assert len(detector.extract(image).global_descriptor) == 96
    assert len(detector.settings["places"][0]["vocabulary_sha256"]) == 64
    with pytest.raises(ConfigError, match="needs a vocabulary"):
        semkey.load(f"orb@{net}:vlad", device="cpu")


def test_what_cannot_be(net: str, image: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="did you mean 'vit-tiny'"):
        semkey.load("compact@vit-tinny:gem", device="cpu")
    with pytest.raises(ConfigError, match="leave out own"):
        semkey.load(f"orb@own@{net}:gem", device="cpu").extract(image)
    with pytest.raises(ConfigError, match="at least one"):
        DetectorWithPlaces(semkey.load("orb"), [])
    with pytest.raises(ConfigError, match="unknown features"):
        semkey.load(f"nothing@{net}:gem")


def test_a_map_may_name_them_and_own_code_may_have_them(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_features.py").write_text(
        "import semkey\n\n\ndef orb(max_keypoints, device):\n    return semkey.load('orb', device=device)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert create_stored_extractor(f"compact@{net}:cls", device="cpu").name == f"compact@{net}:cls"
    own = create_extractor(f"own_features:orb@{net}:cls", device="cpu")
    assert own.name == f"own_features:orb@{net}:cls"
    with pytest.raises(ConfigError, match="code that a file names is not run"):
        create_stored_extractor(f"semkey:load@{net}:cls")
