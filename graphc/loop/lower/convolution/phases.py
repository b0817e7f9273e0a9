"""A copy of the source of a strided convolution in which neighbouring outputs read neighbouring elements.

Every s-th element of a row is far from a vector: taking the taps of a 3x3 window at stride 2 one by one costs
up to a third of the time of all multiply-adds. So a kernel of its own copies each plane once, the elements
of equal remainder modulo the stride next to each other and the padding around them. A tap then reads one
of these phases, and neighbouring outputs its neighbouring elements::

    x[q*s + t*d - p] = phase[(t*d) mod s][q + (t*d) div s]
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from graphc.ir.node import Node
from graphc.ir.types import Shape, TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Var, identity_of
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.problem import Access, Contraction, Index, Window
from graphc.loop.lowered import KernelCall, Temp
from graphc.ops.conv import ConvAttrs

WORTH = 1 << 22  # multiply-adds from which on the copy pays for a kernel more
OFTEN = 200  # multiply-adds of an element from which on its copy pays
SHORT = 8  # elements of a row
TASK_ELEMENTS = 1 << 14
MOST_TASKS = 32


@dataclass(frozen=True)
class _Phases:
    """Per spatial axis: how many `phases` there are, and the `extents` of each."""

    phases: Shape
    extents: Shape


def _phases(node: Node) -> _Phases:
    at, positions = node.attrs, node.shape[2:]
    reach = [(k - 1) * d for k, d in zip(at.kernel, at.dilation, strict=True)]
    return _Phases(
        tuple(min(s, r + 1) for s, r in zip(at.stride, reach, strict=True)),
        tuple(q + r // s for q, s, r in zip(positions, at.stride, reach, strict=True)),
    )


def worth_splitting(problem: Contraction) -> bool:
    """Whether this is a strided convolution whose every element is multiplied often enough, and whose rows
    are not so short that copying them takes as long as picking their elements one by one."""
    node = problem.anchor
    if node.op.name != "conv" or not node.dtype.is_float or node.attrs.stride[-1] == 1:
        return False
    if node.attrs.last:
        return False
    cut = _phases(node)
    copied = math.prod((*node.inputs[0].shape[:2], *cut.phases, *cut.extents))
    often = math.prod(problem.sizes) >= max(WORTH, OFTEN * copied)
    return often and (math.prod(node.attrs.kernel) > 1 or problem.cols[-1] >= SHORT)


def split_call(problem: Contraction, fused: Fused, width: int, name: str) -> tuple[Contraction, KernelCall]:
    """(the problem on the copy, the kernel that makes it)."""
    node = problem.anchor
    source, at, cut = node.inputs[0], node.attrs, _phases(node)
    shape = (*source.shape[:2], *cut.phases, *cut.extents)
    temp = Temp("phases", TensorType((math.prod(shape),), source.dtype))
    read = problem.b

    def phased(batch: Index, depth: Index, col: Index) -> Access:
        steps = [ix.mul(t, d) for t, d in zip(depth[1:], at.dilation, strict=True)]
        phase = [ix.mod(t, s) for t, s in zip(steps, at.stride, strict=True)]
        inner = [ix.add(q, ix.floordiv(t, s)) for q, t, s in zip(col[1:], steps, at.stride, strict=True)]
        plane = read(batch, depth, col).index[:2]
        return Access(temp, (ix.flatten((*plane, *phase, *inner), shape),))

    planes = math.prod(source.shape[:2])
    tasks = max(1, min(MOST_TASKS, planes, math.prod(shape) // TASK_ELEMENTS))
    chunk = -(-planes // tasks)
    task = Var(int64, "task", -(-planes // chunk))
    first = ix.mul(task, chunk)
    with fused.scope.loop("i", ix.minimum(chunk, ix.sub(planes, first)), chunk) as i:
        _copy_plane(fused, source, temp, shape, ix.unflatten(ix.add(first, i), source.shape[:2]), at, width)
    return replace(problem, b=phased, window=None), fused.call(name, task, task.extent, 0.0)


def phases_as_channels(problem: Contraction) -> Contraction | None:
    """A problem on the copy as a convolution at unit stride, with every phase of a channel as a channel of
    its own. Phases with fewer taps than others have zeros for them. None if a window does not reach all
    phases, or its taps under one are not neighbours."""
    at, cut = problem.anchor.attrs, _phases(problem.anchor)
    if max(at.dilation) > 1 or cut.phases != at.stride or len(at.stride) > 2:
        return None
    channels, *_ = problem.depth

    def whole(depth: Index) -> Index:
        channel, *phase = ix.unflatten(depth[0], (channels, *cut.phases))
        taps = [ix.add(ix.mul(t, s), r) for t, s, r in zip(depth[1:], at.stride, phase, strict=True)]
        return (channel, *taps)

    def a(batch: Index, row: Index, depth: Index) -> Access:
        found = whole(depth)
        uneven = [(t, k) for t, k, s in zip(found[1:], at.kernel, at.stride, strict=True) if k % s]
        access = problem.a(batch, row, found)
        return replace(access, bounds=(*access.bounds, *uneven))

    def b(batch: Index, depth: Index, col: Index) -> Access:
        return problem.b(batch, whole(depth), col)

    taps = [-(-k // s) for k, s in zip(at.kernel, at.stride, strict=True)]
    window = Window(cut.extents, (0,) * len(taps), (1,) * len(taps))
    depth = (channels * math.prod(cut.phases), *taps)
    return replace(problem, depth=depth, a=a, b=b, window=window)


def _copy_plane(
    fused: Fused, source: Node, temp: Temp, shape: Shape, plane: Index, at: ConvAttrs, width: int
) -> None:
    """All phases of an image's channel: zeros, then on them what lies inside the image."""
    w, rank = fused.scope, len(at.stride)
    inside = [
        [_inside(r, *axis) for r in range(phases)]
        for phases, *axis in zip(
            shape[2 : 2 + rank], at.stride, at.low, at.input_spatial, shape[2 + rank :], strict=True
        )
    ]
    whole = [range(extent) for extent in shape[2 + rank :]]
    if any(span != all_ for spans, all_ in zip(inside, whole, strict=True) for span in spans):
        start = ix.flatten((*plane, *(ix.ZERO,) * (2 * rank)), shape)
        with w.loop("z", math.prod(shape[2:]), None, "vector", 4 * width) as z:
            fused.store_temp(temp, (ix.add(start, z),), identity_of("add", source.dtype))
    for phase in itertools.product(*(range(len(spans)) for spans in inside)):
        spans = [axis[r] for axis, r in zip(inside, phase, strict=True)]
        if not all(spans):
            continue
        with (
            w.nest("y", tuple(len(span) for span in spans[:-1])) as outer,
            w.loop("x", len(spans[-1]), None, "vector", width) as x,
        ):
            place = [ix.add(i, span.start) for i, span in zip((*outer, x), spans, strict=True)]
            coordinates = [
                ix.add(ix.mul(i, s), r - p)
                for i, s, r, p in zip(place, at.stride, phase, at.low, strict=True)
            ]
            value = fused.read(Access(source, (*plane, *coordinates)))
            where = ix.flatten((*plane, *(ix.const(r) for r in phase), *place), shape)
            fused.store_temp(temp, (where,), value)


def _inside(residue: int, stride: int, low: int, input_extent: int, extent: int) -> range:
    """The elements of a phase that are not padding."""
    first = max(0, -((residue - low) // stride))
    return range(first, max(first, min(extent, -((residue - low - input_extent) // stride))))
