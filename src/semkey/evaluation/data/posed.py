"""Image pairs a number of frames apart in a posed sequence, those with too little overlap left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument
from semkey.datasets.opening import open_sequence
from semkey.datasets.sequence import Frame, FrameSequence
from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.data.pairs import ImagePair, ImageSource, PairSet, PoseTruth, surface_depth
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse

# Grid on which overlap is measured, pixels: 640x480 gives 1200 points, so a share is known to about 1 %.
_GRID_STEP_PX = 16
# Frames kept in memory, image and depth together: pairs that follow each other share them (2 MB each at 640x480).
_FRAMES_KEPT = 32

_UNREGISTERED = ("7scenes",)
"""Formats whose depth belongs to another camera than the images."""

_LoadFrame = Callable[[int], Frame]


def posed_sequence_sets(
    path: str | Path,
    *,
    gaps: Sequence[int],
    stride: int = 1,
    min_overlap: float = 0.0,
    camera: CameraArgument | None = None,
    use_depth: bool | None = None,
) -> list[PairSet]:
    """Pairs of a posed sequence (TUM RGB-D, 7-Scenes), one set per distance in frames.

    Pairs are frames (i, i + gap) for i = 0, stride, 2 stride, ...; left out are those with a frame without
    ground-truth pose and those whose overlap is under ``min_overlap``. Both are counted in the description. Overlap is
    the share of the pixels with known depth of one image that are visible in the other (project into it, onto a depth
    that agrees), on a grid of 16 pixels, the smaller of both directions; an unknown depth there counts as not visible.

    Images are used as stored, and so is the ground truth, whose own errors limit what can be measured, for every method
    alike. Lens distortion (TUM's freiburg1 and freiburg2 have some) is not removed. The depth of 7-Scenes is not
    registered to the colour images (two cameras, of different focal lengths): matches that agree with the epipolar
    geometry are 11 px from where that depth puts them (median, redkitchen, 10 frames apart), so by default it serves
    for the overlap only. With motion-capture poses (TUM) the same median can be several pixels, so precision at 1 to
    4 px compares methods there but says little about their accuracy; rendered sequences are exact.

    Args:
        path: folder of one sequence, see :func:`semkey.datasets.open_sequence`.
        gaps: distances of the two frames, >= 1, counted in the frames that the folder lists.
        stride: distance of the first frames of pairs, >= 1.
        min_overlap: in [0, 1); above 0 the sequence must have depth.
        camera: of the images, see :func:`semkey.datasets.open_sequence`; None takes what the data set says.
        use_depth: whether the truth has depth, and with it the place of every point; None: where the sequence has depth
            that is registered to its images, so not for 7-Scenes.

    Returns:
        Sets named ``SEQUENCE-gap-N`` in the order of ``gaps``.

    Raises:
        DatasetError: it is no posed sequence with a known camera, or a gap leaves no pair.
        ConfigError: a gap, the stride, the overlap or the camera is out of range, or overlap or depth is asked for and
            there is none.
        InputError: a depth image cannot be read.
    """
    if not gaps or min(gaps) < 1 or len(set(gaps)) < len(gaps):
        raise ConfigError(f"gaps must be different numbers of frames, 1 or more, got {list(gaps)}")
    if stride < 1:
        raise ConfigError(f"stride must be 1 or more, got {stride}")
    if not 0.0 <= min_overlap < 1.0:
        raise ConfigError(f"min_overlap must be in [0, 1), got {min_overlap}")
    sequence = open_sequence(path, camera=camera, strict=True)
    if not sequence.has_ground_truth:
        raise DatasetError(f"{path}: has no ground-truth poses")
    if sequence.camera is None:
        raise DatasetError(f"{path}: camera unknown; write 'fx fy cx cy' to camera.txt in that folder")
    if min_overlap > 0.0 and not sequence.has_depth:
        raise ConfigError(f"{path}: has no depth to measure overlap with; use a minimum overlap of 0")
    if use_depth and not sequence.has_depth:
        raise ConfigError(f"{path}: has no depth")
    keep_depth = sequence.format not in _UNREGISTERED if use_depth is None else use_depth
    load = lru_cache(maxsize=_FRAMES_KEPT)(sequence.__getitem__)
    return [
        _gap_set(
            path,
            sequence,
            sequence.camera,
            load,
            gap=gap,
            stride=stride,
            min_overlap=min_overlap,
            keep_depth=keep_depth,
        )
        for gap in gaps
    ]


def overlap(truth: PoseTruth) -> float:
    """Share in [0, 1] of the pixels with known depth that are visible in the other image, the smaller of both ways.

    Measured on a grid of 16 pixels; 0 where no depth is known.
    """
    return min(_visible_share(truth), _visible_share(truth.swapped()))


def _gap_set(
    path: str | Path,
    sequence: FrameSequence,
    camera: PinholeCamera,
    load: _LoadFrame,
    *,
    gap: int,
    stride: int,
    min_overlap: float,
    keep_depth: bool,
) -> PairSet:
    pairs: list[ImagePair] = []
    without_pose = apart = 0
    for first in range(0, len(sequence) - gap, stride):
        second = first + gap
        T_world_cam0, T_world_cam1 = sequence.ground_truth[first], sequence.ground_truth[second]
        if T_world_cam0 is None or T_world_cam1 is None:
            without_pose += 1
            continue
        truth = PoseTruth(
            T_cam1_cam0=compose(inverse(T_world_cam1), T_world_cam0),
            camera0=camera,
            camera1=camera,
            read_depth0=partial(_depth, load, first) if sequence.has_depth else None,
            read_depth1=partial(_depth, load, second) if sequence.has_depth else None,
        )
        if min_overlap > 0.0 and overlap(truth) < min_overlap:
            apart += 1
            continue
        if not keep_depth:
            truth = replace(truth, read_depth0=None, read_depth1=None)
        pairs.append(
            ImagePair(
                name=f"{first:06d}-{second:06d}",
                image0=_frame_source(load, first, camera),
                image1=_frame_source(load, second, camera),
                truth=truth,
            )
        )
    left_out = f"{apart} with overlap under {min_overlap:g} and {without_pose} without pose left out"
    if not pairs:
        raise DatasetError(f"{path}: of {len(sequence)} frames no pair {gap} apart remains ({left_out})")
    return PairSet(
        name=f"{sequence.name.replace('/', '-')}-gap-{gap}",
        pairs=pairs,
        description=f"{sequence.name} ({sequence.format}), frames i and i + {gap}, every {stride}; {left_out}"
        + ("; its depth is not used as truth" if sequence.has_depth and not keep_depth else ""),
    )


def _visible_share(truth: PoseTruth) -> float:
    assert truth.read_depth0 is not None
    camera = truth.camera0
    # From the middle of the first cell on, so that the grid has the same margin on all sides.
    x = np.arange(_GRID_STEP_PX // 2, camera.width, _GRID_STEP_PX, dtype=np.float64)
    y = np.arange(_GRID_STEP_PX // 2, camera.height, _GRID_STEP_PX, dtype=np.float64)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    known = ~np.isnan(surface_depth(truth.read_depth0(), points, truth.depth_tolerance))
    if not known.any():
        return 0.0
    _, visible = truth.project(points[known], (truth.camera1.width, truth.camera1.height))
    return float(visible.mean())


def _frame_source(load: _LoadFrame, index: int, camera: PinholeCamera) -> ImageSource:
    def read() -> NDArray[np.uint8]:
        return load(index).image

    return ImageSource(key=f"frame {index:06d}", read=read, size=(camera.width, camera.height))


def _depth(load: _LoadFrame, index: int) -> NDArray[np.float32]:
    depth = load(index).depth
    assert depth is not None  # has_depth holds for all frames of a sequence
    return depth
