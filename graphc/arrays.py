"""NumPy arrays in memory that suits compiled code."""

from __future__ import annotations

from math import prod
from sys import getrefcount
from typing import Any

import numpy as np

from graphc.program import LINE


class _Memory:
    """Memory of an array, from an aligned address on.

    The array refers to this object, not to another array, so views of the array refer to the array itself:
    whoever holds a view holds a reference to it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._bytes = np.empty(prod(shape) * dtype.itemsize + LINE, np.uint8)
        address = self._bytes.ctypes.data
        self.__array_interface__: dict[str, Any] = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (address + -address % LINE, False),
            "version": 3,
        }


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array with undefined contents that begins on a cache line: its vectors do not straddle lines."""
    return np.asarray(_Memory(shape, dtype))


def is_aligned(array: np.ndarray) -> bool:
    """Whether an array begins on a cache line."""
    return bool(array.ctypes.data % LINE == 0)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """The array's values in one that begins on a cache line, in row-major order."""
    result = aligned_empty(array.shape, array.dtype)
    result[...] = array
    return result


UNHELD = 3  # references to an array that only its `Reused` knows: the list's, the variable's, the question's


class Reused:
    """Arrays of one type, each given out again once nobody holds it any more.

    Fresh memory costs page faults, several times the price of filling it. Two arrays are kept: who replaces
    a result by the next one holds the first while the second is written. One that has been made read-only,
    since several read it, stays so, and is not given out again.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        self._arrays: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """An array with undefined contents."""
        for array in self._arrays:
            if getrefcount(array) == UNHELD and array.flags.writeable:
                return array
        array = aligned_empty(self._shape, self._dtype)
        self._arrays = [*self._arrays[-1:], array]
        return array
