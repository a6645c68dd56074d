"""Endless clips of recordings, each a pair of its first and last frame with those between."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semkey.datasets import BrokenFrame, FrameSequence, open_sequence
from semkey.errors import DatasetError, SemkeyError
from semkey.files import atomic_write_bytes, atomic_write_text
from semkey.images import read_image
from semkey.training.data.augment import relight
from semkey.training.data.clips.flow import follow_points
from semkey.training.data.config import DataConfig
from semkey.training.data.depthless_config import ClipsConfig
from semkey.training.data.pair import (
    MAX_TARGETS,
    Pair,
    good_corners,
    inside,
    normalize,
    to_gray_values,
    view_entries,
)
from semkey.training.data.photos import Progress, Split
from semkey.training.data.planar import warp_image
from semkey.training.data.rgbd import random_crop

log = logging.getLogger(__name__)

_ATTEMPTS = 200
_FRAMES_KEPT = 48
_IN_ORDER_ONLY = ("video", "bag")
"""Formats whose frames are slow to read in another order: they are copied into the cache once."""
_QUALITY = 95


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """The frames of a recording on one side of the split.

    Attributes:
        name: for messages.
        number: of the recording in the configuration.
        frames: indices that may be used, in order.
        sequence: where they are read from; None where ``files`` has copies.
        files: copies in the cache by index.
    """

    name: str
    number: int
    frames: tuple[int, ...]
    sequence: FrameSequence | None = None
    files: dict[int, Path] | None = None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Image (H, W, 3) of frame ``index``.

        Raises:
            SemkeyError: it cannot be read.
        """
        if self.files is not None:
            return read_image(self.files[index])
        assert self.sequence is not None
        return self.sequence[index].image


def prepare_clips(
    config: ClipsConfig, cache: Path, size: tuple[int, int], val_share: float, split: Split, progress: Progress | None
) -> list[Recording]:
    """Open recordings; of each the last ``val_share`` is for validation.

    Raises:
        DatasetError: a recording is missing, or has too few frames on this side for one clip.
    """
    result = []
    for number, folder in enumerate(config.folders):
        sequence = open_sequence(folder).limited_to("mono")  # depth would be read for nothing
        if sequence.is_live:
            raise DatasetError(f"{folder}: a running camera is no recording")
        total = len(sequence)
        border = total - max(config.frames, round(val_share * total))
        frames = range(border) if split == "train" else range(max(border, 0), total)
        if len(frames) < config.frames:
            raise DatasetError(
                f"{folder}: {total} frames, of which {max(len(frames), 0)} are for "
                f"{'training' if split == 'train' else 'validation'}; a clip has {config.frames} (data.clips.frames)"
            )
        files = None
        if sequence.format in _IN_ORDER_ONLY:
            files = _copied(sequence, folder, cache, 2 * max(size), progress)
            frames = [index for index in frames if index in files]
        result.append(
            Recording(
                name=str(folder),
                number=number,
                frames=tuple(frames),
                sequence=None if files is not None else sequence,
                files=files,
            )
        )
    return result


class ClipPairs:
    """Endless clips; each recording is drawn equally often.

    View 0 is the first frame and view 1 the last, in either direction of time; all frames are cropped, scaled and
    turned alike, and each is relit by itself. ``warp10`` is the flow between them, and the points are corners that the
    flow follows through all frames: approximate, unlike those of other sources.

    Args:
        recordings: as :func:`prepare_clips` returns them.
        config: of all data.
        seed: pair ``index`` depends on this and the index alone.
        colors: the views are needed in colour as well.
    """

    def __init__(
        self, recordings: Sequence[Recording], config: DataConfig, seed: tuple[int, ...], *, colors: bool = False
    ) -> None:
        self._recordings, self._config, self._seed, self._colors = tuple(recordings), config, seed, colors
        self._images: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng([*self._seed, index])
        problem = ""
        for _ in range(_ATTEMPTS):
            recording = self._recordings[int(rng.integers(len(self._recordings)))]
            try:
                pair = self._pair(rng, recording, self._draw(rng, recording))
            except SemkeyError as error:
                problem = f"; the last error was: {error}"
                continue
            if pair is not None:
                return pair
        raise DatasetError(
            f"no clip with {self._config.clips.min_tracks} points tracked through {self._config.clips.frames} frames"
            f" in {_ATTEMPTS} draws: lower data.clips.max_gap, frames or min_tracks{problem}"
        )

    def _draw(self, rng: np.random.Generator, recording: Recording) -> list[NDArray[np.uint8]]:
        """Images of the frames of a clip, in either order."""
        count = self._config.clips.frames
        gap = min(int(rng.integers(1, self._config.clips.max_gap + 1)), (len(recording.frames) - 1) // (count - 1))
        first = int(rng.integers(len(recording.frames) - gap * (count - 1)))
        chosen = recording.frames[first : first + gap * (count - 1) + 1 : gap]
        images = [self._image(recording, index) for index in chosen]
        return images[::-1] if rng.random() < 0.5 else images

    def _pair(self, rng: np.random.Generator, recording: Recording, images: list[NDArray[np.uint8]]) -> Pair | None:
        config, clips = self._config, self._config.clips
        mix = rng.dirichlet([6.0, 6.0, 6.0]).astype(np.float32)
        source = (images[0].shape[1], images[0].shape[0])
        change = random_crop(rng, source, config.size, clips.rotation_deg)
        scale = float(np.sqrt(np.linalg.det(change[:2, :2])))
        shown = [image if self._colors else to_gray_values(image, mix) for image in images]
        views = [warp_image(image, change, config.size, scale, cv2.BORDER_REFLECT_101) for image in shown]
        ones = np.ones(source[::-1], np.uint8)
        valid = np.asarray(cv2.warpPerspective(ones, change, config.size, flags=cv2.INTER_LINEAR)) > 0
        if rng.random() < config.views.flips:
            views, valid = [np.ascontiguousarray(view[:, ::-1]) for view in views], valid[:, ::-1].copy()
        grays = [to_gray_values(view, mix) for view in views]
        places = follow_points(grays, clips.tolerance_px)
        tracks = _tracks(rng, grays[0], places, valid, config)
        if len(tracks) < clips.min_tracks:
            return None
        rows = rng.permutation(len(tracks))
        rows = np.concatenate([rows, rng.integers(len(tracks), size=max(config.points - len(tracks), 0))])
        tracks = tracks[rows[: config.points]]
        lit = [relight(rng, view, config.light) for view in views]
        middle = [normalize(to_gray_values(view, mix)) for view in lit[1:-1]]
        warp = np.where(valid[..., None], places[-1], np.float32(np.nan))
        pair: Pair = {
            **view_entries([lit[0], lit[-1]], mix),
            "H10": torch.full((3, 3), float("nan"), dtype=torch.float64),
            "warp10": torch.from_numpy(warp),
            "is_scene": torch.tensor(1.0),
            "points0": torch.from_numpy(tracks[:, 0].copy()),
            "points1": torch.from_numpy(tracks[:, -1].copy()),
            "targets0": torch.zeros(MAX_TARGETS, 3),
            "targets1": torch.zeros(MAX_TARGETS, 3),
            "valid0": torch.from_numpy(valid),
            "valid1": torch.from_numpy(valid.copy()),
            "scene": torch.tensor(recording.number),
            "clip": torch.tensor(recording.number),
            "frames": torch.stack(middle) if middle else torch.zeros(0, 1, config.height, config.width),
            "tracks": torch.from_numpy(tracks),
        }
        if self._colors:
            planes = [torch.from_numpy(view.transpose(2, 0, 1).copy()) for view in lit[1:-1]]
            none = torch.zeros(0, 3, config.height, config.width, dtype=torch.uint8)
            pair["frame_colors"] = torch.stack(planes) if planes else none
        return pair

    def _image(self, recording: Recording, index: int) -> NDArray[np.uint8]:
        key = (recording.number, index)
        if key not in self._images:
            self._images[key] = recording.read(index)
            if len(self._images) > _FRAMES_KEPT:
                self._images.popitem(last=False)
        self._images.move_to_end(key)
        return self._images[key]

    def __getstate__(self) -> dict[str, Any]:
        """Without the images in memory, for processes of a data loader."""
        return {**self.__dict__, "_images": OrderedDict()}


def clip_extras(config: DataConfig, *, colors: bool) -> dict[str, torch.Tensor]:
    """What pairs of other sources carry beside clips in a batch: nothing, in the shapes of a clip."""
    frames = config.clips.frames - 2
    extra = {
        "scene": torch.tensor(-1),
        "clip": torch.tensor(-1),
        "frames": torch.zeros(frames, 1, config.height, config.width),
        "tracks": torch.zeros(config.points, config.clips.frames, 2),
    }
    if colors:
        extra["frame_colors"] = torch.zeros(frames, 3, config.height, config.width, dtype=torch.uint8)
    return extra


def _tracks(
    rng: np.random.Generator,
    first: NDArray[np.uint8],
    places: NDArray[np.float32],
    valid: NDArray[np.bool_],
    config: DataConfig,
) -> NDArray[np.float32]:
    """(N, T, 2) places of the corners of the first frame that are inside all frames; at most ``config.points``."""
    corners = np.rint(good_corners(first, 2 * config.points)).astype(int)
    if len(corners) == 0:
        return np.zeros((0, len(places), 2), np.float32)
    tracks = places[:, corners[:, 1], corners[:, 0]].transpose(1, 0, 2)
    kept = valid[corners[:, 1], corners[:, 0]]
    for frame in range(tracks.shape[1]):
        kept = kept & inside(tracks[:, frame], config.size)
    return tracks[rng.permutation(np.flatnonzero(kept))[: config.points]]


def _copied(sequence: FrameSequence, path: Path, cache: Path, limit: int, progress: Progress | None) -> dict[int, Path]:
    """Copies of all frames that can be read, by index; the longer side at most ``limit``."""
    stat = path.stat()
    key = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {limit}"
    folder = cache / "clips" / hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    done = folder / "complete.txt"
    if not done.is_file():
        count = 0
        for frame in sequence.frames():
            if isinstance(frame, BrokenFrame):
                log.warning("frame left out: %s", frame.error)
                continue
            atomic_write_bytes(folder / f"{frame.index:06d}.jpg", _jpeg(frame.image, limit))
            count += 1
            if progress is not None:
                progress(frame.index + 1, len(sequence), f"frames of {sequence.name}")
        atomic_write_text(done, f"{count}\n")
    return {int(file.stem): file for file in sorted(folder.glob("*.jpg"))}


def _jpeg(image: NDArray[np.uint8], limit: int) -> bytes:
    height, width = image.shape[:2]
    scale = limit / max(width, height)
    size = (round(width * min(scale, 1.0)), round(height * min(scale, 1.0)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1.0 else image
    _, code = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return code.tobytes()
