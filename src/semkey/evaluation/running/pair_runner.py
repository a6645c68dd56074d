"""Running a protocol over methods and sets of pairs, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from semkey.errors import ConfigError, DatasetError, InputError
from semkey.evaluation.data.pairs import ImagePair, PairSet
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.feature_cache import FeatureCache
from semkey.evaluation.running.methods import Method
from semkey.evaluation.running.results import Evaluation, Metric, Row, SetResult
from semkey.evaluation.running.row_store import RowStore, run_key
from semkey.matching.mutual import Matches
from semkey.model.features import Features

ROWS_FOLDER = "rows"
CACHE_FOLDER = "cache"

Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``: called after each step and once before the first."""


class PairProtocol(Protocol):
    """How pairs are measured and their measures are put together; a frozen dataclass whose fields are its options."""

    @property
    def kind(self) -> str:
        """Such as ``planar``."""
        ...

    @property
    def metrics(self) -> Sequence[Metric]:
        """How to read the numbers of :meth:`summarise`, in the order of the tables."""
        ...

    @property
    def curve_labels(self) -> Mapping[str, tuple[str, str]]:
        """Per curve the labels of its axes."""
        ...

    def measure(self, pair: ImagePair, features0: Features, features1: Features, matches: Matches) -> Row:
        """Measures of one pair, fit for JSON; ``name`` and ``group`` are the pair's."""
        ...

    def summarise(self, rows: Sequence[Row]) -> SetResult:
        """Metrics of a set from the rows of its pairs, fresh ones or ones read back."""
        ...


class PairWorkers(Protocol):
    """Measures pairs elsewhere."""

    def connected(self) -> AbstractContextManager[object]:
        """Around all calls of :meth:`measure`."""
        ...

    def measure(
        self, protocol: PairProtocol, method: Method, pair_set: PairSet, pairs: Sequence[ImagePair]
    ) -> Iterable[Row]:
        """The row of each pair once, in any order; errors as :func:`run_pairs`."""
        ...


def protocol_options(protocol: PairProtocol) -> dict[str, Any]:
    """The fields of a protocol, as they go into ``results.json`` and into the key of stored rows."""
    return asdict(protocol) if is_dataclass(protocol) and not isinstance(protocol, type) else dict(vars(protocol))


def run_pairs(
    protocol: PairProtocol,
    sets: Sequence[PairSet],
    methods: Sequence[Method],
    *,
    out: str | Path,
    cache: FeatureCache | None = None,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    workers: PairWorkers | None = None,
) -> Evaluation:
    """Measure every method on every pair.

    Each pair's row is appended to ``OUT/rows/METHOD/SET.jsonl`` as soon as it is measured. The first line of that file
    is a key of everything the rows depend on: the method, the protocol's options, the pairs with their ground truth,
    and semkey's own code. A run with the same key takes the rows that are there; any other starts the file anew.

    Args:
        protocol: what to measure.
        sets: with unique names; every pair's name is unique within its set.
        methods: with unique names.
        out: folder for the rows; made if missing.
        cache: where features are kept; None keeps a few in memory only.
        options: how the run was set up beside the protocol's own options, for ``results.json``.
        environment: default :func:`describe_environment`.
        progress: told about every pair.
        workers: who measures instead of this process.

    Returns:
        The evaluation; nothing but the rows is written.

    Raises:
        ConfigError: names are not unique, or there is nothing to measure.
        DatasetError: an image cannot be read; the message names the pair and the file. Rows measured before stay.
        InputError: the folder cannot be written to.
    """
    _require_unique("method", [method.name for method in methods])
    _require_unique("set", [pair_set.name for pair_set in sets])
    for pair_set in sets:
        _require_unique(f"pair of set '{pair_set.name}'", [pair.name for pair in pair_set.pairs])
    features_of = FeatureCache(None) if cache is None else cache
    total = len(methods) * sum(len(pair_set.pairs) for pair_set in sets)
    done = 0
    if progress is not None:
        progress(done, total, "")
    results: dict[str, dict[str, SetResult]] = {}
    for method in methods:
        results[method.name] = {}
        for pair_set in sets:
            key = run_key(method.fingerprint, protocol.kind, protocol_options(protocol), pair_set)
            with RowStore(Path(out) / ROWS_FOLDER, method.name, pair_set.name, key) as store:
                waiting = [pair for pair in pair_set.pairs if pair.name not in store]
                for _ in range(len(pair_set.pairs) - len(waiting)):
                    done += 1
                    if progress is not None:
                        progress(done, total, f"{method.name}, {pair_set.name}")
                if workers is None:
                    fresh = (measure_pair(protocol, method, pair_set, pair, features_of) for pair in waiting)
                else:
                    fresh = workers.measure(protocol, method, pair_set, waiting)
                for row in fresh:
                    store.append(row)
                    done += 1
                    if progress is not None:
                        progress(done, total, f"{method.name}, {pair_set.name}")
                rows = [store[pair.name] for pair in pair_set.pairs]
            results[method.name][pair_set.name] = protocol.summarise(rows)
    return Evaluation(
        kind=protocol.kind,
        options={**protocol_options(protocol), **(options or {})},
        environment=describe_environment() if environment is None else environment,
        methods={method.name: dict(method.fingerprint) for method in methods},
        sets={pair_set.name: {"description": pair_set.description, "pairs": len(pair_set.pairs)} for pair_set in sets},
        metrics=list(protocol.metrics),
        results=results,
        curve_labels=dict(protocol.curve_labels),
    )


def read_pair(pair_set: PairSet, pair: ImagePair) -> tuple[Any, Any]:
    """Both images of a pair, uint8 (H, W, 3) RGB.

    Raises:
        DatasetError: one cannot be read; the message names the set, the pair and the file.
    """
    try:
        return pair.image0.read(), pair.image1.read()
    except (InputError, OSError) as error:
        raise DatasetError(f"{pair_set.name}, pair {pair.name}: {error}") from None


def measure_pair(
    protocol: PairProtocol, method: Method, pair_set: PairSet, pair: ImagePair, features_of: FeatureCache
) -> Row:
    """The row of one pair; errors as :func:`run_pairs`."""
    image0, image1 = read_pair(pair_set, pair)
    features0, features1 = features_of.features(method, image0), features_of.features(method, image1)
    matches = method.match(features0, features1)
    features1 = method.refined(features0, features1, matches, image0, image1)
    return protocol.measure(pair, features0, features1, matches)


def _require_unique(what: str, names: Sequence[str]) -> None:
    if not names:
        raise ConfigError(f"there is no {what} to evaluate")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ConfigError(f"{what} '{twice[0]}' occurs twice; names must be unique")


__all__ = [
    "CACHE_FOLDER",
    "ROWS_FOLDER",
    "PairProtocol",
    "PairWorkers",
    "Progress",
    "measure_pair",
    "protocol_options",
    "read_pair",
    "run_pairs",
]
