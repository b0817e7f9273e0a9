"""Where the tiles of a task find the panels of B: in a copy that the task makes, in one that a kernel before
has made of all of B, or where B is.

A panel that is read where it is costs no copy, and its rows are as long as its columns are many; the copy
pays when rows are so far apart that the processor must look up the address of each.
"""

from __future__ import annotations

from typing import Protocol

from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Address, Expr, address
from graphc.loop.lower.contraction.blocking import PARTS
from graphc.loop.lower.contraction.depth import DepthBlock
from graphc.loop.lower.contraction.fused import Fused, place
from graphc.loop.lower.contraction.operand import Layout, flat_stride
from graphc.loop.lower.contraction.panels import Panels, Room
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lowered import Temp


class Supply(Protocol):
    """`pitch`: elements from a row of a panel to the next; `group`: most panels at hand at once."""

    pitch: int
    group: int

    def open(self, batch: Index, flat_batch: Expr, first: Expr) -> None:
        """Begin a task that uses the panels of a batch from number `first` on."""

    def prepare(self, block: DepthBlock, first: Expr, count: Expr) -> None:
        """Have `count` panels of the task at hand, from number `first` of the task on."""

    def at(self, local: Expr, number: Expr, block: DepthBlock) -> Address:
        """The first row of a panel: number `local` of those at hand, and `number` of the task's."""


class Copied:
    """Panels that the task copies, `group` at a time."""

    def __init__(self, panels: Panels, fused: Fused, group: int, depth: int) -> None:
        self.panels, self.fused, self.group, self.depth = panels, fused, group, depth
        self.pitch = panels.lanes

    def open(self, batch: Index, flat_batch: Expr, first: Expr) -> None:
        dtype = self.panels.p.anchor.dtype
        self.batch, self.first = batch, first
        self.buffer = self.fused.scope.alloc("panels", dtype, (self.group, self.depth, self.pitch))

    def prepare(self, block: DepthBlock, first: Expr, count: Expr) -> None:
        room = Room(self.buffer, self.group)
        self.panels.pack(room, self.batch, block, ix.add(self.first, first), count)

    def at(self, local: Expr, number: Expr, block: DepthBlock) -> Address:
        return address(self.buffer, (local, ZERO, ZERO))


class Made:
    """All panels, made before: temp[batch * panels + panel, k, lane]."""

    def __init__(self, problem: Contraction, made: Temp, fused: Fused, group: int) -> None:
        self.p, self.buffer, self.group = problem, fused.buffer(made), group
        self.pitch = self.buffer.shape[-1]

    def open(self, batch: Index, flat_batch: Expr, first: Expr) -> None:
        panels = -(-self.p.sizes[2] // self.pitch)
        self.first = ix.add(ix.mul(flat_batch, panels), first)

    def prepare(self, block: DepthBlock, first: Expr, count: Expr) -> None:
        pass

    def at(self, local: Expr, number: Expr, block: DepthBlock) -> Address:
        first = ix.flatten(block.first(), self.p.depth)
        return address(self.buffer, (ix.add(self.first, number), first, ZERO))


class InPlace:
    """B itself, whose columns are neighbours in memory and whose steps of K have one length."""

    def __init__(self, problem: Contraction, b: Layout, fused: Fused, lanes: int, group: int) -> None:
        pitch = flat_stride(b.depth, problem.depth)
        assert pitch is not None, "only a B that can be read where it is leads here"
        self.p, self.fused, self.lanes, self.pitch, self.group = problem, fused, lanes, pitch, group

    def open(self, batch: Index, flat_batch: Expr, first: Expr) -> None:
        self.batch, self.first = batch, first

    def prepare(self, block: DepthBlock, first: Expr, count: Expr) -> None:
        pass

    def at(self, local: Expr, number: Expr, block: DepthBlock) -> Address:
        column = ix.mul(ix.add(self.first, number), self.lanes)
        access = self.p.b(self.batch, block.first(), ix.unflatten(column, self.p.cols))
        found = place(self.fused.group, self.fused.buffer, access)
        assert found is not None
        return address(found.buffer, found.index)


def even_pitch(problem: Contraction, b: Layout) -> int | None:
    """Elements from step to step of K of a B whose columns are neighbours; None if it is no such matrix."""
    if not b.direct or not problem.cols or flat_stride(b.side, problem.cols) != 1:
        return None
    return flat_stride(b.depth, problem.depth) or None


def pitch_in_place(problem: Contraction, b: Layout, width: int) -> int | None:
    """Elements from step to step of K of a B that tiles may read where it is; None if they must not: what is
    read of the last columns is a tile of vectors, or of a part of one, and all of it must be there."""
    return even_pitch(problem, b) if problem.sizes[2] % width in (0, *PARTS) else None


def supply(
    problem: Contraction,
    b: Layout,
    fused: Fused,
    panels: Panels,
    made: Temp | None,
    in_place: bool,
    group: int,
    depth: int,
) -> Supply:
    """The supply of a contraction: `made` if all panels are, B itself if `in_place`, else copies of at most
    `depth` steps of K."""
    if made is not None:
        return Made(problem, made, fused, group)
    if in_place:
        return InPlace(problem, b, fused, panels.lanes, group)
    return Copied(panels, fused, group, depth)
