"""Procedural pictures: posters, book rows, doors, drawers, screens and windows, painted like :mod:`.textures`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.rendering.textures import Color, Image, Painter, plain, value_noise, wood


def _random_color(rng: np.random.Generator) -> Color:
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.05, 0.75), rng.uniform(0.2, 0.9)
    pixel = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0]
    return float(pixel[0]), float(pixel[1]), float(pixel[2])


def _gradient(height: int, width: int, top: Color, bottom: Color) -> Image:
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image = (1 - ramp) * np.asarray(top, np.float32) + ramp * np.asarray(bottom, np.float32)
    return np.broadcast_to(image, (height, width, 3)).copy()


def _text(rng: np.random.Generator, image: Image, box: tuple[int, int, int, int], line: float, color: Color) -> None:
    """Rows of strokes that look like writing, inside ``box`` = (x0, y0, x1, y1), rows ``line`` texels apart."""
    x0, y0, x1, y1 = box
    size = max(2.0, 0.6 * line)
    thickness = max(1, round(size / 7))
    baseline = y0 + line
    while baseline < y1:
        x = float(x0)
        end = x1 if rng.random() < 0.75 else x0 + (x1 - x0) * rng.uniform(0.3, 0.9)
        while x < end - size:
            if rng.random() < 0.16:
                x += 0.5 * size
                continue
            strokes = rng.uniform(0, 1, (int(rng.integers(2, 4)), 2)) * (0.55 * size, -size) + (x, baseline)
            cv2.polylines(image, [strokes.astype(np.int32)], rng.random() < 0.3, color, thickness, cv2.LINE_AA)
            x += 0.75 * size
        baseline += line


def _shapes(rng: np.random.Generator, image: Image, count: int) -> None:
    height, width = image.shape[:2]
    for _ in range(count):
        color, center = _random_color(rng), rng.uniform(0, 1, 2) * (width, height)
        radius = float(rng.uniform(0.03, 0.28)) * min(height, width)
        kind = rng.integers(4)
        if kind == 0:
            cv2.circle(image, (int(center[0]), int(center[1])), max(1, int(radius)), color, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = center + rng.normal(0, radius, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(image, [corners.astype(np.int32)], color, cv2.LINE_AA)
        elif kind == 2:
            end = center + rng.normal(0, 2 * radius, 2)
            thickness = max(1, int(rng.uniform(0.005, 0.03) * width))
            cv2.line(image, (int(center[0]), int(center[1])), (int(end[0]), int(end[1])), color, thickness, cv2.LINE_AA)
        else:
            axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.3, 1.0))))
            angle, thickness = float(rng.uniform(0, 180)), max(1, int(0.02 * width))
            position = (int(center[0]), int(center[1]))
            cv2.ellipse(image, position, axes, angle, 0, float(rng.uniform(120, 360)), color, thickness, cv2.LINE_AA)


def _landscape(rng: np.random.Generator, height: int, width: int) -> Image:
    """Sky, ranges of hills and a textured foreground."""
    warm = rng.random() < 0.4
    image = _gradient(height, width, (0.9, 0.55, 0.35) if warm else (0.35, 0.58, 0.9), (0.95, 0.9, 0.82))
    image += 0.25 * value_noise(rng, height, width, (height / 5, width / 2), 4)[:, :, None]
    rows = np.arange(height)[:, None]
    tint = np.asarray(_random_color(rng), np.float32) * (0.8, 1.0, 0.7)
    for layer in range(5):
        ridge = value_noise(rng, 2, width, (2, width * 0.5 / (1 + 0.3 * layer)), 6)[0]
        horizon = height * (0.35 + 0.14 * layer + 0.22 * ridge)
        detail = value_noise(rng, height, width, height / (4 + 2 * layer), 5)
        shade = (0.75 - 0.11 * layer) * (1.0 + 0.8 * detail)
        color = shade[:, :, None] * (tint * (layer + 1) / 5 + np.float32(0.7) * (4 - layer) / 5)
        image = np.where((rows > horizon[None])[:, :, None], color, image)
    return np.clip(image, 0, 1).astype(np.float32)


def poster(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """A framed picture: landscape, abstract shapes, a printed page or a chart."""
    kind = rng.choice(("landscape", "shapes", "page", "mixed"))
    if kind == "landscape":
        image = _landscape(rng, height, width)
    elif kind == "shapes":
        image = _gradient(height, width, _random_color(rng), _random_color(rng))
        _shapes(rng, image, int(rng.integers(10, 30)))
    elif kind == "page":
        image = _gradient(height, width, (0.93, 0.92, 0.88), (0.9, 0.89, 0.86))
        margin, line = round(0.1 * width), max(4.0, rng.uniform(0.018, 0.03) / texel)
        title = (margin, margin // 2, width - margin, margin // 2 + round(3.2 * line))
        _text(rng, image, title, 2.6 * line, _random_color(rng))
        inset = image[round(0.2 * height) : round(0.5 * height), margin : width - margin]
        if min(inset.shape[:2]) > 8:
            inset[:] = _landscape(rng, *inset.shape[:2])
        _text(rng, image, (margin, round(0.53 * height), width - margin, height - margin), line, (0.12, 0.12, 0.14))
    else:
        image = _gradient(height, width, _random_color(rng), _random_color(rng))
        _shapes(rng, image, int(rng.integers(6, 14)))
        line = max(4.0, rng.uniform(0.03, 0.07) / texel)
        ink = (0.05, 0.05, 0.07) if image.mean() > 0.5 else (0.95, 0.95, 0.9)
        _text(rng, image, (width // 12, height // 20, width - width // 12, height // 3), line, ink)
    border = max(1, round(0.02 / texel))
    if rng.random() < 0.6:
        cv2.rectangle(image, (0, 0), (width - 1, height - 1), (0.92, 0.91, 0.88), 4 * border)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), color, 2 * border)
    return image


def books(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Shelf boards about 30 cm apart with book spines of all colours, titles and gaps."""
    image = plain(rng, height, width, texel, (0.09, 0.07, 0.06))
    board = max(2, round(0.025 / texel))
    shelves = max(1, round(height * texel / 0.32))
    pitch = height / shelves
    for shelf in range(shelves):
        floor = round((shelf + 1) * pitch) - board
        clear = pitch - 1.5 * board
        x = board
        while x < width - board:
            if rng.random() < 0.06:
                x += int(rng.uniform(0.02, 0.12) / texel)
                continue
            thickness = max(2, int(rng.uniform(0.012, 0.055) / texel))
            right, tall = min(x + thickness, width - board), int(clear * rng.uniform(0.62, 0.97))
            spine = _random_color(rng)
            across = np.linspace(-1, 1, max(right - x, 1), dtype=np.float32)
            shading = (1.0 - 0.35 * across**2)[None, :, None]
            image[floor - tall : floor, x:right] = np.asarray(spine, np.float32) * shading
            ink = (0.92, 0.88, 0.7) if sum(spine) < 1.5 else (0.1, 0.08, 0.08)
            for band in rng.uniform(0.06, 0.94, int(rng.integers(1, 4))):
                row = floor - int(tall * band)
                cv2.line(image, (x, row), (right - 1, row), ink, max(1, int(0.004 / texel)))
            if right - x > 5:
                middle, step = (x + right) // 2, max(2, int(0.008 / texel))
                reach = max(1, (right - x) // 4)
                for row in range(floor - int(0.8 * tall), floor - int(tall * rng.uniform(0.2, 0.5)), step):
                    offset = rng.integers(-reach, reach + 1, 2)
                    start, end = (middle + int(offset[0]), row), (middle + int(offset[1]), row + step - 1)
                    cv2.line(image, start, end, ink, 1, cv2.LINE_AA)
            x = right
        image[floor : floor + board] = color
    image[:board] = image[-board:] = color
    image[:, :board] = image[:, -board:] = color
    return image


def _panels(rng: np.random.Generator, image: Image, rows: int, columns: int, texel: float, handles: bool) -> Image:
    """Split a front into framed panels with a dark gap, a bright upper edge and a handle each."""
    height, width = image.shape[:2]
    gap, inset = max(1, round(0.004 / texel)), max(2, round(0.045 / texel))
    metal = (0.75, 0.74, 0.72) if rng.random() < 0.6 else (0.12, 0.11, 0.1)
    for row in range(rows):
        for column in range(columns):
            x0, x1 = round(column * width / columns), round((column + 1) * width / columns) - 1
            y0, y1 = round(row * height / rows), round((row + 1) * height / rows) - 1
            panel = image[y0:y1, x0:x1]
            panel *= np.float32(rng.uniform(0.93, 1.05))
            cv2.rectangle(image, (x0, y0), (x1, y1), (0.06, 0.05, 0.05), gap)
            if x1 - x0 > 4 * inset and y1 - y0 > 4 * inset:
                mean = panel.mean(axis=(0, 1))
                dark, bright = tuple((mean * 0.6).tolist()), tuple(np.minimum(mean * 1.3, 1).tolist())
                cv2.rectangle(image, (x0 + inset, y0 + inset), (x1 - inset, y1 - inset), dark, gap)
                cv2.line(image, (x0 + inset, y1 - inset + gap), (x1 - inset, y1 - inset + gap), bright, gap)
            if handles:
                upright = (y1 - y0) > 1.5 * (x1 - x0)
                center = ((x0 + x1) // 2, (y0 + y1) // 2)
                if upright:
                    center = (x1 - inset // 2 - gap if column % 2 == 0 else x0 + inset // 2 + gap, center[1])
                reach = round(0.06 / texel)
                half = (max(1, gap), reach) if upright else (reach, max(1, gap))
                start, end = (center[0] - half[0], center[1] - half[1]), (center[0] + half[0], center[1] + half[1])
                shadow = round(0.006 / texel)
                cv2.rectangle(image, (start[0] + shadow, start[1] + shadow), (end[0] + shadow, end[1] + shadow), 0, -1)
                cv2.rectangle(image, start, end, metal, -1)
    return image


def _front(rng: np.random.Generator, color: Color) -> Painter:
    """Brown fronts mostly show their grain, others are painted."""
    return wood if color[0] > 1.25 * color[2] and rng.random() < 0.75 else plain


def drawers(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """A wooden or painted front of drawers or cupboard doors with handles."""
    base = _front(rng, color)
    tall = height * texel > 1.2
    rows = int(rng.integers(1, 3)) if tall else int(rng.integers(2, 5))
    columns = max(1, round(width * texel / (0.5 if tall else 0.6)))
    return _panels(rng, base(rng, height, width, texel, color), rows, columns, texel, handles=True)


def door(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """A room door with panels and a handle."""
    base = _front(rng, color)
    image = _panels(rng, base(rng, height, width, texel, color), int(rng.integers(2, 4)), 1, texel, handles=False)
    x, y, reach = round(0.07 / texel), round(height - 1.0 / texel), round(0.11 / texel)
    thickness = max(1, round(0.018 / texel))
    cv2.rectangle(image, (x - thickness, y - 2 * reach // 3), (x + thickness, y + reach), (0.6, 0.58, 0.5), -1)
    cv2.line(image, (x, y), (x + reach, y), (0.85, 0.83, 0.75), thickness)
    return image


def screen(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """A switched-on monitor with windows full of text and a picture."""
    image = _gradient(height, width, _random_color(rng), (0.08, 0.1, 0.2))
    for _ in range(3):
        x0, y0 = int(rng.uniform(0.03, 0.5) * width), int(rng.uniform(0.05, 0.45) * height)
        x1, y1 = min(width - 2, x0 + int(0.45 * width)), min(height - 2, y0 + int(0.5 * height))
        dark = rng.random() < 0.5
        paper, ink = ((0.12, 0.13, 0.16), (0.6, 0.85, 0.6)) if dark else ((0.93, 0.93, 0.95), (0.15, 0.15, 0.2))
        cv2.rectangle(image, (x0, y0), (x1, y1), paper, -1)
        bar = max(2, round(0.014 / texel))
        cv2.rectangle(image, (x0, y0), (x1, y0 + bar), _random_color(rng), -1)
        _text(rng, image, (x0 + bar, y0 + bar, x1 - bar, y1 - 2), max(4.0, 0.012 / texel), ink)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), color, max(2, round(0.025 / texel)))
    return image


def window(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """A bright view of trees and houses behind a frame with a cross bar."""
    image = 0.45 + 0.55 * _landscape(rng, height, width)
    for _ in range(int(rng.integers(1, 4))):
        x0, top = int(rng.uniform(0, 0.8) * width), int(rng.uniform(0.3, 0.6) * height)
        x1, wall = x0 + int(rng.uniform(0.15, 0.35) * width), _random_color(rng)
        wall = tuple(0.45 + 0.5 * channel for channel in wall)
        cv2.rectangle(image, (x0, top), (x1, height), wall, -1)
        roof = np.array([[x0 - 6, top], [x1 + 6, top], [(x0 + x1) // 2, top - (x1 - x0) // 3]])
        cv2.fillPoly(image, [roof.astype(np.int32)], (0.7, 0.45, 0.4), cv2.LINE_AA)
        step = max(6, round(0.06 / texel))
        for y in range(top + step // 2, height, 2 * step):
            for x in range(x0 + step // 2, x1 - step // 2, 2 * step):
                cv2.rectangle(image, (x, y), (x + step // 2, y + step), (0.35, 0.4, 0.5), -1)
    bar = max(2, round(0.05 / texel))
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), color, 2 * bar)
    cv2.line(image, (width // 2, 0), (width // 2, height), color, bar)
    cv2.line(image, (0, height // 3), (width, height // 3), color, max(1, bar // 2))
    return image


def label(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """A printed carton, tin or book cover: colour, a few shapes, writing."""
    image = _gradient(height, width, color, _random_color(rng))
    _shapes(rng, image, int(rng.integers(2, 6)))
    line = max(4.0, rng.uniform(0.012, 0.025) / texel)
    ink = (0.05, 0.05, 0.05) if image.mean() > 0.5 else (0.95, 0.95, 0.95)
    _text(rng, image, (width // 10, height // 3, width - width // 10, height - height // 8), line, ink)
    return image


def clock(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """A square wall clock with twelve marks and two hands."""
    image = plain(rng, height, width, texel, (0.93, 0.93, 0.9))
    center, radius = np.array([width / 2, height / 2]), 0.45 * min(height, width)
    thickness = max(1, round(0.006 / texel))

    def hand(angle: float, inner: float, outer: float, width_px: int) -> None:
        direction: NDArray[np.float64] = np.array([np.cos(angle), np.sin(angle)])
        start, end = center + inner * radius * direction, center + outer * radius * direction
        cv2.line(image, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), (0.1,) * 3, width_px, cv2.LINE_AA)

    for hour in range(12):
        hand(hour * np.pi / 6, 0.8, 0.95, thickness)
    hand(float(rng.uniform(0, 6.3)), 0.0, 0.5, 2 * thickness)
    hand(float(rng.uniform(0, 6.3)), 0.0, 0.75, thickness)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), color, 3 * thickness)
    return image


PICTURES: dict[str, Painter] = {
    painter.__name__: painter for painter in (poster, books, drawers, door, screen, window, label, clock)
}
