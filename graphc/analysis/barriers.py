"""Where threads must wait for each other.

All workers walk one list of calls, each running its share of every call's tasks. A call may start
while other workers are still in earlier calls unless it touches bytes that one of them writes, or
writes bytes that one of them touches; then a barrier comes before it. Reuse of arena memory counts:
ranges are compared, not values.

Loops are looked at by themselves: all threads meet where a loop starts and behind it. Inside, what a trip
touches moves by the same bytes every trip, or takes turns of two; so the first few trips show every way in
which one trip can depend on another, and a call waits on every trip if it must on one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from graphc.program import Loop

TRIPS = 4  # trips of a loop that are looked at


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [low, high) of one piece of memory."""

    memory: Hashable
    low: int
    high: int


Touched = tuple[Sequence[Range], Sequence[Range]]  # read, written
Touches = Callable[[int, Mapping[int, int]], Touched]


def barriers(touches: Touches, count: int, loops: Sequence[Loop] = ()) -> list[bool]:
    """For each of `count` calls, whether a barrier must come before it.

    `touches(i, trips)` gives the bytes that call i reads and those that it writes on these trips of the
    loops (by number) around it. Outer loops come before those inside them.
    """
    walk = _Walk(touches, count, loops)
    walk.run(-1, {})
    return walk.flags


class _Walk:
    def __init__(self, touches: Touches, count: int, loops: Sequence[Loop]) -> None:
        self.touches = touches
        self.flags = [False] * count
        self.loops = {-1: Loop(0, count, 1), **dict(enumerate(loops))}
        self.inside: dict[int, list[int]] = {number: [] for number in self.loops}
        for number, around in enumerate(parents(loops)):
            self.inside[around].append(number)

    def run(self, number: int, trips: Mapping[int, int]) -> None:
        """Walk some trips of a loop (-1: the whole program); loops inside it are walked by themselves."""
        loop = self.loops[number]
        seen = _Seen()
        meet = number >= 0
        for trip in range(min(loop.trips, TRIPS)):
            here = {**trips, number: trip}
            inner = list(reversed(self.inside[number]))
            at = loop.start
            while at < loop.stop:
                if inner and self.loops[inner[-1]].start == at:
                    self.run(inner[-1], here)
                    at = self.loops[inner.pop()].stop
                    meet = True
                    continue
                read, written = self.touches(at, here)
                if meet or seen.conflict(read, written):
                    self.flags[at] = True
                    seen = _Seen()
                seen.add(read, written)
                meet = False
                at += 1


class _Seen:
    """What calls have touched since the last barrier."""

    def __init__(self) -> None:
        self.read: dict[Hashable, list[Range]] = {}
        self.written: dict[Hashable, list[Range]] = {}

    def conflict(self, read: Sequence[Range], written: Sequence[Range]) -> bool:
        return _touches(read, self.written) or _touches(written, self.written) or _touches(written, self.read)

    def add(self, read: Sequence[Range], written: Sequence[Range]) -> None:
        for ranges, seen in ((read, self.read), (written, self.written)):
            for range_ in ranges:
                seen.setdefault(range_.memory, []).append(range_)


def _touches(ranges: Sequence[Range], seen: dict[Hashable, list[Range]]) -> bool:
    return any(
        range_.low < other.high and other.low < range_.high
        for range_ in ranges
        for other in seen.get(range_.memory, ())
    )


def parents(loops: Sequence[Loop]) -> list[int]:
    """The number of the loop directly around each loop; -1 if there is none."""
    result: list[int] = []
    open_: list[int] = []
    for number, loop in enumerate(loops):
        while open_ and loops[open_[-1]].stop <= loop.start:
            open_.pop()
        result.append(open_[-1] if open_ else -1)
        open_.append(number)
    return result
