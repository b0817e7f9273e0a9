"""Aligned memory outside NumPy: the arena, the workers' scratch and the words shared with native code."""

from __future__ import annotations

import ctypes
import mmap

PAGE = 4096
HUGE_PAGE = 2 << 20
# Python maps memory shared by default, which Linux backs by a file and gives no huge pages
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class Block:
    """`size` zeroed bytes that live as long as this object, at `address`.

    Blocks of several megabytes start on a huge-page boundary and ask for huge pages (the system's default
    is often to give them only on request). Pages are taken from the system when first touched.
    """

    def __init__(self, size: int) -> None:
        big = size >= 2 * HUGE_PAGE
        alignment = HUGE_PAGE if big else PAGE
        self.size = size
        self._map = mmap.mmap(-1, max(size, 1) + alignment, **_PRIVATE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.address = -(-start // alignment) * alignment
        if big and hasattr(mmap, "MADV_HUGEPAGE"):
            first = self.address - start
            self._map.madvise(mmap.MADV_HUGEPAGE, first, -(-size // PAGE) * PAGE)


class GrowingBlock:
    """A block that is replaced by a larger one when more is asked for; its contents do not survive that."""

    def __init__(self) -> None:
        self._block: Block | None = None

    @property
    def size(self) -> int:
        return self._block.size if self._block else 0

    def at_least(self, size: int) -> int:
        """The address of a block of at least `size` bytes."""
        if self._block is None or self._block.size < size:
            self._block = None  # give the old one back first
            self._block = Block(max(size, PAGE))
        return self._block.address
