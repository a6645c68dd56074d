"""Several sources of pairs as one endless data set, and the order in which training reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from semkey.errors import ConfigError
from semkey.training.data.pair import Pair, PairSource


class PairMixture(Dataset[Any]):
    """An endless data set that draws each pair from one of several sources.

    Which source pair ``index`` comes from, and the pair itself, depend on the seeds and the index alone: training that
    resumes sees what it would have seen.

    Args:
        sources: by name.
        shares: how often each is used, in relation to each other; a source without a share, or with 0, is not.
        seed: of the choice.
        extra: tensors that pairs of every source get which do not have them: a batch needs equal keys.
        repeat: pair ``index`` is pair ``index % repeat``; 0: there is no end of new ones.

    Attributes:
        sources: as given, only those that are used.
    """

    def __init__(
        self,
        sources: Mapping[str, PairSource],
        shares: Mapping[str, float],
        seed: tuple[int, ...],
        extra: Mapping[str, torch.Tensor] | None = None,
        repeat: int = 0,
    ) -> None:
        self.sources = {name: source for name, source in sources.items() if shares.get(name, 0.0) > 0.0}
        if not self.sources:
            raise ConfigError("no source of pairs has a share above 0")
        weights = np.array([shares[name] for name in self.sources])
        self._names = tuple(self.sources)
        self._limits = np.cumsum(weights / weights.sum())
        self._seed = seed
        self._extra = dict(extra or {})
        self._repeat = repeat

    def source_of(self, index: int) -> str:
        """The name of the source that pair ``index`` comes from."""
        index = index % self._repeat if self._repeat else index
        draw = np.random.default_rng([*self._seed, index]).random()
        place = int(np.searchsorted(self._limits, draw, side="right"))
        return self._names[min(place, len(self._names) - 1)]

    def __getitem__(self, index: int) -> Pair:
        index = index % self._repeat if self._repeat else index
        return {**self._extra, **self.sources[self.source_of(index)][index]}


class Counter(Sampler[int]):
    """Indices start, start + step, start + 2 step, ... without end: several processes share the pairs out."""

    def __init__(self, start: int, step: int = 1) -> None:
        self.start, self.step = start, step

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            yield index
            index += self.step


def tune_worker(_: int = 0) -> None:
    """``worker_init_fn`` of a data loader: one thread per process, since the processes share the cores already."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
