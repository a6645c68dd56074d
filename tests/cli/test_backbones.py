"""The commands over backbones: cache-features, vocabulary, eval places, eval speed; errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semkey.cli.main import main
from semkey.images import write_image

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import write_folder


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("nets") / "net", "dinov2-reg")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        write_image(tmp_path / "photos" / f"{number}.png", rng.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    return tmp_path / "photos"


def without_network(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No weights on this machine, and nobody to fetch them from."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("SEMKEY_SHARED", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(folder / "nothing"))
    monkeypatch.delenv("SEMKEY_WEIGHTS", raising=False)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_cache_features(net: Path, photos: Path, tmp_path: Path, capsys) -> None:
    command = ("cache-features", net, photos, "--layers", "2,4", "--size", "96x64", "--out", tmp_path / "cache")
    assert run(*command, "--device", "cpu") == 0
    assert capsys.readouterr().out.startswith("3 images computed, 0 were there")
    assert run(*command, "--device", "cpu") == 0
    assert capsys.readouterr().out.startswith("0 images computed, 3 were there")
    assert len(list((tmp_path / "cache" / "features").rglob("*.safetensors"))) == 3


def test_vocabulary_and_places(net: Path, photos: Path, tmp_path: Path, capsys) -> None:
    words = tmp_path / "words.safetensors"
    assert run("vocabulary", net, photos, "--out", words, "--clusters", 3, "--device", "cpu") == 0
    assert words.is_file()
    sequence = tmp_path / "sequence"
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(3)]
    for index, place in enumerate((0, 1, 2, 1, 0)):
        write_image(sequence / f"frame-{index:06d}.color.png", pictures[place])
        write_image(sequence / f"frame-{index:06d}.depth.png", np.full((480, 640), 1000, np.uint16))
        pose = np.eye(4)
        pose[0, 3] = place
        np.savetxt(sequence / f"frame-{index:06d}.pose.txt", pose)
    methods = f"compact,{net}:cls,{net}:vlad"
    out = tmp_path / "out"
    code = run(
        "eval", "places", sequence, "--methods", methods, "--min-gap", 0.05, "--vocabulary", words, "--out", out,
        "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    found = json.loads((out / "results.json").read_text())
    assert found["kind"] == "places"
    for method in methods.split(","):
        (result,) = found["results"][method].values()
        assert result["metrics"]["recall@1"] == 1.0, "the same picture again"
    assert (out / "report.html").is_file()


def test_speed_of_presets_without_their_weights(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("semkey.model.presets.preset_names", lambda: ["compact", "vit-tiny"])
    code = run(
        "eval", "speed", "--methods", "presets", "--random-weights", "--sizes", "64x64", "--rounds", 3, "--warmup", 1,
        "--no-memory", "--out", tmp_path, "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["results"]) == {"compact", "vit-tiny"}
    assert found["methods"]["vit-tiny"]["extraction"]["weights"] == "random"
    assert found["results"]["vit-tiny"]["64x64"]["metrics"]["parameters_m"] > 5.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cache-features", "dinov2-bas", "."), "did you mean 'dinov2-base'"),
        (("cache-features", "vit-tiny", ".", "--size", "wide"), "--sizes takes WIDTHxHEIGHT"),
        (("match", "a.png", "b.png", "--features", "dinov2-large"), "put it as"),
        (("eval", "places", "absent", "--methods", "vit-tiny:cls"), "absent"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    without_network(monkeypatch, tmp_path)
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, np.zeros((40, 40, 3), np.uint8))
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert words in error


def test_info_says_what_is_trained_and_what_is_frozen(tmp_path: Path, monkeypatch, capsys) -> None:
    from semkey.model.presets import preset_names

    without_network(monkeypatch, tmp_path)
    weights = tmp_path / "nothing" / "semkey" / "weights" / "dinov2-small.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    assert run("info") == 0
    rows = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert all(f"parts of {name}" in rows for name in preset_names())
    assert rows["parts of compact"] == "trained: all of it; frozen: nothing"
    for name, state in (("dinov2-small", str(weights)), ("dinov3-base", "not here, fetched on first use")):
        words = rows[f"parts of {name}"]
        begins = f"trained: the convolutional half, that of compact; at zero until semkey train {name}: laterals over"
        assert words.startswith(f"{begins} layers 3, 6, 9, 12; frozen: ")
        assert state in words


def test_info_of_one_preset_or_of_a_folder_of_its_name(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    without_network(monkeypatch, tmp_path)
    assert run("info", "dinov2-small") == 0
    rows = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["", "preset dinov2-small", "parts of dinov2-small"]
    write_image(tmp_path / "dinov2-small" / "0.png", np.zeros((40, 40, 3), np.uint8))
    assert run("info", "dinov2-small") == 0
    assert "frames\t1\n" in capsys.readouterr().out
    assert run("info", "dinov2-smal") == 2
    assert "dinov2-smal: no such file or folder" in capsys.readouterr().err


def test_training_without_weights_is_one_line_and_no_folder(photos: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("lightning_fabric", reason="Lightning Fabric comes with the extra 'train'")
    without_network(monkeypatch, tmp_path)
    command = ("train", "dinov2-small", "--set", f"data.photos={photos}", "--set", "run.device=cpu", "--out")
    assert run(*command, tmp_path / "run") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: the weights of 'dinov2-small' (88 MB) are not on this machine")
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    assert run(*command, tmp_path / "mine") == 2
    assert (tmp_path / "mine").is_dir(), "a folder that was there is the user's"


def test_configurations_are_listed_and_shown(capsys) -> None:
    from semkey.training.config import shipped_configs

    assert run("configs") == 0
    listed = capsys.readouterr().out
    assert all(name in listed and str(path) in listed for name, path in shipped_configs().items())
    assert "dinov3-base" in listed
    purposes = [line.split("\t")[1] for line in listed.splitlines()[1:] if "\t" in line]
    assert all(purpose and "--set" not in purpose for purpose in purposes), "a sentence, no commands"
    assert run("configs", "nano") == 0
    assert capsys.readouterr().out == shipped_configs()["nano"].read_text()
    assert run("configs", "nanno") == 2
    assert "did you mean 'nano'" in capsys.readouterr().err
