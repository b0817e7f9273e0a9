"""Convolutions of values whose channels are their last dim, where there is little to add up for a result:
those that are depthwise, and those of few channels (of an image).

Vectors run along the channels of the result. They are contiguous whatever the window's stride, dilation and
padding, so nothing is copied or shuffled: under a tap the source is a vector of channels (depthwise), or one
element for all lanes. Some neighbouring pixels of a row are computed together: what their windows share is
loaded once, and so are the weights. At the ends of rows it is known at compile time which taps lie in the
padding; along other axes loops run over the taps that do not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Var, binary, identity_of, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.pack import maximum
from graphc.loop.lower.contraction.problem import Access
from graphc.loop.lower.writer import Writer
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

MOST_TAPS = 32  # elements of a row of a window, which are written out
PIXELS, PIXELS_DEEP = 8, 4  # of a row that are computed together, at most: under few channels, depthwise
PENDING = 10  # elements and weights on their way to a multiply-add
VECTORS = 2  # of channels for which an element of the source is loaded once
MOST_ENDS = 16  # pixels at both ends of a row that are written out
STORED, LOADED = 5.0, 2.0  # cycles to finish a vector, and to bring one near
MOST_TASKS = 64
TASK_WORK = 1 << 16  # multiply-adds of a task, at least
MOVED = 8  # what loading and storing an element costs, in multiply-adds

Lanes = Callable[[], AbstractContextManager[Expr]]  # where the channels run


def is_depthwise(node: Node) -> bool:
    """Whether each channel has one filter, of several taps."""
    x, w = node.inputs
    _, channels, _ = node.attrs.parts(x.shape)
    return w.shape[:2] == (channels, 1) and node.attrs.groups == channels and math.prod(w.shape[2:]) > 1


def is_direct(node: Node) -> bool:
    """Whether a convolution of channels-last values is one that this kernel runs."""
    at = node.attrs
    if node.op.name != "conv" or not at.last or not node.dtype.is_float:
        return False
    if not node.type.size or not all(x.type.size for x in node.inputs):
        return False
    if not is_depthwise(node) and (at.groups != 1 or math.prod(at.kernel) == 1):
        return False
    _, _, space = at.parts(node.shape)
    ends = space[-1] - len(_inner(node))
    return ends <= MOST_ENDS and len(space) > 1 and node.inputs[1].shape[1] * at.kernel[-1] <= MOST_TAPS


def reads_elements(node: Node) -> bool:
    """Whether the convolution reads its source element by element, so that its order does not matter."""
    return is_direct(node) and not is_depthwise(node)


def direct_cost(node: Node, machine: Machine) -> float:
    """Cycles of the kernel on one core (as long as the second-level cache keeps up)."""
    width, deep = machine.lanes(node.dtype.itemsize), is_depthwise(node)
    _, channels, _ = node.attrs.parts(node.shape)
    results = node.type.size // channels * -(-channels // width)
    sources = node.inputs[0].type.size / width if deep else 0.0
    return results * (math.prod(node.inputs[1].shape[1:]) + STORED) + sources * LOADED


def _inner(node: Node) -> range:
    """The pixels of a row whose windows do not reach over its ends."""
    at = node.attrs
    _, _, (*_, row) = at.parts(node.shape)
    extents = (at.stride, at.dilation, at.low, at.kernel, at.input_spatial)
    s, d, p, k, extent = (x[-1] for x in extents)
    first = min(row, max(0, -(-p // s)))
    return range(first, max(first, min(row, (extent - 1 + p - (k - 1) * d) // s + 1)))


def _lanes(w: Writer, channels: int, lanes: int) -> AbstractContextManager[Expr]:
    """Channels in vectors. A single one is no vector: nothing that is stored would depend on its place."""
    return w.loop("c", channels, None, "vector", lanes) if channels > 1 else w.loop("c", 1)


def weights_call(node: Node, fused: Fused, width: int) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[tap, channel] are the weights in the order in which they are read."""
    w = node.inputs[1]
    channels, taps = w.shape[0], w.shape[1:]
    temp = Temp("weights", TensorType((math.prod(taps), channels), node.dtype))
    scope = fused.scope
    with scope.nest("t", taps) as tap, _lanes(scope, channels, width) as c:
        value = fused.read(Access(w, (c, *tap)))
        fused.store_temp(temp, (ix.flatten(tap, taps), c), value)
    return temp, fused.call("conv_weights", Var(int64, "task", 1), 1, 0.0)


def direct_calls(group: Group, anchor: Node, machine: Machine) -> tuple[KernelCall, KernelCall]:
    """The kernels of a group around such a convolution (`is_direct`): one that brings the weights in order,
    and the convolution."""
    weights, before = weights_call(anchor, Fused(group, anchor), machine.lanes(anchor.dtype.itemsize))
    return before, _Rows(group, anchor, weights, machine).call()


class _Rows:
    """Writes the kernel."""

    def __init__(self, group: Group, anchor: Node, weights: Temp, machine: Machine) -> None:
        self.anchor, self.at, self.weights = anchor, anchor.attrs, weights
        self.width = machine.lanes(anchor.dtype.itemsize)
        self.images, self.channels, self.space = self.at.parts(anchor.shape)
        self.deep = is_depthwise(anchor)
        self.fused = Fused(group, anchor)
        self.w = self.fused.scope
        self.window = anchor.inputs[1].shape[1:]
        self.pixels = min(self._most_pixels(machine), self.space[-1])

    def _most_pixels(self, machine: Machine) -> int:
        """Pixels that share weights: fewer where elements of the source, which all come before the first is
        multiplied, would push sums out of the registers."""
        if self.deep:
            return PIXELS_DEEP
        room = max(rows * vectors for rows, vectors in machine.tiles)
        return PIXELS if room >= PIXELS * VECTORS + PENDING else PIXELS // 2

    def call(self) -> KernelCall:
        """The kernel: a task has some rows of pixels."""
        w, taps = self.w, math.prod(self.window)
        lines = (self.images, *self.space[:-1])
        rows = math.prod(lines)
        work = self.anchor.type.size * (taps + MOVED)
        tasks = max(1, min(rows, MOST_TASKS, work // TASK_WORK))
        chunk = -(-rows // tasks)
        task = Var(int64, "task", -(-rows // chunk))
        first = ix.mul(task, chunk) if task.extent > 1 else ix.ZERO
        with w.loop("row", ix.minimum(chunk, ix.sub(rows, first)), chunk) as row:
            image, *outer = ix.unflatten(ix.below(ix.add(first, row), rows), lines)
            self._line(image, outer)
        return self.fused.call("conv", task, task.extent, 2.0 * self.anchor.type.size * taps)

    def _line(self, image: Expr, outer: Sequence[Expr]) -> None:
        """A row of pixels, all channels: pixel by pixel in the order of memory, or if all lanes read the same
        elements of the source, some vectors of channels after the other, so that the elements stay where
        they are until they are multiplied."""
        if self.deep:
            self._row(image, outer, lambda: _lanes(self.w, self.channels, self.width))
        else:
            with _lanes(self.w, self.channels, VECTORS * self.width) as c:
                self._row(image, outer, lambda: nullcontext(c))

    def _row(self, image: Expr, outer: Sequence[Expr], lanes: Lanes) -> None:
        """All pixels of a row: those at its ends one by one, those between in blocks."""
        inner = _inner(self.anchor)
        last, step = self.space[-1], self.pixels
        first = min(max(inner.start, step), last) if inner.start else 0
        blocks = max(0, inner.stop - first) // step
        if first:
            self._pixels(image, outer, ix.ZERO, first, lanes)
        if blocks:
            with self.w.loop("b", blocks) as b:
                self._pixels(image, outer, ix.add(ix.mul(b, step), first), step, lanes)
        done = first + blocks * step
        if done < last:
            self._pixels(image, outer, ix.const(done), last - done, lanes)

    def _pixels(self, image: Expr, outer: Sequence[Expr], x: Expr, count: int, lanes: Lanes) -> None:
        """`count` pixels from x on, of some channels."""
        w, dtype = self.w, self.anchor.dtype
        with lanes() as c:
            sums = [w.alloc("sum", dtype, (), "local") for _ in range(count)]
            for total in sums:
                w.store(total, (), identity_of("add", dtype))
            with ExitStack() as stack:
                taps = [stack.enter_context(self._taps(axis, q)) for axis, q in enumerate(outer)]
                self._add(sums, image, outer, taps, x, c)
            for i, total in enumerate(sums):
                self.fused.finish(self.at.place(image, c, (*outer, ix.add(x, i))), load(total, ()))

    @contextmanager
    def _taps(self, axis: int, place: Expr) -> Iterator[Expr]:
        """A loop over the taps along an axis that do not lie in the padding."""
        at = self.at
        k, d, extent = at.kernel[axis], at.dilation[axis], at.input_spatial[axis]
        reach = (self.space[axis] - 1) * at.stride[axis] + (k - 1) * d - at.low[axis]
        if at.low[axis] <= 0 and reach < extent:
            with self.w.loop("t", k) as t:
                yield t
            return
        before = ix.sub(at.low[axis] + d - 1, ix.mul(place, at.stride[axis]))
        first = maximum(ix.floordiv(before, d), 0)
        stop = ix.minimum(ix.floordiv(ix.add(before, extent), d), k)
        with self.w.loop("t", maximum(ix.sub(stop, first), 0), k) as t:
            yield ix.add(first, t)

    def _add(
        self,
        sums: Sequence[Buffer],
        image: Expr,
        outer: Sequence[Expr],
        taps: Sequence[Expr],
        x: Expr,
        c: Expr,
    ) -> None:
        """Add what a row of a window meets to the sums of pixels x and on."""
        at, w, weights = self.at, self.w, self.fused.buffer(self.weights)
        windows = zip(outer, taps, at.stride, at.dilation, at.low, strict=False)
        rows = [ix.sub(ix.add(ix.mul(q, s), ix.mul(t, d)), p) for q, t, s, d, p in windows]
        for channel, tap in itertools.product(range(self.window[0]), range(at.kernel[-1])):
            number = ix.flatten((ix.const(channel), *taps, ix.const(tap)), self.window)
            weight = w.let(load(weights, (number, c)), "w")
            for i, total in enumerate(sums):
                column = ix.add(ix.mul(ix.add(x, i), at.stride[-1]), tap * at.dilation[-1] - at.low[-1])
                if ix.is_false(ix.inside(column, at.input_spatial[-1])):
                    continue
                place = at.place(image, c if self.deep else ix.const(channel), (*rows, column))
                value = self.fused.read(Access(self.anchor.inputs[0], place))
                w.put(Accumulate(total, (), "add", binary("mul", value, weight)))
