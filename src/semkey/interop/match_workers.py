"""Extraction and matching of a folder on a Ray cluster: workers get bytes and give bytes, files are written here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semkey.cluster import Cluster, Lost, kept
from semkey.errors import InputError
from semkey.extractors import Detector
from semkey.matching import PairMatcher
from semkey.model.features import Features
from semkey.runtime import select_device

NamePair = tuple[str, str]
IndicesAndScores = dict[str, torch.Tensor]
_IMAGES_PER_TASK = 8
_KILLED = "ended its worker each time it was tried (out of memory?)"


@dataclass(frozen=True, kw_only=True)
class FolderWorkers:
    """Who extracts and matches instead of this process.

    Attributes:
        cluster: where.
        detector: makes the detector, once in each worker; must be picklable, such as a ``functools.partial``.
        matcher: makes the matcher, as well.
        device: where features are matched: ``auto``, ``cpu``, ``cuda``.
    """

    cluster: Cluster
    detector: Callable[[], Detector]
    matcher: Callable[[], PairMatcher]
    device: str = "cpu"

    def extract(self, folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Features | InputError]]:
        """Features of images, or what is wrong with one, in any order; each name once."""
        chunks = [names[first : first + _IMAGES_PER_TASK] for first in range(0, len(names), _IMAGES_PER_TASK)]

        def send(chunk: Sequence[str]) -> tuple[Any, ...]:
            return self.detector, [(str(folder / name), _bytes(folder / name)) for name in chunk]

        done = self.cluster.run(_extract, chunks, send=send, parts=lambda chunk: [[name] for name in chunk])
        for chunk, results in done:
            if isinstance(results, Lost):
                yield from ((name, InputError(f"{folder / name}: {_KILLED}")) for name in chunk)
            else:
                yield from zip(chunk, results, strict=True)

    def match(
        self, parts: Iterable[Sequence[NamePair]], features: Callable[[str], Features]
    ) -> Iterator[tuple[Sequence[NamePair], IndicesAndScores]]:
        """Indices and scores of the pairs of each part, by the names that parts of files have; in any order.

        Raises:
            InputError: a pair ended its worker each time.
        """

        def send(part: Sequence[NamePair]) -> tuple[Any, ...]:
            names = dict.fromkeys(name for pair in part for name in pair)
            return self.matcher, self.device, {name: features(name) for name in names}, part

        for part, result in self.cluster.run(_match, parts, send=send, parts=lambda part: [part]):
            if isinstance(result, Lost):
                raise InputError(f"matching {part[0][0]} and the pairs after it {_KILLED}; what is done is kept")
            yield part, result


def match_pairs(
    matcher: PairMatcher, features: Callable[[str], Features], pairs: Sequence[NamePair]
) -> IndicesAndScores:
    """Matches of pairs, on the CPU: ``indices0`` and ``scores0`` of the first, and so on."""
    found: IndicesAndScores = {}
    for number, (name0, name1) in enumerate(pairs):
        matches = matcher.match(features(name0), features(name1))
        found[f"indices{number}"] = matches.indices.cpu().clone()
        found[f"scores{number}"] = matches.scores.cpu().clone()
    return found


def _bytes(path: Path) -> bytes | str:
    try:
        return path.read_bytes()
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"


def _extract(make: Callable[[], Detector], images: Sequence[tuple[str, bytes | str]]) -> list[Features | InputError]:
    """In a worker, which need not see the folder."""
    detector = kept(make)
    found: list[Features | InputError] = []
    with tempfile.TemporaryDirectory(prefix="semkey-") as folder:
        for path, data in images:
            if isinstance(data, str):
                found.append(InputError(data))
                continue
            file = Path(folder) / f"image{Path(path).suffix}"
            file.write_bytes(data)
            try:
                found.append(detector.extract(file).to("cpu"))
            except InputError as error:
                found.append(InputError(str(error).replace(str(file), path)))
    return found


def _match(
    make: Callable[[], PairMatcher], device: str, features: Mapping[str, Features], pairs: Sequence[NamePair]
) -> IndicesAndScores:
    place = select_device(device)
    return match_pairs(kept(make), lambda name: features[name].to(place), pairs)
