"""How one parameter changes, recorded once and made again at every step.

`Optimizer._update` is the same arithmetic for all parameters of a type, step after step; outside compiled
functions, working it out anew took most of the time of a small network's step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.frontend.cell import fresh_input
from graphc.ir.node import Node
from graphc.ir.recipe import Recipe, frontier
from graphc.ir.types import TensorType, float64
from graphc.nn.arith import Num
from graphc.optim.hyper import Hyper

Rule = Callable[[Any, Num, Num, dict[str, Num]], tuple[Num, dict[str, Num]]]

_SCALAR = TensorType((), float64)


class _Asked:
    """Stands for the numbers of a group (`Hyper`) and notes which of them are asked for."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, int], Node] = {}

    def __getattr__(self, name: str) -> Num:
        return self.item(name, -1)

    def item(self, name: str, position: int) -> Num:
        key = (name, position)
        if key not in self.numbers:
            self.numbers[key] = fresh_input(_SCALAR)
        return Num(self.numbers[key], scalar=True)


class Update:
    """The nodes that `rule(hyper, p, grad, state)` makes for parameters, gradients and states of given types.

    `counted`: the state has a "step", a scalar. The rule must look at nothing but types. What follows from
    numbers alone (bias corrections) is made once for all parameters of a step.
    """

    def __init__(
        self, rule: Rule, p: TensorType, grad: TensorType, state: Mapping[str, TensorType], counted: bool
    ) -> None:
        arrays = [fresh_input(t) for t in (p, grad, *state.values())]
        values = [Num(node) for node in arrays]
        held = dict(zip(state, values[2:], strict=True))
        count = [fresh_input(_SCALAR)] if counted else []
        if counted:
            held["step"] = Num(count[0], scalar=True)
        asked = _Asked()
        new, changed = rule(asked, values[0], values[1], held)
        outputs = [new.to(p.dtype), *[value.to(state[name].dtype) for name, value in changed.items()]]
        self.changed = list(changed)
        self._asked = list(asked.numbers)
        numbers = frontier(arrays, outputs)
        self._numbers = Recipe([*count, *asked.numbers.values()], numbers)
        self._arrays = Recipe([*arrays, *numbers], outputs)

    def __call__(self, hyper: Hyper, arrays: Sequence[Node], count: Node | None) -> list[Node]:
        """The new parameter and the state entries `changed`, from (p, grad, *state)."""
        known = hyper.made.get((self, count))
        if known is None:
            given = [] if count is None else [count]
            known = self._numbers([*given, *[hyper.item(*key).node for key in self._asked]])
            hyper.made[self, count] = known
        return self._arrays([*arrays, *known])
