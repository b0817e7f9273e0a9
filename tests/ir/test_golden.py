"""The text of a small training step before and after the passes, as people see it."""

from __future__ import annotations

from collections.abc import Callable

from graphc import ops
from graphc.autodiff import gradients
from graphc.ir.graph import Graph
from graphc.ir.node import no_sites
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, float32
from graphc.pipeline import optimise


def training_step() -> Graph:
    """Mean squared error of a linear map, and one step of gradient descent."""
    x = ops.input_("x", TensorType((8, 3), float32))
    y = ops.input_("y", TensorType((8, 2), float32))
    w = ops.input_("w", TensorType((2, 3), float32))
    rate = ops.input_("rate", TensorType((), float32))
    out = ops.dot_general(x, ops.transpose(w, (1, 0)), ((1,), (0,)))
    error = ops.sub(out, y)
    loss = ops.div(ops.reduce_sum(ops.pow_(error, ops.like(error, 2.0)), (0, 1)), ops.constant(16.0, float32))
    (grad,) = gradients([loss], [ops.constant(1.0, float32)], [w])
    assert grad is not None
    new = ops.sub(w, ops.mul(grad, ops.broadcast(rate, w.shape, ())))
    return Graph((x, y, w, rate), (loss, new), ("x", "y", "w", "rate"), ("loss", "w"), "step")


def test_training_step(golden: Callable[[str, str], None]) -> None:
    with no_sites():
        graph = training_step()
        golden("step_traced", print_graph(graph, sites=False))
        golden("step_optimised", print_graph(optimise(graph), sites=False))
