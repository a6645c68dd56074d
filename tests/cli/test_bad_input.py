"""Bad images through the command line and the library: a valid result, or one clear line and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import semkey
from semkey.cli.main import main
from semkey.errors import InputError, SemkeyError
from semkey.extractors import create_extractor
from semkey.images import write_image

EXTRACTORS = ["orb", "compact", "nano"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """The command line in this process; returns the exit code and the lines on stderr."""

    def run_main(*arguments: object) -> tuple[int, list[str]]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        return int(caught.value.code or 0), capfd.readouterr().err.splitlines()

    return run_main


def encode(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def make_broken(folder: Path, kind: str) -> Path:
    """A file of the given kind of brokenness."""
    whole_png, whole_jpg = encode(".png", noise(60, 80, 3)), encode(".jpg", noise(60, 80, 3))
    path = folder / {"truncated jpg": "bad.jpg", "truncated webp": "bad.webp"}.get(kind, "bad.png")
    contents = {
        "empty": b"",
        "text": b"this is no image\n",
        "truncated png": whole_png[: len(whole_png) // 2],
        "truncated jpg": whole_jpg[: len(whole_jpg) // 2],
        "truncated webp": encode(".webp", noise(60, 80, 3))[:-50],
        "flipped byte": whole_png[:100] + bytes([whole_png[100] ^ 255]) + whole_png[101:],
        "float": encode(".tif", np.zeros((8, 8), np.float32)),
        "signature only": whole_png[:8],
    }
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(contents[kind])
    return path


BROKEN = [
    "missing",
    "folder",
    "empty",
    "text",
    "truncated png",
    "truncated jpg",
    "truncated webp",
    "flipped byte",
    "float",
    "signature only",
]


def make_odd(folder: Path, kind: str) -> Path:
    """An unusual file that is nevertheless an image."""
    pixels = {
        "1x1": noise(1, 1, 3),
        "one row": noise(1, 900, 3),
        "constant": np.full((120, 160, 3), 70, np.uint8),
        "black": np.zeros((120, 160, 3), np.uint8),
        "gray": noise(120, 160),
        "alpha": noise(120, 160, 4),
        "transparent": np.dstack([noise(120, 160, 3), np.zeros((120, 160), np.uint8)]),
        "16-bit gray": noise(120, 160).astype(np.uint16) * 257,
        "16-bit RGB": noise(120, 160, 3).astype(np.uint16) * 257,
        "odd size": noise(131, 173, 3),
    }[kind]
    path = folder / "größe 图.png"
    path.write_bytes(encode(".png", pixels))
    return path


ODD = ["1x1", "one row", "constant", "black", "gray", "alpha", "transparent", "16-bit gray", "16-bit RGB", "odd size"]


@pytest.mark.parametrize("kind", BROKEN)
def test_detect_tells_a_broken_file_in_one_line_and_writes_nothing(run: Callable, tmp_path: Path, kind: str) -> None:
    write_image(tmp_path / "good.png", noise(60, 80, 3))
    bad = make_broken(tmp_path, kind)
    before = sorted(tmp_path.iterdir())
    out, listing = tmp_path / "out", tmp_path / "k.json"
    code, lines = run("detect", tmp_path / "good.png", bad, "-f", "orb", "-o", out, "--json", listing)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert str(bad) in lines[0]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("first", [True, False])
def test_match_tells_a_broken_file_in_one_line_and_writes_nothing(
    run: Callable, tmp_path: Path, kind: str, first: bool
) -> None:
    good = tmp_path / "good.png"
    write_image(good, noise(60, 80, 3))
    bad = make_broken(tmp_path, kind)
    before = sorted(tmp_path.iterdir())
    pair = (bad, good) if first else (good, bad)
    code, lines = run("match", *pair, "-f", "orb", "-o", tmp_path / "m.png", "--json", tmp_path / "m.json")
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert str(bad) in lines[0]
    assert sorted(tmp_path.iterdir()) == before


def test_each_of_several_bad_files_gets_its_line(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    code, lines = run("detect", tmp_path / "a.png", tmp_path / "empty.png", tmp_path, "-f", "orb")
    assert code == 2
    assert ["image not found" in lines[0], "0 bytes" in lines[1], "0 bytes" in lines[2]] == [True] * 3
    code, lines = run("match", tmp_path / "a.png", tmp_path / "empty.png", "-f", "orb")
    assert (code, len(lines)) == (2, 2)


@pytest.mark.parametrize("features", EXTRACTORS)
@pytest.mark.parametrize("kind", ODD)
def test_odd_images_give_valid_results(run: Callable, tmp_path: Path, kind: str, features: str) -> None:
    path = make_odd(tmp_path, kind)
    options = ["-f", features, "--device", "cpu"]
    code, lines = run("detect", path, *options, "-o", tmp_path / "out", "--json", tmp_path / "k.json")
    assert (code, lines) == (0, [])
    (image,) = json.loads((tmp_path / "k.json").read_text())["images"]
    keypoints = np.array(image["keypoints"]).reshape(-1, 2)
    assert np.isfinite(keypoints).all()
    assert (keypoints >= 0).all()
    assert (keypoints <= [image["width"] - 1, image["height"] - 1]).all()
    assert len(list((tmp_path / "out").iterdir())) == 1
    code, lines = run("match", path, path, *options, "-o", tmp_path / "m.png", "--json", tmp_path / "m.json")
    assert (code, lines) == (0, [])


@pytest.mark.slow
@pytest.mark.parametrize("features", ["orb", "sift", "compact", "nano"])
def test_a_hundred_megapixels_through_the_command_line(run: Callable, tmp_path: Path, features: str) -> None:
    image = cv2.resize(noise(90, 120, 3), (12000, 9000), interpolation=cv2.INTER_NEAREST)
    write_image(tmp_path / "huge.jpg", image)
    code, lines = run("detect", tmp_path / "huge.jpg", "-f", features, "--json", tmp_path / "k.json")
    assert (code, lines) == (0, [])
    (result,) = json.loads((tmp_path / "k.json").read_text())["images"]
    assert (result["width"], result["height"]) == (12000, 9000)
    assert len(result["keypoints"]) > 100
    assert np.array(result["keypoints"]).max() > 6000


@pytest.mark.parametrize(
    "arguments",
    [
        ["-f", "compakt"],
        ["-f", "nowhere.safetensors"],
        ["-f", "orb", "--device", "warp"],
        ["-f", "orb", "--json", "."],
    ],
)
def test_bad_options_are_told_in_one_line(run: Callable, tmp_path: Path, arguments: list[str]) -> None:
    image = tmp_path / "a.png"
    write_image(image, noise(60, 80, 3))
    for command in (["detect", image], ["match", image, image]):
        code, lines = run(*command, *arguments)
        assert code == 2
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert arguments[-1].strip("-") in lines[0]


def test_unknown_preset_names_the_nearest(run: Callable, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise(60, 80, 3))
    _, lines = run("detect", tmp_path / "a.png", "-f", "compakt")
    assert "did you mean 'compact'?" in lines[0]


@pytest.mark.parametrize(
    ("name", "words"), [("m.xyz", "an image name ends in"), ("", "is a folder"), ("file/m.png", "cannot write")]
)
def test_unwritable_drawing_is_told_in_one_line(run: Callable, tmp_path: Path, name: str, words: str) -> None:
    image = tmp_path / "a.png"
    write_image(image, noise(60, 80, 3))
    (tmp_path / "file").touch()
    code, lines = run("match", image, image, "-f", "orb", "-o", tmp_path / name)
    assert (code, len(lines)) == (2, 1)
    assert words in lines[0]


def test_drawings_into_a_file_are_refused(run: Callable, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise(60, 80, 3))
    (tmp_path / "file").touch()
    code, lines = run("detect", tmp_path / "a.png", "-f", "orb", "-o", tmp_path / "file")
    assert (code, len(lines)) == (2, 1)
    assert "it is a file" in lines[0]


def test_a_file_name_with_a_line_break_stays_one_line(run: Callable, tmp_path: Path) -> None:
    code, lines = run("detect", tmp_path / "two\nlines.png", "-f", "orb")
    assert (code, len(lines)) == (2, 1)


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 255.0])
def test_tensors_with_impossible_values_are_refused(name: str, value: float) -> None:
    image = torch.full((3, 64, 64), 0.5)
    image[1, 20, 30] = value
    with pytest.raises(InputError):
        create_extractor(name, device="cpu").extract(image)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), prefix=st.sampled_from(["", "png", "jpg", "webp", "bmp", "tif"]))
def test_any_bytes_give_an_image_or_an_input_error(tmp_path: Path, data: bytes, prefix: str) -> None:
    start = encode(f".{prefix}", noise(8, 8, 3))[: 200 - len(data) // 2] if prefix else b""
    path = tmp_path / "any.bin"
    path.write_bytes(start + data)
    extractor = create_extractor("orb")
    try:
        features = extractor.extract(path)
    except SemkeyError as error:
        message = str(error)
    else:
        assert torch.isfinite(features.keypoints).all()
        return
    assert "any.bin" in message
    assert "\n" not in message


def test_errors_form_one_tree() -> None:
    for error in (semkey.InputError, semkey.DatasetError, semkey.CheckpointError, semkey.ConfigError):
        assert issubclass(error, SemkeyError)
