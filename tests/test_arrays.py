"""Memory of arrays that compiled code writes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import graphc
from graphc.arrays import Reused, aligned_copy, aligned_empty, is_aligned


@pytest.mark.parametrize("shape", [(), (3,), (5, 7), (0, 4), (1 << 20,)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.bool_])
def test_begins_on_a_cache_line(shape: tuple[int, ...], dtype: type) -> None:
    array = aligned_empty(shape, np.dtype(dtype))
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data % 64 == 0


def test_views_keep_the_array_itself_alive() -> None:
    """Programs reuse an output to which there is no other reference: a view must be one."""
    array = aligned_empty((4, 5), np.dtype(np.float32))
    before = sys.getrefcount(array)
    view = array[1:].reshape(-1)
    assert sys.getrefcount(array) > before
    del array
    view[:] = 1.0
    assert view.sum() == 15.0


def test_arrays_are_given_out_again_once_nobody_holds_them() -> None:
    pool = Reused((3, 4), np.dtype(np.float32))
    first = pool.take()
    second = pool.take()
    assert second is not first
    place = first.ctypes.data
    del first
    assert pool.take().ctypes.data == place
    view = second[1:]
    del second
    held = pool.take()
    assert not np.shares_memory(pool.take(), view)
    assert not np.shares_memory(held, view)


def test_read_only_arrays_are_not_given_out_again() -> None:
    pool = Reused((3,), np.dtype(np.float32))
    array = pool.take()
    array.flags.writeable = False
    place = array.ctypes.data
    del array
    assert pool.take().ctypes.data != place


def test_copies_begin_on_a_cache_line_too() -> None:
    source = np.arange(24, dtype=np.float32).reshape(4, 6).T
    copied = aligned_copy(source)
    assert is_aligned(copied)
    assert copied.flags.c_contiguous
    np.testing.assert_array_equal(copied, source)
    assert not is_aligned(aligned_empty((5,), np.dtype(np.float32))[1:])


def test_state_of_compiled_steps_begins_on_a_cache_line() -> None:
    """Wherever parameters came from, and for good: later steps write over the same arrays."""
    model = graphc.nn.Linear(40, 30)
    with graphc.no_grad():
        model.weight.copy_(graphc.from_numpy(np.ones((31, 40), np.float32)[1:]))
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.001, momentum=0.5)
    x = graphc.ones(8, 40)

    @graphc.compile
    def step() -> graphc.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [float(step()) for _ in range(3)]
    state = [*model.parameters(), *(s["momentum_buffer"] for s in optimizer.state.values())]
    arrays = [tensor._cell.node.bound for tensor in state]
    assert all(map(is_aligned, arrays))
    losses += [float(step()) for _ in range(3)]
    assert all(tensor._cell.node.bound is a for tensor, a in zip(state, arrays, strict=True))
    assert losses == sorted(losses, reverse=True)
