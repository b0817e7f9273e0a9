"""Stores past the caches.

An ordinary store to a line that is not in cache reads the line first. For a result that is too large to
stay in cache until somebody reads it that is wasted: whole lines are then written straight to memory, a third
less traffic for a copy. Such stores need aligned places: where a vector lies in its param is known, where the
param begins is looked at when running, since memory may come from the user. Other threads see such stores
only after a fence.
"""

from __future__ import annotations

from graphc.backends.llvm.emit_analysis import element_count, expressions, statements
from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.loop import ir
from graphc.program import LINE, Machine


def streamed_params(kernel: ir.Kernel, machine: Machine) -> frozenset[ir.Buffer]:
    """Params to store past the caches: large ones that the kernel only stores to.

    What takes half of the last cache is, with what the kernel reads for it, gone from there before another
    kernel gets to it. Contractions are left out: their results are stored tile by tile. So are loops over
    odd numbers of lanes, whose vectors do not fall on lines.
    """
    large = {p for p in kernel.params if 2 * element_count(p) * p.dtype.itemsize >= machine.l3_bytes}
    if not large:
        return frozenset()
    stored: set[ir.Buffer] = set()
    other: set[ir.Buffer] = set()
    for stmt in statements(kernel.body):
        if isinstance(stmt, ir.Tile):
            return frozenset()
        if isinstance(stmt, ir.For) and stmt.mode == "vector" and stmt.lanes & (stmt.lanes - 1):
            return frozenset()
        if isinstance(stmt, ir.Store):
            stored.add(stmt.buffer)
        elif isinstance(stmt, ir.Accumulate):
            other.add(stmt.buffer)
        other.update(e.buffer for e in expressions((stmt,)) if isinstance(e, ir.Load))
    return frozenset((stored - other) & large)


def choice(kernel: ir.Kernel, streamed: frozenset[ir.Buffer], names: tuple[str, str], arguments: str) -> str:
    """The kernel's function: the first of the named ones if all streamed params begin on cache lines, else
    the second."""
    lines = [f'define void @"{kernel.name}"({arguments}) #0 {{', "entry:"]
    offset = "0"
    for number, param in enumerate(kernel.params):
        if param in streamed:
            lines += [
                f"  %slot{number} = getelementptr ptr, ptr %args, i64 {number}",
                f"  %address{number} = load i64, ptr %slot{number}, align 8",
                f"  %or{number} = or i64 {offset}, %address{number}",
            ]
            offset = f"%or{number}"
    lines += [
        f"  %rest = and i64 {offset}, {LINE - 1}",
        "  %aligned = icmp eq i64 %rest, 0",
        "  br i1 %aligned, label %past, label %usual",
    ]
    for label, name in zip(("past", "usual"), names, strict=True):
        lines += [f"{label}:", f'  tail call void @"{name}"({arguments})', "  ret void"]
    return "\n".join([*lines, "}"])


def stream(b: Builder, value: Operand, address: Operand) -> None:
    """Store a vector of whole lines, whose place is a line's, past the caches."""
    b.line(f"store {value.typed}, {address.typed}, align {LINE}, !nontemporal !1")
    b.streams = True
