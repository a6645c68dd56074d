"""Features on disk: keyed by pixels, backbone, layers and precision; damaged files, several writers, folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from semkey.errors import ConfigError, DatasetError
from semkey.images import write_image

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import tiny_backbone, write_folder
from semkey.backbones.backbone import Backbone
from semkey.backbones.feature_cache import BackboneCache, compute_features
from semkey.backbones.loading import load_backbone
from semkey.training.feature_folder import cache_features


def picture(seed: int, height: int = 61, width: int = 83) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("nets")
    return [write_folder(root / str(seed) / "net", "dinov2", seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def backbone(folders: list[Path]) -> Backbone:
    return load_backbone(str(folders[0]), (2, 4))


def test_read_and_computed_features_are_the_same_numbers(backbone: Backbone, tmp_path: Path) -> None:
    cache = BackboneCache(tmp_path, backbone, bfloat16=False)
    image = picture(0)
    assert cache.read(image) is None
    first, second = cache.features(image), cache.features(image)
    assert (cache.misses, cache.hits) == (1, 1)
    exact = compute_features(backbone, image, bfloat16=False)
    for computed, read, whole in zip(first.maps, second.maps, exact.maps, strict=True):
        assert computed.dtype == torch.float32
        assert torch.equal(computed, read)
        assert torch.equal(computed, whole.half().float())
    assert torch.equal(first.class_token, second.class_token)
    stored = cache.read(image)
    assert stored is not None
    assert stored.maps[0].dtype == torch.float16
    assert stored.maps[0].shape == (1, 32, 5, 6)


def test_a_change_invalidates_exactly_its_own(backbone: Backbone, folders: list[Path], tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(3)]
    cache = BackboneCache(tmp_path, backbone, bfloat16=False)
    for image in images:
        cache.features(image)
    changed = images[1].copy()
    changed[0, 0, 0] ^= 1
    again = BackboneCache(tmp_path, load_backbone(str(folders[0]), (2, 4)), bfloat16=False)
    assert [again.read(image) is not None for image in (images[0], changed, images[2])] == [True, False, True]
    assert again.read(images[0].reshape(83, 61, 3)) is None, "the same bytes in another shape"
    others = [
        BackboneCache(tmp_path, load_backbone(str(folders[1]), (2, 4)), bfloat16=False),
        BackboneCache(tmp_path, load_backbone(str(folders[0]), (3, 4)), bfloat16=False),
        BackboneCache(tmp_path, backbone, bfloat16=True),
        BackboneCache(tmp_path, backbone.upsampled("resolution"), bfloat16=False),
    ]
    for other in others:
        assert other.folder != cache.folder
        assert other.read(images[0]) is None
        other.features(images[0])
    assert all(again.read(image) is not None for image in images), "nobody else's entries were touched"


def test_damaged_files_are_made_again(backbone: Backbone, tmp_path: Path) -> None:
    cache = BackboneCache(tmp_path, backbone, bfloat16=False)
    wanted = cache.features(picture(0)).maps[0]
    file = cache.path(picture(0))
    for content in (b"", file.read_bytes()[:-10], b"junk" * 100):
        file.write_bytes(content)
        assert torch.equal(cache.features(picture(0)).maps[0], wanted)
    assert cache.misses == 4


def test_random_backbones_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="random weights"):
        BackboneCache(tmp_path, tiny_backbone(), bfloat16=False)


# -- folders of images -------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(4):
        write_image(tmp_path / "photos" / f"{seed}.png", picture(seed, 90, 120))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "photos"


def test_a_folder_is_computed_once(backbone: Backbone, photos: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = cache_features(backbone, photos, tmp_path / "cache", progress=lambda d, t, _: told.append((d, t)))
    assert (first.computed, first.known, first.bad) == (4, 0, 1)
    assert told[-1] == (5, 5)
    assert first.megabytes > 0
    write_image(photos / "1.png", picture(9, 90, 120))
    second = cache_features(backbone, photos, tmp_path / "cache")
    assert (second.computed, second.known, second.bad) == (1, 3, 1)


def test_the_size_of_training_views(backbone: Backbone, photos: Path, tmp_path: Path) -> None:
    from semkey.training.data.planar import plain_view

    (photos / "broken.jpg").unlink()
    done = cache_features(backbone, photos, tmp_path / "cache", size=(96, 64))
    assert done.computed == 4
    cache = BackboneCache(tmp_path / "cache" / "features", backbone, bfloat16=False)
    assert cache.folder == done.folder
    assert cache.read(plain_view(picture(2, 90, 120), (96, 64))) is not None


def test_folders_that_cannot_be_used(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        cache_features(backbone, tmp_path / "absent", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no images in this folder"):
        cache_features(backbone, tmp_path / "empty", tmp_path)


def test_several_processes_fill_one_cache(backbone, folders: list[Path], photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1);"
        "from semkey.backbones.loading import load_backbone; from semkey.training.feature_folder import cache_features;"
        "cache_features(load_backbone(sys.argv[1], (2, 4)), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    arguments = [sys.executable, "-c", code, str(folders[0]), str(photos), str(tmp_path / "cache")]
    running = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    done = cache_features(backbone, photos, tmp_path / "cache")
    assert (done.computed, done.known) == (0, 4)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
