"""Work on the host: random orders, and rows of tensors without compiling a program.

The loaders run beside the compiled step, so they use NumPy on arrays that exist already.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.frontend.evaluation.lazy import memory
from graphc.frontend.functions.random import Generator, default_generator
from graphc.frontend.tensor import Tensor, from_array


def draw_seed(generator: Generator | None = None) -> int:
    """A 63-bit seed drawn from a graphc Generator, or from the global one."""
    source = generator or default_generator
    words = np.random.SeedSequence(source.key().tolist()).generate_state(1, np.uint64)
    source.offset += 1
    return int(words[0] >> np.uint64(1))


class _Local(threading.local):
    batch: tuple[int, int] | None = None  # (seed of the pass, number of the batch) being made
    stream: np.random.Generator | None = None  # its random stream, once somebody draws


_local = _Local()


@contextmanager
def batch_stream(seed: int, number: int) -> Iterator[None]:
    """Within this, in this thread, `rng()` is the random stream of batch `number` of a pass.

    So random transforms of samples give the same with any number of workers.
    """
    saved = _local.batch, _local.stream
    _local.batch, _local.stream = (seed, number), None
    try:
        yield
    finally:
        _local.batch, _local.stream = saved


def rng(generator: Generator | None = None) -> np.random.Generator:
    """A NumPy generator seeded by (and advancing) a graphc Generator, or the global one; while a loader
    makes a batch, that batch's own."""
    if generator is not None or _local.batch is None:
        return np.random.Generator(np.random.Philox(draw_seed(generator)))
    if _local.stream is None:
        _local.stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(_local.batch)))
    return _local.stream


def permutation(n: int, generator: Generator | None = None) -> np.ndarray:
    """A random order of 0..n-1."""
    return rng(generator).permutation(n)


def host_array(tensor: Tensor) -> np.ndarray:
    """The tensor's values, without a copy. To be read at once, and not to be written to."""
    return memory(tensor)


def host_rows(tensor: Tensor, index: Any) -> Tensor:
    """`tensor[index]` along the first axis, copied on the host; with history if the tensor has any."""
    if tensor.requires_grad:
        return tensor[index]
    array = host_array(tensor)
    if isinstance(index, Tensor):
        index = host_array(index)
    rows = np.array(array[index])
    return from_array(rows)
