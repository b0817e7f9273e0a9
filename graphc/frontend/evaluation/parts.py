"""Parts of data that is there: which batch of an array a step reads is no matter of its program.

`x[i : i + n]` of a tensor with a value is a slice whose place is an attribute, so the steps of an epoch would
be as many programs. Where only a few parts of an array are read, each is cut out and is an input; where many
are (the steps of a loop written in Python), these belong together and the program reads them in place.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.frontend.drawn import Drawn
from graphc.frontend.shown import Shown
from graphc.ir.node import Node
from graphc.ops.view import RESHAPE, SLICE

FEW = 8  # parts of one program


def part_of(node: Node, given: Mapping[Node, int]) -> np.ndarray | None:
    """The value of a slice of an array (or of a slice of it), copied; None for all else, and for parts of
    `given` nodes."""
    if node.op is not SLICE:
        return None
    value = _value(node, given)
    return None if value is None else np.array(value, order="C")


def _value(node: Node, given: Mapping[Node, int]) -> np.ndarray | None:
    if node in given:
        return None
    bound = node.bound
    if type(bound) is Node:
        return _value(bound, given)
    if type(bound) is Drawn:
        bound = node.bound = bound.array()
    if type(bound) is Shown:
        return bound.snapshot()
    if type(bound) is np.ndarray:
        return bound
    if node.op is not SLICE and node.op is not RESHAPE:
        return None
    source = _value(node.inputs[0], given)
    return None if source is None else node.op.evaluate([source], node.attrs)  # type: ignore[misc]
