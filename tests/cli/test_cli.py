from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from command_line import Outcome, Run
from semkey import __version__
from semkey.cli.detect import caption_of
from semkey.geometry.homography import corner_error
from semkey.images import read_image, write_image
from semkey.model.features import Features

COMMANDS = ["detect", "match", "slam", "demo", "render-room", "info", "eval"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
RUN_MAIN = "from semkey.cli.main import main; main()"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """Two views of one flat photo and the homography between them."""
    image = cv2.resize(data.astronaut(), (640, 480), interpolation=cv2.INTER_AREA)
    H = np.array([[0.95, 0.08, 10], [-0.06, 0.97, 25], [3e-5, -2e-5, 1]])
    folder = tmp_path_factory.mktemp("pair")
    write_image(folder / "a.png", image)
    write_image(folder / "b.png", cv2.warpPerspective(image, H, (640, 480)))
    return folder / "a.png", folder / "b.png", H


def test_help_needs_no_heavy_library_and_is_quick() -> None:
    script = (
        "import sys\n"
        "from semkey.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'cv2', 'matplotlib', 'numpy', 'scipy', 'poselib', 'kornia'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    seconds = []
    for _ in range(3):
        before = os.times().children_user
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=True
        )
        seconds.append(os.times().children_user - before)
    assert "HEAVY []" in done.stdout
    assert min(seconds) < 1.0, "CPU time, which a busy machine does not stretch"


def test_help_names_every_command(run: Run) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    for command in COMMANDS:
        assert command in outcome.out
    assert run("-h").out == outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(run: Run, command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert f"semkey {command}" in outcome.out
    assert "Example" in outcome.out
    assert "[bold]" not in outcome.out


def test_version(run: Run) -> None:
    assert run("--version") == Outcome(code=0, out=f"semkey {__version__}\n", err="")


def test_no_command_shows_help(run: Run) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "detect" in outcome.out + outcome.err


@pytest.mark.parametrize(
    "arguments", [["fly"], ["detect"], ["match", "a.png"], ["detect", "a.png", "--max-keypoints", "0"]]
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.err
    assert "Traceback" not in outcome.err


def test_info_tells_version_and_device(run: Run) -> None:
    outcome = run("info")
    assert outcome.code == 0
    assert __version__ in outcome.out
    assert "cpu" in outcome.out or "cuda" in outcome.out
    assert "weights of compact" in outcome.out
    assert "SHA-256 checked" in outcome.out


@pytest.mark.parametrize("features", ["orb", "sift", "compact", "nano"])
def test_detect_draws_and_lists(run: Run, pair: tuple[Path, Path, np.ndarray], tmp_path: Path, features: str) -> None:
    out, listing = tmp_path / "drawings", tmp_path / "keypoints.json"
    options = ["--features", features, "--max-keypoints", 200, "--device", "cpu"]
    outcome = run("detect", *pair[:2], "-o", out, "--json", listing, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["a_keypoints.png", "b_keypoints.png"]
    drawn = read_image(out / "a_keypoints.png")
    assert drawn.shape[1:] == (640, 3)
    assert 500 < drawn.shape[0] < 560, "a caption below it"
    assert not np.array_equal(drawn[:480], read_image(pair[0]))
    result = json.loads(listing.read_text())
    assert result["features"] == features
    assert [image["path"] for image in result["images"]] == [str(pair[0]), str(pair[1])]
    first = result["images"][0]
    assert (first["width"], first["height"]) == (640, 480)
    assert 100 < len(first["keypoints"]) <= 200
    assert len(first["keypoints"]) == len(first["scores"]) == len(first["reliability"])
    assert first["scores"] == sorted(first["scores"], reverse=True)
    header, *rows = [line.split("\t") for line in outcome.out.splitlines() if "\t" in line]
    assert header[:3] == ["image", "size", "keypoints"]
    assert [row[:3] for row in rows] == [
        [image["path"], "640x480", str(len(image["keypoints"]))] for image in result["images"]
    ]


def test_the_caption_of_keypoints_says_what_colours_and_sizes_mean() -> None:
    count = 3
    features = Features(
        keypoints=torch.zeros(count, 2),
        scores=torch.tensor([0.9, 0.5, 0.25]),
        reliability=torch.ones(count),
        descriptors=torch.zeros(count, 4),
        global_descriptor=torch.zeros(0),
        image_size=(8, 8),
    )
    said = "3 keypoints; score from 0.25 (blue) to 0.9 (red); larger: more reliability"
    assert caption_of(features, "scores") == said
    with_ellipses = replace(features, covariances=torch.eye(2).expand(count, 2, 2))
    said = "3 keypoints; reliability from 0 (blue) to 1 (red); ellipses: 8 standard deviations"
    assert caption_of(with_ellipses, "reliability") == said
    assert caption_of(features.select(torch.zeros(count, dtype=torch.bool)), "scores") == "0 keypoints"


def test_detect_writes_nothing_unasked(
    run: Run, pair: tuple[Path, Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("detect", pair[0], "-f", "orb").code == 0
    assert run("match", *pair[:2], "-f", "orb").code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stdout", ["-", "/dev/stdout"])
def test_json_on_stdout_is_pure(run: Run, pair: tuple[Path, Path, np.ndarray], stdout: str) -> None:
    outcome = run("detect", pair[0], "-f", "orb", "--json", stdout)
    assert len(json.loads(outcome.out)["images"]) == 1
    assert "640x480" in outcome.err
    outcome = run("match", *pair[:2], "-f", "orb", "--json", stdout)
    assert json.loads(outcome.out)["geometry"]["kind"] == "fundamental"


def test_images_of_one_name_get_drawings_of_their_own(
    run: Run, pair: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(pair[1].read_bytes())
    assert run("detect", pair[0], tmp_path / "other" / "a.png", "-f", "orb", "-o", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_2_keypoints.png", "a_keypoints.png"]


@pytest.mark.parametrize("features", ["orb", "sift", "compact"])
def test_match_finds_the_homography(
    run: Run, pair: tuple[Path, Path, np.ndarray], tmp_path: Path, features: str
) -> None:
    options = ["--features", features, "--geometry", "homography", "--device", "cpu"]
    outcome = run("match", *pair[:2], "-o", tmp_path / "m.png", "--json", tmp_path / "m.json", *options)
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads((tmp_path / "m.json").read_text())
    assert corner_error(result["geometry"]["matrix"], pair[2], 640, 480) < 3
    inliers = [match for match in result["matches"] if match["inlier"]]
    assert len(inliers) == result["geometry"]["inliers"] > 100
    assert f"inliers (homography)\t{len(inliers)}" in outcome.out
    assert read_image(tmp_path / "m.png").shape[1] > 1280


def test_match_draws_in_the_layout_asked_for(run: Run, pair: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    shapes = {}
    for layout in ("horizontal", "vertical"):
        out = tmp_path / f"{layout}.png"
        assert run("match", *pair[:2], "-f", "orb", "-n", 300, "-o", out, "--layout", layout).code == 0
        shapes[layout] = read_image(out).shape[:2]
    assert shapes["horizontal"][1] > 1280 > shapes["vertical"][1]
    assert shapes["vertical"][0] > 960 > shapes["horizontal"][0]
    outcome = run("match", *pair[:2], "-f", "orb", "-o", tmp_path / "m.png", "--layout", "round")
    assert (outcome.code, "round" in outcome.err) == (2, True)


def test_match_is_reproducible(run: Run, pair: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    for name in ("1.json", "2.json"):
        assert run("match", *pair[:2], "-f", "orb", "--seed", 5, "--json", tmp_path / name).code == 0
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_match_options_change_the_result(run: Run, pair: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    def count(*options: object) -> int:
        assert run("match", *pair[:2], "-f", "orb", "--json", tmp_path / "m.json", *options).code == 0
        return len(json.loads((tmp_path / "m.json").read_text())["matches"])

    everything = count()
    assert 0 < count("--ratio", 0.8) < everything
    assert 0 < count("--min-similarity", 0.8) < everything


def test_images_without_matches_are_no_error(run: Run, tmp_path: Path) -> None:
    write_image(tmp_path / "flat.png", np.full((64, 64, 3), 90, dtype=np.uint8))
    flat = tmp_path / "flat.png"
    outcome = run("match", flat, flat, "-f", "orb", "-o", tmp_path / "m.png", "--json", tmp_path / "m.json")
    assert outcome.code == 0
    result = json.loads((tmp_path / "m.json").read_text())
    assert result["matches"] == []
    assert result["geometry"]["matrix"] is None
    assert (tmp_path / "m.png").is_file()


@pytest.mark.slow
def test_interrupt_exits_with_130_and_without_traceback(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), dtype=np.uint8))
    arguments = ["detect", *[str(tmp_path / "a.png")] * 50, "-f", "sift", "-o", str(tmp_path / "out")]
    # a shell that started the tests in the background ignores SIGINT, and its children inherit that
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + RUN_MAIN
    process = subprocess.Popen(
        [sys.executable, "-c", listening, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    time.sleep(6)
    assert process.poll() is None, "must still be at work for this test"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
