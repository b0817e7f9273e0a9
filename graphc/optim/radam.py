"""RAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import zeros_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num, select
from graphc.optim.checks import check_betas, check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import averages, decayed
from graphc.optim.optimizer import Group, Optimizer, State


class RAdam(Optimizer):
    """Adam that leaves out the second moment while its variance is unknown.

    `foreach` and `capturable` are hints without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        check_number("epsilon value", eps)
        check_betas(betas)
        check_number("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        return {"exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        beta1, beta2, step = hyper.item("betas", 0), hyper.item("betas", 1), state["step"]
        p, grad = decayed(group, hyper, p, grad)
        mean, square = averages(group, hyper, grad, state)
        correction = 1 - beta2**step
        limit = 2 / (1 - beta2) - 1
        length = limit - step * 2 * beta2**step / correction
        known = length > 5
        safe = select(known, length, 6)  # the other branch is computed too, and must not be NaN
        rectified = (safe - 4) * (safe - 2) * limit / ((limit - 4) * (limit - 2) * safe)
        adapted = (correction * rectified).map(ops.sqrt) / (square.map(ops.sqrt) + hyper.eps)
        rate = hyper.lr / (1 - beta1**step)
        return p - rate * mean * select(known, adapted, 1), {"exp_avg": mean, "exp_avg_sq": square}
