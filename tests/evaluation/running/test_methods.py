"""Methods: what identifies them, what they check, LightGlue; and the cache of their features."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from semkey.errors import CheckpointError, ConfigError, InputError
from semkey.evaluation.running import methods
from semkey.evaluation.running.code import code_hash
from semkey.evaluation.running.feature_cache import FeatureCache, feature_key
from semkey.evaluation.running.methods import Method, create_method
from semkey.matching import match
from semkey.matching.lightglue import LightGlueMatcher
from semkey.model.features import Features

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def some_features(count: int = 20, width: int = 128, seed: int = 0, size: tuple[int, int] = (80, 60)) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features(
        keypoints=torch.rand((count, 2), generator=generator) * torch.tensor([size[0] - 1.0, size[1] - 1.0]),
        scores=torch.rand(count, generator=generator).sort(descending=True).values,
        reliability=torch.rand(count, generator=generator),
        descriptors=torch.nn.functional.normalize(torch.randn((count, width), generator=generator), dim=1),
        global_descriptor=torch.zeros(0),
        image_size=size,
    )


class Fake:
    """Counts its calls."""

    name = "fake"

    def __init__(self, features: Features) -> None:
        self.features = features
        self.calls = 0

    def extract(self, image: object) -> Features:
        self.calls += 1
        return self.features


def fake_method(features: Features | None = None, **changes: object) -> tuple[Method, Fake]:
    extractor = Fake(some_features() if features is None else features)
    values = {"name": "fake", "extractor": extractor, "extraction": {"weights_sha256": "a"}, **changes}
    return Method(**values), extractor  # ty: ignore[invalid-argument-type]


# -- identity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compact", "orb", "sift"])
def test_fingerprints_are_complete_and_json_ready(name: str) -> None:
    method = create_method(name, keypoints=50, device="cpu", ratio=0.9)
    fingerprint = json.loads(json.dumps(method.fingerprint))
    assert fingerprint == method.fingerprint
    assert set(fingerprint) == {"name", "extraction", "matching"}
    extraction = fingerprint["extraction"]
    assert extraction["max_keypoints"] == 50
    assert extraction["device"] == "cpu"
    sources = methods.NETWORK_SOURCES if name == "compact" else methods.SOURCES
    assert extraction["source"] == code_hash(sources)
    assert extraction["kind"] == ("semkey" if name == "compact" else "opencv")
    library = "torch" if name == "compact" else "opencv-python-headless"
    assert extraction["versions"][library].count(".") >= 2
    if name == "compact":
        assert len(extraction["weights_sha256"]) == 64
        assert extraction["precision"] in ("float32", "bfloat16")
        assert method.parameters > 100_000
        assert method.weights_bytes > 1_000_000
    else:
        assert method.parameters == method.weights_bytes == 0
    assert fingerprint["matching"] == {
        "matcher": "mutual nearest neighbours",
        "min_similarity": None,
        "ratio": 0.9,
    }


def test_a_copy_of_the_weights_under_another_name_has_the_same_hash(tmp_path: Path) -> None:
    from semkey.model.presets import presets

    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(presets()["compact"].path.read_bytes())
    first, second = create_method("compact", device="cpu"), create_method(str(copy), device="cpu")
    assert first.extraction["weights_sha256"] == second.extraction["weights_sha256"]
    assert second.name == str(copy)


def test_the_code_counts(tmp_path: Path) -> None:
    for name in (
        "backbones/a.py",
        "extractors/a.py",
        "geometry/a.py",
        "images/a.py",
        "model/heads.py",
        "model/features.py",
        "model/gate.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / "model/preprocess.py").write_text("1")

    def fresh(sources: tuple[str, ...]) -> str:
        return code_hash(sources, tmp_path)

    network, others = fresh(methods.NETWORK_SOURCES), fresh(methods.SOURCES)
    assert (fresh(methods.NETWORK_SOURCES), fresh(methods.SOURCES)) == (network, others)
    (tmp_path / "model/heads.py").write_text("2")
    assert fresh(methods.NETWORK_SOURCES) != network
    assert fresh(methods.SOURCES) == others, "ORB does not depend on the network"
    (tmp_path / "model/preprocess.py").write_text("2")
    assert fresh(methods.SOURCES) != others


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sift+lightglue", "no weights for the features 'sift', only for aliked-n16, .*disk"),
        ("aliked-n16+superglue", r"unknown matcher 'superglue'.*\+mnn, \+ratio"),
        ("compact+", "unknown matcher ''"),
        ("compact+refine+mnn", r"unknown matcher|unknown features 'compact\+refine'"),
        ("+mnn", "names no features"),
        ("compcat", "did you mean 'compact'"),
    ],
)
def test_names_that_do_not_exist_say_what_does(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_method(name)


def test_a_plus_in_a_checkpoints_path_is_no_matcher() -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        create_method("runs/a+b.safetensors")


def test_options_are_checked_before_anything_is_loaded() -> None:
    for options in ({"min_similarity": 2.0}, {"ratio": 0.0}, {"keypoints": 0}):
        with pytest.raises(ConfigError):
            create_method("orb", **options)  # ty: ignore[invalid-argument-type]


def test_mutual_matching_takes_the_options() -> None:
    features0, features1 = some_features(seed=1, width=256), some_features(seed=2, width=256)
    method = create_method("orb", min_similarity=0.1, ratio=0.95)
    expected = match(features0, features1, min_similarity=0.1, ratio=0.95)
    assert torch.equal(method.match(features0, features1).indices, expected.indices)
    assert len(expected) < len(create_method("orb").match(features0, features1))


def test_broken_promises_of_an_extractor_name_it() -> None:
    features = some_features(5)
    with pytest.raises(InputError, match="method 'fake': image_size is"):
        Method(name="fake", extractor=Fake(dataclasses.replace(features, image_size=(60, 80)))).extract(IMAGE)
    with pytest.raises(InputError, match="method 'fake': 5 keypoints where at most 4"):
        Method(name="fake", extractor=Fake(features), max_keypoints=4).extract(IMAGE)


# -- cache ---------------------------------------------------------------------------------------------------------


def assert_same(first: Features, second: Features) -> None:
    for field in dataclasses.fields(Features):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_every_image_is_extracted_once_also_by_the_next_run(tmp_path: Path) -> None:
    method, extractor = fake_method()
    cache = FeatureCache(tmp_path)
    first = cache.features(method, IMAGE)
    assert_same(cache.features(method, IMAGE), first)
    assert (cache.hits, cache.misses, extractor.calls) == (1, 1, 1)
    later = FeatureCache(tmp_path)
    assert_same(later.features(method, IMAGE), first)
    assert (later.hits, later.misses, extractor.calls) == (1, 0, 1)


def test_real_features_come_back_bit_for_bit(tmp_path: Path) -> None:
    image = np.kron(IMAGE[:30, :40], np.ones((6, 6, 1), np.uint8))
    for name in ("compact", "orb"):
        method = create_method(name, keypoints=200, device="cpu")
        computed = FeatureCache(tmp_path).features(method, image)
        assert len(computed) > 50
        again = FeatureCache(tmp_path)
        assert_same(again.features(method, image), computed)
        assert again.hits == 1
        assert_same(computed, method.extractor.extract(image))


def test_empty_features_can_be_kept(tmp_path: Path) -> None:
    method, extractor = fake_method(some_features(0))
    FeatureCache(tmp_path).features(method, IMAGE)
    assert len(FeatureCache(tmp_path).features(method, IMAGE)) == 0
    assert extractor.calls == 1


def test_the_key_depends_on_extraction_and_pixels_alone() -> None:
    method, _ = fake_method()
    key = feature_key(method, IMAGE)
    assert feature_key(dataclasses.replace(method, matching={"ratio": 0.8}, name="fake+lightglue"), IMAGE) == key
    assert feature_key(dataclasses.replace(method, extraction={"weights_sha256": "b"}), IMAGE) != key
    changed = IMAGE.copy()
    changed[3, 4, 0] ^= 1
    assert feature_key(method, changed) != key
    assert feature_key(method, IMAGE.reshape(80, 60, 3)) != key, "same bytes, another shape"
    assert feature_key(method, IMAGE[:, ::-1]) != key
    assert feature_key(method, np.asfortranarray(IMAGE)) == key


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "garbage", "flipped bit", "missing tensor", "wrong shape", "no size"]
)
def test_damaged_files_are_extracted_anew_and_replaced(tmp_path: Path, damage: str) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    method, extractor = fake_method()
    first = FeatureCache(tmp_path).features(method, IMAGE)
    (path,) = tmp_path.rglob("*.safetensors")
    data, tensors = path.read_bytes(), load_file(path)
    with safe_open(path, framework="pt") as file:
        size = file.metadata()
    if damage == "missing tensor":
        save_file({name: value for name, value in tensors.items() if name != "scores"}, path, metadata=size)
    elif damage == "wrong shape":
        save_file({**tensors, "scores": tensors["scores"][:3].clone()}, path, metadata=size)
    elif damage == "no size":
        save_file(tensors, path)
    else:
        flipped = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
        contents = {"cut": data[: len(data) // 2], "empty": b"", "garbage": b"x" * 100, "flipped bit": flipped}
        path.write_bytes(contents[damage])
    assert_same(FeatureCache(tmp_path).features(method, IMAGE), first)
    assert extractor.calls == 2
    assert path.read_bytes() == data


def test_memory_is_bounded_and_keeps_the_latest(tmp_path: Path) -> None:
    method, extractor = fake_method()
    cache = FeatureCache(None, images_in_memory=2)
    images = [np.full((60, 80, 3), value, np.uint8) for value in range(3)]
    for index in (0, 1, 0, 2, 0):  # image 1 is the one not used for longest when 2 arrives
        cache.features(method, images[index])
    assert extractor.calls == 3
    cache.features(method, images[1])
    assert extractor.calls == 4
    assert list(tmp_path.iterdir()) == []


def test_features_that_break_a_promise_are_not_kept(tmp_path: Path) -> None:
    method, _ = fake_method(some_features(size=(60, 80)))
    with pytest.raises(InputError, match="method 'fake'"):
        FeatureCache(tmp_path).features(method, IMAGE)
    assert list(tmp_path.rglob("*")) == []


def test_no_temporary_file_stays(tmp_path: Path) -> None:
    method, _ = fake_method()
    FeatureCache(tmp_path).features(method, IMAGE)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".safetensors"]


# -- LightGlue -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untrained() -> dict[str, torch.Tensor]:
    """Tensors of LightGlue under the names of released files, which are older than kornia's."""
    feature = pytest.importorskip("kornia.feature", reason="kornia comes with the extra 'peers'")
    torch.manual_seed(0)
    tensors = feature.LightGlue(None, input_dim=128).state_dict()
    renamed = {}
    for name, value in tensors.items():
        start, _, rest = name.partition(".")
        layer, _, rest = rest.partition(".")
        part, _, tail = rest.partition(".")
        renamed[f"{part}.{layer}.{tail}" if start == "transformers" else name] = value
    return renamed


def test_lightglue_is_kornias(untrained: dict[str, torch.Tensor]) -> None:
    """The wrapper against the network called directly, with the threshold lowered so that it matches anything."""
    import kornia.feature

    matcher = LightGlueMatcher({**untrained, "log_assignment.3.r": torch.zeros(())}, Path("x"), torch.device("cpu"))
    matcher._network.conf.filter_threshold = 0.0
    direct = kornia.feature.LightGlue(
        None,  # ty: ignore[invalid-argument-type]
        input_dim=128,
        depth_confidence=-1,
        width_confidence=-1,
        filter_threshold=0.0,
    ).eval()
    direct.load_state_dict(matcher._network.state_dict())
    features0, features1 = some_features(30, seed=1), some_features(40, seed=2, size=(120, 90))
    with torch.no_grad():
        found = direct(
            {
                f"image{index}": {
                    "keypoints": features.keypoints[None],
                    "descriptors": features.descriptors[None],
                    "image_size": torch.tensor([features.image_size]),
                }
                for index, features in enumerate((features0, features1))
            }
        )
    matches = matcher.match(features0, features1)
    assert len(matches) > 0
    assert torch.equal(matches.indices, found["matches"][0])
    torch.testing.assert_close(matches.scores, found["scores"][0])
    assert not matcher._network.training


def test_lightglue_without_features_and_with_other_descriptors(untrained: dict[str, torch.Tensor]) -> None:
    matcher = LightGlueMatcher(untrained, Path("x"), torch.device("cpu"))
    for pair in ((some_features(0), some_features(5)), (some_features(5), some_features(0, width=64))):
        assert len(matcher.match(*pair)) == 0
    with pytest.raises(InputError, match="128-D descriptors, got 64-D"):
        matcher.match(some_features(5, width=64), some_features(5, width=64))


@pytest.mark.parametrize("change", ["missing", "foreign", "misshapen"])
def test_other_networks_are_refused(untrained: dict[str, torch.Tensor], change: str) -> None:
    tensors = dict(untrained)
    if change == "missing":
        del tensors["posenc.Wr.weight"]
    else:
        tensors["foreign" if change == "foreign" else "posenc.Wr.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"file.pth: .*fit LightGlue"):
        LightGlueMatcher(tensors, Path("file.pth"), torch.device("cpu"))


def test_lightglue_takes_no_random_numbers(untrained: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    LightGlueMatcher(untrained, Path("x"), torch.device("cpu"))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aliked-n16+lightglue", "disk+lightglue"])
def test_released_lightglue_finds_a_shift(name: str, shared: Path) -> None:
    import cv2

    from semkey.images import read_image

    weights = [shared / "weights", *(Path(path) for path in os.environ.get("SEMKEY_WEIGHTS", "").split() if path)]
    try:
        method = create_method(name, keypoints=400, device="cpu", weights=weights)
    except CheckpointError as error:
        pytest.skip(f"no weights: {error}")
    photo = read_image(shared / "data/planar/graf/img1.png")
    image = np.asarray(cv2.resize(photo, (400, 320), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    features0, features1 = method.extract(image[:300, :380]), method.extract(image[11:311, 7:387])
    matches = method.match(features0, features1)
    moved = features0.keypoints[matches.indices[:, 0]] - features1.keypoints[matches.indices[:, 1]]
    right = (moved - torch.tensor([7.0, 11.0])).norm(dim=1) < 1.5
    assert len(matches) > 200
    assert float(right.float().mean()) > 0.95
    assert bool(((matches.scores > 0.1) & (matches.scores <= 1)).all())
    assert method.fingerprint["matching"]["adaptive"] is False
