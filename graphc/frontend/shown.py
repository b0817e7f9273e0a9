"""Memory of a tensor that NumPy arrays of the user's show too, as `Tensor.numpy()` hands out.

Whoever has such an array may write to it at any time, and nothing is told of that. So while one is alive, the
tensor's node is bound to a `Shown` in place of the array: what only reads (a compiled program that is called,
`item`, printing) reads the memory as it is; what is recorded for later gets a snapshot, which stays as it is.
The snapshot of the last operation is used again if memory still holds the same bytes, so that operations on
one value go on sharing one input.

A node bound to a `Shown` belongs to one cell alone, and never becomes part of a graph.
"""

from __future__ import annotations

import weakref

import numpy as np

from graphc.arrays import aligned_copy

CHUNK = 1 << 16  # bytes compared at once: both sides, and what NumPy makes of them, stay in the L2 cache


def on_memory_of(array: np.ndarray) -> np.ndarray:
    """An array on the memory of a C-contiguous one.

    Its base is no array: views of it, and views of those, all refer to it. So it lives as long as any.
    """
    return np.asarray(array.data)


class Showings:
    """`count` goes up whenever memory is shown. (A counter of `Shown` itself would make Python look its
    attributes up anew after every change.)"""

    count = 0


class Shown:
    """Bound to an input node in place of `array`, of which others may have arrays.

    `array` is a C-contiguous array that nothing else in graphc reads.
    """

    __slots__ = ("_given", "_last", "array")

    def __init__(self, array: np.ndarray, given: np.ndarray) -> None:
        """`given` is what `on_memory_of` has made of `array`, for the user."""
        self.array, self._given = array, weakref.ref(given)
        self._last: weakref.ref[np.ndarray] | None = None
        Showings.count += 1

    @property
    def is_seen(self) -> bool:
        """Whether somebody still has an array on the memory."""
        return self._given() is not None

    @property
    def last(self) -> np.ndarray | None:
        """The last snapshot, if it is in use."""
        return None if self._last is None else self._last()

    def again(self) -> np.ndarray | None:
        """Another array on the memory, if somebody has one."""
        given = self._given()
        return None if given is None else given.view()

    def snapshot(self) -> np.ndarray:
        """What the memory holds now, in an array that nobody writes to (nor may take over)."""
        last = self.last
        if last is not None and _same_bytes(last, self.array):
            return last
        last = aligned_copy(self.array)
        last.flags.writeable = False
        self._last = weakref.ref(last)
        return last


def _same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two C-contiguous arrays of one type hold the same bits."""
    left, right = a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8)
    return all(
        np.array_equal(left[at : at + CHUNK], right[at : at + CHUNK]) for at in range(0, left.size, CHUNK)
    )
