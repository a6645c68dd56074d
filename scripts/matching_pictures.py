"""The pictures of docs/matching.md, from a rendered room: ``python scripts/matching_pictures.py docs/matching``.

``--lightglue FILE`` and ``--refiner FILE`` add those of what ``semkey train-matcher`` and ``train-refiner`` wrote.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

import semkey
from semkey.datasets.sequence import Frame
from semkey.geometry.transforms import inverse, transform_points
from semkey.rendering import RoomConfig
from semkey.rendering.dataset import render_room, room_camera

ROOM = RoomConfig(seed=11, frames=16, width=480, height=360)
FIRST, SECOND = 0, 14
HALF = 12
SHOWN = 6
ZOOM = 9


def true_places(frame0: Frame, frame1: Frame, keypoints: np.ndarray) -> np.ndarray:
    """Where keypoints (N, 2) of the first frame lie in the second, by the exact depth."""
    camera = room_camera(ROOM)
    x, y = np.rint(keypoints).astype(int).T
    assert frame0.depth is not None
    points = camera.backproject(keypoints.astype(np.float64), frame0.depth[y, x].astype(np.float64))
    assert frame0.T_world_cam is not None
    assert frame1.T_world_cam is not None
    return camera.project(transform_points(inverse(frame1.T_world_cam) @ frame0.T_world_cam, points))


def patch(image: np.ndarray, place: np.ndarray, marks: list[tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    """The surroundings of a place, enlarged, with crosses."""
    size = (2 * HALF + 1) * ZOOM
    # The centre of the enlarged picture shows the place itself.
    to_view = np.array([[ZOOM, 0, (size - 1) / 2 - ZOOM * place[0]], [0, ZOOM, (size - 1) / 2 - ZOOM * place[1]]])
    view = cv2.warpAffine(image, to_view, (size, size), flags=cv2.INTER_NEAREST)
    for mark, color in marks:
        centre = tuple(np.rint(to_view @ np.append(mark, 1.0)).astype(int).tolist())
        cv2.drawMarker(view, centre, color, cv2.MARKER_CROSS, 3 * ZOOM, 2)
    return view


def main(folder: Path, lightglue: Path | None, refiner: Path | None) -> None:
    """Draw all pictures."""
    frames = list(render_room(ROOM))
    frame0, frame1 = frames[FIRST], frames[SECOND]
    detector = semkey.load("compact", max_keypoints=400, guide="vit-tiny")
    features0, features1 = detector.extract(frame0.image), detector.extract(frame1.image)
    places = true_places(frame0, frame1, features0.keypoints.numpy())
    found = {name: semkey.match(features0, features1, matcher=name) for name in ("ratio", "dual-softmax")}
    found["guided"] = semkey.match(features0, features1)
    features0, features1 = replace(features0, semantics=None), replace(features1, semantics=None)
    found["mnn"] = semkey.match(features0, features1)
    if lightglue is not None:
        found["lightglue"] = semkey.match(features0, features1, matcher=lightglue)
    for name, matches in found.items():
        miss = np.linalg.norm(
            features1.keypoints.numpy()[matches.indices[:, 1]] - places[matches.indices[:, 0]], axis=1
        )
        right = miss < 3
        caption = f"{name}: {len(matches)} matches, {int(right.sum())} within 3 px of the truth (green)"
        print(caption)
        drawn = semkey.draw_matches(
            frame0.image, frame1.image, features0, features1, matches, inliers=right, caption=caption
        )
        save(folder / f"{name}.jpg", np.asarray(drawn.pixels))
    pair = (frame0, frame1)
    draw_refinement(folder / "refine.jpg", pair, (features0, features1), found["mnn"], places, "alignment")
    if refiner is not None:
        draw_refinement(folder / "refine-learned.jpg", pair, (features0, features1), found["mnn"], places, refiner)


def draw_refinement(
    path: Path,
    frames: tuple[Frame, Frame],
    features: tuple[semkey.Features, semkey.Features],
    matches: semkey.Matches,
    places: np.ndarray,
    method: str | Path,
) -> None:
    """Surroundings of some right matches: in image 0, in image 1 as matched, and in image 1 as refined."""
    images = [frame.image for frame in frames]
    refined = semkey.refine(*features, matches, *images, method=method)
    truth = places[matches.indices[:, 0]]
    first = refined.points0.numpy()
    before = features[1].keypoints.numpy()[matches.indices[:, 1]]
    after = refined.points1.numpy()
    misses = [np.linalg.norm(points - truth, axis=1) for points in (before, after)]
    near = np.flatnonzero((misses[0] < 2.5) & refined.moved.numpy())
    step = max(1, len(near) // SHOWN)
    # Those in the middle of the ranking by how far they were off: neither the best nor the worst.
    chosen = near[np.argsort(misses[0][near])][step // 2 :: step][:SHOWN]
    rows = [
        [patch(images[0], first[k], [(first[k], (255, 255, 0))]) for k in chosen],
        [patch(images[1], before[k], [(truth[k], (0, 255, 0)), (before[k], (255, 60, 60))]) for k in chosen],
        [patch(images[1], after[k], [(truth[k], (0, 255, 0)), (after[k], (80, 160, 255))]) for k in chosen],
    ]
    save(path, np.vstack([np.hstack(row) for row in rows]))
    medians = [float(np.median(miss[near])) for miss in misses]
    print(f"{path.name}: {len(near)} right matches moved, median error {medians[0]:.2f} -> {medians[1]:.2f} px")


def save(path: Path, image: np.ndarray) -> None:
    """A small JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 70])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lightglue", type=Path)
    parser.add_argument("--refiner", type=Path)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.lightglue, arguments.refiner)
