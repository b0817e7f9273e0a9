"""Tracing the body of a loop: one call of a function on tensors that stand for any step's values.

A body is traced inside whatever runs around it: eager code that builds lazy nodes, a compiled function's
trace, or the body of an outer loop. What it reads from there becomes the loop's constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.frontend.cell import Cell, fresh_input, leaf_node
from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import Unbound
from graphc.frontend.history import AccumulateGrad, CutGrad, GradFn
from graphc.frontend.modes import MODE
from graphc.frontend.pending import PendingTensors
from graphc.frontend.tensor import Tensor, gradient_fn, wrap_cell
from graphc.frontend.tracing.trace import Trace
from graphc.ir.graph import rebuild
from graphc.ir.node import Kind, Node
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.frontend.functions.random import Generator


class Body(Trace):
    """The trace of a body. Tensors from outside stay what they are; what would change them is an error."""

    def __init__(self, outer: Trace | None) -> None:
        super().__init__("the body of scan")
        self.outer = outer
        self.mark = Unbound("the body of scan")
        self.marker = GradFn("ScanStep", ())  # the history of stand-ins; older functions are from outside
        self.placeholders: list[Node] = []
        if outer is not None:
            self.guards, self.consumed = outer.guards, outer.consumed

    def stand_in(self, kind: TensorType) -> Tensor:
        """A tensor for a value that differs by step. It requires grad if it can."""
        node = fresh_input(kind, self.mark)
        self.placeholders.append(node)
        return wrap_cell(Cell(node, self.marker if MODE.grad and kind.dtype.is_float else None))

    # ------------------------------------------------------------ state from outside

    def touch(self, tensor: Tensor) -> None:
        """An outside tensor is read: whatever is around the loop may have to stand in for it."""
        if self.outer is not None and tensor._cell.trace is not self.outer:
            self.outer.touch(tensor)

    def save(self, cell: Cell) -> None:
        if self.outer is not None:
            self.outer.save(cell)

    def has_saved(self, cell: Cell) -> bool:
        return self.outer is None or cell.trace is self.outer or self.outer.has_saved(cell)

    def write(self, cell: Cell) -> None:
        if cell.trace is not self:
            raise fail(
                RuntimeError,
                f"scan: the body changes a tensor from outside in place ({describe(wrap_cell(cell))}); make "
                "it a part of the carry, and return the new value",
            )

    def save_handle(self, tensor: Tensor) -> None:
        if self.outer is not None and tensor._cell.trace is not self:
            self.outer.save_handle(tensor)

    def note_variable(self, node: Node, tensor: Tensor) -> None:
        super().note_variable(node, tensor)
        if self.outer is not None and tensor._cell.trace is not self:
            self.outer.note_variable(node, tensor)

    def knows(self, node: Node) -> bool:
        return super().knows(node) or self.outer is None or self.outer.knows(node)

    def read_grad(self, tensor: Tensor) -> None:
        if tensor._cell.trace is not self:
            raise fail(
                RuntimeError,
                "scan: the body reads or changes .grad of a tensor from outside; backward() belongs after "
                "the loop (inside, graphc.grad and autograd.grad give gradients as values)",
            )

    def random_key(self, generator: Generator) -> tuple[Node, int]:
        raise fail(
            RuntimeError,
            "scan: the body draws random numbers (dropout counts), which would be the same in every step; "
            "draw them for all steps before the loop and pass them as xs",
        )

    def scalar(self, getter: Callable[[], float]) -> Node:
        if self.outer is not None:
            return self.outer.scalar(getter)
        return leaf_node(np.asarray(getter(), np.float64))

    def note_module(self, module: Any) -> None:
        if self.outer is not None:
            self.outer.note_module(module)

    # ------------------------------------------------------------------------ end

    def resolve(self, nodes: Sequence[Node]) -> list[Node]:
        """`nodes` without the input nodes that only stand for another node of the body."""
        new: dict[Node, Node] = {}
        varying = set(self.placeholders)
        stack = list(nodes)[::-1]
        while stack:
            node = stack[-1]
            alias = node.kind is Kind.INPUT and type(node.bound) is Node
            operands = (node.bound,) if alias else node.inputs
            waiting = [n for n in operands if n not in new]
            if node in new or waiting:
                stack.pop() if node in new else stack.extend(reversed(waiting))
                continue
            stack.pop()
            if varying.isdisjoint(operands):
                new[node] = node
                continue
            new[node] = new[node.bound] if alias else rebuild(node, tuple([new[n] for n in operands]))
            varying.add(node)
        return [new[node] for node in nodes]

    def histories(self, tensors: Sequence[Tensor]) -> list[GradFn]:
        """The histories from outside that those of some tensors of the body lead to, in a fixed order.

        RuntimeError for what cannot be differentiated as a part of a loop.
        """
        found: dict[GradFn, None] = {}
        seen: set[GradFn] = set()
        stack = [fn for t in tensors if t.requires_grad and (fn := gradient_fn(t)) is not None]
        while stack:
            fn = stack.pop()
            if fn in seen:
                continue
            seen.add(fn)
            if isinstance(fn, AccumulateGrad) or fn.order < self.marker.order:
                found[fn] = None
                continue
            if isinstance(fn, CutGrad) or fn.hooks:
                what = "an autograd.Function" if isinstance(fn, CutGrad) else "a hook on a gradient"
                raise fail(RuntimeError, f"scan: {what} inside the body is not supported ({fn.name()})")
            stack.extend(fn.parents)
        return list(found)


@contextmanager
def trace_body() -> Iterator[Body]:
    """Trace what runs inside as the body of a loop."""
    outer = MODE.trace
    body = MODE.trace = Body(outer)
    pending, MODE.pending = MODE.pending, PendingTensors()
    try:
        yield body
    finally:
        MODE.trace = outer
        for tensor in MODE.pending:
            tensor._seq = 0
        MODE.pending = pending
        body.mark.active = False
