"""The quotient graph during fusion: clusters of members, dependences as bit sets, legal merges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphc.ir.node import Node


class Quotient:
    """Clusters by number; each knows its direct and its transitive predecessors as bits of an int, and the
    numbers of its direct successors.

    A merge is legal if the quotient stays acyclic: no path leaves the pair and comes back.
    """

    def __init__(self) -> None:
        self.home: dict[Node, int] = {}
        self.members: dict[int, list[Node]] = {}
        self.direct: dict[int, int] = {}
        self.above: dict[int, int] = {}
        self.after: dict[int, set[int]] = {}
        self._next = 0

    def add(self, node: Node, sources: Iterable[Node]) -> int:
        """A new cluster of one node that reads `sources` (leaves are ignored)."""
        number = self._next
        self._next += 1
        self.home[node] = number
        self.members[number] = [node]
        direct = above = 0
        for s in sources:
            at = self.home.get(s)
            if at is not None:
                direct |= 1 << at
                above |= 1 << at | self.above[at]
                self.after[at].add(number)
        self.direct[number], self.above[number], self.after[number] = direct, above, set()
        return number

    def can_merge(self, a: int, b: int) -> bool:
        """Whether the quotient without the distinction of a and b has no cycle."""
        for first, last in ((a, b), (b, a)):
            between = self.direct[last] & ~(1 << first) & ~(1 << last)
            if any(self.above[c] >> first & 1 for c in bits(between)):
                return False
        return True

    def depends(self, later: int, earlier: int) -> bool:
        """Whether cluster `later` needs cluster `earlier`, directly or not."""
        return bool(self.above[later] >> earlier & 1)

    def merge(self, a: int, b: int) -> int:
        """Make one cluster of two (`can_merge` must hold); it keeps the number of `b`."""
        both = 1 << a | 1 << b
        for n in self.members[a]:
            self.home[n] = b
        self.members[b] = self.members.pop(a) + self.members[b]
        for c in bits(self.direct[a]):
            self.after[c].remove(a)
            self.after[c].add(b)
        for c in self.after[a]:
            self.direct[c] = self.direct[c] & ~(1 << a) | 1 << b
        self.after[b] = (self.after.pop(a) | self.after[b]) - {a, b}
        self.direct[b] = (self.direct.pop(a) | self.direct[b]) & ~both
        above = self.above[b] = (self.above.pop(a) | self.above[b]) & ~both
        others, found = ~(1 << a), above | 1 << b
        for c in self._below(b):
            self.above[c] = self.above[c] & others | found
        return b

    def _below(self, number: int) -> set[int]:
        """The clusters that need a cluster, directly or not."""
        found: set[int] = set()
        stack = [number]
        while stack:
            fresh = self.after[stack.pop()] - found
            found |= fresh
            stack.extend(fresh)
        return found

    def order(self) -> list[int]:
        """The clusters in a topological order: all that are ready, the oldest first, then all that become
        ready by those."""
        waiting = {c: direct.bit_count() for c, direct in self.direct.items()}
        ready = sorted([c for c, count in waiting.items() if not count])
        result: list[int] = []
        while ready:
            result.extend(ready)
            following = []
            for c in ready:
                for later in self.after[c]:
                    waiting[later] -= 1
                    if not waiting[later]:
                        following.append(later)
            ready = sorted(following)
        assert len(result) == len(self.members), "the quotient of a partition has a cycle"
        return result


def bits(number: int) -> Iterator[int]:
    """The positions of the ones, lowest first."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
