"""Rendered rooms one after the other as one recording: the camera is carried from each to the next with its eyes shut.

    python benchmarks/join_rooms.py OUT ROOM ROOM [ROOM...] [--frames N]    the first N frames of each

The rooms lie 100 m apart in the ground truth, so that a loop or a merge of two of them is one of different places.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from semkey.errors import InputError, SemkeyError

APART_M = 100.0
PAUSE_S = 2.0
LISTS = ("rgb.txt", "depth.txt", "groundtruth.txt")


def main() -> None:
    """Read the arguments and join."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("rooms", metavar="ROOM", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, help="of each room")
    args = parser.parse_args()
    try:
        join(args.out, args.rooms, args.frames)
    except SemkeyError as error:
        raise SystemExit(f"error: {error}") from None


def join(out: Path, rooms: list[Path], frames: int | None = None) -> None:
    """Write ``out`` in the TUM RGB-D layout; images are hard links where the file system has them.

    Raises:
        InputError: ``out`` is there, a room is none of ``semkey render-room``, or their cameras differ.
    """
    if out.exists():
        raise InputError(f"{out} is there already")
    cameras = {_read(room / "camera.txt") for room in rooms}
    if len(cameras) > 1:
        raise InputError(f"{', '.join(map(str, rooms))} have different cameras")
    lists = [{name: _rows(room / name)[:frames] for name in LISTS} for room in rooms]
    if any(not rows for room in lists for rows in room.values()):
        raise InputError(f"{', '.join(map(str, rooms))}: one of them has no frames, or none are wanted")
    for folder in ("rgb", "depth"):
        (out / folder).mkdir(parents=True)
    joined: dict[str, list[str]] = {name: [] for name in LISTS}
    start = 0.0
    for number, (room, rows) in enumerate(zip(rooms, lists, strict=True)):
        for name in ("rgb.txt", "depth.txt"):
            for stamp, picture in rows[name]:
                time = f"{start + float(stamp):.6f}"
                copy = f"{name[:-4]}/{time}.png"
                _link(room / picture, out / copy)
                joined[name].append(f"{time} {copy}")
        for stamp, x, *rest in rows["groundtruth.txt"]:
            joined["groundtruth.txt"].append(
                f"{start + float(stamp):.6f} {float(x) + number * APART_M:.9f} {' '.join(rest)}"
            )
        start += float(rows["rgb.txt"][-1][0]) + PAUSE_S
    for name, lines in joined.items():
        (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(rooms[0] / "camera.txt", out / "camera.txt")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise InputError(f"{path}: cannot be read; give folders of semkey render-room") from None


def _rows(path: Path) -> list[list[str]]:
    return [line.split() for line in _read(path).splitlines() if line and not line.startswith("#")]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


if __name__ == "__main__":
    main()
