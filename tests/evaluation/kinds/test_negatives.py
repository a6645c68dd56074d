"""Images of nothing, and the count of what is found in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval_fakes import features
from semkey.errors import ConfigError
from semkey.evaluation.data.negatives import negative_images
from semkey.evaluation.kinds.negatives import run_negatives
from semkey.evaluation.running.methods import Method, create_method
from semkey.model.features import Features


def test_images_show_what_their_names_say(rng: np.random.Generator) -> None:
    photo = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    sets = negative_images([photo], seed=3)
    assert list(sets) == ["blank", "gradient", "noise", "defocus"]
    assert [int(image.image.max()) - int(image.image.min()) for image in sets["blank"]] == [0] * 4
    for image in sets["gradient"]:
        steps = [np.abs(np.diff(image.image.astype(int), axis=axis)).max() for axis in (0, 1)]
        assert max(steps) <= 1, image.group
        assert int(image.image.max()) - int(image.image.min()) >= (200 if "full" in image.group else 20)
    for image, sigma in zip(sets["noise"], (1, 2, 5, 10), strict=True):
        assert image.image.std() == pytest.approx(sigma, rel=0.05)
    assert all(image.image.shape == photo.shape for image in sets["defocus"])
    assert max(image.image.std() for image in sets["defocus"]) < 0.2 * photo.std()
    again = negative_images([photo], seed=3)
    assert all(np.array_equal(a.image, b.image) for name in sets for a, b in zip(sets[name], again[name], strict=True))
    assert "defocus" not in negative_images([])


class OnePerGrey:
    """Keypoints in number as the grey value of the first pixel says."""

    name = "counter"

    def extract(self, image: Any) -> Features:
        count = int(image[0, 0, 0]) // 50
        size = (image.shape[1], image.shape[0])
        return features(np.full((count, 2), 5.0), scores=np.linspace(0.9, 0.2, count).tolist(), size=size)


def test_counts_are_means_and_groups_are_the_variants() -> None:
    evaluation = run_negatives([Method(name="counter", extractor=OnePerGrey())])
    blank = evaluation.results["counter"]["blank"]
    assert [row["keypoints"] for row in blank.rows] == [0, 0, 2, 5]  # greys 0, 30, 128, 255
    assert blank.metrics["keypoints"] == 7 / 4
    assert blank.metrics["most"] == 5
    assert blank.metrics["strong"] == (1 + 3) / 4
    assert blank.metrics["highest_score"] == pytest.approx(0.9)
    assert blank.groups["white"]["keypoints"] == 5
    with pytest.raises(ConfigError, match="once each"):
        run_negatives([])


def test_classical_methods_find_nothing_and_photos_stand_beside(shared: Path, tmp_path: Path) -> None:
    photo = sorted((shared / "data/photos/val").iterdir())[0]
    methods = [create_method(name, device="cpu") for name in ("orb", "sift")]
    evaluation = run_negatives(methods, [photo])
    for method in ("orb", "sift"):
        found = evaluation.results[method]
        assert found["blank"].metrics["most"] == 0
        assert found["gradient"].metrics["keypoints"] < 1
        assert found["defocus"].metrics["keypoints"] < 0.25 * found["photos"].metrics["on_photos"]
        assert "keypoints" not in found["photos"].metrics, "a keypoint on a photo is no fault"
    evaluation.write(tmp_path / "results.json")
