"""Who extracts: this process, processes of this machine, or a Ray cluster. A worker that dies loses nothing.

The unit of work is a chunk of images. Whichever way, every chunk's result is handed over exactly once. A chunk whose
worker died is tried again image by image, each in a worker of its own; an image that ends two workers that had
nothing else is broken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semkey.cluster import QUEUED, Cluster, Lost, one_thread
from semkey.errors import InputError
from semkey.settings import Settings

if TYPE_CHECKING:
    from semkey.extractors import Detector
    from semkey.interop.bulk_file import Arrays

_KILLED = "ended its worker (out of memory?)"
# An image is given so many workers of its own. The first may have been killed for another's sake, as the memory of a
# whole machine runs out; and that its chunk was lost says nothing, since another process may have broken the pool.
_ALONE = 2


@dataclass(frozen=True, kw_only=True)
class ExtractionJob(Settings):
    """What is done to every image.

    Attributes:
        features: as :func:`semkey.load` takes them.
        max_keypoints: largest number of keypoints per image.
        device: where networks run.
        runtime: what computes the network, see :func:`semkey.load`.
    """

    features: str = "compact"
    max_keypoints: int = 1024
    device: str = "auto"
    runtime: str = "torch"

    def detector(self) -> Detector:
        """A detector for this job.

        Raises:
            ConfigError: unknown features, device or runtime.
            CheckpointError: weights are missing or broken.
        """
        from semkey.extractors import create_extractor

        return create_extractor(
            self.features, max_keypoints=self.max_keypoints, device=self.device, runtime=self.runtime
        )


@dataclass(kw_only=True)
class ChunkResult:
    """What came of a chunk.

    Attributes:
        found: names and arrays (:func:`semkey.interop.bulk_file.feature_arrays`).
        broken: names of images that cannot be used, and why.
    """

    found: list[tuple[str, Arrays]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)


Chunk = Sequence[tuple[str, Path]]

_detectors: dict[ExtractionJob, Any] = {}


def detector_of(job: ExtractionJob) -> Detector:
    """The detector of a job, made once in each process; errors as :meth:`ExtractionJob.detector`."""
    if job not in _detectors:
        _detectors[job] = job.detector()
    return _detectors[job]


def extract_chunk(job: ExtractionJob, chunk: Chunk) -> ChunkResult:
    """Extract the images of a chunk, with a detector that this process keeps."""
    from semkey.interop.bulk_file import feature_arrays

    detector = detector_of(job)
    result = ChunkResult()
    for name, path in chunk:
        try:
            result.found.append((name, feature_arrays(detector.extract(_image(path)))))
        except InputError as error:
            result.broken.append((name, str(error)))
    return result


def _image(path: Path) -> Any:
    """Pixels as they are stored: COLMAP and hloc do not turn images by their EXIF block either."""
    from semkey.images import read_image

    return read_image(path, orientation=1)


def run_here(job: ExtractionJob, chunks: Sequence[Chunk]) -> Iterator[ChunkResult]:
    """One chunk after the other in this process."""
    for chunk in chunks:
        yield extract_chunk(job, chunk)


# -- processes -----------------------------------------------------------------------------------------------------


def run_in_processes(job: ExtractionJob, chunks: Sequence[Chunk], workers: int) -> Iterator[ChunkResult]:
    """Chunks in ``workers`` processes of one thread each, as they are done."""
    waiting = list(reversed(chunks))
    while waiting:
        running: dict[Future[ChunkResult], Chunk] = {}
        pool = _pool(workers)
        try:
            while waiting or running:
                while waiting and len(running) < workers * QUEUED:
                    running[pool.submit(extract_chunk, job, waiting[-1])] = waiting[-1]
                    waiting.pop()  # only now: a pool that broke a moment ago takes nothing more
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    del running[future]
                    yield result
        except BrokenProcessPool:
            # Results that were ready when the worker died are handed over, the others are suspects.
            suspects = []
            for future, chunk in running.items():
                if future.done() and future.exception() is None:
                    yield future.result()
                else:
                    suspects.append(chunk)
            yield from _one_by_one(job, [item for chunk in suspects for item in chunk])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=one_thread)


def _one_by_one(job: ExtractionJob, items: list[tuple[str, Path]]) -> Iterator[ChunkResult]:
    """Images one after the other in a process beside this one, so that who ends it is known."""
    pool = _pool(1)
    try:
        for item in items:
            for tries in range(1, _ALONE + 1):
                try:
                    yield pool.submit(extract_chunk, job, [item]).result()
                    break
                except BrokenProcessPool:
                    pool.shutdown(wait=False)
                    pool = _pool(1)
                    if tries == _ALONE:
                        yield ChunkResult(broken=[(item[0], f"{item[1]} {_KILLED}")])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# -- Ray -----------------------------------------------------------------------------------------------------------


def extract_sent(job: ExtractionJob, images: Sequence[tuple[str, str, bytes | str]]) -> ChunkResult:
    """Extract images whose bytes were sent: a worker of a cluster need not see the folder.

    Args:
        job: what to do.
        images: name, file name, and the file's bytes, or what is wrong with it.
    """
    broken = [(name, data) for name, _, data in images if isinstance(data, str)]
    with tempfile.TemporaryDirectory(prefix="semkey-") as folder:
        chunk, origin = [], {}
        for number, (name, path, data) in enumerate(images):
            if isinstance(data, str):
                continue
            file = Path(folder) / f"{number}{Path(path).suffix}"
            file.write_bytes(data)
            chunk.append((name, file))
            origin[name] = (str(file), path)
        result = extract_chunk(job, chunk)
    result.broken = broken + [(name, text.replace(*origin[name])) for name, text in result.broken]
    return result


def run_on_ray(job: ExtractionJob, chunks: Sequence[Chunk], address: str, workers: int) -> Iterator[ChunkResult]:
    """Chunks on a Ray cluster, as they are done.

    Args:
        job: what is done; with ``device="cuda"`` each task asks Ray for a GPU.
        chunks: images, read here and sent.
        address: of the cluster, ``auto``, or ``local`` for ``workers`` processes of this machine under Ray.
        workers: see ``address``.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    cluster = Cluster(address=address, workers=workers, gpus=int(job.device.startswith("cuda")))
    done = cluster.run(
        extract_sent, chunks, send=lambda chunk: (job, _sent(chunk)), parts=lambda chunk: [[item] for item in chunk]
    )
    for chunk, result in done:
        if isinstance(result, Lost):
            yield ChunkResult(broken=[(name, f"{path} {_KILLED}") for name, path in chunk])
        else:
            yield result


def _sent(chunk: Chunk) -> list[tuple[str, str, bytes | str]]:
    images: list[tuple[str, str, bytes | str]] = []
    for name, path in chunk:
        try:
            images.append((name, str(path), path.read_bytes()))
        except OSError as error:
            images.append((name, str(path), f"cannot read {path}: {error.strerror}"))
    return images
