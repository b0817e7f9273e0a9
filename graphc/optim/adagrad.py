"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import full_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num
from graphc.optim.checks import check_hints, check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import with_l2
from graphc.optim.optimizer import Group, Optimizer, State


class Adagrad(Optimizer):
    """Scales each element by the root of the sum of its squared gradients; the rate may decay with steps.

    `foreach` and `fused` are hints without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_lr(lr)
        check_number("lr_decay value", lr_decay)
        check_number("weight_decay value", weight_decay)
        check_number("initial_accumulator_value value", initial_accumulator_value)
        check_number("epsilon value", eps)
        check_hints(foreach, fused, differentiable)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

        for group in self.param_groups:  # PyTorch makes this state at once, not at the first step
            self._begin(group, group["params"])

    def _init_state(self, group: Group, p: Tensor) -> State:
        return {"sum": full_like(p, group["initial_accumulator_value"])}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        grad = with_l2(group, hyper, p, grad)
        total = state["sum"] + grad * grad
        rate = hyper.lr / (1 + (state["step"] - 1) * hyper.lr_decay)
        return p - rate * grad / (total.map(ops.sqrt) + hyper.eps), {"sum": total}
