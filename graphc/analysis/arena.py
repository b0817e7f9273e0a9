"""Packing buffers with known lifetimes into one block of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

ALIGNMENT = 64


@dataclass(frozen=True)
class Interval:
    """A buffer of `size` bytes, live during the calls `start` to `end`, both included."""

    size: int
    start: int
    end: int


def aligned(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def lower_bound(intervals: Sequence[Interval]) -> int:
    """The most bytes live at once: no packing can need less."""
    if not intervals:
        return 0
    change = np.zeros(max(i.end for i in intervals) + 2, np.int64)
    for interval in intervals:
        change[interval.start] += aligned(interval.size)
        change[interval.end + 1] -= aligned(interval.size)
    return int(change.cumsum().max())


def pack(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """Offsets (multiples of 64) for the buffers, and the total size.

    Best-fit in several fixed orders (largest first, largest area first, by start); the smallest
    total wins. Buffers that are never live together may share memory.
    """
    bound = lower_bound(intervals)
    best: tuple[list[int], int] | None = None
    for key in _ORDERS:
        sequence = sorted(range(len(intervals)), key=lambda i: (key(intervals[i]), i))
        offsets, total = _best_fit(intervals, sequence)
        if best is None or total < best[1]:
            best = offsets, total
        if best[1] <= bound:
            break
    assert best is not None
    return best[0], aligned(best[1])


_ORDERS: tuple[Callable[[Interval], tuple], ...] = (
    lambda i: (-i.size, i.start),
    lambda i: (-i.size * (i.end - i.start + 1), i.start),
    lambda i: (i.start, -i.size),
    lambda i: (i.start - i.end, -i.size),
)


def _best_fit(intervals: Sequence[Interval], sequence: Sequence[int]) -> tuple[list[int], int]:
    """Place buffers one by one, each in the tightest hole between those it lives with."""
    n = len(intervals)
    starts, ends, lows, highs = (np.zeros(n, np.int64) for _ in range(4))
    offsets = [0] * n
    total = 0
    for placed, i in enumerate(sequence):
        this = intervals[i]
        size = aligned(this.size)
        together = np.flatnonzero((starts[:placed] <= this.end) & (ends[:placed] >= this.start))
        offset = _tightest(size, lows[together], highs[together])
        offsets[i] = offset
        starts[placed], ends[placed] = this.start, this.end
        lows[placed], highs[placed] = offset, offset + size
        total = max(total, offset + size)
    return offsets, total


def _tightest(size: int, lows: np.ndarray, highs: np.ndarray) -> int:
    """The offset of the smallest hole of at least `size` bytes between the given occupied ranges."""
    by_low = np.argsort(lows, kind="stable")
    top, best, best_room = 0, -1, None
    for low, high in zip(lows[by_low].tolist(), highs[by_low].tolist(), strict=True):
        room = low - top
        if room >= size and (best_room is None or room < best_room):
            best, best_room = top, room
        top = max(top, high)
    return top if best_room is None else best
