"""NumPy arrays in memory that suits compiled code."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

LINE = 64


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
