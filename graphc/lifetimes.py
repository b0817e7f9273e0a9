"""Arena memory of a program's values: when each is live, who may overwrite whom, and where they lie.

Inside a loop there are two sorts of values. What a trip writes before it reads it, and nobody outside
touches, is live within the trip; all trips use the same memory for it, and so may several such values.
Everything else (operands, carries, stacks of results) is live for the whole loop; but a stack of results may
lie over a stack that the loop reads, if every trip is done with a slice when it writes that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from graphc.analysis.arena import Interval, pack
from graphc.analysis.barriers import parents
from graphc.loop.inplace import inplace_pairs
from graphc.loop.lowered import KernelCall, Part, Repeat, Step, Trips, Turns, Value, values_of
from graphc.program import Loop, Slot


@dataclass(eq=False)
class Listing:
    """The calls of a program in order, those in loops once, and the loops.

    number  of each loop, by its counter
    inner   for each call the number of the innermost loop around it, or -1
    """

    calls: list[KernelCall] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    number: dict[Trips, int] = field(default_factory=dict)
    inner: list[int] = field(default_factory=list)

    def add(self, steps: Sequence[Step], around: int = -1) -> None:
        """Append steps, which run inside loop number `around`."""
        for step in steps:
            if isinstance(step, Repeat):
                number = self.number[step.trips] = len(self.loops)
                start = len(self.calls)
                self.loops.append(Loop(start, start, step.trips.count))
                self.add(step.body, number)
                self.loops[number] = Loop(start, len(self.calls), step.trips.count)
            else:
                self.calls.append(step)
                self.inner.append(around)


@dataclass(frozen=True, eq=False)
class ArenaBuffer:
    """Arena memory of one value, or of a chain of values that overwrite each other."""

    values: tuple[Value, ...]
    interval: Interval
    offset: int


def arena(listing: Listing, place: Mapping[Value, Slot]) -> tuple[ArenaBuffer, ...]:
    """Lifetimes of the values without a place, chained in place where possible, and packed.

    Raises ValueError if a call reads what none before it has written: a mistake of its lowering.
    """
    lives = _Lives(listing, place)
    chains = _chain_in_place(listing, lives)
    intervals = [
        Interval(chain[0].type.nbytes, lives.span[chain[0]][0], max(lives.span[v][1] for v in chain))
        for chain in chains
    ]
    if not intervals:
        return ()
    offsets, _ = pack(intervals)
    return tuple(
        ArenaBuffer(tuple(chain), interval, offset)
        for chain, interval, offset in zip(chains, intervals, offsets, strict=True)
    )


class _Lives:
    """span[v]: first and last call during which v is live; level[v]: the loop (-1: none) within one trip of
    which it is."""

    def __init__(self, listing: Listing, place: Mapping[Value, Slot]) -> None:
        self.listing = listing
        self.around = parents(listing.loops)
        self.span: dict[Value, tuple[int, int]] = {}
        self.level: dict[Value, int] = {}
        self.touched: dict[Value, list[int]] = {}
        for i, call in enumerate(listing.calls):
            for value in dict.fromkeys(call.touched()):
                if value not in place:
                    self.touched.setdefault(value, []).append(i)
        for value, calls in self.touched.items():
            self._check_written(value, calls)
            self._settle(value, calls)

    def _check_written(self, value: Value, touched: Sequence[int]) -> None:
        """The first call that touches a value writes it, or reads what an earlier trip of its loop wrote."""
        first, loop = touched[0], self.listing.inner[touched[0]]
        while loop >= 0 and self.around[loop] >= 0:
            loop = self.around[loop]
        stop = first + 1 if loop < 0 else self.listing.loops[loop].stop
        calls = self.listing.calls
        if not any(value in calls[i].written() for i in touched if i < stop):
            raise ValueError(f"kernel {calls[first].kernel.name} reads {value}, which nobody wrote")

    def _settle(self, value: Value, calls: Sequence[int]) -> None:
        inner, loops = self.listing.inner, self.listing.loops
        first, last = calls[0], calls[-1]
        level = inner[first]
        while level >= 0 and not (last < loops[level].stop and self._made_in(value, first, level)):
            level = self.around[level]
        start, end = first, last
        for i in calls:
            loop = inner[i]
            while loop != level and loop >= 0:
                start, end = min(start, loops[loop].start), max(end, loops[loop].stop - 1)
                loop = self.around[loop]
        self.span[value], self.level[value] = (start, end), level

    def _made_in(self, value: Value, first: int, level: int) -> bool:
        """Whether every trip of a loop begins with writing all of `value`, in call `first`."""
        call = self.listing.calls[first]
        wholly = all(call.args[i] is value for i in call.positions(value))
        return (
            self.listing.inner[first] == level and wholly and any(call.args[w] is value for w in call.writes)
        )


def _chain_in_place(listing: Listing, lives: _Lives) -> list[list[Value]]:
    """Group values into chains: each is written, by one kernel, over the one before it, which dies there."""
    chain_of: dict[Value, list[Value]] = {}
    for i, call in enumerate(listing.calls):
        for value in call.touched():
            if value in lives.span and value not in chain_of:
                previous = _dying_operand(i, call, value, listing.inner[i], lives, chain_of)
                if previous is None:
                    previous = _dying_stack(i, call, value, listing, lives, chain_of)
                chain = chain_of[previous] if previous is not None else []
                chain.append(value)
                chain_of[value] = chain
    return list({id(chain): chain for chain in chain_of.values()}.values())


def _dying_operand(
    i: int,
    call: KernelCall,
    value: Value,
    loop: int,
    lives: _Lives,
    chain_of: Mapping[Value, list[Value]],
) -> Value | None:
    """An operand of call `i` that `value`, written there, may take the memory of."""
    written = [w for w in call.writes if call.args[w] is value]
    if len(written) != 1 or lives.level[value] != loop:
        return None
    pairs = None
    for operand in call.args:
        if isinstance(operand, Part | Turns) or operand is value or operand not in chain_of:
            continue
        if lives.level[operand] != loop:
            continue
        if lives.span[operand][1] != i or chain_of[operand][-1] is not operand:
            continue
        if operand.type.nbytes != value.type.nbytes:
            continue
        if pairs is None:
            pairs = inplace_pairs(call.kernel)
        if all(call.args[r] is operand and (r, written[0]) in pairs for r in call.positions(operand)):
            return operand
    return None


def _dying_stack(
    i: int,
    call: KernelCall,
    value: Value,
    listing: Listing,
    lives: _Lives,
    chain_of: Mapping[Value, list[Value]],
) -> Value | None:
    """A stack that call `i` and later ones read slice by slice, and whose memory `value`, a stack whose first
    slice call `i` writes, may take: each slice is written by the call that reads it, and nobody else reads
    the old one from then on."""
    calls = listing.calls
    writers = [k for k in lives.touched[value] if value in calls[k].written()]
    if writers[:1] != [i] or not _written_once(value, writers, listing, lives):
        return None
    loop = listing.inner[i]
    start = i if loop == lives.level[value] else listing.loops[loop].start
    for operand in dict.fromkeys(arg.value for arg in call.args if isinstance(arg, Part)):
        if operand is value or operand not in chain_of or chain_of[operand][-1] is not operand:
            continue
        if operand.type.nbytes != value.type.nbytes or lives.level[operand] != lives.level[value]:
            continue
        readers = {k for k in lives.touched[operand] if k >= start}
        if readers <= set(writers) and all(_slice_over(calls[k], operand, value) for k in writers):
            return operand
    return None


def _written_once(value: Value, writers: Sequence[int], listing: Listing, lives: _Lives) -> bool:
    """Whether calls write pieces of a stack that have nothing in common, on any of their trips."""
    spans: list[tuple[int, int]] = []
    around = parents(listing.loops)
    for k in writers:
        part = _piece_written(listing.calls[k], value)
        loop = listing.inner[k]
        inside = loop != lives.level[value]
        if part is None or len(part.steps) != inside or (inside and around[loop] != lives.level[value]):
            return False
        if inside and listing.number[part.steps[0][0]] != loop:
            return False
        trips = listing.loops[loop].trips if inside else 1
        step = part.steps[0][1] if inside else 0
        spans += [(part.offset + trip * step, part.type.nbytes) for trip in range(trips)]
    spans.sort()
    return all(a + size <= b for (a, size), (b, _) in pairwise(spans))


def _writes(call: KernelCall, value: Value) -> list[int]:
    """The positions at which a call writes into a value."""
    return [w for w in call.writes if value in values_of(call.args[w])]


def _piece_written(call: KernelCall, value: Value) -> Part | None:
    """The one piece of `value` that a call writes."""
    pieces = [call.args[w] for w in _writes(call, value)]
    return pieces[0] if len(pieces) == 1 and isinstance(pieces[0], Part) else None


def _slice_over(call: KernelCall, operand: Value, value: Value) -> bool:
    """Whether a call writes a slice of `value` in place of the slice of `operand` that it reads, and reads
    nothing else of the operand (of `value` it may read what has been written before)."""
    ours = call.positions(operand)
    theirs = _writes(call, value)
    target = _piece_written(call, value)
    if target is None or not ours:
        return False
    for r in ours:
        source = call.args[r]
        same = isinstance(source, Part) and (source.offset, source.steps) == (target.offset, target.steps)
        if not same or source.type.nbytes != target.type.nbytes:
            return False
    pairs = inplace_pairs(call.kernel)
    return all((r, theirs[0]) in pairs for r in ours)
