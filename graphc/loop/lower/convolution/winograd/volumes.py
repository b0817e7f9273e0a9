"""Convolutions over volumes as convolutions over their slices, which Winograd's algorithm can run.

With windows of T x 3 x 3 at unit stride, a slice of the result is a sum over T slices of the source, each
under a window of 3 x 3: a convolution of planes with T times as many channels. Channel number t*C + c of
slice d is channel c of source slice d + t; a copy with zero slices around each volume has them all.
"""

from __future__ import annotations

import math
from dataclasses import replace

from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Expr, Var, identity_of
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.pack import COPY, Line, clip, copy_line
from graphc.loop.lower.contraction.problem import Access, Contraction, Index, Window
from graphc.loop.lowered import KernelCall, Temp

TASK_ELEMENTS = 1 << 14
MOST_TASKS = 32


def is_volume(problem: Contraction, width: int) -> bool:
    """Whether this is a convolution over volumes whose channels fill whole vectors."""
    window = problem.window
    return window is not None and len(window.extents) == 3 and problem.depth[0] % width == 0


def _slices(problem: Contraction) -> tuple[int, int]:
    """(the first slice of the source that a window reaches, how many there are)."""
    window, taps = problem.window, problem.depth[1]
    assert window is not None
    reach = (taps - 1) * window.step[0]
    return window.base[0] + min(0, reach), problem.cols[1] + abs(reach)


def slicing(problem: Contraction, width: int) -> float:
    """Cycles to copy the volumes."""
    window = problem.window
    assert window is not None
    copied = math.prod((*problem.batch, problem.cols[0], problem.depth[0], *window.extents[1:]))
    return 2 * COPY / width * copied * _slices(problem)[1]


def sliced(problem: Contraction, temp: Temp | None = None) -> Contraction:
    """The convolution over slices; `temp` is the copy of the volumes, without which it is good for questions
    about sizes only."""
    window = problem.window
    assert window is not None
    low, count = _slices(problem)
    images, deep, *space = problem.cols
    channels, taps, *inner = problem.depth
    node = problem.anchor.inputs[0]
    shape = (*node.shape[:2], count, *node.shape[3:])

    def a(batch: Index, row: Index, depth: Index) -> Access:
        tap, channel = ix.unflatten(depth[0], (taps, channels))
        return problem.a(batch, row, (channel, tap, *depth[1:]))

    def b(batch: Index, depth: Index, col: Index) -> Access:
        tap, channel = ix.unflatten(depth[0], (taps, channels))
        image, slice_ = ix.unflatten(col[0], (images, deep))
        found = problem.b(batch, (channel, tap, *depth[1:]), (image, slice_, *col[1:]))
        if temp is None:
            return found
        place = (*found.index[:2], ix.sub(found.index[2], low), *found.index[3:])
        return Access(temp, (ix.flatten(place, shape),))

    def c(batch: Index, row: Index, col: Index) -> Index:
        return problem.c(batch, row, (*ix.unflatten(col[0], (images, deep)), *col[1:]))

    planes = Window(window.extents[1:], window.base[1:], window.step[1:])
    cols, depth = (images * deep, *space), (taps * channels, *inner)
    return replace(problem, cols=cols, depth=depth, a=a, b=b, c=c, window=planes)


def slice_call(problem: Contraction, fused: Fused, width: int, name: str) -> tuple[Contraction, KernelCall]:
    """(the convolution over slices, the kernel that copies the volumes)."""
    node = problem.anchor.inputs[0]
    low, count = _slices(problem)
    shape = (*node.shape[:2], count, *node.shape[3:])
    temp = Temp("slices", TensorType((math.prod(shape),), node.dtype))
    volumes, plane = math.prod(shape[:2]), node.shape[3:]
    tasks = max(1, min(MOST_TASKS, volumes, math.prod(shape) // TASK_ELEMENTS))
    chunk = -(-volumes // tasks)
    task = Var(int64, "task", -(-volumes // chunk))
    first, w = ix.mul(task, chunk), fused.scope
    with w.loop("i", ix.minimum(chunk, ix.sub(volumes, first)), chunk) as i, w.loop("d", count) as d:
        place = ix.unflatten(ix.add(first, i), shape[:2])
        source = ix.add(d, low)

        def access(j: Expr) -> Access:
            return Access(node, (*place, source, *ix.unflatten(j, plane)), ((source, node.shape[2]),))

        def put(j: Expr, value: Expr | None) -> None:
            where = (ix.flatten((*place, d, *ix.unflatten(j, plane)), shape),)
            fused.store_temp(temp, where, identity_of("add", node.dtype) if value is None else value)

        line = Line(ix.const(math.prod(plane)), math.prod(plane), access)
        copy_line(w, line, clip(line), lambda a: fused.read(replace(a, bounds=())), put, width)
    return sliced(problem, temp), fused.call(name, task, task.extent, 0.0)
