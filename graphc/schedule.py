"""The order of kernel calls: topological, and kind to the peak of live memory.

The unit is a `Work`, the calls of one group, which stay together. Two list schedules are tried
and the one with the lower peak wins: program order, and "free most first", which runs whatever
lets go of most memory (so an optimizer update runs as soon as its gradient is there).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property

from graphc.loop.lowered import Step, Temp, Value, calls_in


@dataclass(frozen=True, eq=False)
class Work:
    """The calls and loops of one group. `internal` temporaries live only inside it."""

    steps: tuple[Step, ...]
    internal: frozenset[Temp] = frozenset()

    @cached_property
    def reads(self) -> frozenset[Value]:
        """Values from outside that the calls use; never something they write."""
        return frozenset(_touched(self.steps) - self.writes - self.internal)

    @cached_property
    def writes(self) -> frozenset[Value]:
        """Values the calls leave for others."""
        written = {value for call in calls_in(self.steps) for value in call.written()}
        return frozenset(written - self.internal)

    @cached_property
    def internal_bytes(self) -> int:
        return sum(temp.type.nbytes for temp in self.internal)


def work_of(steps: Sequence[Step], shared: AbstractSet[Value] = frozenset()) -> Work:
    """A group's calls and loops as a Work: every Temp in them that is not shared is internal to it."""
    return Work(tuple(steps), frozenset(v for v in _touched(steps) - shared if isinstance(v, Temp)))


def _touched(steps: Sequence[Step]) -> set[Value]:
    return {value for call in calls_in(steps) for value in call.touched()}


class Precedence:
    """Works, and who must run before whom: data dependencies plus added edges.

    Works are added in an order in which every value is written before it is read.
    """

    def __init__(self, works: Iterable[Work] = ()) -> None:
        self.works: list[Work] = []
        self.producer: dict[Value, int] = {}
        self.readers: dict[Value, list[int]] = {}
        self.before: list[set[int]] = []
        self.after: list[set[int]] = []
        for work in works:
            self.add(work)

    def add(self, work: Work) -> int:
        """Enter a work after those it reads from; its number."""
        number = len(self.works)
        self.works.append(work)
        self.before.append(set())
        self.after.append(set())
        for value in work.reads:
            self.readers.setdefault(value, []).append(number)
            if value in self.producer:
                self.add_edge(self.producer[value], number)
        for value in work.writes:
            self.producer[value] = number
        return number

    def add_edge(self, first: int, second: int) -> None:
        """Work `first` must run before work `second`."""
        self.before[second].add(first)
        self.after[first].add(second)

    def reaches(self, start: int, goals: Iterable[int]) -> bool:
        """Whether any of `goals` comes (transitively) after `start`, or is it."""
        goals = set(goals)
        return bool(goals) and not goals.isdisjoint(_closure(start, self.after) | {start})

    def ancestors(self, start: int) -> set[int]:
        """Everything that must run before `start`."""
        return _closure(start, self.before)


def _closure(start: int, edges: Sequence[set[int]]) -> set[int]:
    seen: set[int] = set()
    stack = [start]
    while stack:
        fresh = edges[stack.pop()] - seen
        seen |= fresh
        stack.extend(fresh)
    return seen


def order(precedence: Precedence, size: Mapping[Value, int]) -> list[int]:
    """An order of the works with a low peak of live bytes.

    `size` gives the bytes of the values that occupy the arena; others cost nothing.
    Raises ValueError if the precedence is cyclic.
    """
    plain = _list_schedule(precedence, size, lambda work, net: (work,))
    greedy = _list_schedule(precedence, size, lambda work, net: (net, work))
    return min((plain, greedy), key=lambda candidate: peak(precedence, candidate, size))


def peak(precedence: Precedence, sequence: Sequence[int], size: Mapping[Value, int]) -> int:
    """The most bytes live at once when the works run in this sequence."""
    left = {value: len(readers) for value, readers in precedence.readers.items()}
    live = highest = 0
    for i in sequence:
        work = precedence.works[i]
        live += sum(size.get(v, 0) for v in work.writes)
        highest = max(highest, live + work.internal_bytes)
        live -= sum(size.get(v, 0) for v in work.writes if not left.get(v))
        for value in work.reads:
            left[value] -= 1
            if not left[value]:
                live -= size.get(value, 0)
    return highest


def _list_schedule(
    precedence: Precedence, size: Mapping[Value, int], priority: Callable[[int, int], tuple]
) -> list[int]:
    """Repeatedly run the ready work of least `priority(work, net bytes it adds)`."""
    works, readers = precedence.works, precedence.readers
    waiting = [len(sources) for sources in precedence.before]
    left = {value: len(users) for value, users in readers.items()}
    net = [_net_bytes(work, left, size) for work in works]
    ready = [(*priority(i, net[i]), i) for i, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    done: list[int] = []
    finished = [False] * len(works)
    while ready:
        i = heapq.heappop(ready)[-1]
        if finished[i]:
            continue  # a stale entry: its net has fallen since
        finished[i] = True
        done.append(i)
        for value in works[i].reads:
            left[value] -= 1
            if left[value] == 1 and size.get(value):
                last = next(j for j in readers[value] if not finished[j])
                net[last] -= size[value]
                if not waiting[last]:
                    heapq.heappush(ready, (*priority(last, net[last]), last))
        for j in sorted(precedence.after[i]):
            waiting[j] -= 1
            if not waiting[j]:
                heapq.heappush(ready, (*priority(j, net[j]), j))
    if len(done) != len(works):
        raise ValueError(f"{len(works) - len(done)} of {len(works)} groups depend on each other in a circle")
    return done


def _net_bytes(work: Work, left: Mapping[Value, int], size: Mapping[Value, int]) -> int:
    """Bytes allocated minus bytes freed if the work ran when it was the last reader of nothing shared."""
    allocated = sum(size.get(v, 0) for v in work.writes)
    return allocated - sum(size.get(v, 0) for v in work.reads if left[v] == 1)
