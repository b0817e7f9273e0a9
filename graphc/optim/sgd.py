"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from graphc.frontend.functions.creation import ones, zeros_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num, scalar
from graphc.optim.checks import check_hints, check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import with_l2
from graphc.optim.optimizer import Group, Optimizer, State


class SGD(Optimizer):
    """Gradient descent with momentum (optionally Nesterov's), weight decay and dampening.

    `foreach` and `fused` are hints without effect: every step is one fused program. ValueError for
    numbers out of range.
    """

    _counts = False
    _since_saved: ClassVar[Group] = {
        "nesterov": False, "maximize": False, "foreach": None, "differentiable": False, "fused": None,
    }  # fmt: skip

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_lr(lr)
        check_number("momentum value", momentum)
        check_number("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        check_hints(foreach, fused, differentiable)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        # PyTorch's first buffer is the first gradient, undamped. Starting from zeros gives that, if the
        # dampening waits one step: `_first` is 1 at the first step and 0 ever after.
        if group["momentum"] == 0:
            return {}
        first = {"_first": ones(())} if group["dampening"] != 0 else {}
        return {"momentum_buffer": zeros_like(p), **first}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        grad = with_l2(group, hyper, p, grad)
        changed: dict[str, Num] = {}
        if group["momentum"] != 0:
            new = grad
            if group["dampening"] != 0:
                damped = hyper.dampening
                if "_first" in state:
                    damped = damped * (1 - scalar(state["_first"].node))
                    changed["_first"] = state["_first"] * 0
                new = grad * (1 - damped)
            buffer = changed["momentum_buffer"] = state["momentum_buffer"] * hyper.momentum + new
            grad = grad + hyper.momentum * buffer if group["nesterov"] else buffer
        return p - hyper.lr * grad, changed
