"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import zeros_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num
from graphc.optim.checks import check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import lerp, with_l2
from graphc.optim.optimizer import Group, Optimizer, State


class RMSprop(Optimizer):
    """Divides by the root of a running average of squared gradients (less the squared mean, if centered).

    `foreach` and `capturable` are hints without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        check_number("epsilon value", eps)
        check_number("momentum value", momentum)
        check_number("weight_decay value", weight_decay)
        check_number("alpha value", alpha)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        names = ["square_avg"]
        names += ["momentum_buffer"] if group["momentum"] > 0 else []
        names += ["grad_avg"] if group["centered"] else []
        return {name: zeros_like(p) for name in names}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        grad = with_l2(group, hyper, p, grad)
        square = state["square_avg"] * hyper.alpha + grad * grad * (1 - hyper.alpha)
        changed = {"square_avg": square}
        if group["centered"]:
            mean = lerp(state["grad_avg"], grad, 1 - hyper.alpha, group["alpha"] <= 0.5)
            changed["grad_avg"] = mean
            square = square - mean * mean
        scaled = grad / (square.map(ops.sqrt) + hyper.eps)
        if group["momentum"] > 0:
            scaled = changed["momentum_buffer"] = state["momentum_buffer"] * hyper.momentum + scaled
        return p - hyper.lr * scaled, changed
