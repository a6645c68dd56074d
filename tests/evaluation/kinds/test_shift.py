"""The kind `shift` on detectors whose answer is known, and on SIFT and ALIKED with real photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.kinds.shift import ShiftConfig, run_shift
from semkey.evaluation.running.methods import Method, create_method
from semkey.images import write_image
from semkey.model.features import Features


class Maxima:
    """Maxima of 7x7 of the grey value, on whole pixels, or on every other one; the descriptor is the neighbourhood."""

    def __init__(self, step: int = 1) -> None:
        self.name, self.step = f"maxima-{step}", step

    def extract(self, image: Any) -> Features:
        grey = torch.from_numpy(image[:: self.step, :: self.step].astype(np.float32).mean(axis=2))[None, None]
        pooled = torch.nn.functional.max_pool2d(grey, 7, stride=1, padding=3)
        y, x = ((grey == pooled) & (grey > 0))[0, 0].nonzero().T
        patches = torch.nn.functional.unfold(grey, 3, padding=1)[0].T.reshape(*grey.shape[-2:], 9)
        order = grey[0, 0, y, x].argsort(descending=True, stable=True)
        return Features(
            keypoints=self.step * torch.stack([x, y], dim=1).float()[order],
            scores=grey[0, 0, y, x][order] / 255,
            reliability=torch.ones(len(x)),
            descriptors=torch.nn.functional.normalize(patches[y, x][order], dim=1),
            global_descriptor=torch.zeros(0),
            image_size=(image.shape[1], image.shape[0]),
        )


@pytest.fixture
def spots(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Smooth spots, so that a maximum of the picture is one of every crop."""
    import cv2

    seeds = np.zeros((200, 240), np.float32)
    seeds[rng.integers(0, 200, 250), rng.integers(0, 240, 250)] = rng.uniform(0.3, 1, 250)
    smooth = cv2.GaussianBlur(seeds, (0, 0), 2.5)
    path = tmp_path / "spots.png"
    write_image(path, np.repeat((255 * smooth / smooth.max()).astype(np.uint8)[:, :, None], 3, axis=2))
    return path


def test_a_detector_that_follows_the_pixels_passes_and_one_of_stride_2_fails(spots: Path) -> None:
    methods = [Method(name=f"maxima-{step}", extractor=Maxima(step)) for step in (1, 2)]
    evaluation = run_shift(methods, [spots], ShiftConfig(whole=(1.0, 2.0, 3.0), fractions=()))
    exact, strided = (evaluation.results[f"maxima-{step}"]["whole-pixels"] for step in (1, 2))
    assert exact.metrics["median_px"] == exact.metrics["worst_median_px"] == 0.0
    assert exact.metrics["within"] == exact.metrics["worst_within"] == 1.0
    assert exact.metrics["cosine"] == pytest.approx(1.0)
    # On every other pixel nothing can be in place after an odd shift; after an even one all is.
    assert strided.groups["1 px"]["median_px"] >= 1.0
    assert strided.groups["1 px"]["within"] == 0.0
    assert strided.groups["2 px"]["median_px"] == 0.0
    assert strided.groups["2 px"]["within"] > 0.95
    assert strided.metrics["worst_median_px"] == strided.groups["1 px"]["median_px"] or (
        strided.metrics["worst_median_px"] == strided.groups["3 px"]["median_px"]
    )
    assert strided.metrics["worst_within"] == 0.0
    assert exact.metrics["keypoints"] > 30


def test_fractions_see_the_rounding_of_whole_pixels(spots: Path) -> None:
    """A whole pixel is half a pixel off, in x and in y, when the picture moves by half a pixel in both."""
    evaluation = run_shift(
        [Method(name="maxima", extractor=Maxima())], [spots], ShiftConfig(whole=(), fractions=(0.5,))
    )
    metrics = evaluation.results["maxima"]["fractions"].metrics
    assert metrics["median_px"] == pytest.approx(np.hypot(0.5, 0.5), abs=1e-6)
    assert metrics["within"] == 0.0


def test_options_and_photos_that_cannot_be_used(tmp_path: Path) -> None:
    for options in ({"whole": (), "fractions": ()}, {"whole": (0.5,)}, {"fractions": (1.0,)}, {"whole": (0.0,)}):
        with pytest.raises(ConfigError):
            ShiftConfig(**options)  # ty: ignore[invalid-argument-type]
    config = ShiftConfig.of([0.5, 2.0, 1.0])
    assert (config.whole, config.fractions) == ((1.0, 2.0), (0.5,))
    write_image(tmp_path / "small.png", np.zeros((70, 200, 3), np.uint8))
    method = Method(name="maxima", extractor=Maxima())
    with pytest.raises(DatasetError, match=r"small.png: 200x70 is too small"):
        run_shift([method], [tmp_path / "small.png"])
    with pytest.raises(DatasetError, match="no photos"):
        run_shift([method], [])
    with pytest.raises(ConfigError, match="once each"):
        run_shift([method, method], [tmp_path / "small.png"])


def test_sift_follows_real_photos(shared: Path) -> None:
    photos = sorted((shared / "data/photos/val").iterdir())[::60]
    methods = [create_method("sift", device="cpu"), create_method("orb", device="cpu")]
    evaluation = run_shift(methods, photos, ShiftConfig(whole=(1.0, 4.0), fractions=(0.5,)))
    sift, orb = (evaluation.results[name] for name in ("sift", "orb"))
    assert sift["whole-pixels"].metrics["worst_median_px"] < 0.01
    assert sift["whole-pixels"].metrics["worst_within"] > 0.95  # 0.97
    assert sift["whole-pixels"].metrics["cosine"] > 0.999
    assert sift["fractions"].metrics["median_px"] < 0.1
    # ORB's pyramid of scale 1.2 moves keypoints of its coarser levels.
    assert orb["whole-pixels"].metrics["within"] < sift["whole-pixels"].metrics["within"]


def test_semkey_describes_the_same_points(shared: Path) -> None:
    """The cosine is of the very points: nano's keypoints move, its descriptors hardly do."""
    photo = sorted((shared / "data/photos/val").iterdir())[0]
    evaluation = run_shift([create_method("nano", device="cpu")], [photo], ShiftConfig(whole=(8.0,), fractions=()))
    metrics = evaluation.results["nano"]["whole-pixels"].metrics
    assert metrics["cosine"] > 0.95
    assert metrics["cosine_p10"] <= metrics["cosine"]
