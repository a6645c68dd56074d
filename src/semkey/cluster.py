"""Work on a Ray cluster (``pip install 'semkey[ray]'``): a worker that dies loses nothing, and nothing is done twice.

A task is tried again in parts when its worker ends (a lack of memory, a machine that goes away); a part whose worker
ends again and again is handed back as lost, so that what kills workers costs nothing but itself.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from semkey.errors import ConfigError, SemkeyError

log = logging.getLogger(__name__)

T = TypeVar("T")

# A task and then its parts are given to a worker so often: a machine may go without fault of the work.
TRIES: Final = 3
# Tasks that wait for each worker, so that none is idle while a result is written.
QUEUED: Final = 2


class Lost:
    """Instead of a result: the worker ended every time that the task was tried."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where tasks run.

    Attributes:
        address: of a Ray cluster (``HOST:6379``, ``auto``), or ``local`` for workers of this machine under Ray.
        workers: processes of one core each with ``local``; a cluster has as many as it has cores.
        gpus: that each task asks Ray for.
    """

    address: str
    workers: int = 1
    gpus: int = 0

    @contextmanager
    def connected(self) -> Generator[Any]:
        """Ray, connected for as long as the block lasts: starting it takes seconds, so do it once around several runs.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at the address.
        """
        ray = _import_ray()
        if ray.is_initialized():
            yield ray
            return
        _connect(ray, self.address, self.workers)
        _keep_off_stdout(ray)
        try:
            yield ray
        finally:
            ray.shutdown()

    def run(
        self,
        call: Callable[..., Any],
        tasks: Iterable[T],
        *,
        send: Callable[[T], tuple[Any, ...]],
        parts: Callable[[T], list[T]],
    ) -> Iterator[tuple[T, Any]]:
        """Results as they come: ``(task, call(*send(task)))``; parts of a task whose worker died come one by one.

        Args:
            call: runs in a worker, on one thread; semkey must be installed there.
            tasks: in the order in which they are begun.
            send: the arguments of ``call``, made when the task's turn comes.
            parts: of a task, to be tried one by one; a task that has one part only is itself.

        Yields:
            Each task, or each part of one, exactly once, with its result or :class:`Lost`.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at the address.
            SemkeyError: what ``call`` raised in a worker.
        """
        with self.connected() as ray:
            # Repeated here and not by Ray, in parts: one that kills its worker costs no other one.
            task = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=0)(_guarded)
            slots = max(1, int(ray.cluster_resources().get("CPU", 1))) * QUEUED
            coming = iter(tasks)
            again: list[tuple[T, int]] = []
            running: dict[Any, tuple[T, int]] = {}
            while True:
                while len(running) < slots:
                    work, tries = again.pop() if again else (next(coming, None), TRIES)
                    if work is None:
                        break
                    running[task.remote(call, *send(work))] = (work, tries)
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1)
                for reference in done:
                    work, tries = running.pop(reference)
                    try:
                        error, result = ray.get(reference)
                    except (
                        ray.exceptions.WorkerCrashedError,
                        ray.exceptions.OutOfMemoryError,
                        ray.exceptions.NodeDiedError,
                    ):
                        if tries > 1:
                            again += [(part, tries - 1) for part in reversed(parts(work))]
                        else:
                            yield from ((part, Lost()) for part in parts(work))
                        continue
                    if error is not None:
                        raise error
                    yield work, result


def _guarded(call: Callable[..., Any], *arguments: Any) -> tuple[SemkeyError | None, Any]:
    """In a worker: errors of semkey as values, since Ray would put its own traceback around them."""
    one_thread()
    try:
        return None, call(*arguments)
    except SemkeyError as error:
        return error, None


_kept: dict[bytes, Any] = {}


def kept(make: Callable[[], T]) -> T:
    """What ``make`` gives, made once in each process: a detector for all tasks of a worker."""
    key = pickle.dumps(make)
    if key not in _kept:
        _kept[key] = make()
    return _kept[key]


def one_thread() -> None:
    """Make this process use one core: the others have workers of their own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from semkey.runtime import tune_process

    tune_process()
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray needs Ray: pip install 'semkey[ray]'") from None
    return ray


def _keep_off_stdout(ray: Any) -> None:
    """Log what Ray tells of its workers: it prints that a worker died to stdout, among the results of a command.

    There is no public way; where the private one is gone, all is as Ray has it.
    """
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda data, **_: log.info("ray: %s", " ".join(data["lines"]))


def _connect(ray: Any, address: str, workers: int) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address == "local":
        options |= {"num_cpus": workers, "include_dashboard": False}
    try:
        try:
            ray.init(address=address, **options)
        except Exception:  # a node that is slow to start raises the bare class
            if address != "local":
                raise
            # Ray waits for its own processes for some seconds only, which a busy machine may need longer for.
            ray.shutdown()
            ray.init(address=address, **options)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"--ray '{address}': no Ray cluster there ({reason}); give HOST:6379, auto or local"
        ) from None
