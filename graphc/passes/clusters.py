"""The quotient graph during fusion: clusters of members, dependences as bit sets, legal merges."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.ir.node import Node


class Quotient:
    """Clusters by number; each knows its direct and its transitive predecessors as bits of an int.

    A merge is legal if the quotient stays acyclic: no path leaves the pair and comes back.
    """

    def __init__(self) -> None:
        self.home: dict[Node, int] = {}
        self.members: dict[int, list[Node]] = {}
        self.direct: dict[int, int] = {}
        self.above: dict[int, int] = {}
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
        self.direct[number], self.above[number] = direct, above
        return number

    def can_merge(self, a: int, b: int) -> bool:
        """Whether the quotient without the distinction of a and b has no cycle."""
        for first, last in ((a, b), (b, a)):
            between = self.direct[last] & ~(1 << first) & ~(1 << last)
            while between:
                low = between & -between
                if self.above[low.bit_length() - 1] >> first & 1:
                    return False
                between ^= low
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
        self.direct[b] = (self.direct.pop(a) | self.direct[b]) & ~both
        above = self.above[b] = (self.above.pop(a) | self.above[b]) & ~both
        for c in self.above:
            if c != b and self.above[c] & both:
                self.above[c] = self.above[c] & ~(1 << a) | 1 << b | above
                if self.direct[c] >> a & 1:
                    self.direct[c] = self.direct[c] & ~(1 << a) | 1 << b
        return b

    def order(self) -> list[int]:
        """The clusters in a topological order; among the ready ones the oldest first."""
        done = 0
        waiting = sorted(self.members)
        result: list[int] = []
        while waiting:
            ready = [c for c in waiting if not self.above[c] & ~done]
            assert ready, "the quotient of a partition has a cycle"
            for c in ready:
                done |= 1 << c
            result.extend(ready)
            waiting = [c for c in waiting if not done >> c & 1]
        return result
