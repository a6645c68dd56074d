"""Pairs of frames of posed RGB-D sequences: correspondences by depth, pairs chosen by how much they share."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from semkey.datasets import Frame, FrameSequence, open_sequence
from semkey.errors import DatasetError
from semkey.extractors import create_extractor
from semkey.files import atomic_write_bytes
from semkey.geometry.transforms import inverse
from semkey.training.data.config import DataConfig, SequencesConfig
from semkey.training.data.pair import Pair, to_gray_values
from semkey.training.data.photos import Progress, Split
from semkey.training.data.planar import warp_image
from semkey.training.data.projection import DepthView, dense_warp, depth_pair, draw_by_overlap
from semkey.training.data.sequence_poses import KEYPOINTS, FrameKeypoints, find_keypoints, refine_relative_pose

Array = NDArray[np.float64]
Table = dict[str, NDArray[Any]]
"""Arrays with one row per pair, keys as the attributes of :class:`SequencePairs`."""

_FORMAT = "overlaps-2"
_GRID_WIDTH = 80  # overlap is measured between depth maps of this width
_STEP = 2  # and there on every second pixel of every second row
_COARSE_TOLERANCE = 0.1  # of depth, because a pixel of the small map covers a patch
_FRAMES_KEPT = 24  # per process; an image and its depth take 2 MB at 640x480
_ATTEMPTS = 200
_PAIRS_PER_FRAME = 8  # whose pose is refined


@dataclass(frozen=True, kw_only=True, eq=False)
class SequencePairs:
    """Overlapping frames of one sequence, each pair in both orders.

    Attributes:
        sequence: with depth, poses and a camera.
        pairs: (N, 2) int32 indices of frames.
        overlaps: (N,) float32, share of the first frame's pixels that the second one sees.
        transforms: (N, 4, 4) float64 T_cam1_cam0.
    """

    sequence: FrameSequence
    pairs: NDArray[np.int32]
    overlaps: NDArray[np.float32]
    transforms: Array


def prepare_sequences(
    config: SequencesConfig, cache: Path, val_share: float, split: Split, progress: Progress | None = None
) -> list[SequencePairs]:
    """Open sequences, find the frames that overlap and, with ``config.refine``, their exact relative poses.

    The last ``val_share`` of each sequence is for validation, so that the frames of both sides look at other places
    where the camera moves on; no pair crosses the border. Everything is measured once and kept in ``cache``.

    Args:
        config: which sequences, and the range of overlap.
        cache: folder for the results.
        val_share: share of the frames.
        split: which side to use.
        progress: told about the frames that are read, and the pairs that are refined.

    Raises:
        DatasetError: a sequence is broken, has no depth, poses or camera, or no usable pairs on this side.
    """
    result = []
    for folder in config.folders:
        sequence = open_sequence(folder, strict=True)
        _check(folder, sequence)
        posed = [index for index, pose in enumerate(sequence.ground_truth) if pose is not None]
        border = len(posed) - max(2, round(val_share * len(posed)))
        frames = posed[:border] if split == "train" else posed[border:]
        name = f"{_FORMAT} {folder.resolve()} {len(sequence)} {frames[:1]} {frames[-1:]} {config.max_gap}"
        low, high = config.overlap
        measured = _cached(cache, name, lambda s=sequence, f=frames: _measure(s, f, config.max_gap, progress))
        good = (measured["overlaps"] >= low) & (measured["overlaps"] <= high)
        side = f"{len(frames)} frames for {'training' if split == 'train' else 'validation'}"
        if not good.any():
            raise DatasetError(
                f"{folder}: no two of its {side} share {low:g} to {high:g} of what they see; widen "
                "data.sequences.overlap or raise max_gap"
            )
        found = {key: value[good] for key, value in measured.items()}
        if config.refine:
            found = _cached(cache, f"refined {low} {high} {name}", lambda s=sequence, f=found: _refine(s, f, progress))
        if len(found["pairs"]) == 0:
            raise DatasetError(
                f"{folder}: images, depth and poses of no pair of its {side} fit together; if its poses are exact, set "
                "data.sequences.refine to false"
            )
        result.append(SequencePairs(sequence=sequence, **found))
    return result


class RgbdPairs:
    """Endless pairs from RGB-D sequences; every sequence is drawn equally often.

    Both frames are cropped, turned and scaled to the size of the views at random. Images and poses are used as stored:
    lens distortion is not removed.

    Args:
        sequences: as :func:`prepare_sequences` returns them.
        config: of all data.
        seed: pair ``index`` depends on this and the index alone.
        colors: the views are needed in colour as well.
    """

    def __init__(
        self, sequences: Sequence[SequencePairs], config: DataConfig, seed: tuple[int, ...], *, colors: bool = False
    ) -> None:
        self._sequences, self._config, self._seed, self._colors = tuple(sequences), config, seed, colors
        self._frames: OrderedDict[tuple[int, int], Frame] = OrderedDict()

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng([*self._seed, index])
        for _ in range(_ATTEMPTS):
            number = int(rng.integers(len(self._sequences)))
            chosen = self._sequences[number]
            row = draw_by_overlap(rng, chosen.overlaps)
            first, second = (self._frame(number, int(frame)) for frame in chosen.pairs[row])
            pair = self._pair(rng, chosen.sequence, first, second, chosen.transforms[row])
            if pair is not None:
                return pair
        raise DatasetError(
            f"no pair with {self._config.points} common points in {_ATTEMPTS} draws from the RGB-D sequences: lower "
            "data.points or raise data.sequences.overlap"
        )

    def _pair(
        self, rng: np.random.Generator, sequence: FrameSequence, first: Frame, second: Frame, T_cam1_cam0: Array
    ) -> Pair | None:
        config = self._config
        mix = rng.dirichlet([6.0, 6.0, 6.0]).astype(np.float32)
        is_mirrored = rng.random() < config.views.flips
        views = []
        for frame, T_cam0_cam in ((first, np.eye(4)), (second, inverse(T_cam1_cam0))):
            assert sequence.camera is not None
            source = (sequence.camera.width, sequence.camera.height)
            change = random_crop(rng, source, config.size, config.sequences.rotation_deg)
            K = sequence.camera.matrix
            view = crop_frame(frame, T_cam0_cam, K, change, config.size, mix, colors=self._colors)
            views.append(view.mirrored() if is_mirrored else view)
        return depth_pair(rng, views[0], views[1], config, config.sequences.tolerance)

    def _frame(self, number: int, index: int) -> Frame:
        key = (number, index)
        if key not in self._frames:
            self._frames[key] = self._sequences[number].sequence[index]
            if len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        self._frames.move_to_end(key)
        return self._frames[key]

    def __getstate__(self) -> dict[str, Any]:
        """Without the frames in memory, for processes of a data loader."""
        return {**self.__dict__, "_frames": OrderedDict()}


def random_crop(rng: np.random.Generator, source: tuple[int, int], size: tuple[int, int], rotation_deg: float) -> Array:
    """A similarity (3, 3) from pixels of an image of ``source`` (width, height) to those of a view of ``size``.

    The view shows 60 to 100 % of the largest part of its own shape that fits into the image, turned about its middle;
    where it is turned, its corners may lie outside.
    """
    part = rng.uniform(0.6, 1.0) * min(source[0] / size[0], source[1] / size[1])
    room = (np.array(source) - part * np.array(size)) / 2
    # Edges of pixels, not centres, are what must fit: an image of width w spans [-0.5, w - 0.5].
    middle = (np.array(source) - 1) / 2 + rng.uniform(-1.0, 1.0, 2) * room
    angle = np.deg2rad(rng.triangular(-rotation_deg, 0.0, rotation_deg)) if rotation_deg > 0 else 0.0
    scale = 1.0 / part
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    change = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    change[:2, 2] = (np.array(size) - 1) / 2 - change[:2, :2] @ middle
    return change


def crop_frame(
    frame: Frame,
    T_world_cam: Array,
    K: Array,
    change: Array,
    size: tuple[int, int],
    mix: NDArray[np.float32],
    *,
    colors: bool = False,
) -> DepthView:
    """The part of a frame that a similarity ``change`` (3, 3) shows, as a view of ``size`` (width, height).

    Depth is interpolated within surfaces; at depth edges and holes it is unknown. ``mix`` (3,) weighs the channels;
    with ``colors`` the view is in colour, and they are weighed later.
    """
    assert frame.depth is not None
    scale = float(np.sqrt(np.linalg.det(change[:2, :2])))
    shown = frame.image if colors else to_gray_values(frame.image, mix)
    ones = np.ones(shown.shape[:2], np.uint8)
    smooth = cv2.warpPerspective(frame.depth, change, size, flags=cv2.INTER_LINEAR)
    nearest = cv2.warpPerspective(frame.depth, change, size, flags=cv2.INTER_NEAREST)
    valid = np.asarray(cv2.warpPerspective(ones, change, size, flags=cv2.INTER_LINEAR)) > 0
    # Between two surfaces, or a surface and a hole (0), the mean belongs to neither.
    is_known = valid & (nearest > 0) & (np.abs(smooth - nearest) < 0.02 * nearest)
    return DepthView(
        image=warp_image(shown, change, size, scale, cv2.BORDER_REFLECT_101),
        depth=np.where(is_known, smooth, 0.0).astype(np.float32),
        T_world_cam=T_world_cam,
        K=change @ K,
        valid=valid,
        mix=mix,
    )


def _check(folder: Path, sequence: FrameSequence) -> None:
    if not sequence.has_depth:
        raise DatasetError(f"{folder}: has no depth; training pairs need posed RGB-D sequences")
    if sequence.camera is None:
        raise DatasetError(f"{folder}: camera unknown; write 'fx fy cx cy' to camera.txt in that folder")
    posed = sum(pose is not None for pose in sequence.ground_truth)
    if posed < 4:
        raise DatasetError(f"{folder}: {posed} frames have a ground-truth pose, at least 4 are needed")


def _cached(cache: Path, name: str, make: Callable[[], Table]) -> Table:
    """A table from the cache, or a new one that is kept there; a damaged one is made again."""
    file = cache / "sequences" / f"{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.safetensors"
    try:
        return load(file.read_bytes())
    except (SafetensorError, OSError):
        table = make()
        atomic_write_bytes(file, save(table))
        return table


def _measure(sequence: FrameSequence, frames: Sequence[int], max_gap: int, progress: Progress | None) -> Table:
    """Overlap of all pairs at most ``max_gap`` frames apart, from depth maps reduced to 80 pixels' width."""
    assert sequence.camera is not None
    camera = sequence.camera
    small = camera.resized(_GRID_WIDTH, max(1, round(_GRID_WIDTH * camera.height / camera.width)))
    blank = np.zeros((small.height, small.width), np.uint8)
    recent: dict[int, DepthView] = {}
    pairs, overlaps, transforms = [], [], []
    for done, index in enumerate(frames, start=1):
        frame = sequence[index]
        assert frame.depth is not None
        assert frame.T_world_cam is not None
        reduced = cv2.resize(frame.depth, (small.width, small.height), interpolation=cv2.INTER_NEAREST)
        depth = np.asarray(reduced, np.float32)
        view = DepthView(image=blank, depth=depth, T_world_cam=frame.T_world_cam, K=small.matrix)
        recent = {other: seen for other, seen in recent.items() if index - other <= max_gap}
        for other, seen in recent.items():
            for a, b, first, second in ((other, index, seen, view), (index, other, view, seen)):
                pairs.append((a, b))
                overlaps.append(_share_seen(first, second))
                transforms.append(inverse(second.T_world_cam) @ first.T_world_cam)
        recent[index] = view
        if progress is not None:
            progress(done, len(frames), f"overlap of frames of {sequence.name}")
    return _table(pairs, overlaps, transforms)


def _refine(sequence: FrameSequence, found: Table, progress: Progress | None) -> Table:
    """The pairs whose relative pose can be told from the images, with that pose; all overlaps equally frequent."""
    assert sequence.camera is not None
    extractor = create_extractor("compact", max_keypoints=KEYPOINTS)
    ahead = found["pairs"][:, 0] < found["pairs"][:, 1]
    candidates = {key: value[ahead] for key, value in found.items()}
    chosen = _even_choice(candidates["overlaps"], _PAIRS_PER_FRAME * len(np.unique(candidates["pairs"])))
    chosen = chosen[np.lexsort(candidates["pairs"][chosen].T[::-1])]  # by the first frame
    keypoints: dict[int, FrameKeypoints] = {}
    pairs, overlaps, transforms = [], [], []
    for done, row in enumerate(chosen, start=1):
        first, second = (int(index) for index in candidates["pairs"][row])
        # What lies before the first frame is not needed any more.
        keypoints = {index: known for index, known in keypoints.items() if index >= first}
        for index in (first, second):
            if index not in keypoints:
                keypoints[index] = find_keypoints(sequence[index], extractor)
        T = refine_relative_pose(keypoints[first], keypoints[second], sequence.camera, candidates["transforms"][row])
        if T is not None:
            pairs += [(first, second), (second, first)]
            overlaps += [candidates["overlaps"][row]] * 2
            transforms += [T, inverse(T)]
        if progress is not None:
            progress(done, len(chosen), f"poses of frames of {sequence.name}")
    return _table(pairs, overlaps, transforms)


def _even_choice(overlaps: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """At most ``count`` rows, such that different overlaps are about equally frequent."""
    rng = np.random.default_rng(0)
    bins = np.floor(overlaps * 10).astype(int)
    rank = np.empty(len(overlaps))
    for value in np.unique(bins):
        rows = rng.permutation(np.flatnonzero(bins == value))
        rank[rows] = np.arange(len(rows))
    return np.argsort(rank, kind="stable")[:count]


def _table(pairs: list[tuple[int, int]], overlaps: list[float], transforms: list[Array]) -> Table:
    return {
        "pairs": np.array(pairs, np.int32).reshape(-1, 2),
        "overlaps": np.array(overlaps, np.float32),
        "transforms": np.array(transforms, np.float64).reshape(-1, 4, 4),
    }


def _share_seen(view0: DepthView, view1: DepthView) -> float:
    """Share of the pixels of view 0 with known depth that view 1 sees; 0 where little is known."""
    known = view0.depth[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP] > 0
    if known.mean() < 0.1:
        return 0.0
    warp = dense_warp(view0, view1, _COARSE_TOLERANCE, _STEP)
    return float(np.isfinite(warp[..., 0]).sum() / known.sum())
