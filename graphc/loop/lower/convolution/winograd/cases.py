"""Blocks of an axis, the last of which may be smaller: loops over each have a constant extent."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower.writer import Writer


def cases(w: Writer, number: Expr, total: int, size: int) -> Iterator[int]:
    """The size of block `number` of an axis of `total` elements in blocks of `size`: once for the full
    blocks, and once for a smaller last one. What is written between is run in that case alone."""
    full, rest = divmod(total, size)
    if not rest or not full:
        yield size if full else rest
        return
    with w.when(ix.compare("lt", number, full)):
        yield size
    with w.when(ix.compare("eq", number, full)):
        yield rest
