"""The network with random weights: shapes, coordinates, input kinds, batches, and what every extraction promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures import block_tensor, blocks
from semkey.errors import ConfigError, InputError
from semkey.model.config import Detector, ExtractionConfig, ModelConfig
from semkey.model.features import Features
from semkey.model.heads import score_from_log_probability
from semkey.model.layers import cells_to_image, image_to_cells, merge_cells, sample_map
from semkey.model.precision import cpu_has_bfloat16, uses_bfloat16
from semkey.model.preprocess import PreparedImage, prepare, to_gray, to_original_pixels
from semkey.model.semantic_detector import SemanticKeypointDetector


@pytest.fixture(scope="module")
def detector() -> SemanticKeypointDetector:
    torch.manual_seed(0)
    return SemanticKeypointDetector(extraction=ExtractionConfig(max_keypoints=200)).optimize()


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return blocks(height, width, seed)


def check_promises(features: Features, width: int, height: int, most: int) -> None:
    count = len(features)
    assert count <= most
    assert features.image_size == (width, height)
    for tensor in (features.keypoints, features.scores, features.reliability, features.descriptors):
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
    assert (features.keypoints >= 0).all()
    assert (features.keypoints <= torch.tensor([width - 1.0, height - 1.0])).all()
    for values in (features.scores, features.reliability):
        assert ((values >= 0) & (values <= 1)).all()
    assert (features.scores[:-1] >= features.scores[1:]).all()
    torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(count), atol=1e-5, rtol=0)
    assert features.global_descriptor.norm().item() == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), seed=st.integers(0, 1000))
def test_any_size_keeps_the_promises(detector: SemanticKeypointDetector, height: int, width: int, seed: int) -> None:
    check_promises(detector.extract(texture(height, width, seed)), width, height, 200)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_keeps_the_promises(detector: SemanticKeypointDetector, value: int) -> None:
    check_promises(detector.extract(np.full((97, 61, 3), value, np.uint8)), 61, 97, 200)


def test_maps_have_the_stated_strides(detector: SemanticKeypointDetector) -> None:
    maps = detector(torch.rand(2, 1, 96, 160))
    assert maps.log_probability.shape == (2, 1, 96, 160)
    assert maps.grid.shape == (2, 64, 12, 20)
    assert maps.fine.shape == (2, 64, 24, 40)
    for kind, shape in (("cells", (2, 16, 48, 80)), ("pixels", (2, 0, 12, 20))):
        maps = SemanticKeypointDetector(ModelConfig(detector=kind)).eval()(torch.rand(2, 1, 96, 160))
        assert maps.log_probability.shape == (2, 1, 96, 160)
        assert maps.detail.shape == shape
    assert [tuple(m.shape[-2:]) for m in maps.coarse] == [(6, 10), (3, 5)]


def test_parts_are_named_modules(detector: SemanticKeypointDetector) -> None:
    assert detector.backbone is None
    assert {"stem", "pyramid", "detector", "descriptor", "offset", "reliability"} <= {
        name for name, _ in detector.named_children()
    }


def test_each_cell_decides_its_own_pixels() -> None:
    """A grid feature changes the 8 x 8 pixels it covers and the cells its 3 x 3 convolutions reach, nothing else."""
    head = SemanticKeypointDetector(ModelConfig(detector="cells")).eval().detector
    grid, detail = torch.zeros(1, 64, 9, 9), torch.zeros(1, 64, 9, 9)
    before = head(grid, detail)
    grid[0, :, 4, 4] = 3.0
    y, x = torch.nonzero((head(grid, detail) - before)[0, 0].abs() > 1e-7, as_tuple=True)
    assert (int(x.min()), int(x.max())) == (16, 55)
    assert (int(y.min()), int(y.max())) == (16, 55)


def test_detail_is_one_number_per_pixel_computed_alike_everywhere() -> None:
    """Shifting the image by two pixels shifts the detail by two pixels, across the borders of grid cells."""
    stem = SemanticKeypointDetector(ModelConfig(detector="cells")).eval().detail
    image = torch.randn(1, 1, 64, 64)
    plain = torch.nn.functional.pixel_shuffle(stem(image)[1], 8)
    shifted = torch.nn.functional.pixel_shuffle(stem(image.roll(2, dims=3))[1], 8)
    torch.testing.assert_close(shifted[..., 16:-16, 16:-16], plain.roll(2, dims=3)[..., 16:-16, 16:-16])


def test_decoupled_detection_sends_no_gradient_into_the_descriptor_features() -> None:
    model = SemanticKeypointDetector()
    image = torch.randn(2, 1, 64, 64)
    maps = model(image, decoupled=True)
    maps.log_probability.sum().backward()
    trunk = [*model.stem.parameters(), *model.context.parameters(), *model.pyramid.parameters()]
    assert all(parameter.grad is None for parameter in trunk)
    assert all(parameter.grad is not None for parameter in [*model.detail.parameters(), *model.detector.parameters()])
    model(image).log_probability.sum().backward()
    assert all(parameter.grad is not None for parameter in model.stem.parameters())


def test_a_cell_holds_at_most_one_keypoint_worth_of_probability() -> None:
    detector = SemanticKeypointDetector(ModelConfig(detector="cells")).eval()
    probability = detector(torch.randn(1, 1, 64, 96) * 5).log_probability.exp()
    total = torch.nn.functional.avg_pool2d(probability, 8) * 64
    assert (total <= 1.0 + 1e-5).all()
    scores = score_from_log_probability(torch.tensor([0.0, -1.0, -10.0, -50.0]))
    torch.testing.assert_close(scores, torch.tensor([1.0, 0.9, 0.0, 0.0]))


def test_folding_batch_norms_changes_nothing() -> None:
    torch.manual_seed(0)
    model = SemanticKeypointDetector()
    model.train()(torch.randn(4, 1, 64, 64))  # non-trivial running statistics
    model.eval()
    image = torch.randn(1, 1, 64, 96)
    before = model(image).log_probability
    after = model.optimize()(image).log_probability
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_every_kind_of_input_gives_the_same_keypoints(detector: SemanticKeypointDetector, tmp_path) -> None:
    import cv2

    image = texture(80, 100)
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), image[..., ::-1])
    reference = detector.extract(image).keypoints
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255.0
    torch.testing.assert_close(detector.extract(path).keypoints, reference)
    torch.testing.assert_close(detector.extract(str(path)).keypoints, reference)
    from_tensor = detector.extract(tensor).keypoints  # luma is rounded to 8 bits for arrays, not for tensors
    near = torch.cdist(from_tensor, reference).min(dim=1).values
    assert (near < 0.5).float().mean() > 0.9
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    torch.testing.assert_close(detector.extract(gray).keypoints, reference)


def test_a_batch_equals_one_by_one(detector: SemanticKeypointDetector) -> None:
    images = [texture(80, 100, 1), texture(64, 64, 2), texture(80, 100, 3)]
    for batched, image in zip(detector.extract_batch(images), images, strict=True):
        single = detector.extract(image)
        for name in ("keypoints", "scores", "reliability", "descriptors", "global_descriptor"):
            assert torch.equal(getattr(batched, name), getattr(single, name)), name
    assert detector.extract_batch([]) == []


def test_extraction_is_deterministic(detector: SemanticKeypointDetector) -> None:
    image = texture(90, 120, 5)
    assert torch.equal(detector.extract(image).keypoints, detector.extract(image).keypoints)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((10, 10, 3), np.float32), "dtype float32"),
        (np.zeros((10, 10), np.uint16), "dtype uint16"),
        (np.zeros((10, 10, 4), np.uint8), "shape"),
        (np.zeros((0, 10, 3), np.uint8), "at least 1 x 1"),
        (torch.zeros(10, 10), "shape"),
        (torch.zeros(3, 10, 10, dtype=torch.uint8), "dtype"),
        (torch.full((3, 10, 10), float("nan")), "NaN"),
        (torch.full((3, 10, 10), 255.0), r"scale it to \[0, 1\]"),
        (None, "NoneType"),
    ],
)
def test_unusable_input_is_one_clear_error(detector: SemanticKeypointDetector, image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        detector.extract(cast(Any, image))


@given(
    width=st.integers(2, 4000),
    height=st.integers(2, 4000),
    valid_width=st.integers(1, 1600),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_resize_round_trip(width: int, height: int, valid_width: int, x: float, y: float) -> None:
    valid = (valid_width, max(1, round(height * valid_width / width)))
    prepared = PreparedImage(tensor=torch.zeros(1, 1, 1, 1), valid_size=valid, original_size=(width, height))
    point = torch.tensor([[x * (width - 1), y * (height - 1)]], dtype=torch.float64)
    scale = torch.tensor(valid, dtype=torch.float64) / torch.tensor([width, height], dtype=torch.float64)
    inside = (point + 0.5) * scale - 0.5
    torch.testing.assert_close(to_original_pixels(inside, prepared), point, atol=1e-3, rtol=0)


def test_shrinking_keeps_positions() -> None:
    """A bright dot of a large image appears, after scaling down, where the half-pixel convention says."""
    gray = torch.zeros(600, 800)
    gray[300:304, 500:504] = 1.0  # centre at (501.5, 301.5)
    prepared = prepare(gray, 400)
    assert prepared.valid_size == (400, 300)
    image = prepared.tensor[0, 0, :300, :400] - prepared.tensor[0, 0, 0, 0]
    y, x = torch.meshgrid(torch.arange(300.0), torch.arange(400.0), indexing="ij")
    center = torch.stack([(image * x).sum() / image.sum(), (image * y).sum() / image.sum()])[None]
    torch.testing.assert_close(to_original_pixels(center, prepared)[0], torch.tensor([501.5, 301.5]), atol=1e-3, rtol=0)


def test_padding_is_not_detected(detector: SemanticKeypointDetector) -> None:
    features = detector.extract(texture(33, 65))
    assert (features.keypoints[:, 0] <= 64).all()
    assert (features.keypoints[:, 1] <= 32).all()


def test_gray_uses_luma_weights() -> None:
    color = np.zeros((2, 2, 3), np.uint8)
    color[..., 1] = 200
    assert to_gray(color)[0, 0].item() == pytest.approx(0.587 * 200 / 255, abs=2e-3)


@given(x=st.floats(0, 63), y=st.floats(0, 47))
@settings(max_examples=100, deadline=None)
def test_reading_a_map_is_exact_on_a_ramp(x: float, y: float) -> None:
    """A map that holds each cell's centre in pixels returns the pixel it is read at (away from the border)."""
    stride = 4
    centers_x = (torch.arange(16) + 0.5) * stride - 0.5
    centers_y = (torch.arange(12) + 0.5) * stride - 0.5
    ramp = torch.stack(torch.meshgrid(centers_x, centers_y, indexing="xy"))[None]
    read = sample_map(ramp, torch.tensor([[[x, y]]]), stride)[0, 0]
    low, high = torch.tensor([1.5, 1.5]), torch.tensor([61.5, 45.5])
    expected = torch.minimum(torch.maximum(torch.tensor([x, y]), low), high)
    torch.testing.assert_close(read, expected, atol=1e-3, rtol=0)


@given(
    height=st.integers(1, 9), width=st.integers(1, 9), stride=st.sampled_from([2, 4, 8]), seed=st.integers(0, 1000)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_reading_without_gradients_gives_the_same(height: int, width: int, stride: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    feature_map = torch.randn(2, 5, height, width, generator=generator)
    points = (torch.rand(2, 7, 3, 2, generator=generator) * 1.6 - 0.3) * stride * max(height, width)
    with torch.no_grad():
        fast = sample_map(feature_map, points, stride)
    torch.testing.assert_close(fast, sample_map(feature_map, points, stride), atol=1e-4, rtol=1e-4)


def test_reduced_precision_keeps_the_promises_and_the_places(detector: SemanticKeypointDetector) -> None:
    image = texture(96, 128, 9)
    exact = SemanticKeypointDetector(extraction=ExtractionConfig(max_keypoints=200, precision="float32")).optimize()
    exact.load_state_dict(detector.state_dict())
    reduced = SemanticKeypointDetector(extraction=ExtractionConfig(max_keypoints=200, precision="bfloat16")).optimize()
    reduced.load_state_dict(detector.state_dict())
    features = reduced.extract(image)
    check_promises(features, 128, 96, 200)
    near = torch.cdist(exact.extract(image).keypoints, features.keypoints).min(dim=1).values
    assert (near < 0.5).float().mean() > 0.6  # random weights give near-ties; trained ones agree on 95 %


def test_precision_follows_the_processor(tmp_path: Path) -> None:
    modern, old = tmp_path / "modern", tmp_path / "old"
    modern.write_text("processor : 0\nflags\t\t: fpu sse avx512f avx512_bf16\n")
    old.write_text("processor : 0\nflags\t\t: fpu sse avx2\n")
    assert cpu_has_bfloat16(modern)
    assert not cpu_has_bfloat16(old)
    assert not cpu_has_bfloat16(tmp_path / "missing")
    assert not uses_bfloat16("auto", torch.device("cuda"))
    assert uses_bfloat16("bfloat16", torch.device("cpu"))
    assert not uses_bfloat16("float32", torch.device("cpu"))
    with pytest.raises(ConfigError, match="precision is 'half'"):
        ExtractionConfig.from_mapping({"precision": "half"})


def test_reliability_does_not_train_the_rest() -> None:
    model = SemanticKeypointDetector().train()
    maps = model(torch.randn(2, 1, 64, 64))
    peaks = model.detect(score_from_log_probability(maps.log_probability[0, 0]))
    keypoints = model.refine(maps.detail[:1], peaks)
    model.predict_reliability(maps.image(0), keypoints, peaks).sum().backward()
    assert all(p.grad is not None for p in model.reliability.parameters())
    assert all(p.grad is None for p in model.stem.parameters())
    assert all(p.grad is None for p in model.pyramid.parameters())


@pytest.mark.parametrize("kind", ["pixels", "cells"])
def test_every_other_part_learns(kind: Detector) -> None:
    model = SemanticKeypointDetector(ModelConfig(detector=kind)).train()
    maps = model(torch.randn(2, 1, 64, 64))
    points = torch.rand(2, 7, 2) * 60
    peaks = model.detect(score_from_log_probability(maps.log_probability[0, 0]))
    loss = model.describe(maps, points)[..., 0].sum() + model.place(maps.coarse).sum()
    loss = loss + model.refine(maps.detail[:1], peaks).sum()
    loss.backward()
    detached = ("reliability", "covariance")
    silent = [n for n, p in model.named_parameters() if p.grad is None and not n.startswith(detached)]
    assert silent == []


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'max_keypoints'"):
        ExtractionConfig.from_mapping({"max_keypoint": 5})
    with pytest.raises(ConfigError, match="max_keypoints is 0"):
        ExtractionConfig(max_keypoints=0)
    with pytest.raises(ConfigError, match="unknown key"):
        ModelConfig.from_mapping({"stem": [1]})


def test_a_model_without_stride_2_maps_extracts_and_trains() -> None:
    config = ModelConfig(
        stem_channels=(24, 32), detector="cells", detail_stride=4, detail_channels=24, context_channels=(48, 48)
    )
    model = SemanticKeypointDetector(config)
    maps = model(torch.randn(2, 1, 64, 96))
    assert maps.log_probability.shape == (2, 1, 64, 96)
    assert maps.detail.shape == (2, 24, 16, 24)
    assert maps.fine.shape[-2:] == (16, 24)
    maps.log_probability.sum().backward()
    assert all(parameter.grad is not None for parameter in model.detail.parameters())
    features = model.eval().extract(block_tensor(70, 99))
    assert len(features) > 0
    assert features.descriptors.shape == (len(features), 64)
    assert (features.keypoints <= torch.tensor([98.0, 69.0])).all()


def test_no_keypoints_at_the_edge_of_an_image(detector: SemanticKeypointDetector) -> None:
    scores = torch.rand(160, 200)
    for border, kept in ((8, 8), (3, 3), (0, 2), (20, 10)):  # at least half the window, at most a sixteenth of the side
        pixels = detector.detect(scores, ExtractionConfig(border=border, max_keypoints=5000)).pixels
        assert pixels.min() == kept
        assert pixels[:, 0].max() == 200 - 1 - kept
        assert pixels[:, 1].max() == 160 - 1 - kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [2, 4, 8])
def test_cells_are_those_of_torch(side: int, dtype: torch.dtype) -> None:
    image = torch.randn(2, 1, 32, 48).to(dtype)
    cells = image_to_cells(image, side)
    torch.testing.assert_close(cells, torch.nn.functional.pixel_unshuffle(image, side), rtol=0, atol=0)
    assert cells.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(cells_to_image(cells, side), image, rtol=0, atol=0)
    torch.testing.assert_close(merge_cells(cells, side, 8), image_to_cells(image, 8), rtol=0, atol=0)


def test_cells_pass_gradients_on() -> None:
    image = torch.randn(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i: merge_cells(image_to_cells(i, 4), 4, 8), image)
