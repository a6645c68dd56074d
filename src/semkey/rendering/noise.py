"""What a real camera adds to a perfect picture: motion blur, changing light, sensor noise, structured-light depth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]

_LONGEST_BLUR_TAPS = 13
_VIGNETTING = 0.16  # loss of light in the corners, display units
_SHOT_NOISE = 0.013  # variance per grey level
_READ_NOISE = 0.8  # grey levels, standard deviation
_DEPTH_MIN, _DEPTH_MAX = 0.4, 8.0  # metres
_DISPARITY_STEP = 1.0 / 8.0  # pixels at 640 pixels width
_BASELINE = 0.075  # metres between projector and infrared camera


def motion_blur(
    image: Image, depth: Depth, camera: PinholeCamera, T_start_mid: NDArray[np.float64], T_end_mid: NDArray[np.float64]
) -> Image:
    """Average the picture along each pixel's path during the exposure.

    Args:
        image: (H, W, 3) uint8 RGB at mid-exposure.
        depth: (H, W) float32 metres at mid-exposure.
        camera: pinhole camera of both.
        T_start_mid: (4, 4) transform from the camera at mid-exposure to the camera at its start.
        T_end_mid: (4, 4) transform from the camera at mid-exposure to the camera at its end.

    Returns:
        (H, W, 3) uint8 RGB; the same array where nothing moves by more than a third of a pixel.
    """
    start_x, start_y = _moved_pixels(depth, camera, T_start_mid)
    end_x, end_y = _moved_pixels(depth, camera, T_end_mid)
    flow_x, flow_y = end_x - start_x, end_y - start_y
    longest = float(np.percentile(np.hypot(flow_x[::8, ::8], flow_y[::8, ::8]), 95))
    if longest < 1.0 / 3.0:
        return image
    taps = int(np.clip(np.ceil(longest), 2, _LONGEST_BLUR_TAPS))
    columns = np.arange(camera.width, dtype=np.float32)[None]
    rows = np.arange(camera.height, dtype=np.float32)[:, None]
    total = np.zeros(image.shape, np.float32)
    for share in (np.arange(taps, dtype=np.float32) + np.float32(0.5)) / taps - np.float32(0.5):
        x, y = flow_x * share + columns, flow_y * share + rows
        cv2.accumulate(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), total)
    return cv2.convertScaleAbs(total, alpha=1.0 / taps).astype(np.uint8, copy=False)


def _moved_pixels(
    depth: Depth, camera: PinholeCamera, T_other_cam: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel's surface point lies in the other camera's image, x and y (H, W) float32."""
    turn = (camera.matrix @ T_other_cam[:3, :3] @ np.linalg.inv(camera.matrix)).astype(np.float32)
    shift = (camera.matrix @ T_other_cam[:3, 3]).astype(np.float32)
    columns = np.arange(camera.width, dtype=np.float32)[None]
    rows = np.arange(camera.height, dtype=np.float32)[:, None]
    inverse_depth = 1.0 / np.maximum(depth, np.float32(1e-3))
    x, y, w = (turn[k, 0] * columns + (turn[k, 1] * rows + turn[k, 2]) + shift[k] * inverse_depth for k in range(3))
    w = np.maximum(w, np.float32(1e-3))
    return x / w, y / w


def changing_light(
    image: Image, depth: Depth, camera: PinholeCamera, T_world_cam: NDArray[np.float64], time: float, seed: int
) -> Image:
    """Drift exposure and tint, and carry a lamp about the room.

    Args:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 metres.
        camera: pinhole camera of both.
        T_world_cam: (4, 4) pose.
        time: seconds; light changes over a few seconds.
        seed: fixes the course of the light.
    """
    rng = np.random.default_rng([seed, 5])
    phases, rates = rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.25, 0.9, 6)
    waves = np.sin(rates * 2 * np.pi * 0.5 * time + phases)
    tint = (0.82 + 0.24 * waves[0]) * (1.0 + 0.07 * waves[1:4])
    lamp_world = np.array([*(rng.uniform(1.5, 3.5, 2) + 1.5 * waves[4:6]), 1.8])
    lamp = T_world_cam[:3, :3].T @ (lamp_world - T_world_cam[:3, 3])
    columns = (np.arange(camera.width, dtype=np.float32)[None] - camera.cx) / camera.fx
    rows = (np.arange(camera.height, dtype=np.float32)[:, None] - camera.cy) / camera.fy
    square = (columns * depth - lamp[0]) ** 2 + (rows * depth - lamp[1]) ** 2 + (depth - lamp[2]) ** 2
    glow = (0.55 / (0.5 + square)).astype(np.float32)
    gain = tint.astype(np.float32) * (1.0 + glow)[:, :, None]
    return cv2.convertScaleAbs(image * gain).astype(np.uint8, copy=False)


def sensor_noise(image: Image, rng: np.random.Generator) -> Image:
    """Vignetting, then noise of variance ``0.013 * level + 0.8^2`` (shot and read noise, grey levels)."""
    height, width = image.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    noisy = image * (1.0 - np.float32(0.5 * _VIGNETTING) * (x * x + y * y))[:, :, None]
    deviation = np.sqrt(np.float32(_SHOT_NOISE) * noisy + np.float32(_READ_NOISE**2))
    noisy += deviation * rng.standard_normal(noisy.shape, np.float32)
    return np.clip(noisy + np.float32(0.5), 0, 255).astype(np.uint8)


def structured_light_depth(depth: Depth, camera: PinholeCamera, rng: np.random.Generator) -> Depth:
    """Depth as a Kinect-like sensor gives it.

    Axial noise sigma = 0.0012 + 0.0019 (z - 0.4)^2 m and lateral noise 0.8 px at 640 pixels width after Nguyen, Izadi
    and Lovell, *Modeling Kinect Sensor Noise*, 3DIMPVT 2012, eq. 2 and 4; disparity in steps of 1/8 px; holes beside
    jumps of more than 5 %, on surfaces seen at more than 80 degrees, and outside 0.4 to 8 m.

    Args:
        depth: (H, W) float32 metres, exact.
        camera: its pinhole camera.
        rng: source of the noise.

    Returns:
        (H, W) float32 metres, 0 where the sensor sees nothing.
    """
    height, width = depth.shape
    scale = width / 640.0
    x = np.arange(width, dtype=np.float32)[None] + rng.normal(0, 0.8 * scale, depth.shape).astype(np.float32)
    y = np.arange(height, dtype=np.float32)[:, None] + rng.normal(0, 0.8 * scale, depth.shape).astype(np.float32)
    measured = cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    sigma = 0.0012 + 0.0019 * (depth - 0.4) ** 2
    # Neighbouring pixels share most of the correlation window: smooth the noise, then restore its strength.
    grain = cv2.GaussianBlur(rng.standard_normal(depth.shape, np.float32), (0, 0), 0.8)
    measured = measured + sigma * grain / max(float(grain.std()), 1e-6)
    factor = camera.fx / scale * _BASELINE
    disparity = factor / np.maximum(measured, 0.05)
    measured = factor / np.maximum(np.round(disparity / _DISPARITY_STEP) * _DISPARITY_STEP, _DISPARITY_STEP)
    kernel = np.ones((3, 3), np.uint8)
    jump = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel) > 0.05 * depth
    inverse = 1.0 / np.maximum(depth, 1e-3)
    # For a plane, 1/z is affine in the pixel: its gradient gives the normal's tilt against the ray.
    slope_x = cv2.Sobel(inverse, cv2.CV_32F, 1, 0, scale=0.125, borderType=cv2.BORDER_REPLICATE) * camera.fx / inverse
    slope_y = cv2.Sobel(inverse, cv2.CV_32F, 0, 1, scale=0.125, borderType=cv2.BORDER_REPLICATE) * camera.fy / inverse
    grazing = slope_x**2 + slope_y**2 > np.tan(np.radians(80.0)) ** 2
    holes = jump & (rng.random(depth.shape, np.float32) < 0.85)
    holes |= grazing | (measured < _DEPTH_MIN) | (measured > _DEPTH_MAX)
    return np.where(holes, 0.0, measured).astype(np.float32)
