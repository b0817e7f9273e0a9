"""DataLoader: batches of a dataset."""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from graphc.utils.data.collate import default_collate, default_convert
from graphc.utils.data.dataset import Dataset, IterableDataset
from graphc.utils.data.fetch import fetcher
from graphc.utils.data.host import batch_stream, draw_seed
from graphc.utils.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from graphc.utils.data.worker import Job, ThreadedIterator

T_co = TypeVar("T_co", covariant=True)
_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")


class _Forever(Sampler[None]):
    """The sampler of streams: there is always one more."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(Generic[T_co]):
    """Iterates over a dataset in batches, with every argument of PyTorch's.

    With `num_workers` > 0 batches are made ahead by that many threads (at most `prefetch_factor` each).
    The order of samples depends on `generator` (or the global seed) alone, not on the workers.
    `pin_memory`, `pin_memory_device`, `persistent_workers` and `multiprocessing_context` are accepted and
    without effect: threads need none of them. ValueError for arguments that exclude each other.
    """

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler | Iterable | None = None,
        batch_sampler: Sampler[list] | Iterable[list] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        stream = isinstance(dataset, IterableDataset)
        _check_sampling(stream, batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        if sampler is None:
            if stream:
                sampler = _Forever()
            else:
                source: Any = dataset
                sampler = RandomSampler(source, generator=generator) if shuffle else SequentialSampler(source)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(cast(Any, sampler), batch_size, drop_last)
        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        batched = batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.drop_last = drop_last
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self._ready = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and self.__dict__.get("_ready"):
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        object.__setattr__(self, name, value)

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __iter__(self) -> Iterator[Any]:
        seed = draw_seed(self.generator)  # also without workers, so that they do not change the order
        if self.num_workers == 0:
            return self._batches(seed)
        job = Job(
            self.dataset,
            self._auto_collation,
            self.collate_fn,
            self.drop_last,
            self.num_workers,
            self.worker_init_fn,
            seed,
        )
        ahead = self.prefetch_factor or 1
        return ThreadedIterator(job, iter(self._index_sampler), ahead, self.timeout, self.in_order)

    def _batches(self, seed: int) -> Iterator[Any]:
        """All batches, made one after another in this thread."""
        fetch = fetcher(self.dataset, self._auto_collation, self.collate_fn, self.drop_last)
        stream = isinstance(self.dataset, IterableDataset)
        for number, indices in enumerate(self._index_sampler):
            try:
                with batch_stream(seed, number):
                    batch = fetch(indices)
            except StopIteration:
                if stream:
                    return
                raise RuntimeError("a dataset raised StopIteration for an index") from None
            yield batch

    def __len__(self) -> int:
        if not isinstance(self.dataset, IterableDataset):
            return len(self._index_sampler)
        length = len(self.dataset)  # type: ignore[arg-type]
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else math.ceil(length / self.batch_size)


def _check_workers(
    num_workers: int, timeout: float, prefetch: int | None, persistent: bool, context: Any
) -> None:
    if num_workers < 0:
        raise ValueError(
            "num_workers option should be non-negative; use num_workers=0 to disable multiprocessing."
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing. let num_workers > 0 "
            "to enable "
            "multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch is not None and prefetch < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if persistent and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")
    if context is None:
        return
    if num_workers == 0:
        raise ValueError(
            "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
            f"num_workers={num_workers}"
        )
    methods = multiprocessing.get_all_start_methods()
    if isinstance(context, str) and context not in methods:
        raise ValueError(
            f"multiprocessing_context option should specify a valid start method in {methods!r}, but got "
            f"multiprocessing_context={context!r}"
        )


def _check_sampling(
    stream: bool, batch_size: int | None, shuffle: bool | None, sampler: Any, batches: Any, drop_last: bool
) -> None:
    if stream:
        for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batches)):
            if value is not None:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified {name} option, but got "
                    f"{name}={value}"
                )
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batches is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise ValueError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
            )
    elif batch_size is None and drop_last:
        raise ValueError(
            "batch_size=None option disables auto-batching and is mutually exclusive with drop_last"
        )
