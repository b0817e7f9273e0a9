"""Values that nobody has read yet: drawn by NumPy when somebody does.

The initial values of a network's parameters take as long to draw as a small step takes, and are often
overwritten (by a checkpoint) before anybody has seen one. A draw depends on its key alone (`random.py`), so
it can wait: the bits are the same whenever it is made.
"""

from __future__ import annotations

import numpy as np

from graphc.ir.graph import toposort
from graphc.ir.node import Node


def evaluate(node: Node) -> np.ndarray:
    """The value of a small graph over bound inputs, computed by NumPy at once.

    Initial values of parameters are made this way: they are needed once, and compiling a program
    for each would cost more than the numbers do.
    """
    values: dict[Node, np.ndarray] = {}
    for n in toposort([node]):
        if isinstance(n.bound, np.ndarray):
            values[n] = n.bound
        else:
            assert n.op.evaluate is not None
            values[n] = n.op.evaluate([values[i] for i in n.inputs], n.attrs)
    return np.ascontiguousarray(values[node]).reshape(node.type.shape)


class Drawn:
    """Bound to an input node in place of its array, until the value is needed: how to compute it.

    Several nodes may be bound to one such recipe; each gets an array of its own.
    """

    def __init__(self, node: Node) -> None:
        """`node` is what `evaluate` takes."""
        self._node = node

    def array(self) -> np.ndarray:
        """A new array with the value."""
        return evaluate(self._node)
