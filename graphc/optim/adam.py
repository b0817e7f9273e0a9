"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from graphc import ops
from graphc.frontend.functions.creation import zeros_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num
from graphc.optim.checks import check_betas, check_hints, check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import averages, decayed
from graphc.optim.optimizer import Group, Optimizer, State


class Adam(Optimizer):
    """Adam, with optional L2 (`weight_decay`) or decoupled weight decay and AMSGrad.

    `foreach`, `fused` and `capturable` are hints without effect: every step is one fused program. Bias
    corrections are computed in float64 inside it. ValueError for numbers out of range.
    """

    _since_saved: ClassVar[Group] = {
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
        "decoupled_weight_decay": False,
    }

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check_lr(lr)
        check_number("epsilon value", eps)
        check_betas(betas)
        check_number("weight_decay value", weight_decay)
        if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
            raise ValueError("betas must be either both floats or both Tensors")
        check_hints(foreach, fused, differentiable)
        defaults = {
            "lr": lr,
            "betas": tuple(b.item() if isinstance(b, Tensor) else b for b in betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        names = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if group["amsgrad"] else [])
        return {name: zeros_like(p) for name in names}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        beta1, beta2, step = hyper.item("betas", 0), hyper.item("betas", 1), state["step"]
        p, grad = decayed(group, hyper, p, grad)
        mean, square = averages(group, hyper, grad, state)
        changed = {"exp_avg": mean, "exp_avg_sq": square}
        if group["amsgrad"]:
            square = changed["max_exp_avg_sq"] = state["max_exp_avg_sq"].maximum(square)
        correction = 1 / (1 - beta2**step).map(ops.sqrt)  # one division for all elements
        denominator = square.map(ops.sqrt) * correction + hyper.eps
        rate = hyper.lr / (1 - beta1**step)
        return p - rate * mean / denominator, changed


class AdamW(Adam):
    """Adam with decoupled weight decay. Arguments as for `Adam`; `weight_decay` is 0.01 unless given."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
