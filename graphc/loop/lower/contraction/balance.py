"""How evenly the tasks of a kernel divide among threads, if they are not all alike.

Tasks are the cells of a grid, the last of each side smaller than the others. A worker owns a run of
neighbouring tasks, and when it is done with them takes others' over one at a time.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

THREADS = (1, 2, 2, 4, 8)  # numbers of threads that tasks should divide among evenly


class Side(NamedTuple):
    """A side of the grid: `blocks` of equal `size`, but for the last."""

    blocks: int
    size: float
    last: float

    @classmethod
    def cut(cls, length: float, size: int) -> Side:
        """A length in blocks of a size, the last as long as what is left."""
        blocks = math.ceil(length / size)
        return cls(blocks, size, length - (blocks - 1) * size)

    @property
    def total(self) -> float:
        """All blocks together."""
        return (self.blocks - 1) * self.size + self.last

    @property
    def largest(self) -> float:
        """The largest block."""
        return self.size if self.blocks > 1 else self.last


@lru_cache(maxsize=4096)
def imbalance(grids: int, outer: Side, inner: Side, worth: int) -> float:
    """How much longer the tasks of so many equal grids take than if they could be cut at will, over the usual
    numbers of threads; but no more threads are waited for than the work is `worth`. `inner` is the side along
    which neighbouring tasks lie."""
    tasks = grids * outer.blocks * inner.blocks
    whole = grids * outer.total * inner.total
    largest = outer.largest * inner.largest
    longer = 0.0
    for n in [min(t, worth) for t in THREADS]:
        own, done = 0.0, 0.0
        for worker in range(1, n + 1):
            rows, column = divmod(tasks * worker // n, inner.blocks)
            grid, row = divmod(rows, outer.blocks)
            height = outer.size if row < outer.blocks - 1 else outer.last
            end = (grid * outer.total + row * outer.size) * inner.total + height * column * inner.size
            own, done = max(own, end - done), end
        longer += min(own * n, whole + largest * (n - 1))
    return longer / whole / len(THREADS)
