"""Parts of data that is there: which batch of an array a step reads is no matter of its program.

`x[i : i + n]` of a tensor with a value is a slice whose place is an attribute, so the steps of an epoch would
be as many programs. Where a program reads only a few parts of arrays, each is cut out and is an input;
where it reads many (the steps of a loop written in Python), these belong together and it reads them in place.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.frontend.drawn import Drawn
from graphc.frontend.shown import Shown
from graphc.ir.node import Node
from graphc.ops.view import RESHAPE, SLICE

FEW = 8  # parts that one program may have for inputs


def part_of(node: Node, given: Mapping[Node, int]) -> np.ndarray | None:
    """The value of a slice of an array (or of a slice of it), as a view; None for one of anything else, and
    of `given` nodes."""
    if node in given:
        return None
    bound = node.bound
    if type(bound) is Node:
        return part_of(bound, given)
    if type(bound) is Drawn:
        bound = node.bound = bound.array()
    if type(bound) is Shown:
        return bound.snapshot()
    if type(bound) is np.ndarray:
        return bound
    if node.op is not SLICE and node.op is not RESHAPE:
        return None
    source = part_of(node.inputs[0], given)
    return None if source is None else node.op.evaluate([source], node.attrs)  # type: ignore[misc]
