"""Copying an operand into a panel: loops chosen so that the vector axis is contiguous where it can be,
and the zero padding of convolutions clipped out of the loops instead of masked in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Const, Expr, Var, cast
from graphc.loop.lower.contraction.problem import Access
from graphc.loop.lower.writer import Writer

COPY = 1.5  # cycles to load and store a vector
STRIDED = 5.0  # cycles to copy a vector of elements a few apart
SHUFFLED = (2, 3, 4)  # strides at which wide loads and shuffles do
RUN = 2.5  # cycles to start a run of vectors: loop control, addresses, clipping
CLIPPED_RUN = 8.0  # cycles to start a run whose limits are not those of the run before
GATHER = 1.0  # cycles to copy an element of a run that is not contiguous on one side
SCATTER = 3.0  # cycles to store a result of a run that is not contiguous
PAD = 16  # elements added to a row whose length would make rows compete for cache sets

At = Callable[[Expr], Access]
Put = Callable[[Expr, Expr | None], None]  # position, value (None: zero)
Read = Callable[[Access], Expr]


@dataclass(frozen=True, eq=False)
class Line:
    """A run of elements: element j of `length` (at most `most`) is access(j)."""

    length: Expr
    most: int
    access: At


def maximum(a: Expr | int, b: Expr | int) -> Expr:
    """The larger of two index expressions."""
    return ix.mul(ix.minimum(ix.mul(a, -1), ix.mul(b, -1)), -1)


def clip(line: Line) -> tuple[Expr, Expr]:
    """The [low, high) of j for which every bound of the line holds (they are linear in j)."""
    low: Expr = ZERO
    high: Expr = line.length
    probe = Var(ZERO.dtype, "probe", line.most)
    for (moving, extent), (start, _) in zip(line.access(probe).bounds, line.access(ZERO).bounds, strict=True):
        step = ix.linear(moving, probe)
        assert step is not None, "a padded axis must be linear along a panel"
        if step == 0:
            inside = ix.inside(start, extent)
            if ix.is_true(inside):
                continue
            high = ix.mul(high, cast(inside, ZERO.dtype))
        elif step < 0:
            low = maximum(low, ix.add(ix.floordiv(ix.sub(start, extent), -step), 1))
            high = ix.minimum(high, ix.add(ix.floordiv(start, -step), 1))
        else:
            # start + step*j >= 0  and  start + step*j < extent
            low = maximum(low, ix.mul(ix.floordiv(start, step), -1))
            high = ix.minimum(high, ix.mul(ix.floordiv(ix.sub(start, extent), step), -1))
    if isinstance(low, Const) and low.value == 0 and high is line.length:
        return low, high
    high = maximum(high, 0)
    return ix.minimum(low, high), high


@dataclass(frozen=True, eq=False)
class Part:
    """Elements [start, start + count) of a line: real ones (`inside`), or zeros. Empty where `some` is
    false."""

    start: Expr
    count: Expr
    inside: bool
    some: Expr

    def when(self, w: Writer) -> AbstractContextManager[None]:
        """A condition around loops over the part: nothing may be read, not even outside the loop, where no
        element is inside."""
        return w.when(self.some)


def parts(w: Writer, length: Expr, span: tuple[Expr, Expr]) -> list[Part]:
    """The zeros before, the elements inside and the zeros after `span` = clip(line)."""
    low, high = span
    if isinstance(low, Const) and low.value == 0 and high is length:
        return [Part(low, length, True, ix.TRUE)]
    low, high = w.let(low, "low"), w.let(high, "high")
    ranges = ((ZERO, low, False), (low, high, True), (high, length, False))
    return [Part(a, ix.sub(b, a), inside, ix.compare("lt", a, b)) for a, b, inside in ranges]


def copy_line(w: Writer, line: Line, span: tuple[Expr, Expr], read: Read, put: Put, lanes: int) -> None:
    """put(j, element j) for all j of the line; zeros outside `span`, which is clip(line)."""
    for part in parts(w, line.length, span):
        if ix.is_false(part.some):
            continue
        with part.when(w), w.loop("j", part.count, line.most, "vector", lanes) as i:
            j = ix.add(part.start, i)
            put(j, read(line.access(j)) if part.inside else None)


def run_cost(
    runs: Sequence[tuple[int, int | None]], width: int, otherwise: float = GATHER, start: float = RUN
) -> float:
    """Cycles per element to copy runs of some (length, stride), the best of several ways, or
    `otherwise`; `start` is what a run costs besides its vectors."""
    costs = [otherwise]
    for length, stride in runs:
        if length and stride in (0, 1, *SHUFFLED):
            copy = STRIDED if stride in SHUFFLED else COPY
            costs.append((start + copy * -(-length // width)) / length)
    return min(costs)


def padded(length: int, itemsize: int) -> int:
    """A row length such that neighbouring rows do not fall into the same cache sets."""
    length = -(-length // PAD) * PAD
    return length + PAD if length * itemsize % 1024 == 0 else length
