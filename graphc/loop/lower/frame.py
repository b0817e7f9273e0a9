"""What every loop kernel of a group has: params for the values it reads and writes, and the call."""

from __future__ import annotations

from math import prod

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, int64
from graphc.loop.ir import ZERO, Accumulate, Buffer, Combine, Expr, Kernel, Store, Var, load
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall, Temp


class Frame:
    """Collects the params of one kernel. Params are flat: positions, not indices, address them."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.buffers: dict[Node | Temp, Buffer] = {}
        self.instead: dict[Node, Temp] = {}  # where values are that stay between the kernels of the group
        self.written: set[Node | Temp] = set()
        self.tasks = 1
        self._task = Var(int64, "t", 1)

    def set_tasks(self, tasks: int) -> None:
        """Fix the number of tasks, before the body asks for the task index."""
        self.tasks = tasks
        self._task = Var(int64, "t", tasks)

    def task(self) -> Expr:
        """The task index (0 if there is one task); call `set_tasks` before."""
        return self._task if self.tasks > 1 else ZERO

    def buffer(self, value: Node | Temp) -> Buffer:
        """The flat param through which the kernel reaches a value."""
        value = self._place(value)
        known = self.buffers.get(value)
        if known is None:
            type_: TensorType = value.type
            known = Buffer(f"p{len(self.buffers)}", type_.dtype, (prod(type_.shape),))
            self.buffers[value] = known
        return known

    def _place(self, value: Node | Temp) -> Node | Temp:
        return self.instead.get(value, value) if isinstance(value, Node) else value

    def evaluator(self, scope: Scope) -> Evaluator:
        return Evaluator(scope, self.group.inputs, self.buffer)

    def store(self, scope: Scope, value: Node | Temp, place: Expr, element: Expr) -> None:
        """Write an element of an output or a temporary at a flat position."""
        self.written.add(self._place(value))
        scope.put(Store(self.buffer(value), (place,), element))

    def accumulate(self, scope: Scope, value: Node | Temp, place: Expr, how: Combine, element: Expr) -> None:
        self.written.add(self._place(value))
        scope.put(Accumulate(self.buffer(value), (place,), how, element))

    def read(self, value: Node | Temp, place: Expr) -> Expr:
        return load(self.buffer(value), (place,))

    def call(self, scope: Scope, name: str, flops: float) -> KernelCall:
        """The finished kernel and its arguments."""
        args = tuple(self.buffers)
        moved = float(sum(a.type.nbytes for a in args))
        params = tuple(self.buffers.values())
        kernel = Kernel(name, params, self._task, self.tasks, scope.done(), flops, moved)
        return KernelCall(kernel, args, tuple(i for i, a in enumerate(args) if a in self.written))
