"""The numbers of a parameter group (learning rate, betas ...), as scalars of the program of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc import ops
from graphc.frontend.tensor import Tensor, operand
from graphc.frontend.tracing import trace
from graphc.ir.node import Node
from graphc.nn.arith import Num, scalar

if TYPE_CHECKING:
    from graphc.optim.optimizer import Optimizer


class Hyper:
    """The numbers of one parameter group as scalars of the program: `hyper.lr`, or `hyper.item("betas", 0)`.

    They are inputs, read again at every step, so that a changed number does not recompile. What rules look
    at (`Optimizer._options`) is fixed while tracing; `Optimizer._structure` watches that.
    """

    def __init__(self, optimizer: Optimizer, index: int) -> None:
        self._optimizer, self._index = optimizer, index
        self._scalars: dict[tuple[str, int], Num] = {}
        self.made: dict[tuple[object, Node | None], list[Node]] = {}  # what an `Update` makes of them alone

    def __getattr__(self, name: str) -> Num:
        return self.item(name, -1)

    def item(self, name: str, position: int) -> Num:
        """The number `group[name][position]` (`group[name]` itself for position -1)."""
        key = (name, position)
        if key not in self._scalars:
            self._scalars[key] = self._read(name, position)
        return self._scalars[key]

    def _read(self, name: str, position: int) -> Num:
        optimizer, index = self._optimizer, self._index

        def current() -> float:
            value = optimizer.param_groups[index][name]
            return float(value if position < 0 else value[position])

        value = optimizer.param_groups[index][name]
        value = value if position < 0 else value[position]
        if not isinstance(value, Tensor):
            value = trace.dynamic(current)
        return scalar(ops.reshape(operand(value, False), ()))
