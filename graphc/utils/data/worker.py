"""Worker threads of a DataLoader.

Threads, not processes: samples need no copying, nothing is forked beside the compiled program's own
threads, and native steps release the interpreter lock while they run. Batch k is always made by worker
k mod n, so what a worker sees does not depend on timing.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from graphc.utils.data.dataset import Dataset, IterableDataset
from graphc.utils.data.fetch import fetcher
from graphc.utils.data.host import batch_stream


@dataclass
class WorkerInfo:
    """What `get_worker_info()` tells inside a worker.

    id: 0..num_workers-1; seed: differs for each worker and epoch; dataset: this worker's copy.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Dataset


class _Current(threading.local):
    info: WorkerInfo | None = None


_current = _Current()


def get_worker_info() -> WorkerInfo | None:
    """The worker this thread is, or None outside of workers."""
    return _current.info


@dataclass(frozen=True)
class Job:
    """What all workers of a pass share."""

    dataset: Dataset
    batched: bool
    collate_fn: Callable
    drop_last: bool
    workers: int
    init: Callable[[int], Any] | None
    seed: int


_DONE = object()  # instead of a batch: this worker's stream has ended


class _Failure:
    """Instead of a batch: the exception that making it raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _work(job: Job, number: int, tasks: queue.SimpleQueue, results: queue.SimpleQueue) -> None:
    """The body of a worker thread: (k, indices) in, (k, batch) out, until None comes."""
    failed: _Failure | None = None
    try:
        dataset = copy.copy(job.dataset)  # a worker_init_fn may give every worker its own share
        _current.info = WorkerInfo(number, job.workers, job.seed + number, dataset)
        if job.init is not None:
            job.init(number)
        fetch = fetcher(dataset, job.batched, job.collate_fn, job.drop_last)
    except Exception as error:
        failed = _Failure(error)
    while (task := tasks.get()) is not None:
        k, indices = task
        if failed is not None:
            results.put((k, failed))
            continue
        try:
            with batch_stream(job.seed, k):
                results.put((k, fetch(indices)))
        except StopIteration as error:
            results.put((k, _DONE if isinstance(job.dataset, IterableDataset) else _Failure(error)))
        except Exception as error:
            results.put((k, _Failure(error)))


class ThreadedIterator(Iterator[Any]):
    """Gives the batches of one pass, made ahead by threads.

    At most `prefetch` tasks per worker are under way. With `in_order` batches come in the order of the
    sampler, otherwise as they get ready. A worker's exception is raised here, with its own traceback.
    """

    def __init__(
        self, job: Job, indices: Iterator[Any], prefetch: int, timeout: float, in_order: bool
    ) -> None:
        self._indices = indices
        self._timeout = timeout or None
        self._in_order = in_order
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._ready: dict[int, Any] = {}
        self._sent = 0
        self._wanted = 0
        self._open = 0
        self._ended: set[int] = set()
        self._tasks = [queue.SimpleQueue() for _ in range(job.workers)]  # type: ignore[var-annotated]
        for number, tasks in enumerate(self._tasks):
            threading.Thread(
                target=_work,
                args=(job, number, tasks, self._results),
                name=f"graphc-loader-{number}",
                daemon=True,
            ).start()
        for _ in range(max(1, prefetch) * job.workers):
            self._send()

    def _send(self) -> None:
        """Give the next task to the worker whose turn it is."""
        count = len(self._tasks)
        if len(self._ended) == count:
            return
        try:
            indices = next(self._indices)
        except StopIteration:
            return
        while self._sent % count in self._ended:  # ended streams lose their turn
            self._ready[self._sent] = _DONE
            self._sent += 1
        self._tasks[self._sent % count].put((self._sent, indices))
        self._sent += 1
        self._open += 1

    def _receive(self) -> tuple[int, Any]:
        try:
            k, batch = self._results.get(timeout=self._timeout)
        except queue.Empty:
            self.close()
            raise RuntimeError(f"DataLoader timed out after {self._timeout} seconds") from None
        self._open -= 1
        if batch is _DONE:
            self._ended.add(k % len(self._tasks))
        self._send()
        return k, batch

    def __next__(self) -> Any:
        while True:
            if self._in_order:
                while self._wanted not in self._ready:
                    if not self._open:
                        self.close()
                        raise StopIteration
                    k, batch = self._receive()
                    self._ready[k] = batch
                batch = self._ready.pop(self._wanted)
                self._wanted += 1
            else:
                if not self._open:
                    self.close()
                    raise StopIteration
                _, batch = self._receive()
            if isinstance(batch, _Failure):
                self.close()
                raise batch.error
            if batch is not _DONE:
                return batch

    def close(self) -> None:
        """Let the threads end after what they are doing; further batches are dropped."""
        for tasks in self._tasks:
            tasks.put(None)
        self._open = 0

    def __del__(self) -> None:
        self.close()
