"""Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import zeros_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num
from graphc.optim.checks import check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import with_l2
from graphc.optim.optimizer import Group, Optimizer, State


class Adadelta(Optimizer):
    """Scales by the ratio of running averages of squared updates and squared gradients.

    `foreach` and `capturable` are hints without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        check_number("rho value", rho, 1.0)
        check_number("epsilon value", eps)
        check_number("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        return {"square_avg": zeros_like(p), "acc_delta": zeros_like(p)}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        grad = with_l2(group, hyper, p, grad)
        square = state["square_avg"] * hyper.rho + grad * grad * (1 - hyper.rho)
        delta = (state["acc_delta"] + hyper.eps).map(ops.sqrt) / (square + hyper.eps).map(ops.sqrt) * grad
        moved = state["acc_delta"] * hyper.rho + delta * delta * (1 - hyper.rho)
        return p - hyper.lr * delta, {"square_avg": square, "acc_delta": moved}
