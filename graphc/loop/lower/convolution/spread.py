"""Input gradients of strided convolutions with a window of one element: most of the result are zeros.

As many contractions as there are phases would each write, and read for the epilogue, every other element
of the same cache lines. So the elements that are not zero are computed close together, as the gradient of
the same convolution at unit stride, and a second kernel writes the result once, from end to end: rows with
the elements spread out, and rows of zeros.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape, TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Const, Expr, Var, identity_of, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.problem import Index
from graphc.loop.lowered import KernelCall, Temp
from graphc.ops.conv import conv_input_grad
from graphc.program import Machine

TASK_ELEMENTS = 1 << 14
MOST_TASKS = 64


def close_group(group: Group, anchor: Node) -> Group | None:
    """The group that computes the elements of `anchor` that are not zero, close together; None if it is not
    the input gradient of a strided convolution with windows of one element, without padding."""
    if anchor.op.name != "conv_input_grad":
        return None
    dy, w = anchor.inputs
    at = anchor.attrs
    if at.last or max(at.stride) == 1 or any(k != 1 for k in at.kernel) or any((*at.low, *at.high)):
        return None
    return Group.between(group.inputs, (conv_input_grad(dy, w, dy.shape[2:], groups=at.groups),))


def spread_call(group: Group, anchor: Node, machine: Machine) -> tuple[Temp, KernelCall]:
    """(temp, call): the kernel that finishes the group, given the elements that are not zero in temp
    [N, C, *places]."""
    temp = Temp("close", TensorType((*anchor.shape[:2], *anchor.inputs[0].shape[2:]), anchor.dtype))
    planes = math.prod(anchor.shape[:2])
    shares = max(1, min(MOST_TASKS, planes, anchor.type.size // TASK_ELEMENTS))
    most = -(-planes // shares)
    task = Var(int64, "task", -(-planes // most))
    writer = _Spread(Fused(group, anchor), temp, machine.lanes(anchor.dtype.itemsize))
    first = ix.mul(task, most)
    with writer.w.loop("i", ix.minimum(most, ix.sub(planes, first)), most) as i:
        writer.plane(ix.unflatten(ix.add(first, i), anchor.shape[:2]))
    return temp, writer.fused.call("conv_input_grad_spread", task, task.extent, 0.0)


@dataclass(eq=False)
class _Spread:
    """Writes planes: `fused` finishes elements, `temp` has those that are not zero."""

    fused: Fused
    temp: Temp
    width: int

    def __post_init__(self) -> None:
        anchor = self.fused.anchor
        self.w = self.fused.scope
        self.space, self.stride = anchor.shape[2:], anchor.attrs.stride
        self.zero: Const = identity_of("add", anchor.dtype)
        self.line = self._line()

    def _line(self) -> Buffer | None:
        """A row of zeros, into which the elements of one row after another are put."""
        if self.stride[-1] == 1:
            return None
        w, length = self.w, self.space[-1]
        line = w.alloc("line", self.zero.dtype, (length,))
        with w.loop("z", length, None, "vector", self.width) as j:
            w.store(line, (j,), self.zero)
        return line

    def plane(self, at: Index) -> None:
        """All rows of an image's channel: for each residue of their places those that share it."""
        outer, strides = self.space[:-1], self.stride[:-1]
        for residues in itertools.product(*(range(min(s, e)) for s, e in zip(strides, outer, strict=True))):
            counts: Shape = tuple(-(-(e - r) // s) for e, r, s in zip(outer, residues, strides, strict=True))
            with self.w.nest("y", counts) as places:
                row = tuple(
                    ix.add(ix.mul(i, s), r) for i, s, r in zip(places, strides, residues, strict=True)
                )
                self._row((*at, *row), (*at, *places) if not any(residues) else None)

    def _row(self, row: Index, place: Index | None) -> None:
        """A row of the result, with the elements that temp has at `place`, if any."""
        w = self.w
        if place is not None and self.line is not None:
            with w.loop("j", self.temp.type.shape[-1], None, "vector", self.width) as j:
                w.store(self.line, (ix.mul(j, self.stride[-1]),), self._element((*place, j)))
        with w.loop("x", self.space[-1], None, "vector", self.width) as x:
            value: Expr = self.zero
            if place is not None:
                value = self._element((*place, x)) if self.line is None else load(self.line, (x,))
            self.fused.finish((*row, x), value)

    def _element(self, place: Index) -> Expr:
        return load(self.fused.buffer(self.temp), place)
