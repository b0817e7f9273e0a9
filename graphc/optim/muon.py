"""Muon."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import zeros_like
from graphc.frontend.tensor import Tensor
from graphc.ir.node import Node
from graphc.nn.arith import Num, scalar
from graphc.optim.checks import check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import lerp
from graphc.optim.optimizer import Group, Optimizer, State

_ADJUSTMENTS = (None, "original", "match_rms_adamw")
_MOST_STEPS = 100


class Muon(Optimizer):
    """Momentum whose matrices are made nearly orthogonal before they are applied; for 2-d parameters only.

    "Muon: An optimizer for hidden layers in neural networks" (Jordan, 2024). The orthogonal factor is found
    by `ns_steps` Newton-Schulz iterations with the coefficients `ns_coefficients` (in the parameter's dtype;
    PyTorch's are in bfloat16). `adjust_lr_fn`: how the rate depends on the matrix's shape, "original" (also
    for None) or "match_rms_adamw". ValueError for other parameters, and for options out of range.
    """

    _counts = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        check_lr(lr)
        check_number("momentum value", momentum)
        check_number("weight_decay value", weight_decay)
        if adjust_lr_fn not in _ADJUSTMENTS:
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        if ns_steps >= _MOST_STEPS:
            raise ValueError("Number of steps must be less than 100 for computational efficiency")
        if len(ns_coefficients) != 3:
            raise ValueError("Coefficients must be a tuple of exactly 3 values")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)

    def _check_params(self, param_group: Group) -> None:
        super()._check_params(param_group)
        for p in param_group["params"]:
            if p.ndim != 2:
                raise ValueError(
                    f"Muon only supports 2D parameters whereas we found a parameter with size: {p.size()}"
                )

    def _options(self, group: Group) -> tuple:
        return (*super()._options(group), group["ns_steps"])

    def _init_state(self, group: Group, p: Tensor) -> State:
        return {"momentum_buffer": zeros_like(p)}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        momentum = group["momentum"]
        buffer = update = lerp(state["momentum_buffer"], grad, 1 - hyper.momentum, momentum <= 0.5)
        if group["nesterov"]:
            update = lerp(grad, buffer, hyper.momentum, momentum >= 0.5)
        rate = hyper.lr * _adjustment(group["adjust_lr_fn"], p.node.shape)
        kept = p * (1 - hyper.lr * hyper.weight_decay)
        return kept - rate * _orthogonal(hyper, group["ns_steps"], update), {"momentum_buffer": buffer}


def _adjustment(name: str | None, shape: tuple[int, ...]) -> float:
    """What the learning rate of a matrix is multiplied by."""
    rows, columns = shape
    if name == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def _orthogonal(hyper: Hyper, steps: int, matrix: Num) -> Num:
    """The matrix with its singular values brought near 1: x <- a x + (b g + c g g) x with g = x x^T."""
    tall = matrix.node.shape[0] > matrix.node.shape[1]
    x = matrix.map(_transposed) if tall else matrix
    length = scalar(ops.reduce_sum((x * x).node, (0, 1))).map(ops.sqrt)
    x = x / length.maximum(hyper.eps)
    a, b, c = (hyper.item("ns_coefficients", i) for i in range(3))
    for _ in range(steps):
        gram = Num(ops.dot_general(x.node, x.node, ((1,), (1,))))
        inner = b * gram + c * _product(gram, gram)
        x = a * x + _product(inner, x)
    return x.map(_transposed) if tall else x


def _product(a: Num, b: Num) -> Num:
    return Num(ops.dot_general(a.node, b.node, ((1,), (0,))))


def _transposed(n: Node) -> Node:
    return ops.transpose(n, (1, 0))
