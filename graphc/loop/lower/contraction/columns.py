"""Runs of columns: a panel of consecutive flattened columns as segments along the innermost column axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Expr
from graphc.loop.lower.contraction.operand import Strides, flat_stride
from graphc.loop.lower.contraction.pack import maximum
from graphc.loop.lower.contraction.problem import Index
from graphc.loop.lower.writer import Writer

SHORT = 16  # elements of a run that is hardly worth a vector loop


@dataclass(frozen=True, eq=False)
class Segment:
    """`length` (at most `most`) columns from `offset` of the panel on; at(j) is the column index of the
    j-th."""

    offset: Expr
    length: Expr
    most: int
    at: Callable[[Expr], Index]


def one_run(cols: Shape, lanes: int) -> bool:
    """Whether every panel of `lanes` columns is one segment."""
    return len(cols) <= 1 or cols[-1] % lanes == 0


def flat_columns(cols: Shape, strides: Strides) -> bool:
    """Whether the result is contiguous along the flattened columns, but its innermost axis is short (the
    taps of a weight gradient): vectors then cross from one run to the next."""
    return len(cols) > 1 and cols[-1] < SHORT and flat_stride(strides, cols) == 1


@contextmanager
def segments(w: Writer, cols: Shape, start: Expr, lanes: int, flat: bool = False) -> Iterator[Segment]:
    """Loop over the segments of the columns [start, start + lanes), as far as they exist; if `flat`, there
    is one, which crosses the ends of runs."""
    total = math.prod(cols)
    if flat:
        length = ix.minimum(ix.sub(total, start), lanes)
        yield Segment(ZERO, length, min(lanes, total), lambda j: ix.unflatten(ix.add(start, j), cols))
        return
    if len(cols) <= 1:
        length = ix.minimum(ix.sub(total, start), lanes)
        at = (lambda j: ()) if not cols else (lambda j: (ix.add(start, j),))
        yield Segment(ZERO, length, min(lanes, total), at)
        return
    inner = cols[-1]
    whole = total % lanes == 0
    if inner % lanes == 0:
        *outer, first = ix.unflatten(start, cols)
        begin = w.let(first, "begin")  # a name: what divides the position further on must meet one term again
        yield Segment(ZERO, ix.const(lanes), lanes, lambda j: (*outer, ix.add(begin, j)))
        return
    if lanes % inner == 0 and whole:
        with w.loop("s", lanes // inner) as s:
            row = ix.unflatten(ix.add(ix.floordiv(start, inner), s), cols[:-1])
            yield Segment(ix.mul(s, inner), ix.const(inner), inner, lambda j: (*row, j))
        return
    with w.loop("s", (lanes + inner - 2) // inner + 1) as s:
        number = ix.add(ix.floordiv(start, inner), s)
        low = w.let(maximum(start, ix.mul(number, inner)), "low")
        stop = ix.minimum(ix.mul(ix.add(number, 1), inner), ix.minimum(ix.add(start, lanes), total))
        length = w.let(maximum(ix.sub(stop, low), 0), "length")
        row = ix.unflatten(number, cols[:-1])
        begin = ix.sub(low, ix.mul(number, inner))
        yield Segment(ix.sub(low, start), length, min(inner, lanes), lambda j: (*row, ix.add(begin, j)))
