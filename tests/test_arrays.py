"""Memory of arrays that compiled code writes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from graphc.arrays import Reused, aligned_empty


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
