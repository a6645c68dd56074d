"""The kind ``speed``: time of extraction and matching, memory, parameters.

All methods run interleaved in one process: in every round each of them extracts from the same image and matches the
result with that of the round before, in an order that moves on by one per round. A slow spell of a shared machine thus
hits all alike, and the ratio to the reference method, taken per round before the median, is far steadier than the times
themselves. The first ``warmup`` rounds are not counted.

Extraction is timed from the uint8 RGB array to features, matching from two images' features to matches, where they lie
(on a GPU they stay there, and the clock stops when the GPU has finished). Decoding and resizing of images is not timed.
Python's garbage collection waits until the end of a round. Memory is measured afterwards, see
:mod:`semkey.evaluation.running.memory`.

Intervals are 95 % percentile bootstrap intervals over rounds. Rounds that follow each other share the machine's state,
so the intervals are narrower than the spread between runs.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import ConfigError
from semkey.evaluation.data.photo_folders import find_photos
from semkey.evaluation.data.speed_images import MAX_IMAGES, Size, speed_images
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.memory import MemoryMeasurementError, MemoryUse, measure_memory
from semkey.evaluation.running.methods import Method
from semkey.evaluation.running.pair_runner import Progress
from semkey.evaluation.running.results import Curve, Evaluation, Metric, Row, SetResult
from semkey.metrics.bootstrap import bootstrap_intervals
from semkey.model.features import Features
from semkey.settings import Settings

logger = logging.getLogger(__name__)

KIND = "speed"
CURVE_LABELS = {"rounds": ("round", "extraction, ms")}

_INTERVALS = ("extract_ms", "extract_ratio", "match_ms", "match_ratio")
Result = TypeVar("Result")
Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class SpeedConfig(Settings):
    """How time is measured.

    Attributes:
        sizes: (width, height) of the images, pixels; each is a set of its own.
        rounds: counted ones, >= 3.
        warmup: rounds before them, >= 1.
        reference: the method that the ratios are to; None takes the first one.
        threads: of PyTorch and OpenCV, >= 1; None leaves them as they are.
        seed: of the synthetic images and of the bootstrap, >= 0.

    Raises:
        ConfigError: a value is out of range.
    """

    sizes: tuple[Size, ...] = ((640, 480),)
    rounds: int = 30
    warmup: int = 3
    reference: str | None = None
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise ConfigError("sizes must be given once each")
        for size in self.sizes:
            if min(size) < 32:
                raise ConfigError(f"size {_text(size)} is too small to measure: 32 pixels or more on each side")
        if self.rounds < 3:
            raise ConfigError(f"rounds must be at least 3, got {self.rounds}")
        if self.warmup < 1:
            raise ConfigError(f"warmup must be at least 1 round, got {self.warmup}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")


def run_speed(
    methods: Sequence[Method],
    config: SpeedConfig | None = None,
    *,
    images: Sequence[Path] = (),
    memory_arguments: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure all methods, interleaved.

    Args:
        methods: with unique names.
        config: default :class:`SpeedConfig`.
        images: image files and folders (:func:`find_photos`), each cropped and resized to every size; none for
            two views of a synthetic texture.
        memory_arguments: what the methods were made with, besides their names: ``keypoints``, ``device``, ``weights``,
            ... of :func:`semkey.evaluation.running.methods.create_method`. They are made anew in processes of
            their own to measure memory; None measures none.
        environment: default :func:`describe_environment`, with the threads of this run.
        progress: told about every round of every size, and every method's memory.

    Returns:
        One set per size, one row per round: ``name``, ``extract_ms``, ``match_ms``, ``extract_ratio``, ``match_ratio``,
        ``keypoints``.

    Raises:
        ConfigError: no methods, two of one name, or a reference that is none of them.
        DatasetError: an image path is missing.
        InputError: an image cannot be read.
    """
    config = config or SpeedConfig()
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods must be given once each, got {', '.join(names) or 'none'}")
    reference = config.reference if config.reference is not None else names[0]
    if reference not in names:
        raise ConfigError(f"the reference '{reference}' is none of the methods: {', '.join(names)}")
    paths = find_photos(images, MAX_IMAGES)
    pictures = {size: speed_images(paths, size, seed=config.seed) for size in config.sizes}
    total = len(config.sizes) * (config.warmup + config.rounds)
    total += 0 if memory_arguments is None else len(methods)
    ticker = _Ticker(total, progress)
    with _threads(config.threads) as threads:
        environment = describe_environment() if environment is None else environment
        rounds = {size: _run_rounds(methods, pictures[size], config, size, ticker) for size in config.sizes}
    memory = _memory(names, memory_arguments, list(pictures.values()), config.threads, ticker)
    results = {
        method.name: {
            _text(size): _summarise(
                method, rounds[size][method.name], rounds[size][reference], memory[method.name][index], config.seed
            )
            for index, size in enumerate(config.sizes)
        }
        for method in methods
    }
    source = (
        ", ".join(path.name for path in paths) if paths else f"two views of a synthetic texture, seed {config.seed}"
    )
    return Evaluation(
        kind=KIND,
        options={
            "sizes": [list(size) for size in config.sizes],
            "rounds": config.rounds,
            "warmup": config.warmup,
            "reference": reference,
            "torch_threads": threads[0],
            "opencv_threads": threads[1],
            "seed": config.seed,
            "images": [path.name for path in paths],
        },
        environment={**environment, "threads": threads[0]},
        methods={method.name: method.fingerprint for method in methods},
        sets={
            _text(size): {"description": f"{config.rounds} rounds at {_text(size)} on {source}", "pairs": config.rounds}
            for size in config.sizes
        },
        metrics=_metrics(
            reference, has_gpu=any(not math.isnan(use.device_mb) for uses in memory.values() for use in uses)
        ),
        results=results,
        curve_labels=CURVE_LABELS,
    )


@dataclass(frozen=True, kw_only=True)
class _Timing:
    """One method in one round: seconds, and the number of keypoints found."""

    extract_s: float
    match_s: float
    keypoints: int


class _Ticker:
    """Counts steps for a progress callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done, self._progress = total, 0, progress
        self._tell("")

    def advance(self, what: str) -> None:
        self._done += 1
        self._tell(what)

    def _tell(self, what: str) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total, what)


def _match(
    method: Method, features0: Features, image0: NDArray[np.uint8], features1: Features, image1: NDArray[np.uint8]
) -> None:
    """All that a method does after extraction."""
    method.refined(features0, features1, method.matcher(features0, features1), image0, image1)


def _run_rounds(
    methods: Sequence[Method], images: Images, config: SpeedConfig, size: Size, ticker: _Ticker
) -> dict[str, list[_Timing]]:
    timings: dict[str, list[_Timing]] = {method.name: [] for method in methods}
    before = {method.name: (method.extractor.extract(images[-1]), images[-1]) for method in methods}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(-config.warmup, config.rounds):
            image = images[number % len(images)]
            first = number % len(methods)
            for method in [*methods[first:], *methods[:first]]:
                features, extract_s = _timed(partial(method.extractor.extract, image))
                earlier, before[method.name] = before[method.name], (features, image)
                _, match_s = _timed(partial(_match, method, *earlier, features, image))
                if number >= 0:
                    timing = _Timing(extract_s=extract_s, match_s=match_s, keypoints=len(features))
                    timings[method.name].append(timing)
            gc.collect()
            ticker.advance(_text(size))
    finally:
        if was_enabled:
            gc.enable()
    return timings


def _timed(function: Callable[[], Result]) -> tuple[Result, float]:
    _synchronise()
    start = perf_counter()
    result = function()
    _synchronise()
    return result, perf_counter() - start


def _synchronise() -> None:
    # A GPU works on after the call returns. Nothing to wait for, and no context to make, where none is in use.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def _threads(count: int | None) -> Generator[tuple[int, int]]:
    """Set the threads of PyTorch and OpenCV for the block; gives what is in force."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        if count is not None:
            torch.set_num_threads(count)
            cv2.setNumThreads(count)
        yield torch.get_num_threads(), cv2.getNumThreads()
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _memory(
    names: Sequence[str],
    arguments: Mapping[str, Any] | None,
    images: Sequence[Images],
    threads: int | None,
    ticker: _Ticker,
) -> dict[str, list[MemoryUse]]:
    unknown = [MemoryUse(host_mb=math.nan, device_mb=math.nan)] * len(images)
    measured = dict.fromkeys(names, unknown)
    for name in names if arguments is not None else ():
        try:
            measured[name] = measure_memory({**(arguments or {}), "name": name}, images, threads=threads)
        except MemoryMeasurementError as error:
            # The times are good all the same; a dash in the table says that this figure is missing.
            logger.warning("%s", error)
        ticker.advance(f"memory of {name}")
    return measured


def _summarise(
    method: Method, timings: Sequence[_Timing], reference: Sequence[_Timing], memory: MemoryUse, seed: int
) -> SetResult:
    extract, match, reference_extract, reference_match = (
        1e3 * np.array(values)
        for values in (
            [timing.extract_s for timing in timings],
            [timing.match_s for timing in timings],
            [timing.extract_s for timing in reference],
            [timing.match_s for timing in reference],
        )
    )
    series = np.stack([extract, extract / reference_extract, match, match / reference_match])

    def medians(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.median(series[:, chosen], axis=1)

    found = medians(np.arange(len(timings)))
    intervals = bootstrap_intervals(medians, len(timings), seed=seed)
    return SetResult(
        count=len(timings),
        metrics={
            **{name: float(value) for name, value in zip(_INTERVALS, found, strict=True)},
            "extract_iqr_ms": _interquartile_range(extract),
            "extract_fastest_ms": float(extract.min()),
            "match_iqr_ms": _interquartile_range(match),
            "match_fastest_ms": float(match.min()),
            "keypoints": float(np.median([timing.keypoints for timing in timings])),
            "memory_mb": memory.host_mb,
            "device_memory_mb": memory.device_mb,
            "parameters_m": method.parameters / 1e6,
            "weights_mb": method.weights_bytes / 1e6,
        },
        intervals={name: (float(low), float(high)) for name, (low, high) in zip(_INTERVALS, intervals, strict=True)},
        curves={"rounds": Curve(x=list(range(1, len(timings) + 1)), y=[round(float(value), 4) for value in extract])},
        rows=[_row(f"round {index + 1}", series[:, index], timing.keypoints) for index, timing in enumerate(timings)],
    )


def _row(name: str, values: NDArray[np.float64], keypoints: int) -> Row:
    return {
        "name": name,
        **{key: round(float(value), 4) for key, value in zip(_INTERVALS, values, strict=True)},
        "keypoints": keypoints,
    }


def _interquartile_range(values: NDArray[np.float64]) -> float:
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low)


def _metrics(reference: str, *, has_gpu: bool) -> list[Metric]:
    metrics = [
        Metric(name="extract_ms", label="extraction, ms", higher_is_better=False, digits=2, headline=True),
        Metric(name="extract_iqr_ms", label="interquartile range, ms", higher_is_better=None, digits=2),
        Metric(name="extract_fastest_ms", label="fastest, ms", higher_is_better=False, digits=2),
        Metric(
            name="extract_ratio", label=f"extraction to {reference}", higher_is_better=False, digits=3, headline=True
        ),
        Metric(name="match_ms", label="matching, ms", higher_is_better=False, digits=2, headline=True),
        Metric(name="match_iqr_ms", label="interquartile range of matching, ms", higher_is_better=None, digits=2),
        Metric(name="match_fastest_ms", label="fastest matching, ms", higher_is_better=False, digits=2),
        Metric(name="match_ratio", label=f"matching to {reference}", higher_is_better=False, digits=3),
        Metric(name="keypoints", label="keypoints", higher_is_better=None, digits=0, headline=True),
        Metric(name="memory_mb", label="memory, MB", higher_is_better=False, digits=0, headline=True),
    ]
    if has_gpu:
        metrics.append(Metric(name="device_memory_mb", label="GPU memory, MB", higher_is_better=False, digits=0))
    metrics += [
        Metric(name="parameters_m", label="parameters, million", higher_is_better=None, digits=3),
        Metric(name="weights_mb", label="weights, MB", higher_is_better=None, digits=1),
    ]
    return metrics


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
