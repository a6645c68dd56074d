"""A map in a folder for COLMAP or nerfstudio: the model, and where the recording is given, images and depth."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from semkey.errors import InputError
from semkey.images.writing import write_image
from semkey.interop.colmap import write_colmap_model
from semkey.interop.map_part import MapPart
from semkey.interop.nerfstudio import DEPTH_UNITS_PER_METRE, transforms, write_transforms
from semkey.interop.recording import Recording
from semkey.slam.output.ply import write_points

FolderFormat = Literal["colmap", "nerfstudio"]
Progress = Callable[[int, int], None]

_LARGEST_DEPTH = np.iinfo(np.uint16).max
_POINTS = "points.ply"


@contextmanager
def new_folder(folder: str | Path) -> Generator[Path]:
    """A folder that gets its name when all is in it; nothing is left behind where that fails.

    Raises:
        InputError: something of that name is there and is no empty folder, or it cannot be written.
    """
    target = Path(folder)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target} exists and is not an empty folder; remove it or choose another name")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def export_folder(
    kind: FolderFormat, folder: str | Path, part: MapPart, recording: Recording | None, progress: Progress | None = None
) -> str:
    """Write a map for COLMAP (``sparse/0``, ``images``) or nerfstudio (``transforms.json``, ``images``, ``depth``).

    Args:
        kind: for which program.
        folder: must not exist, or be empty.
        part: the map.
        recording: where images and depth come from; None for poses and points alone.
        progress: called with keyframes done and their number.

    Returns:
        What was written, in a sentence.

    Raises:
        InputError: the folder is not empty or cannot be written; pycolmap is not installed; no image can be read.
    """
    names = [f"frame_{keyframe.frame.index:06d}_{keyframe.id:06d}.png" for keyframe in part.keyframes]
    with new_folder(folder) as place:
        written, depths = _write_images(place, part, recording, names, kind == "nerfstudio", progress)
        if recording is not None and not any(written):
            raise InputError(f"{recording.sequence.name}: none of the keyframes' images can be read")
        chosen = [number for number in range(len(names)) if written[number] or recording is None]
        kept, kept_names = replace(part, keyframes=[part.keyframes[n] for n in chosen]), [names[n] for n in chosen]
        if kind == "colmap":
            said = write_colmap_model(kept, kept_names, place / "sparse" / "0")
        else:
            write_points(place / _POINTS, part.points, part.colors)
            content = transforms(
                part.camera,
                [keyframe.T_world_cam for keyframe in kept.keyframes],
                [f"images/{name}" for name in kept_names],
                [f"depth/{names[n]}" if depths[n] else None for n in chosen],
                points=_POINTS,
            )
            write_transforms(place, content)
            said = f"{len(chosen)} frames, {len(part.points)} points"
    if recording is None:
        return f"{said}; no images, for which the recording has to be given"
    lost = len(names) - sum(written)
    return f"{said}; {sum(written)} images, {sum(depths)} with depth" + (
        f"; {lost} keyframes have no readable frame at their time in the recording" if lost else ""
    )


def _write_images(
    place: Path,
    part: MapPart,
    recording: Recording | None,
    names: list[str],
    with_depth: bool,
    progress: Progress | None,
) -> tuple[list[bool], list[bool]]:
    """Which keyframes' images, and which depth images, were written."""
    images, depths = [False] * len(names), [False] * len(names)
    if recording is None:
        return images, depths
    size = (part.camera.height, part.camera.width)
    for number, name in enumerate(names):
        frame = recording.read(number)
        if frame is not None:
            if frame.image.shape[:2] != size:
                raise InputError(
                    f"{recording.sequence.name}: its images are {frame.image.shape[1]}x{frame.image.shape[0]}, those "
                    f"of the map {size[1]}x{size[0]}"
                )
            write_image(place / "images" / name, frame.image)
            images[number] = True
            if with_depth and frame.depth is not None and part.is_metric:
                # What does not fit into 16 bits (beyond 65 m) is said to be unknown rather than to be nearer.
                raw = np.round(np.nan_to_num(frame.depth) * DEPTH_UNITS_PER_METRE)
                known = (raw > 0) & (raw <= _LARGEST_DEPTH)
                write_image(place / "depth" / name, np.where(known, raw, 0).astype(np.uint16))
                depths[number] = True
        if progress is not None:
            progress(number + 1, len(names))
    return images, depths
