"""Features: what they promise, as arrays, as tensors, in one line."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from semkey.errors import InputError
from semkey.model.features import Features


def some_features(count: int, width: int = 8, size: tuple[int, int] = (80, 60)) -> Features:
    generator = torch.Generator().manual_seed(3)
    half = torch.rand((count, 2, 2), generator=generator)
    return Features(
        keypoints=torch.rand((count, 2), generator=generator) * torch.tensor([size[0] - 1.0, size[1] - 1.0]),
        scores=torch.rand(count, generator=generator).sort(descending=True).values,
        reliability=torch.rand(count, generator=generator),
        descriptors=torch.nn.functional.normalize(torch.randn((count, width), generator=generator), dim=1),
        global_descriptor=torch.zeros(0),
        image_size=size,
        covariances=half @ half.mT + 0.1 * torch.eye(2),
        method="mine",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": (60, 80)}, r"image_size is \(60, 80\), the image has \(80, 60\)"),
        ({"keypoints": torch.tensor([[0.0, 59.6]])}, "leave the image"),
        ({"keypoints": torch.tensor([[-0.6, 3.0]])}, "leave the image"),
        ({"keypoints": torch.tensor([[float("nan"), 3.0]])}, "keypoints hold NaN"),
        ({"keypoints": torch.tensor([[1.0, 3.0]], dtype=torch.float64)}, "keypoints are torch.float64"),
        ({"descriptors": torch.full((1, 4), 1.0)}, "descriptors have norms from 2.0000"),
        ({"descriptors": torch.full((1, 4), float("inf"))}, "descriptors hold NaN or infinite"),
        ({"covariances": torch.diag(torch.tensor([1.0, -1.0]))[None]}, "covariances must be symmetric"),
        ({"covariances": torch.eye(2, dtype=torch.float16)[None]}, "covariances are torch.float16"),
    ],
)
def test_broken_features_are_refused(changes: dict[str, object], words: str) -> None:
    good = some_features(1, width=4)
    good.check(size=(80, 60), max_keypoints=1)
    with pytest.raises(InputError, match=words):
        dataclasses.replace(good, **changes).check(size=(80, 60), max_keypoints=1)


def test_order_and_number_are_checked_and_none_is_fine() -> None:
    features = some_features(5)
    with pytest.raises(InputError, match="scores increase"):
        features.select(torch.arange(4, -1, -1)).check()
    with pytest.raises(InputError, match="5 keypoints where at most 4"):
        features.check(max_keypoints=4)
    features.select(torch.arange(0)).check(size=(80, 60), max_keypoints=4)


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoints": torch.zeros(5, 3)},
        {"scores": torch.zeros(4)},
        {"reliability": torch.zeros(5, 1)},
        {"descriptors": torch.zeros(4, 8)},
        {"covariances": torch.zeros(5, 2)},
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(changes: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InputError, match=r"expected|must have shape"):
        dataclasses.replace(some_features(5), **changes)


def test_selection_takes_every_field_along() -> None:
    features = some_features(6)
    chosen = torch.tensor([4, 0])
    part = features.select(chosen)
    for name in ("keypoints", "scores", "reliability", "descriptors", "covariances"):
        assert torch.equal(getattr(part, name), getattr(features, name)[chosen]), name
    assert (part.image_size, part.method) == ((80, 60), "mine")
    assert dataclasses.replace(features, covariances=None).select(chosen).covariances is None


def test_arrays_are_the_same_and_copies() -> None:
    features = some_features(4)
    arrays = features.numpy()
    for name in ("keypoints", "scores", "reliability", "descriptors", "global_descriptor", "covariances"):
        array, tensor = getattr(arrays, name), getattr(features, name)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensor.numpy())
    assert (arrays.image_size, arrays.method, len(arrays)) == ((80, 60), "mine", 4)
    arrays.keypoints[:] = -1
    assert bool((features.keypoints >= 0).all())


def test_one_line_says_what_they_are() -> None:
    features = some_features(4)
    assert repr(features) == "Features(mine: 4 keypoints of a 80x60 image, descriptors of width 8)"
    assert repr(features.numpy()) == "FeatureArrays(4 keypoints of a 80x60 image)"
    unknown = dataclasses.replace(features, method="").to("meta")
    assert repr(unknown) == "Features(4 keypoints of a 80x60 image, descriptors of width 8, on meta)"
