"""Adafactor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc import ops
from graphc.frontend.functions.creation import zeros, zeros_like
from graphc.frontend.functions.numbers import finfo
from graphc.frontend.nodes import expand
from graphc.frontend.tensor import Tensor
from graphc.nn.arith import Num, scalar
from graphc.optim.checks import check_lr, check_number
from graphc.optim.hyper import Hyper
from graphc.optim.moments import lerp
from graphc.optim.optimizer import Group, Optimizer, State


class Adafactor(Optimizer):
    """Adam without a first moment, its second one kept as a row and a column of means for each matrix.

    "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost" (Shazeer and Stern, 2018). Tensors of
    more than two dims are stacks of matrices; vectors keep their whole second moment. `eps[0]` None means
    the precision of the dtype. `foreach` is a hint without effect. ValueError for numbers out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        check_lr(lr)
        if not beta2_decay <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None:
            check_number("epsilon1", eps[0])
        check_number("epsilon2", eps[1])
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        check_number("weight_decay", weight_decay)
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _init_state(self, group: Group, p: Tensor) -> State:
        if p.ndim < 2:
            return {"variance": zeros_like(p)}
        shape = tuple(p.shape)
        return {
            "row_var": zeros((*shape[:-1], 1), dtype=p.dtype),
            "col_var": zeros((*shape[:-2], 1, shape[-1]), dtype=p.dtype),
        }

    def _update(
        self, group: Group, hyper: Hyper, p: Num, grad: Num, state: dict[str, Num]
    ) -> tuple[Num, dict[str, Num]]:
        step = state["step"]
        weight = step**hyper.beta2_decay
        limit = finfo(p.node.dtype).eps if group["eps"][0] is None else hyper.item("eps", 0)
        rate = hyper.lr.minimum(1 / step.map(ops.sqrt)) * _rms(p).maximum(hyper.item("eps", 1))
        squares = grad * grad
        if "variance" in state:
            variance = lerp(state["variance"], squares, weight, high=False)
            changed = {"variance": variance}
        else:
            rows = lerp(state["row_var"], _mean(squares, -1), weight, high=False)
            columns = lerp(state["col_var"], _mean(squares, -2), weight, high=False)
            changed = {"row_var": rows, "col_var": columns}
            variance = _outer(rows / _stretched(_mean(rows, -2).maximum(limit), rows), columns)
        change = grad / variance.maximum(limit * limit).map(ops.sqrt)
        clipped = rate / (_rms(change) / hyper.d).maximum(1)
        if group["weight_decay"] != 0:
            p = p * (1 - hyper.lr * hyper.weight_decay)
        return p - clipped * change, changed


def _rms(x: Num) -> Num:
    """The root of the mean square of all elements, a scalar."""
    total = scalar(ops.reduce_sum((x * x).node, tuple(range(x.node.type.rank))))
    return (total / max(x.node.type.size, 1)).map(ops.sqrt)


def _mean(x: Num, dim: int) -> Num:
    """The mean over a dim, which is kept with size 1."""
    shape = x.node.shape
    axis = dim + len(shape)
    total = Num(ops.reshape(ops.reduce_sum(x.node, (axis,)), (*shape[:axis], 1, *shape[axis + 1 :])))
    return total / max(shape[axis], 1)


def _stretched(x: Num, like: Num) -> Num:
    """`x`, with dims of size 1, over the shape of `like`."""
    return Num(expand(x.node, like.node.shape))


def _outer(rows: Num, columns: Num) -> Num:
    """[..., n, 1] times [..., 1, m]: [..., n, m]."""
    shape = (*rows.node.shape[:-1], columns.node.shape[-1])
    return Num(expand(rows.node, shape)) * Num(expand(columns.node, shape))
