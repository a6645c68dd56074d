"""A small recording in the TUM layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, FOCAL, DISTANCE = 320, 240, 300.0, 2.0


def write_tum(folder: Path, frames: int = 8, *, shift_px: int = 9) -> Path:
    """A camera that slides along a textured wall: every frame is a window into one large picture."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH + frames * shift_px, 3)).astype(np.float32), (0, 0), 2)
    wall = np.clip((wall - wall.mean()) * 6 + 128, 0, 255).astype(np.uint8)
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for k in range(frames):
        stamp = f"{100 + 0.1 * k:.4f}"
        cv2.imwrite(str(folder / f"rgb/{stamp}.png"), wall[:, k * shift_px : k * shift_px + WIDTH])
        cv2.imwrite(str(folder / f"depth/{stamp}.png"), np.full((HEIGHT, WIDTH), round(DISTANCE * 5000), np.uint16))
        lists["rgb"].append(f"{stamp} rgb/{stamp}.png")
        lists["depth"].append(f"{stamp} depth/{stamp}.png")
        lists["groundtruth"].append(f"{stamp} {5 + k * shift_px * DISTANCE / FOCAL:.6f} 1 2 0 0 0 1")
    for name, rows in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return folder


CAMERA = ("--camera", f"{FOCAL},{FOCAL},{(WIDTH - 1) / 2},{(HEIGHT - 1) / 2}")
