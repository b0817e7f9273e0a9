"""Resilient backpropagation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import full_like, zeros_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num, select
from graphc.optim.checks import check_lr
from graphc.optim.hyper import Hyper
from graphc.optim.optimizer import Group, Optimizer, State


class Rprop(Optimizer):
    """Steps whose size grows while the sign of the gradient stays, and shrinks when it turns.

    `foreach` and `capturable` are hints without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        return {"prev": zeros_like(p), "step_size": full_like(p, float(group["lr"]))}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        turn = grad * state["prev"]
        factor = select(
            turn > 0, hyper.item("etas", 1), select(turn < 0, hyper.item("etas", 0), turn * 0 + 1)
        )
        low, high = hyper.item("step_sizes", 0), hyper.item("step_sizes", 1)
        size = (state["step_size"] * factor).maximum(low).minimum(high)
        grad = select(turn < 0, 0, grad)
        return p - grad.map(ops.sign) * size, {"prev": grad, "step_size": size}
