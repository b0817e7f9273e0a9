"""Adam for embedding tables, of which a batch uses few rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import zeros_like
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num, select
from graphc.optim.checks import check_betas
from graphc.optim.hyper import Hyper
from graphc.optim.optimizer import Group, Optimizer, State


class SparseAdam(Optimizer):
    """Adam that changes only the rows (along the first axis) in use: the others keep value and averages.

    Gradients are dense here; a row is in use when any element of its gradient is not zero. ValueError for
    numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr > 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not eps > 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    def _init_state(self, group: Group, p: Tensor) -> State:
        return {"exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        used = rows_in_use(grad)
        beta1, beta2, step = hyper.item("betas", 0), hyper.item("betas", 1), state["step"]
        mean = state["exp_avg"] + (grad - state["exp_avg"]) * (1 - beta1)
        square = state["exp_avg_sq"] + (grad * grad - state["exp_avg_sq"]) * (1 - beta2)
        rate = hyper.lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        new = p - mean / (square.map(ops.sqrt) + hyper.eps) * rate
        return select(used, new, p), {
            "exp_avg": select(used, mean, state["exp_avg"]),
            "exp_avg_sq": select(used, square, state["exp_avg_sq"]),
        }


def rows_in_use(grad: Num) -> Num:
    """Whether the gradient of an element's row has any element that is not zero."""
    node = grad.node
    nonzero = ops.ne(node, ops.like(node, 0))
    if len(node.shape) < 2:
        return Num(nonzero)
    used = ops.reduce_or(nonzero, tuple(range(1, len(node.shape))))
    return Num(ops.broadcast(used, node.shape, (0,)))
