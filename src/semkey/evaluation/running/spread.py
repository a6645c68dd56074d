"""Pairs measured on a Ray cluster: the rows are those of one process, up to the rounding of its number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from semkey.cluster import Cluster, Lost, kept
from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.data.pairs import ImagePair, PairSet
from semkey.evaluation.running.feature_cache import FeatureCache
from semkey.evaluation.running.methods import Method
from semkey.evaluation.running.pair_runner import PairProtocol, measure_pair
from semkey.evaluation.running.results import Row

_PAIRS_PER_TASK = 8


@dataclass(frozen=True, kw_only=True)
class RayPairs:
    """A :class:`semkey.evaluation.running.pair_runner.PairWorkers` on Ray.

    Images are read by the workers, which have to see them by the same path as this process.

    Attributes:
        cluster: where.
        create: makes a method from its name; must be picklable, such as a ``functools.partial``.
        cache: folder of features that all workers see; None keeps a few in the memory of each.
    """

    cluster: Cluster
    create: Callable[[str], Method]
    cache: Path | None = None

    def connected(self) -> AbstractContextManager[object]:
        """Ray, for all methods and sets of a run."""
        return self.cluster.connected()

    def measure(
        self, protocol: PairProtocol, method: Method, pair_set: PairSet, pairs: Sequence[ImagePair]
    ) -> Iterator[Row]:
        """The row of each pair once, in the order in which they are done.

        Raises:
            ConfigError: a worker has another version of semkey, or other weights.
            DatasetError: an image cannot be read, or a pair ended its worker each time it was tried.
        """
        if not pairs:
            return
        chunks = [pairs[first : first + _PAIRS_PER_TASK] for first in range(0, len(pairs), _PAIRS_PER_TASK)]
        done = self.cluster.run(
            _measure,
            chunks,
            send=lambda chunk: (
                protocol,
                partial(self.create, method.name),
                method.fingerprint,
                pair_set.name,
                chunk,
                self.cache,
            ),
            parts=lambda chunk: [[pair] for pair in chunk],
        )
        for chunk, rows in done:
            if isinstance(rows, Lost):
                raise DatasetError(
                    f"{pair_set.name}, pair {chunk[0].name}: ended its worker each time it was tried (out of memory?); "
                    "what is measured is kept"
                )
            yield from rows


def _measure(
    protocol: PairProtocol,
    create: Callable[[], Method],
    fingerprint: Mapping[str, Any],
    set_name: str,
    pairs: Sequence[ImagePair],
    cache: Path | None,
) -> list[Row]:
    """In a worker."""
    method = kept(create)
    if method.fingerprint != fingerprint:
        raise ConfigError(f"method '{method.name}': a worker has another version of semkey, or other weights")
    features_of = kept(partial(FeatureCache, cache))
    pair_set = PairSet(name=set_name, pairs=pairs, description="")
    return [measure_pair(protocol, method, pair_set, pair, features_of) for pair in pairs]
