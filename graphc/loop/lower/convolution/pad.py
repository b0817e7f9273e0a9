"""A zero-padded copy of the source of a weight gradient, made once by a kernel of its own.

Under short rows of pixels most runs of a window are cut off by the padding; working out where takes longer
than the few elements it leaves. In a padded copy all windows lie inside.
"""

from __future__ import annotations

import math
from dataclasses import replace

from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Expr, Var, identity_of
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.pack import Line, clip, copy_line
from graphc.loop.lower.contraction.problem import Access, Contraction, Index
from graphc.loop.lowered import KernelCall, Temp

SHORT = 64  # pixels of a row from which on clipping costs less than a copy
TASK_ELEMENTS = 1 << 14
MOST_TASKS = 32


def worth_padding(problem: Contraction) -> bool:
    """Whether this is a weight gradient over short rows that reach into the padding."""
    node = problem.anchor
    if node.op.name != "conv_weight_grad" or not node.dtype.is_float or not math.prod(problem.sizes):
        return False
    at = node.attrs
    if at.last:
        return False
    ends = zip(_reach(problem), at.low, at.input_spatial, strict=True)
    return problem.depth[-1] < SHORT and any(low > 0 or reach - low > extent for reach, low, extent in ends)


def _reach(problem: Contraction) -> tuple[int, ...]:
    """Extents of a padded plane: as far as windows reach."""
    at = problem.anchor.attrs
    positions = problem.depth[1:]
    return tuple(
        (q - 1) * s + (k - 1) * d + 1
        for q, s, k, d in zip(positions, at.stride, at.kernel, at.dilation, strict=True)
    )


def pad_call(problem: Contraction, fused: Fused, width: int, name: str) -> tuple[Contraction, KernelCall]:
    """(the problem on the copy, the kernel that makes it)."""
    source, _ = problem.anchor.inputs
    at, reach = problem.anchor.attrs, _reach(problem)
    shape = (*source.shape[:2], *reach)
    temp = Temp("padded", TensorType((math.prod(shape),), source.dtype))
    read = problem.b

    def padded(batch: Index, depth: Index, col: Index) -> Access:
        place = read(batch, depth, col).index
        inner = tuple(ix.add(i, p) for i, p in zip(place[2:], at.low, strict=True))
        return Access(temp, (ix.flatten((*place[:2], *inner), shape),))

    planes = math.prod(shape[:2])
    tasks = max(1, min(MOST_TASKS, planes, math.prod(shape) // TASK_ELEMENTS))
    chunk = -(-planes // tasks)
    task = Var(int64, "task", -(-planes // chunk))
    first = ix.mul(task, chunk)
    w = fused.scope
    with w.loop("i", ix.minimum(chunk, ix.sub(planes, first)), chunk) as i:
        plane = ix.unflatten(ix.add(first, i), shape[:2])
        with w.nest("y", reach[:-1]) as outer:

            def access(j: Expr) -> Access:
                inner = tuple(ix.sub(x, p) for x, p in zip((*outer, j), at.low, strict=True))
                return Access(source, (*plane, *inner), tuple(zip(inner, at.input_spatial, strict=True)))

            def put(j: Expr, value: Expr | None) -> None:
                where = (ix.flatten((*plane, *outer, j), shape),)
                fused.store_temp(temp, where, identity_of("add", source.dtype) if value is None else value)

            line = Line(ix.const(reach[-1]), reach[-1], access)
            copy_line(w, line, clip(line), lambda a: fused.read(replace(a, bounds=())), put, width)
    return replace(problem, b=padded), fused.call(name, task, task.extent, 0.0)
