"""Fetching: from indices (or a stream) to a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from graphc.utils.data.collate import default_collate
from graphc.utils.data.dataset import Dataset, IterableDataset, Subset, TensorDataset

Fetch = Callable[[Any], Any]


def fetcher(dataset: Dataset, batched: bool, collate_fn: Callable, drop_last: bool) -> Fetch:
    """A function from what the sampler gives to a batch. Streams end with StopIteration."""
    if isinstance(dataset, IterableDataset):
        return _stream(iter(dataset), batched, collate_fn, drop_last)
    if not batched:
        return lambda index: collate_fn(_sample(dataset, index))
    if collate_fn is default_collate and (rows := _rows(dataset)) is not None:
        return rows
    many = getattr(dataset, "__getitems__", None)
    if callable(many):
        return lambda indices: collate_fn(many(indices))
    return lambda indices: collate_fn([_sample(dataset, i) for i in indices])


def _sample(dataset: Dataset, index: Any) -> Any:
    """`dataset[index]`; errors name the index."""
    try:
        return dataset[index]
    except Exception as error:
        error.add_note(f"raised by dataset[{index!r}] of {type(dataset).__name__}")
        raise


def _rows(dataset: Dataset) -> Fetch | None:
    """A shortcut for tensors in memory: gather all rows of a batch at once."""
    picks: list[Any] = []
    while type(dataset) is Subset:
        picks.append(dataset.indices)
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset or any(t.requires_grad for t in dataset.tensors):
        return None
    tensors = dataset

    def fetch(indices: list[int]) -> list[Any]:
        for pick in picks:
            indices = [pick[i] for i in indices]
        return tensors.batch(indices)

    return fetch


def _stream(source: Iterator[Any], batched: bool, collate_fn: Callable, drop_last: bool) -> Fetch:
    if not batched:
        return lambda _: collate_fn(next(source))

    def fetch(indices: list[int]) -> Any:
        batch = list(itertools.islice(source, len(indices)))
        if not batch or (drop_last and len(batch) < len(indices)):
            raise StopIteration
        return collate_fn(batch)

    return fetch
