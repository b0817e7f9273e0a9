"""Where threads must wait for each other.

All workers walk one list of calls, each running its share of every call's tasks. A call may start
while other workers are still in earlier calls unless it touches bytes that one of them writes, or
writes bytes that one of them touches; then a barrier comes before it. Reuse of arena memory counts:
ranges are compared, not values.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [low, high) of one piece of memory."""

    memory: Hashable
    low: int
    high: int


def barriers(reads: Sequence[Sequence[Range]], writes: Sequence[Sequence[Range]]) -> list[bool]:
    """For each call, whether a barrier must come before it (reads and writes are per call)."""
    flags: list[bool] = []
    read: dict[Hashable, list[Range]] = {}
    written: dict[Hashable, list[Range]] = {}
    for r, w in zip(reads, writes, strict=True):
        flag = _touches(r, written) or _touches(w, written) or _touches(w, read)
        if flag:
            read.clear()
            written.clear()
        flags.append(flag)
        for ranges, seen in ((r, read), (w, written)):
            for range_ in ranges:
                seen.setdefault(range_.memory, []).append(range_)
    return flags


def _touches(ranges: Sequence[Range], seen: dict[Hashable, list[Range]]) -> bool:
    return any(
        range_.low < other.high and other.low < range_.high
        for range_ in ranges
        for other in seen.get(range_.memory, ())
    )
