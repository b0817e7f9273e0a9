"""What stands around a contraction in its group: operands seen through views, and the elementwise
epilogue."""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, Kernel, Let, Load, Local, Var, identity_of, load
from graphc.loop.lower.contraction.problem import Access, Index
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall, Temp


class Fused:
    """One kernel of the group around `anchor`: reads operands, finishes results, makes the KernelCall.

    Params are flat arrays, so that indices along merged axes come out as plain strides.
    """

    def __init__(self, group: Group, anchor: Node) -> None:
        self.group, self.anchor = group, anchor
        self.buffers: dict[Node | Temp, Buffer] = {}
        self.written: set[Node | Temp] = set()
        self.scope = Scope()
        self.evaluator = Evaluator(self.scope, group.inputs, self.buffer)

    def buffer(self, value: Node | Temp) -> Buffer:
        """The param through which the kernel reaches a value."""
        if value not in self.buffers:
            shape = value.type.shape if isinstance(value, Temp) else (value.type.size,)
            self.buffers[value] = Buffer(f"p{len(self.buffers)}", value.type.dtype, shape)
        return self.buffers[value]

    def read(self, access: Access) -> Expr:
        """The operand element; out-of-bounds ones are zero and touch no memory."""
        if isinstance(access.node, Temp):
            return load(self.buffer(access.node), access.index)
        return _read(self.evaluator, access)

    def finish(self, index: Index, value: Expr) -> None:
        """Store every output of the group, given the anchor's element at `index`.

        Members may have another shape than the anchor, but the same row-major order.
        """
        index = tuple(ix.ZERO if e == 1 else i for i, e in zip(index, self.anchor.shape, strict=True))
        value = self.scope.let(value, "c")
        self.evaluator.bind(self.anchor, index, value)
        position = ix.flatten(index, self.anchor.shape)
        for output in self.group.outputs:
            same = output.shape == self.anchor.shape
            result = self.evaluator.value(output, index if same else ix.unflatten(position, output.shape))
            self.written.add(output)
            self.scope.store(self.buffer(output), (position,), result)

    def store_temp(self, temp: Temp, index: Index, value: Expr) -> None:
        """temp[index] = value."""
        self.written.add(temp)
        self.scope.store(self.buffer(temp), index, value)

    def call(self, name: str, task: Var, tasks: int, flops: float) -> KernelCall:
        """The finished kernel on its arguments."""
        args = tuple(self.buffers)
        moved = float(sum(v.type.nbytes for v in args))
        kernel = Kernel(name, tuple(self.buffers.values()), task, tasks, self.scope.done(), flops, moved)
        return KernelCall(kernel, args, tuple(i for i, v in enumerate(args) if v in self.written))


def place(group: Group, buffer: Callable[[Node | Temp], Buffer], access: Access) -> Load | None:
    """The load that reads an operand element, if it is no more than a load of a group input or of a
    temporary."""
    if isinstance(access.node, Temp):
        return load(buffer(access.node), access.index)
    scope = Scope()
    value: Expr | None = _read(Evaluator(scope, group.inputs, buffer), access)
    if isinstance(value, Local):
        value = next((s.value for s in scope.block if isinstance(s, Let) and s.local is value), None)
    if not isinstance(value, Load):
        return None
    known = {s.local for s in scope.block if isinstance(s, Let)}
    inside = any(known & ix.variables(i) for i in value.index)
    return None if inside else value


def flat_buffer(value: Node | Temp) -> Buffer:
    """A stand-in for a param, for questions about layout."""
    return Buffer("probe", value.type.dtype, (value.type.size,))


def _read(evaluator: Evaluator, access: Access) -> Expr:
    assert isinstance(access.node, Node)
    mask = ix.all_of(ix.inside(c, e) for c, e in access.bounds)
    if ix.is_true(mask):
        return evaluator.value(access.node, access.index)
    return evaluator.value(access.node, access.index, mask, identity_of("add", access.node.dtype))
