"""Averaged stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.frontend.functions.creation import full, ones, zeros_like
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float32
from graphc.nn.arith import Num, ne, scalar, select
from graphc.optim.checks import check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import with_l2
from graphc.optim.optimizer import Group, Optimizer, State


class ASGD(Optimizer):
    """Gradient descent with a decaying rate; `ax` in the state averages the parameters after `t0` steps.

    `foreach` and `capturable` are hints without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_lr(lr)
        check_number("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        eta = full((), float(group["lr"]), dtype=float32)
        return {"eta": eta, "mu": ones((), dtype=float32), "ax": zeros_like(p)}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        grad = with_l2(group, hyper, p, grad)
        eta, mu, step = scalar(state["eta"].node), scalar(state["mu"].node), state["step"]
        p = p * (1 - hyper.lambd * eta) - eta * grad
        average = select(ne(mu, 1), state["ax"] + (p - state["ax"]) * mu, p)
        eta = hyper.lr / (hyper.lambd * hyper.lr * step + 1) ** hyper.alpha
        mu = 1 / (step - hyper.t0).maximum(1)
        return p, {"eta": eta, "mu": mu, "ax": average}
