"""``semkey data show``: pictures that tell right correspondences from wrong ones, the report, the command."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from semkey.cli.main import main
from semkey.errors import InputError
from semkey.images.writing import write_image
from semkey.training.data import DataConfig, LightConfig, open_data
from semkey.training.data.pair import Pair
from semkey.training.data.pictures import draw_pair, flicker_frames, full_warp, measure_pair, overlay, view1_in_view0
from semkey.training.data.report import collect_pairs, summarise
from semkey.visualization.animation import animated_png

SHAPES = {"shares": {"photos": 0, "rooms": 0, "shapes": 1}, "width": 128, "height": 96, "points": 48}


def shape_pairs(count: int) -> list[Pair]:
    config = DataConfig.from_mapping({**SHAPES, "light": LightConfig.off().to_mapping()})
    data = open_data(config, split="train")
    return [data[index] for index in range(count)]


def moved(pair: Pair, pixels: float) -> Pair:
    """The pair with a homography that is wrong by a shift in view 1."""
    shift = torch.eye(3, dtype=torch.float64)
    shift[0, 2] = pixels
    return {**pair, "H10": shift @ pair["H10"]}


def colorfulness(picture: np.ndarray) -> float:
    """Mean difference of red and green where there is a picture."""
    shown = (picture != 24).any(axis=-1)
    return float(np.abs(picture[..., 0].astype(int) - picture[..., 1])[shown].mean())


# -- pictures ------------------------------------------------------------------------------------------------------


def test_figures_and_colours_tell_right_from_wrong() -> None:
    shares = []
    for pair in shape_pairs(6):
        right, wrong = measure_pair(pair), measure_pair(moved(pair, 4.0))
        assert right.agreement > 0.97
        assert wrong.agreement < right.agreement - 0.02
        assert colorfulness(overlay(moved(pair, 2.0))) > 1.5 * colorfulness(overlay(pair))
        assert 0.0 < right.seen <= 1.0
        assert right.targets == int((pair["targets0"][:, 2] > 0).sum())
        shares.append(right.seen)
    assert min(shares) < 0.95


def test_the_warp_of_a_homography_leads_to_the_points() -> None:
    (pair,) = shape_pairs(1)
    warp = full_warp(pair)
    for start, end in zip(pair["points0"].numpy(), pair["points1"].numpy(), strict=True):
        column, row = np.rint(start).astype(int)
        # Half a pixel away at most, times how much the view is stretched there.
        if np.isfinite(warp[row, column]).all():
            assert np.linalg.norm(warp[row, column] - end) < 4.0
    view, seen = view1_in_view0(pair)
    assert view.shape == seen.shape == (96, 128)


def test_a_warp_by_depth_is_used_as_it_is() -> None:
    (pair,) = shape_pairs(1)
    warp = torch.full((96, 128, 2), float("nan"))
    warp[10:20, 30:40] = torch.tensor([50.0, 40.0])
    everywhere = torch.ones(96, 128, dtype=torch.bool)
    depth = {**pair, "H10": pair["H10"] * float("nan"), "warp10": warp, "valid0": everywhere, "valid1": everywhere}
    view, seen = view1_in_view0(depth)
    assert seen.sum() == 100
    assert seen[10:20, 30:40].all()
    np.testing.assert_allclose(view[seen], pair["image1"][0, 40, 50].item(), atol=1e-5)
    assert np.isnan(measure_pair(depth).agreement)  # one value everywhere


def test_pictures_have_the_size_of_the_enlarged_views() -> None:
    (pair,) = shape_pairs(1)
    height, width = round(96 * 1.6), round(128 * 1.6)
    assert draw_pair(pair).shape == (height, 2 * width + 8, 3)
    assert [frame.shape for frame in flicker_frames(pair)] == [(height, width, 3)] * 2
    assert overlay(pair).shape == (height, width, 3)
    first, second = flicker_frames(pair)
    _, seen = view1_in_view0(pair)
    hidden = ~cv2.dilate(cv2.resize(seen.astype(np.uint8), (width, height)), np.ones((5, 5), np.uint8)).astype(bool)
    assert (first[hidden] == second[hidden]).all()


# -- animation -----------------------------------------------------------------------------------------------------


def test_an_animation_is_a_png_with_all_frames(rng: np.random.Generator) -> None:
    frames = [rng.integers(0, 256, (40, 60, 3)).astype(np.uint8) for _ in range(3)]
    data = animated_png(frames, 250)
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
    assert image.n_frames == 3
    for index, frame in enumerate(frames):
        image.seek(index)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), frame)
        assert image.info["duration"] == 250
    still = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert still is not None
    np.testing.assert_array_equal(cv2.cvtColor(still, cv2.COLOR_BGR2RGB), frames[0])


@pytest.mark.parametrize(
    "frames",
    [[], [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], [np.zeros((4, 4), np.uint8)]],
)
def test_frames_that_do_not_fit_are_refused(frames: list[np.ndarray]) -> None:
    with pytest.raises(InputError):
        animated_png(frames, 100)


# -- the report and the command ------------------------------------------------------------------------------------


def test_figures_are_measured_without_photometric_change() -> None:
    shown = collect_pairs(DataConfig.from_mapping(SHAPES), split="train", seed=0, count=5)
    (row,) = summarise(shown)
    assert (row.source, row.pairs) == ("shapes", 5)
    assert row.lowest_agreement > 0.95
    assert row.targets > 5
    assert row.milliseconds > 0
    assert measure_pair(shown[0].pair).agreement < shown[0].figures.agreement


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(8):
        blocks = rng.integers(0, 256, (20, 26, 3)).astype(np.uint8)
        write_image(tmp_path / "photos" / f"{index}.png", cv2.resize(blocks, (260, 200), interpolation=cv2.INTER_CUBIC))
    file = tmp_path / "train.yaml"
    file.write_text(
        "data:\n  width: 128\n  height: 96\n  points: 48\n  shares: {photos: 1, shapes: 1, rooms: 0}\n"
        "  val_share: 0.4\n  teacher: {name: sift, keypoints: 100}\n"
    )
    return file


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_the_command_writes_a_report_and_pictures(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, pictures = tmp_path / "out" / "pairs.html", tmp_path / "png"
    settings = [f"--set=data.photos={tmp_path / 'photos'}", f"--set=data.cache={tmp_path / 'cache'}"]
    code = run(
        "data", "show", str(configuration), *settings, "--out", str(report), "--pairs", "2", "--png", str(pictures)
    )
    captured = capsys.readouterr()
    assert code == 0, captured.err
    lines = [line.split("\t") for line in captured.out.splitlines()]
    assert [line[0] for line in lines[:3]] == ["source", "photos", "shapes"]
    assert float(lines[1][2]) > 0.95
    assert float(lines[1][5]) > 0  # the teacher's targets
    html = report.read_text()
    assert html.count("<img ") == 2 * 2 * 3
    assert "train.yaml" in html
    assert len(list(pictures.glob("*.png"))) == 12
    assert (tmp_path / "cache" / "targets").is_dir()


def test_wrong_options_end_with_one_line(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show = ("data", "show", str(configuration), "--out", str(tmp_path / "pairs.html"))
    for extra, message in (
        (["--set", "data.photo=x"], "did you mean 'photos'"),
        ([], "data.photos is not set"),
        (["--set", f"data.photos={tmp_path / 'none'}"], "no such folder"),
        (["--out", str(tmp_path / "pairs.png")], "ends in .html"),
    ):
        assert run(*show, *extra) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error
    assert not (tmp_path / "pairs.html").exists()
