"""Features of many images into one file: resumable, in processes or on a cluster, broken images told at the end.

While a run lasts, finished chunks lie as files in ``OUT.parts``; at the end they become the HDF5 file, which appears
whole. A run that was killed goes on from its parts. With a folder as output every image is a file of its own.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from semkey import __version__
from semkey.datasets.readers.folder import list_images_below
from semkey.errors import ConfigError, InputError
from semkey.files import atomic_write_bytes, atomic_write_text
from semkey.interop.bulk_file import Arrays, pack, packed_names, stored_job, unpack, write_hloc
from semkey.interop.bulk_workers import (
    Chunk,
    ChunkResult,
    ExtractionJob,
    detector_of,
    run_here,
    run_in_processes,
    run_on_ray,
)
from semkey.interop.hloc import require_h5py
from semkey.settings import Settings, require_within

HDF5_SUFFIXES = (".h5", ".hdf5")
_JOB_FILE = "semkey.json"


@dataclass(frozen=True, kw_only=True)
class BulkConfig(Settings):
    """How many images are extracted.

    Attributes:
        workers: processes of one core each; 1 extracts in this one with all cores.
        chunk: images of one unit of work: what a kill costs at most, for each worker.
        ray: address of a Ray cluster (``HOST:6379``, ``auto``), or ``local`` for workers of this machine under Ray.
    """

    workers: int = 1
    chunk: int = 16
    ray: str | None = None

    def __post_init__(self) -> None:
        require_within(self, "[1, inf)", "workers", "chunk")


@dataclass(frozen=True, kw_only=True)
class BulkSummary:
    """What came of a run.

    Attributes:
        images: listed.
        kept: done in an earlier run.
        extracted: done in this one.
        broken: names of images that cannot be used, and why.
        seconds: of this run, wall time.
    """

    images: int
    kept: int
    extracted: int
    broken: tuple[tuple[str, str], ...]
    seconds: float


def list_source(source: Path, root: Path | None = None) -> list[tuple[str, Path]]:
    """(name, file) of the images to extract, in natural order of their names.

    Args:
        source: a folder, with what lies in its folders, or a text file with a name per line.
        root: where the names of a list begin; None for the list's folder.

    Raises:
        DatasetError: there are no images in the folder.
        InputError: the list has none, a name twice, or one that leads out of the folder.
    """
    if source.is_dir():
        return [(path.relative_to(source).as_posix(), path) for path in list_images_below(source)]
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{source}: no such folder or list") from None
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{source}: is neither a folder of images nor a text file with a name per line") from None
    names = [PurePosixPath(line.strip()).as_posix() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InputError(f"{source}: lists no images")
    seen: set[str] = set()
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"{source}: {name} leaves the folder of the images; names are relative to --images")
        if name in seen:
            raise InputError(f"{source}: lists {name} twice")
        seen.add(name)
    folder = source.parent if root is None else root
    return [(name, folder / name) for name in names]


def extract_many(
    images: Sequence[tuple[str, Path]],
    out: Path,
    job: ExtractionJob,
    config: BulkConfig | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> BulkSummary:
    """Extract the features of many images; those that ``out`` has already are kept.

    Args:
        images: names, without doubles, and files.
        out: an HDF5 file (``.h5``) in hloc's layout, or a folder with a file ``NAME.npz`` for each image, which holds
            the same arrays.
        job: which features.
        config: in how many processes, and where.
        progress: called with the number of images done and of all.

    Raises:
        ConfigError: ``out`` holds features of another job, or a package is missing.
        InputError: ``out`` cannot be written.
    """
    config = config or BulkConfig()
    start = time.perf_counter()
    store = _Hdf5(out, job) if out.suffix.lower() in HDF5_SUFFIXES else _Folder(out, job)
    done = store.done()
    todo = [(name, path) for name, path in images if name not in done]
    kept = len(images) - len(todo)
    chunks: list[Chunk] = [todo[begin : begin + config.chunk] for begin in range(0, len(todo), config.chunk)]
    broken: list[tuple[str, str]] = []
    extracted = 0
    if progress is not None:
        progress(kept, len(images))
    for result in _run(job, chunks, config):
        if result.found:
            store.add(result.found)
        extracted += len(result.found)
        broken += result.broken
        if progress is not None:
            progress(kept + extracted + len(broken), len(images))
    store.finish()
    order = {name: number for number, (name, _) in enumerate(images)}
    return BulkSummary(
        images=len(images),
        kept=kept,
        extracted=extracted,
        broken=tuple(sorted(broken, key=lambda entry: order[entry[0]])),
        seconds=time.perf_counter() - start,
    )


def _run(job: ExtractionJob, chunks: list[Chunk], config: BulkConfig) -> Iterator[ChunkResult]:
    if not chunks:
        return iter(())
    if config.ray is not None:
        return run_on_ray(job, chunks, config.ray, config.workers)
    if config.workers > 1:
        return run_in_processes(job, chunks, config.workers)
    return run_here(job, chunks)


def _description(job: ExtractionJob) -> dict[str, Any]:
    """What the features depend on: the name and, where there are any, the weights."""
    detector = detector_of(job)
    settings = getattr(detector, "settings", {})
    described = {"features": job.features, "max_keypoints": job.max_keypoints, "method": detector.name}
    if "weights_sha256" in settings:
        described["weights_sha256"] = settings["weights_sha256"]
    return described


def _check_job(place: Path, stored: dict[str, Any], present: dict[str, Any]) -> None:
    changed = [key for key in present if stored.get(key) != present[key]]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{place}: was made with {key} {stored.get(key, 'unknown')}, not {present[key]}; give another --out or "
            "remove it"
        )


class _Hdf5:
    """An HDF5 file, with parts beside it until it is finished."""

    def __init__(self, out: Path, job: ExtractionJob) -> None:
        require_h5py()
        if out.is_dir():
            raise InputError(f"cannot write {out}: it is a folder")
        self._out = out
        self._parts = out.with_name(f"{out.name}.parts")
        self._job = _description(job)
        self._done: set[str] = set()
        if out.exists():
            stored, self._done = stored_job(out)
            _check_job(out, stored, self._job)
        if self._parts.is_dir():
            _check_job(self._parts, _read_job(self._parts), self._job)
            for part in self._files():
                self._done |= set(packed_names(part))
        self._count = len(self._files())

    def _files(self) -> list[Path]:
        return sorted(self._parts.glob("*.npz")) if self._parts.is_dir() else []

    def done(self) -> set[str]:
        return self._done

    def add(self, entries: Sequence[tuple[str, Arrays]]) -> None:
        if not self._parts.is_dir():
            _write_job(self._parts, self._job)
        atomic_write_bytes(self._parts / f"{self._count:08d}.npz", pack(entries))
        self._count += 1

    def finish(self) -> None:
        files = self._files()
        if files:
            write_hloc(self._out, _all_entries(files), {**self._job, "created_by": f"semkey {__version__}"})
        shutil.rmtree(self._parts, ignore_errors=True)


class _Folder:
    """A folder with an NPZ file per image."""

    def __init__(self, out: Path, job: ExtractionJob) -> None:
        if out.exists() and not out.is_dir():
            raise InputError(f"cannot write {out}: it is a file; give a folder, or a name that ends in .h5")
        self._out = out
        self._job = _description(job)
        if (out / _JOB_FILE).is_file():
            _check_job(out, _read_job(out), self._job)
        elif out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out}: is a folder with other things in it; give a new one")

    def done(self) -> set[str]:
        if not self._out.is_dir():
            return set()
        return {path.relative_to(self._out).as_posix().removesuffix(".npz") for path in self._out.rglob("*.npz")}

    def add(self, entries: Sequence[tuple[str, Arrays]]) -> None:
        if not (self._out / _JOB_FILE).is_file():
            _write_job(self._out, self._job)
        for name, arrays in entries:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)  # ty: ignore[invalid-argument-type]
            atomic_write_bytes(self._out / f"{name}.npz", buffer.getvalue())

    def finish(self) -> None:
        """Every image is a file already."""


def _all_entries(files: Iterable[Path]) -> Iterator[tuple[str, Arrays]]:
    for file in files:
        yield from unpack(file)


def _write_job(folder: Path, job: dict[str, Any]) -> None:
    atomic_write_text(folder / _JOB_FILE, json.dumps(job, sort_keys=True) + "\n")


def _read_job(folder: Path) -> dict[str, Any]:
    try:
        stored = json.loads((folder / _JOB_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = {}
    return stored if isinstance(stored, dict) else {}
