"""Matching a folder of images, so that what is killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from semkey import __version__
from semkey.datasets.readers.folder import IMAGE_SUFFIXES, list_images_below
from semkey.errors import DatasetError, InputError
from semkey.extractors import Detector
from semkey.files import atomic_write_bytes, atomic_write_text
from semkey.interop.hloc import require_h5py, write_features, write_matches
from semkey.interop.match_workers import FolderWorkers, NamePair, match_pairs
from semkey.matching import Matches, PairMatcher
from semkey.matching.image_pairs import IndexPair
from semkey.model.features import Features

log = logging.getLogger(__name__)

PARTS_FOLDER = ".parts"
_PAIRS_PER_PART = 64
_IMAGES_IN_MEMORY = 256
_TENSORS = ("keypoints", "scores", "reliability", "descriptors", "global_descriptor", "covariances", "semantics")

Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``."""
ChoosePairs = Callable[[Sequence[str], Callable[[], np.ndarray]], list[IndexPair]]
"""Names of the images, and a function that gives their global descriptors (N, G), to the pairs to match."""


@dataclass(frozen=True, kw_only=True)
class MatchedFolder:
    """What matching a folder gave.

    Attributes:
        images: names, by their paths below the folder.
        pairs: how many were matched.
        matches: of all pairs together.
        features_file: ``features.h5``.
        matches_file: ``matches.h5``.
    """

    images: tuple[str, ...]
    pairs: int
    matches: int
    features_file: Path
    matches_file: Path


def folder_images(folder: Path) -> list[str]:
    """Names of the images in a folder and below, hidden ones left out, in natural order.

    Raises:
        DatasetError: no such folder, or fewer than two images.
    """
    names = [path.relative_to(folder).as_posix() for path in list_images_below(folder)]
    if len(names) < 2:
        raise DatasetError(f"{folder}: one image, two or more are needed ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return names


def match_folder(
    folder: Path,
    out: Path,
    detector: Detector,
    matcher: PairMatcher,
    choose: ChoosePairs,
    *,
    workers: FolderWorkers | None = None,
    progress: Progress | None = None,
) -> MatchedFolder:
    """Extract all images of a folder, match the chosen pairs, and write both in hloc's layout.

    What is done is kept in ``OUT/.parts``, image by image and some pairs at a time: after a kill the same call goes on
    there. An image that changed is extracted again, and other features or another matcher start anew. When all is
    written, the parts are removed.

    Args:
        folder: of images, searched with its subfolders.
        out: gets ``features.h5``, ``matches.h5`` and ``pairs.txt``.
        detector: of the features.
        matcher: of the matches.
        choose: which pairs.
        workers: of a cluster, whose detector and matcher are like these; None extracts and matches in this process.
        progress: told about every image and every part.

    Returns:
        What was written.

    Raises:
        DatasetError: no folder or images, or images that cannot be read: all of them are named.
        InputError: ``out`` cannot be written.
        ConfigError: h5py is not installed, or the pairs cannot be chosen so.
    """
    require_h5py()
    with nullcontext() if workers is None else workers.cluster.connected():
        return _matched(folder, out, _Parts(out / PARTS_FOLDER, detector, matcher), choose, workers, progress)


def _matched(
    folder: Path,
    out: Path,
    parts: _Parts,
    choose: ChoosePairs,
    workers: FolderWorkers | None,
    progress: Progress | None,
) -> MatchedFolder:
    names = folder_images(folder)
    for path in out.glob(".*.h5.*.tmp"):  # of a run that was killed while it wrote
        path.unlink(missing_ok=True)
    bad = []
    for number, (_, error) in enumerate(parts.extract(folder, names, workers)):
        if error is not None:
            bad.append(str(error))
        if progress is not None:
            progress(number + 1, len(names), "extracting")
    if bad:
        raise DatasetError(
            f"{len(bad)} of {len(names)} images cannot be used: {'; '.join(bad[:3])}{' ...' if len(bad) > 3 else ''}; "
            "what is extracted is kept, remove or repair them and call again"
        )
    pairs = choose(names, lambda: np.stack([parts.features(name).global_descriptor.numpy() for name in names]))
    named = [(names[i], names[j]) for i, j in pairs]
    total = done = 0
    for some, matches in parts.match(named, workers):
        total, done = total + matches, done + some
        if progress is not None:
            progress(done, len(pairs), "matching")
    result = MatchedFolder(
        images=tuple(names),
        pairs=len(pairs),
        matches=total,
        features_file=out / "features.h5",
        matches_file=out / "matches.h5",
    )
    write_features(result.features_file, ((name, parts.features(name)) for name in names))
    write_matches(result.matches_file, parts.all_matches(named))
    if any(any(sign.isspace() for sign in name) for name in names):
        log.warning("%s: names of images hold spaces, so pairs.txt cannot list them and is not written", folder)
    else:
        atomic_write_text(out / "pairs.txt", "".join(f"{names[i]} {names[j]}\n" for i, j in pairs))
    shutil.rmtree(out / PARTS_FOLDER, ignore_errors=True)
    return result


class _Parts:
    """Features of images and matches of pairs in files of their own, each written whole."""

    def __init__(self, folder: Path, detector: Detector, matcher: PairMatcher) -> None:
        self._detector, self._matcher = detector, matcher
        said = {
            "version": __version__,
            "features": detector.name,
            "most": detector.max_keypoints,
            "settings": detector.settings,
        }
        self._features_folder = folder / f"features-{_hash(said)}"
        self._matches_folder = folder / f"matches-{_hash({**said, 'matcher': dict(matcher.settings)})}"
        self._files: dict[str, Path] = {}
        self._memory: OrderedDict[str, Features] = OrderedDict()

    def extract(
        self, folder: Path, names: Sequence[str], workers: FolderWorkers | None
    ) -> Iterator[tuple[str, InputError | None]]:
        """Extract images unless they are done; gives each name, with what is wrong where there is something."""
        waiting = []
        for name in names:
            status = (folder / name).stat()
            self._files[name] = (
                self._features_folder / f"{_hash([name, status.st_size, status.st_mtime_ns])}.safetensors"
            )
            if _read(self._files[name]) is None:
                waiting.append(name)
            else:
                yield name, None
        found = self._extract_here(folder, waiting) if workers is None else workers.extract(folder, waiting)
        for name, features in found:
            if isinstance(features, InputError):
                yield name, features
            else:
                atomic_write_bytes(self._files[name], _features_bytes(features))
                yield name, None

    def _extract_here(self, folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Features | InputError]]:
        for name in names:
            try:
                yield name, self._detector.extract(folder / name).to("cpu")
            except InputError as error:
                yield name, error

    def features(self, name: str) -> Features:
        """Of an image that was extracted."""
        found = self._memory.pop(name, None)
        if found is None:
            stored = _read(self._files[name])
            if stored is None:
                raise InputError(f"{self._files[name]}: was removed or damaged meanwhile; call again")
            tensors, header = stored
            width, height = header["image_size"]
            found = Features(**tensors, image_size=(width, height), method=header["method"])
        self._memory[name] = found
        while len(self._memory) > _IMAGES_IN_MEMORY:
            self._memory.popitem(last=False)
        return found

    def match(self, pairs: Sequence[NamePair], workers: FolderWorkers | None) -> Iterator[tuple[int, int]]:
        """Match pairs, some at a time, unless they are done; gives how many pairs, and their matches."""
        waiting = []
        for some in _parts_of(pairs):
            stored = _read(self._matches_path(some))
            if stored is None:
                waiting.append(some)
            else:
                yield len(some), _count(stored[0])
        found = self._match_here(waiting) if workers is None else workers.match(waiting, self.features)
        for some, tensors in found:
            atomic_write_bytes(self._matches_path(some), save(tensors, metadata={"header": "{}"}))
            yield len(some), _count(tensors)

    def _match_here(
        self, parts: Sequence[Sequence[NamePair]]
    ) -> Iterator[tuple[Sequence[NamePair], dict[str, torch.Tensor]]]:
        device = self._detector.device
        for some in parts:
            yield some, match_pairs(self._matcher, lambda name: self.features(name).to(device), some)

    def all_matches(self, pairs: Sequence[NamePair]) -> Iterator[tuple[str, str, int, Matches]]:
        """What :func:`semkey.interop.hloc.write_matches` takes."""
        for some in _parts_of(pairs):
            stored = _read(self._matches_path(some))
            if stored is None:
                raise InputError(f"{self._matches_path(some)}: was removed or damaged meanwhile; call again")
            for number, (name0, name1) in enumerate(some):
                matches = Matches(indices=stored[0][f"indices{number}"], scores=stored[0][f"scores{number}"])
                yield name0, name1, len(self.features(name0)), matches

    def _matches_path(self, pairs: Sequence[NamePair]) -> Path:
        said = [[self._files[name].stem for name in pair] for pair in pairs]
        return self._matches_folder / f"{_hash(said)}.safetensors"


def _parts_of(pairs: Sequence[NamePair]) -> list[Sequence[NamePair]]:
    return [pairs[first : first + _PAIRS_PER_PART] for first in range(0, len(pairs), _PAIRS_PER_PART)]


def _count(tensors: dict[str, torch.Tensor]) -> int:
    return sum(len(tensor) for name, tensor in tensors.items() if name.startswith("scores"))


def _features_bytes(features: Features) -> bytes:
    present = {name: getattr(features, name) for name in _TENSORS if getattr(features, name) is not None}
    header = json.dumps({"image_size": list(features.image_size), "method": features.method})
    return save({name: tensor.clone().contiguous() for name, tensor in present.items()}, metadata={"header": header})


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and header of a part; None where it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["header"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, ValueError):
        log.warning("%s is damaged and is made again", path)
        return None


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()
