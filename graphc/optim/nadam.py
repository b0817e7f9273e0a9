"""NAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import ones, zeros_like
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float32
from graphc.nn.arith import Num, scalar
from graphc.optim.checks import check_betas, check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import averages, decayed
from graphc.optim.optimizer import Group, Optimizer, State


class NAdam(Optimizer):
    """Adam with Nesterov momentum, whose weight follows a schedule.

    `foreach` and `capturable` are hints without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
        check_number("momentum_decay value", momentum_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        product = ones((), dtype=float32)
        return {"mu_product": product, "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        beta1, beta2, step = hyper.item("betas", 0), hyper.item("betas", 1), state["step"]
        p, grad = decayed(group, hyper, p, grad)
        mu = beta1 * (1 - 0.96 ** (step * hyper.momentum_decay) * 0.5)
        mu_next = beta1 * (1 - 0.96 ** ((step + 1) * hyper.momentum_decay) * 0.5)
        product = scalar((scalar(state["mu_product"].node) * mu).to(float32))  # kept as float32
        mean, square = averages(group, hyper, grad, state)
        denominator = (square / (1 - beta2**step)).map(ops.sqrt) + hyper.eps
        p = p - hyper.lr * (1 - mu) / (1 - product) * grad / denominator
        p = p - hyper.lr * mu_next / (1 - product * mu_next) * mean / denominator
        return p, {"mu_product": product, "exp_avg": mean, "exp_avg_sq": square}
