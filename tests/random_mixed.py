"""Random programs of what stands around networks: convolutions of all kinds, attention, batch norms, losses
by label, sums by index, integers, other precisions, empty and thin values, state that is passed on.

Their shapes are those that kernels do not like: one element, one more than a vector, none along an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, bool_, float32, float64, int32, int64, uint8

from .random_programs import ROWS, Program

SHAPES = (
    (5, 7), (1, 9), (9, 1), (1, 1), (17,), (4, 16), (33, 7), (70, 65), (2, 3, 9, 8), (2, 16, 7, 7),
    (1, 4, 1, 12), (2, 5, 7), (3, 1, 19), (1, 6, 4, 4, 5), (65,), (), (16, 48), (2, 8, 33),
)  # fmt: skip
IMAGES = (
    (2, 16, 9, 9),
    (1, 3, 12, 11),
    (2, 8, 21),
    (1, 4, 5, 6, 7),
    (2, 20, 8, 8),
    (3, 2, 14),
    (1, 32, 6, 6),
)
OTHER = {float32: float64, float64: float32}


class Mixed(Program):
    """A program under construction (see `Program`). No float decides an integer of `integers`, which
    both sides of a comparison must agree on exactly."""

    shapes = SHAPES

    def __init__(self, seed: int, dtype: DType) -> None:
        super().__init__(seed, dtype, loops=True)
        self.integers = [self.whole(shape, kind) for shape, kind in (((5, 7), int64), ((17,), int32))]
        self.integers += [self.whole((4, 16), uint8), self.whole((2, 5, 1), int64)]

    def whole(self, shape: tuple[int, ...], dtype: DType) -> Node:
        return self.given("n", self.rng.integers(0, 10, shape).astype(dtype.numpy), dtype)

    def makers(self) -> Sequence[Callable[[Node], Node]]:
        return (
            *super().makers(),
            *(self.convolve_any, self.convolve_any, self.transposed, self.attend, self.batch_norm),
            *(self.by_label, self.scatter_along, self.fold, self.nothing, self.nothing, self.product),
            *(
                self.count,
                self.count,
                self.in_other_precision,
                self.stop,
                self.two_ways,
                self.greatest,
                self.ordered,
            ),
            *(self.with_labels, self.wide_dot, self.several_axes, self.padded_window),
        )

    # ------------------------------------------------------------ convolutions

    def image(self) -> Node:
        found = [n for n in self.pool if n.type.rank in (3, 4, 5) and min(n.shape[2:]) >= 3]
        return (
            self.pick.choice(found)
            if found and self.pick.random() < 0.5
            else self.input(self.pick.choice(IMAGES))
        )

    def convolve_any(self, x: Node) -> Node:
        """One to three spatial dims, any stride, dilation, padding (of two sides) and number of groups."""
        image, pick = self.image(), self.pick
        channels, spatial = image.shape[1], image.shape[2:]
        groups = pick.choice([g for g in (1, 1, 1, 2, channels) if channels % g == 0])
        kernel = tuple([pick.choice((1, 2, 3, 3, 5)) for _ in spatial])
        dilation = tuple([pick.choice((1, 1, 2)) for _ in spatial])
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        low = tuple([max(pick.randint(0, r - 1), r - n) for r, n in zip(reach, spatial, strict=True)])
        high = low if pick.random() < 0.7 else tuple([pick.randint(0, 2) for _ in spatial])
        stride = tuple([pick.choice((1, 1, 2, 3)) for _ in spatial])
        weight = self.input((groups * pick.choice((1, 2, 5, 16)), channels // groups, *kernel))
        y = ops.conv(image, weight, stride, low, high, dilation, groups)
        if pick.random() < 0.5:
            y = ops.add(y, ops.broadcast(self.input((y.shape[1],)), y.shape, (1,)))
        return self.tame(ops.mul(y, ops.like(y, 0.3)))

    def transposed(self, x: Node) -> Node:
        """A transposed convolution: upsampling by its stride."""
        image, pick = self.image(), self.pick
        rank, channels = image.type.rank - 2, image.shape[1]
        size, stride, low = pick.choice(((2, 2, 0), (4, 2, 1), (3, 1, 1), (3, 2, 1), (5, 3, 0)))
        spatial = tuple([(n - 1) * stride + size - 2 * low for n in image.shape[2:]])
        weight = self.input((channels, pick.choice((1, 3, 16)), *(size,) * rank))
        low_, stride_ = (low,) * rank, (stride,) * rank
        return self.tame(ops.conv_input_grad(image, weight, spatial, stride_, low_, low_))

    def padded_window(self, x: Node) -> Node:
        """Pooling over the last two dims, with padding and dilation."""
        if x.type.rank < 2 or min(x.shape[-2:]) < 2:
            return x
        size, stride = self.pick.choice(((2, 2), (3, 1), (3, 2), (2, 1)))
        pad, dilation = self.pick.choice((1, 0)) if size == 3 else 0, self.pick.choice((1, 1, 2))
        if min(x.shape[-2:]) + 2 * pad < dilation * (size - 1) + 1:
            return x
        largest = self.pick.random() < 0.5
        two = [(v,) * 2 for v in (size, stride, pad, pad, dilation)]
        taps = ops.window(x, *two, -np.inf if largest else 0.0)
        last = (taps.type.rank - 2, taps.type.rank - 1)
        return ops.reduce_max(taps, last) if largest else self.tame(ops.reduce_sum(taps, last))

    def fold(self, x: Node) -> Node:
        """Windows put back where they were: what overlaps adds up."""
        if not x.type.rank or x.shape[-1] < 3:
            return x
        n, size, stride = x.shape[-1], self.pick.choice((2, 3)), self.pick.choice((1, 2))
        where = ((size,), (stride,), (1,), (1,), (1,))
        return self.tame(ops.fold(ops.mul(taps := ops.window(x, *where), ops.like(taps, 0.5)), (n,), *where))

    # ---------------------------------------------------------------- networks

    def attend(self, x: Node) -> Node:
        """Attention of x's last two dims to others, or to itself, causal or not."""
        if x.type.rank not in (2, 3) or x.shape[-2] > 80:
            return x
        lead = tuple(range(x.type.rank - 2))
        q, d = x.type.rank - 1, x.shape[-1]
        length = self.pick.choice((x.shape[-2], 3, 20))
        k = x if length == x.shape[-2] else self.input((*x.shape[:-2], length, d))
        v = self.input((*x.shape[:-2], length, self.pick.choice((d, 5))))
        scores = ops.dot_general(x, k, ((q,), (q,)), (lead, lead))
        scores = ops.mul(scores, ops.like(scores, d**-0.5))
        if self.pick.random() < 0.5:
            row, column = (ops.iota(scores.shape, q - 1 + i, int64) for i in range(2))
            scores = ops.select(ops.le(column, row), scores, ops.like(scores, -np.inf))
        return ops.dot_general(self.softmax(scores), v, ((q,), (q - 1,)), (lead, lead))

    def batch_norm(self, x: Node) -> Node:
        """Over all dims but the second, with scale and shift."""
        if x.type.rank < 2:
            return x
        axes = tuple(a for a in range(x.type.rank) if a != 1)

        def spread(y: Node) -> Node:
            return ops.broadcast(y, x.shape, (1,))

        def mean(y: Node) -> Node:
            total = ops.reduce_sum(y, axes)
            return ops.mul(total, ops.like(total, x.shape[1] / x.type.size))

        centred = ops.sub(x, spread(mean(x)))
        variance = mean(ops.mul(centred, centred))
        scale = ops.mul(ops.rsqrt(ops.add(variance, ops.like(variance, 0.1))), self.input((x.shape[1],)))
        y = ops.add(ops.mul(centred, spread(scale)), spread(self.input((x.shape[1],))))
        return ops.maximum(y, ops.like(y, 0.0)) if self.pick.random() < 0.5 else y

    def by_label(self, x: Node) -> Node:
        """Cross entropy along the last dim, of labels."""
        if not x.type.rank or x.shape[-1] < ROWS:
            return x
        last = x.type.rank - 1
        shifted = ops.sub(x, self.rows(x, ops.reduce_max(x, (last,))))
        total = ops.log(ops.reduce_sum(ops.exp(shifted), (last,)))
        chosen = ops.take_along(shifted, self.indices((*x.shape[:-1], 1)), last)
        return self.tame(ops.sub(total, ops.reshape(chosen, x.shape[:-1])))

    def with_labels(self, x: Node) -> Node:
        """Rows of a table, as of an embedding, some of them more than once."""
        table = self.input((ROWS + self.pick.choice((0, 3)), self.pick.choice((1, 7, 16))))
        rows = ops.take(table, self.indices(self.pick.choice(((), (1,), (9,), (3, 4)))), 0)
        return self.tame(rows)

    def wide_dot(self, x: Node) -> Node:
        """A contraction that is cut into blocks; with bias and activation."""
        if x.type.rank != 2:
            x = self.input(self.pick.choice(((70, 65), (128, 33), (1, 300), (17, 17))))
        y = ops.dot_general(x, self.input((self.pick.choice((1, 16, 130)), x.shape[1])), ((1,), (1,)))
        y = ops.add(y, ops.broadcast(self.input((y.shape[1],)), y.shape, (1,)))
        return self.tame(ops.mul(y, ops.like(y, 0.2)))

    def several_axes(self, x: Node) -> Node:
        """A contraction over several axes at once, in an order of their own."""
        if x.type.rank < 3:
            return x
        axes = self.pick.sample(range(x.type.rank), 2)
        y = self.input((x.shape[axes[1]], self.pick.choice((1, 3, 18)), x.shape[axes[0]]))
        return self.tame(ops.dot_general(x, y, (tuple(axes), (2, 0))))

    # ------------------------------------------------------------------ others

    def scatter_along(self, x: Node) -> Node:
        axis = self.axis_for_rows(x)
        if axis is None:
            return x
        shape = (*x.shape[:axis], 5, *x.shape[axis + 1 :])
        return self.tame(ops.scatter_add_along(x, self.indices(shape), self.input(shape), axis))

    def nothing(self, x: Node) -> Node:
        """Values without elements, and what is made of them: nothing, or zeros."""
        if not x.type.rank:
            return x
        axis = self.pick.randrange(x.type.rank)
        at = self.pick.randint(0, x.shape[axis])
        empty = self.unary(ops.slice_axis(x, axis, at, at))
        kind = self.pick.randrange(4)
        if kind == 0:
            return ops.concat([empty, x, empty], axis)
        if kind == 1:
            y = ops.reduce_sum(empty, (axis,))
            return ops.add(ops.broadcast(y, x.shape, tuple(a for a in range(x.type.rank) if a != axis)), x)
        if kind == 2:
            low = tuple(2 * (a == axis) for a in range(x.type.rank))
            return ops.pad(empty, low, (0,) * x.type.rank, 0.25)
        weight = self.input((0, 6))
        return ops.add(y := ops.dot_general(empty, weight, ((axis,), (0,))), ops.like(y, 0.5))

    def count(self, x: Node) -> Node:
        """Arithmetic of integers, then a float of it."""
        n = self.pick.choice(self.integers)
        m = ops.cast(self.pick.choice((n, ops.iota(n.shape, 0, int64) if n.type.rank else n)), n.dtype)
        kind = self.pick.randrange(9)
        if kind < 5:
            name = ("add", "mul", "maximum", "bit_and", "bit_xor")[kind]
            made = getattr(ops, name)(n, m)
        elif kind == 5:
            made = ops.cast(n, self.pick.choice((int32, int64, uint8, bool_)))
            made = ops.cast(made, n.dtype)
        elif kind == 6 and n.type.rank:
            made = ops.cumsum(n, self.pick.randrange(n.type.rank), self.pick.random() < 0.5)
        elif kind == 7 and n.type.rank:
            made = self.pick.choice((ops.reduce_sum, ops.reduce_max, ops.reduce_prod))(n, (0,))
        else:
            made = ops.select(ops.lt(n, m), m, ops.rem(n, ops.like(n, 3)))
        if made.type.rank and made.dtype is not bool_:
            self.integers.append(made)
        y = ops.cast(
            ops.rem(ops.abs_(made) if made.dtype is not uint8 else made, ops.like(made, 5)), self.dtype
        )
        return ops.mul(self.peer(y), ops.mul(y, ops.like(y, 0.2)))

    def in_other_precision(self, x: Node) -> Node:
        """A part of the program in the other float type."""
        y = ops.cast(x, OTHER[self.dtype])
        y = ops.sub(self.tame(ops.mul(y, y)), y)
        if y.type.rank and self.pick.random() < 0.5:
            y = ops.broadcast(ops.reduce_max(y, (0,)), y.shape, tuple(range(1, y.type.rank)))
        return ops.cast(y, self.dtype)

    def product(self, x: Node) -> Node:
        if not x.type.rank or max(x.shape) > 40:
            return x
        axis, near_one = self.pick.randrange(x.type.rank), ops.add(self.tame(x), ops.like(x, 0.5))
        if self.pick.random() < 0.5:
            return self.tame(ops.cumprod(near_one, axis, self.pick.random() < 0.5))
        return self.tame(ops.reduce_prod(near_one, (axis,)))

    def stop(self, x: Node) -> Node:
        return ops.mul(ops.stop_gradient(x), self.tame(x))

    def two_ways(self, x: Node) -> Node:
        return ops.with_gradient(x, ops.add(self.tame(x), ops.like(x, 0.0)))

    def greatest(self, x: Node) -> Node:
        """Where inputs are greatest: only they are the same on both sides."""
        given = self.pick.choice([n for n in self.floats if n.type.rank])
        axis = self.pick.randrange(given.type.rank)
        at = self.pick.choice((ops.argmax, ops.argmin))(given, axis)
        self.integers.append(at)
        wide = ops.reshape(at, (*at.shape[:axis], 1, *at.shape[axis:]))
        return ops.take_along(given, wide, axis)

    def ordered(self, x: Node) -> Node:
        """Inputs in order, one way or the other; all of them or the first few."""
        given = self.pick.choice([n for n in self.floats if n.type.rank])
        axis = self.pick.randrange(given.type.rank)
        extent = given.shape[axis]
        kept = self.pick.randint(min(1, extent), extent) if self.pick.random() < 0.5 else None
        order = ops.argsort(given, axis, self.pick.random() < 0.5, kept)
        self.integers.append(order)
        return ops.take_along(given, order, axis)

    def running(self, x: Node) -> Node:
        """The largest, or smallest, so far: of inputs."""
        given = self.pick.choice([n for n in self.floats if n.type.rank])
        axis = self.pick.randrange(given.type.rank)
        largest = self.pick.random() < 0.5
        self.integers.append(ops.running_arg(given, axis, largest))
        return ops.running_extreme(given, axis, largest)

    def recurrent(self, x: Node) -> Node:
        if not x.type.rank:
            return x
        axis, scale = self.pick.randrange(x.type.rank), self.tame(self.peer(x))
        return self.tame(ops.recurrence(scale, x, axis, self.pick.random() < 0.5))

    def finish(self) -> tuple[Graph, dict[int, int]]:
        """As of `Program`; and averages of the gradients, two states that change places, integers."""
        graph, donate = super().finish()
        outputs, inputs = list(graph.outputs), list(graph.inputs)
        updates = {inputs[i]: outputs[o] for o, i in donate.items()}
        for x, y in updates.items():
            average = self.input(x.shape)
            donate[len(outputs)] = len(inputs)
            inputs.append(average)
            outputs.append(ops.add(average, ops.mul(ops.sub(y, average), ops.like(y, 0.1))))
        a, b = self.input((3, 4)), self.input((3, 4))
        donate |= {len(outputs): len(inputs) + 1, len(outputs) + 1: len(inputs)}
        inputs, outputs = [*inputs, a, b], [*outputs, a, ops.mul(b, ops.like(b, 0.5))]
        outputs += self.pick.sample(self.integers, 2)
        return Graph(tuple(inputs), tuple(outputs)), donate


def mixed_program(seed: int, dtype: DType, steps: int = 14) -> tuple[Graph, dict[int, int], list[np.ndarray]]:
    """A graph, which outputs take the memory of which inputs, and arrays for the inputs."""
    program = Mixed(seed, dtype)
    program.grow(steps)
    while len(program.pool) < len(program.floats) + 3:
        program.grow(1)
    graph, donate = program.finish()
    return graph, donate, [program.arrays[node] for node in graph.inputs]
