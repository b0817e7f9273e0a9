"""Adamax."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import zeros_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num
from graphc.optim.checks import check_betas, check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import first_average, with_l2
from graphc.optim.optimizer import Group, Optimizer, State


class Adamax(Optimizer):
    """Adam with the infinity norm of gradients.

    `foreach` and `capturable` are hints without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
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
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        return {"exp_avg": zeros_like(p), "exp_inf": zeros_like(p)}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        grad = with_l2(group, hyper, p, grad)
        beta1, beta2 = hyper.item("betas", 0), hyper.item("betas", 1)
        mean = first_average(group, hyper, grad, state)
        norm = (state["exp_inf"] * beta2).maximum(grad.map(ops.abs) + hyper.eps)
        rate = hyper.lr / (1 - beta1 ** state["step"])
        return p - rate * mean / norm, {"exp_avg": mean, "exp_inf": norm}
