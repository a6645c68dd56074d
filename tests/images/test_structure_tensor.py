"""The structure tensor against images whose derivatives are known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from semkey.errors import InputError
from semkey.images.structure_tensor import GRADIENT_SIGMA, structure_tensors

SIZE = (121, 160)


def wave(angle_deg: float, *, amplitude: float = 80.0, period: float = 24.0) -> np.ndarray:
    """Brightness that changes along one direction only."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    direction = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    phase = 2 * np.pi * (x * direction[0] + y * direction[1]) / period
    return np.clip(128 + amplitude * np.sin(phase), 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0, 140.0])
def test_a_wave_has_one_direction(angle_deg: float) -> None:
    keypoints = np.random.default_rng(0).uniform(30, 30 + 2 * 24, (2000, 2))  # whole periods
    tensors = structure_tensors(wave(angle_deg), keypoints)
    values, vectors = np.linalg.eigh(tensors)
    direction = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    assert np.abs(vectors[:, :, 1] @ direction).min() > 0.999
    assert (values[:, 0] < 0.02 * values[:, 1]).all()
    # Mean square slope of a sine, less what the derivative filter smooths away.
    omega = 2 * np.pi / 24.0
    smoothed = 80.0 * np.exp(-0.5 * (GRADIENT_SIGMA * omega) ** 2) * np.sin(omega)
    assert values[:, 1].mean() == pytest.approx(0.5 * smoothed**2, rel=0.05)


@pytest.mark.parametrize("size", [(120, 160), (121, 161)])
def test_it_is_read_where_the_keypoint_is(size: tuple[int, int]) -> None:
    """Around a spot the tensor is symmetric: a wrong half pixel in reading it would show."""
    y, x = np.mgrid[: size[0], : size[1]]
    centre = np.array([70.25, 59.5])
    spot = 30 + 200 * np.exp(-0.5 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 3.0**2)
    image = spot.round().astype(np.uint8)
    ring = np.arange(0, 2 * np.pi, np.pi / 4)
    around = centre + 3.0 * np.stack([np.cos(ring), np.sin(ring)], axis=1)
    traces = np.trace(structure_tensors(image, around), axis1=1, axis2=2)
    assert np.ptp(traces) < 0.06 * traces.mean()


def test_colour_flat_images_and_no_keypoints() -> None:
    grey = wave(20.0)
    keypoints = np.array([[40.0, 40.0], [-3.0, 500.0]])
    coloured = structure_tensors(np.repeat(grey[:, :, None], 3, axis=2), keypoints)
    np.testing.assert_allclose(coloured, structure_tensors(grey, keypoints), rtol=1e-5)
    assert structure_tensors(np.full((40, 50), 9, np.uint8), keypoints).max() < 1e-9
    assert structure_tensors(grey, np.zeros((0, 2))).shape == (0, 2, 2)
    with pytest.raises(InputError, match="uint8"):
        structure_tensors(grey.astype(np.float32), keypoints)


def test_images_after_each_other_do_not_mix() -> None:
    """The buffers of a thread are used again, by images of other sizes too."""
    rng = np.random.default_rng(1)
    keypoints = rng.uniform(10, 100, (50, 2))
    first, second = wave(30.0), rng.integers(0, 256, (90, 141), dtype=np.uint8)
    before = structure_tensors(first, keypoints)
    kept = before.copy()
    structure_tensors(second, keypoints)
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(structure_tensors(first, keypoints), kept)


def test_threads_have_buffers_of_their_own() -> None:
    images = [wave(angle) for angle in np.linspace(0, 170, 24)]
    keypoints = np.random.default_rng(1).uniform(10, 100, (50, 2))
    alone = [structure_tensors(image, keypoints) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: structure_tensors(image, keypoints), images * 4))
    for row, tensors in enumerate(together):
        np.testing.assert_array_equal(tensors, alone[row % len(images)])
