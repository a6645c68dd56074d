"""A map to turn with the mouse, inside a page: points and paths on a canvas, by a few lines of JavaScript."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from semkey.visualization.palette import TRUTH, rgb

MOST_POINTS = 50_000
"""Of more points a random sample is shown: 600 KB of page."""
# What lies far outside (a wrong landmark) would leave the rest a dot.
_OUTSIDE_SHARE = 0.01
_STEPS = 32767
_CANVAS_STYLE = "width:100%;height:520px;touch-action:none;cursor:grab;border:1px solid #e2e6ea;border-radius:4px"

_SCRIPT = """
<script>
(() => {
  const HOST = document.currentScript.previousElementSibling;
  const text = name => HOST.querySelector('[data-name="' + name + '"]').textContent;
  const data = name => Uint8Array.from(atob(text(name)), c => c.charCodeAt(0));
  const canvas = HOST.querySelector('canvas'), pen = canvas.getContext('2d');
  const places = new Int16Array(data('points').buffer), colours = data('colours');
  const paths = JSON.parse(text('paths'));
  let yaw = -0.6, tilt = 0.9, zoom = 1.35, sx = 0, sy = 0, held = null;
  const project = (x, y, z, size) => {
    const a = x * Math.cos(yaw) - y * Math.sin(yaw), b = x * Math.sin(yaw) + y * Math.cos(yaw);
    const c = b * Math.cos(tilt) + z * Math.sin(tilt), s = size * zoom / 2;
    return [canvas.width / 2 + sx + a * s, canvas.height / 2 + sy - c * s];
  };
  const draw = () => {
    const wide = canvas.clientWidth * devicePixelRatio, high = canvas.clientHeight * devicePixelRatio;
    if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high; }
    const size = Math.min(wide, high), w = canvas.width, h = canvas.height;
    const image = pen.createImageData(w, h);
    image.data.fill(255);
    const dot = devicePixelRatio > 1 || places.length < 15000 ? 2 : 1;
    for (let k = 0; k < places.length / 3; k++) {
      const [x, y] = project(places[3 * k] / 32767, places[3 * k + 1] / 32767, places[3 * k + 2] / 32767, size);
      for (let dx = 0; dx <= dot; dx++) for (let dy = 0; dy <= dot; dy++) {
        const u = Math.round(x) + dx, v = Math.round(y) + dy;
        if (u < 0 || v < 0 || u >= w || v >= h) continue;
        image.data.set(colours.subarray(3 * k, 3 * k + 3), 4 * (v * w + u));
      }
    }
    pen.putImageData(image, 0, 0);
    pen.lineWidth = 2 * devicePixelRatio;
    for (const path of paths) {
      pen.strokeStyle = path.colour;
      pen.beginPath();
      let open = false;
      for (const place of path.places) {
        if (place === null) { open = false; continue; }
        const [x, y] = project(...place, size);
        if (open) pen.lineTo(x, y); else pen.moveTo(x, y);
        open = true;
      }
      pen.stroke();
    }
  };
  canvas.addEventListener('pointerdown', e => { held = e; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener('pointerup', () => { held = null; });
  canvas.addEventListener('pointermove', e => {
    if (!held) return;
    const dx = e.clientX - held.clientX, dy = e.clientY - held.clientY;
    if (e.shiftKey || held.button === 2) { sx += dx * devicePixelRatio; sy += dy * devicePixelRatio; }
    else { yaw += dx * 0.008; tilt = Math.max(-1.57, Math.min(1.57, tilt - dy * 0.008)); }
    held = {clientX: e.clientX, clientY: e.clientY, button: held.button};
    draw();
  });
  canvas.addEventListener('contextmenu', e => e.preventDefault());
  const turnWheel = e => { e.preventDefault(); zoom *= Math.exp(-e.deltaY * 0.001); draw(); };
  canvas.addEventListener('wheel', turnWheel, {passive: false});
  window.addEventListener('resize', draw);
  draw();
})();
</script>
"""


def turntable_html(
    points: NDArray[np.float64],
    colors: NDArray[np.uint8] | None,
    paths: Sequence[tuple[str, str, NDArray[np.float64]]],
    *,
    up: NDArray[np.float64],
    caption: str = "",
) -> str:
    """The lines of a page that show a map: drag turns it, shift and drag moves it, the wheel zooms.

    Args:
        points: (N, 3) landmarks, map units.
        colors: (N, 3) uint8 RGB; None draws grey.
        paths: name, colour (``#rrggbb``) and (M, 3) positions of each, with rows of NaN where they are broken.
        up: (3,) direction that is drawn upwards.
        caption: a line below.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    chosen = _sample(len(points))
    points = points[chosen]
    shades = np.full((len(points), 3), rgb(TRUTH), np.uint8) if colors is None else colors[chosen]
    axes = _upright(np.asarray(up, dtype=np.float64))
    shown = [positions @ axes.T for _, _, positions in paths]
    centre, extent = _frame([points @ axes.T, *(path[np.isfinite(path).all(axis=1)] for path in shown)])
    placed = (points @ axes.T - centre) / extent
    inside = (np.abs(placed) <= 1).all(axis=1)
    steps = np.round(placed[inside] * _STEPS).astype("<i2")
    lines = [
        _path(colour, (path - centre) / extent) for (_, colour, _), path in zip(paths, shown, strict=True) if len(path)
    ]
    legend = "".join(f'<span style="color:{escape(c)}">&#9632;</span> {escape(n)} &nbsp; ' for n, c, _ in paths)
    hint = "drag to turn, shift and drag to move, wheel to zoom"
    return (
        f'<figure class="turntable"><canvas style="{_CANVAS_STYLE}"></canvas>{_hidden("points", steps.tobytes())}'
        f"{_hidden('colours', shades[inside].astype(np.uint8).tobytes())}"
        f'<span hidden data-name="paths">[{",".join(lines)}]</span>'
        f"<figcaption>{legend}{escape(caption)} ({hint})</figcaption></figure>{_SCRIPT}"
    )


def _sample(count: int) -> NDArray[np.int64]:
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST_POINTS, replace=False))


def _upright(up: NDArray[np.float64]) -> NDArray[np.float64]:
    """A rotation (3, 3) that takes ``up`` to z."""
    z = up / max(float(np.linalg.norm(up)), 1e-12)
    x = np.cross(np.eye(3)[int(np.argmin(np.abs(z)))], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def _frame(places: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    """Middle and half extent of the bulk of all places; paths are in it with all of theirs."""
    points, *paths = [one for one in places if len(one)] or [np.zeros((1, 3))]
    low, high = np.quantile(points, [_OUTSIDE_SHARE, 1 - _OUTSIDE_SHARE], axis=0)
    for path in paths:
        low, high = np.minimum(low, path.min(axis=0)), np.maximum(high, path.max(axis=0))
    return (low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-9)


def _hidden(name: str, data: bytes) -> str:
    return f'<span hidden data-name="{name}">{base64.b64encode(data).decode("ascii")}</span>'


def _path(colour: str, places: NDArray[np.float64]) -> str:
    rows = ["null" if not np.isfinite(row).all() else "[{:.4f},{:.4f},{:.4f}]".format(*row) for row in places]
    return f'{{"colour":"{escape(colour)}","places":[{",".join(rows)}]}}'
