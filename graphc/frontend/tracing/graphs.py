"""`graphc.trace`: the graph of a function, with nothing run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.frontend import tree
from graphc.frontend.cell import Cell, fresh_input
from graphc.frontend.evaluation import lazy
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import from_array, wrap_cell
from graphc.frontend.tracing.compile import Compiled, name_of
from graphc.frontend.tracing.record import NeedStatic, graph_of, inputs_of, module_names, record_call
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType


class TensorSpec:
    """The shape and dtype of a tensor, as an example for `trace`."""

    def __init__(self, shape: Sequence[int], dtype: Any = None, requires_grad: bool = False) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.requires_grad = requires_grad


def _example(leaf: Any) -> Any:
    if isinstance(leaf, TensorSpec):
        kind = TensorType(leaf.shape, leaf.dtype or get_default_dtype())
        made = wrap_cell(Cell(fresh_input(kind, lazy.Unbound("a TensorSpec"))))
        made._requires = leaf.requires_grad
        return made
    if isinstance(leaf, np.ndarray):
        return from_array(leaf.copy())
    return leaf


def _traced(function: Any, name: str, args: Any, kwargs: Any) -> tuple[Graph, dict[int, int]]:
    """The graph that a call builds (returned values, then changed state and gradients), and which outputs
    overwrite which inputs: changed state takes the place of the old."""
    static: frozenset[int] = frozenset()
    examples = tree.rebuild((tuple(args), dict(kwargs)), _example)
    while True:
        try:
            record = record_call(function, name, examples[0], examples[1], static)
            break
        except NeedStatic as need:
            static |= {need.leaf}
    inputs = inputs_of(record, module_names(record))
    position = {node: i for i, node in enumerate(inputs.nodes)}
    targets = [o.node for o in record.outputs if o.node is not None]
    donate = {len(targets) + i: position[captured.node] for i, (captured, _) in enumerate(record.writes)}
    targets += [node for _, node in record.writes]
    targets += [g.node for g in record.grads if g.node is not None]
    return graph_of(targets, inputs.nodes, inputs.names, name), donate


def trace_program(function: Any, *examples: Any, **kwargs: Any) -> tuple[Graph, dict[int, int]]:
    """As `trace`, with the donations (output position -> input position) that `compile` would use."""
    if isinstance(function, Compiled):
        function = function.__wrapped__
    return _traced(function, name_of(function), examples, kwargs)


def trace(function: Any, *examples: Any, **kwargs: Any) -> Graph:
    """The graph of `function` for examples: tensors, arrays, `TensorSpec`s, numbers. Nothing is run.

    Outputs are the returned tensors, then state changed in place, then gradients left in `.grad`.
    """
    return trace_program(function, *examples, **kwargs)[0]
