"""Where a backbone's weights come from: folders, the hub's cache, the hub; hashes, licences, and clear errors."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semkey.backbones import loading, specs
from semkey.backbones.specs import BackbonePreset, Source, check_backbone_name
from semkey.errors import CheckpointError, ConfigError

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import tiny, write_folder
from semkey.backbones.loading import load_backbone, read_tensors
from semkey.backbones.naming import content_hash

REVISION = "a" * 40


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies on the hub: a folder of a tiny DINOv2 with registers."""
    return write_folder(tmp_path_factory.mktemp("hub"), "dinov2-reg", seed=3)


@pytest.fixture
def preset(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackbonePreset:
    """A preset ``toy`` over that network; no folder of this machine takes part, and there is no network."""
    sha256 = hashlib.sha256((published / "model.safetensors").read_bytes()).hexdigest()
    source = Source(repository="someone/toy-net", revision=REVISION, sha256=sha256, megabytes=1)
    made = BackbonePreset(name="toy", architecture=tiny("dinov2-reg"), source=source)
    monkeypatch.setitem(specs.BACKBONES, "toy", made)
    for name in ("SEMKEY_WEIGHTS", "HF_TOKEN", loading.ACCEPT_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEMKEY_SHARED", str(tmp_path / "shared"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    return made


def put(published: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(published / "model.safetensors", target))


@pytest.mark.parametrize(
    "place",
    [
        "cache/semkey/weights/toy.safetensors",
        "shared/weights/toy-net/model.safetensors",
        f"hf/hub/models--someone--toy-net/snapshots/{REVISION}/model.safetensors",
    ],
)
def test_files_are_found_in_the_usual_places(preset, published: Path, tmp_path: Path, place: str) -> None:
    put(published, tmp_path / place)
    backbone = load_backbone("toy", (2, 4))
    assert backbone.layers == (2, 4)
    assert backbone.identity.name == "toy"
    assert backbone.identity.revision == REVISION
    assert backbone.identity.content == content_hash(read_tensors(published / "model.safetensors"))


def test_named_folders_and_files_come_first(preset, published: Path, tmp_path: Path, monkeypatch) -> None:
    file = put(published, tmp_path / "given" / "toy.safetensors")
    bad = tmp_path / "cache/semkey/weights/toy.safetensors"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"damaged")
    load_backbone("toy", weights=[file.parent])
    load_backbone("toy", weights=[file])
    monkeypatch.setenv("SEMKEY_WEIGHTS", str(file.parent))
    load_backbone("toy")
    with pytest.raises(ConfigError, match="absent does not exist"):
        load_backbone("toy", weights=[tmp_path / "absent"])


def test_other_bytes_are_an_error(preset, published: Path, tmp_path: Path, monkeypatch) -> None:
    file = put(published, tmp_path / "cache/semkey/weights/toy.safetensors")
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match=r"toy\.safetensors: SHA-256 is .* that of someone/toy-net"):
        load_backbone("toy")
    # where tensors are pinned instead of a file, they are compared
    content = content_hash(read_tensors(published / "model.safetensors"))
    pinned = replace(preset, source=replace(preset.source, sha256="", content=content))
    monkeypatch.setitem(specs.BACKBONES, "toy", pinned)
    with pytest.raises(CheckpointError, match="its tensors are not those of someone/toy-net"):
        load_backbone("toy")
    put(published, file)
    load_backbone("toy")


def test_damaged_files_and_values_that_are_not_finite(tmp_path: Path, published: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "cut.safetensors").write_bytes((published / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: cannot be read as weights"):
        read_tensors(tmp_path / "cut.safetensors")
    tensors = load_file(published / "model.safetensors")
    tensors["layernorm.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match="NaN"):
        read_tensors(tmp_path / "nan.safetensors")


def test_without_network_the_message_names_file_and_place(preset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_backbone("toy")
    message = str(caught.value)
    for words in ("toy.safetensors", "$SEMKEY_WEIGHTS", str(tmp_path / "cache/semkey/weights"), REVISION, "1 MB"):
        assert words in message
    assert "\n" not in message
    assert not (tmp_path / "cache").exists()


def test_the_licence_of_dinov3_is_stated_before_any_download(preset, monkeypatch, caplog) -> None:
    gated = replace(preset, source=replace(preset.source, licence=specs.DINOV3_LICENCE))
    monkeypatch.setitem(specs.BACKBONES, "toy", gated)
    fetched: list[str] = []

    class FetchedError(Exception):
        """What the download ends with here: nothing is to be fetched."""

    def fetch(url: str, *_: object, **__: object) -> None:
        fetched.append(url)
        raise FetchedError

    monkeypatch.setattr(loading, "download", fetch)
    with pytest.raises(CheckpointError, match=r"DINOv3 License \(https://ai\.meta\.com.*SEMKEY_ACCEPT_LICENSE=dinov3"):
        load_backbone("toy")
    assert not fetched
    for accept in ("flag", "variable"):
        if accept == "variable":
            monkeypatch.setenv(loading.ACCEPT_VARIABLE, "dinov3")
        with pytest.raises(FetchedError):
            load_backbone("toy", accept_licence=accept == "flag")
        assert "DINOv3 License" in caplog.text
    assert len(fetched) == 2
    licences = {name: made.source.licence for name, made in specs.BACKBONES.items() if name != "toy"}
    assert {name for name, licence in licences.items() if licence != "Apache-2.0"} == {"dinov3-small", "dinov3-base"}


# -- the hub -----------------------------------------------------------------------------------------------------------


class _Hub(http.server.BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        file = self.folder / parts[-1]
        if parts[:2] == ["someone", "gated"]:
            self.send_error(401)
        elif parts[:2] != ["someone", "toy-net"] or parts[3] not in (REVISION, "main") or not file.is_file():
            self.send_error(404)
        else:
            self.send_response(200)
            data = file.read_bytes()
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handler = type("Handler", (_Hub,), {"folder": published})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_address[1]}")
        yield
        running.shutdown()
        thread.join()


def test_a_preset_is_fetched_once_and_its_hash_noted(preset, hub, tmp_path: Path, monkeypatch) -> None:
    unpinned = replace(preset, source=replace(preset.source, sha256=""))
    monkeypatch.setitem(specs.BACKBONES, "toy", unpinned)
    load_backbone("toy")
    file = tmp_path / "cache/semkey/weights/toy.safetensors"
    note = json.loads(file.with_name("toy.safetensors.json").read_text())
    assert note["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert note["commit"] == REVISION
    monkeypatch.setattr(loading, "download", lambda *_, **__: pytest.fail("fetched twice"))
    load_backbone("toy")
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="damaged or another one"):
        load_backbone("toy")


def test_any_network_of_the_hub_by_name(preset, hub, tmp_path: Path, published: Path, monkeypatch) -> None:
    backbone = load_backbone("someone/toy-net", (4,))
    assert backbone.identity.revision == REVISION, "the branch asked for was at this commit"
    images = torch.rand(1, 3, 56, 70)
    assert torch.equal(backbone(images).maps[0], load_backbone(str(published), (4,))(images).maps[0])
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    assert load_backbone("someone/toy-net", (4,)).identity == backbone.identity, "kept"
    with pytest.raises(CheckpointError, match=r"'someone/toy-net' is not on this machine.*config\.json"):
        load_backbone(f"someone/toy-net@{'b' * 40}")


def test_gated_and_missing_repositories(preset, hub, monkeypatch) -> None:
    with pytest.raises(CheckpointError, match="HTTP 404"):
        load_backbone("someone/nothing")
    monkeypatch.setitem(
        specs.BACKBONES, "toy", replace(preset, source=replace(preset.source, repository="someone/gated"))
    )
    with pytest.raises(CheckpointError, match=r"HTTP 401.*HF_TOKEN"):
        load_backbone("toy")


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_are_checked(tmp_path: Path) -> None:
    for name in ("dinov2-base-reg", "google/vit-base-patch16-224", "owner/name@0123abc", str(tmp_path)):
        check_backbone_name(name)
    with pytest.raises(ConfigError, match=r"'dinov2-bas' is not known, did you mean 'dinov2-base'"):
        check_backbone_name("dinov2-bas")
    with pytest.raises(ConfigError, match="is not known"):
        load_backbone("")


def test_folders_that_are_not_whole(tmp_path: Path, published: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        load_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    put(published, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        load_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2_with_registers", "hidden_size": 64}))
    with pytest.raises(ConfigError, match=r"config\.json cannot be used"):
        load_backbone(str(tmp_path))


def test_without_the_extra_the_message_says_what_to_install(preset, published, tmp_path: Path, monkeypatch) -> None:
    put(published, tmp_path / "cache/semkey/weights/toy.safetensors")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'semkey\[backbones\]'"):
        load_backbone("toy")
