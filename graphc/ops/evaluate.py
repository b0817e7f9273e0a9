"""NumPy evaluation of nodes: what an op means. The reference backend and constant folding use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.node import Node


def evaluate_node(node: Node, operands: Sequence[np.ndarray]) -> np.ndarray:
    """The value of one node, given its operands' values; of the node's shape and dtype, read-only or not.

    Raises TypeError for an op that has no evaluation (an input).
    """
    if node.op.evaluate is None:
        raise TypeError(f"{node.op.name} has no value of its own")
    with np.errstate(all="ignore"):
        value = np.asarray(node.op.evaluate(operands, node.attrs))
    if value.shape != node.type.shape or value.dtype != node.type.dtype.numpy:
        raise AssertionError(f"{node.op.name}: evaluates to {value.dtype}{value.shape}, but is {node.type}")
    return value
