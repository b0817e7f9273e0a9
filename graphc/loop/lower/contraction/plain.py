"""Results that tiles may store where they belong: nothing is left to do with them, and the rows of a tile lie
whole and at one distance from each other in the result."""

from __future__ import annotations

from graphc.ir.partition import Group
from graphc.loop.lower.contraction.blocking import whole_panels
from graphc.loop.lower.contraction.operand import Strides, flat_stride
from graphc.loop.lower.contraction.problem import Contraction
from graphc.loop.lower.contraction.sizes import Blocking


def plain_pitch(
    group: Group, problem: Contraction, blocking: Blocking, c: tuple[Strides, Strides], width: int
) -> int | None:
    """Elements from row to row of a result that tiles store themselves; None if they must not.

    `c` are the strides of the result along rows and columns. Tiles store all of their lanes, so the last
    panel must be full; sums of several blocks of K grow in scratch memory, where their lines stay in cache.
    """
    whole = whole_panels(problem.sizes[2], blocking.lanes, width, blocking.b_place)
    simple = (
        group.outputs == (problem.anchor,) and blocking.together == blocking.blocks == blocking.split == 1
    )
    if not (whole and simple) or flat_stride(c[1], problem.cols) != 1:
        return None
    return flat_stride(c[0], problem.rows)
