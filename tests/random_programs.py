"""Random programs like those of networks: contractions, gathers, normalisations, gradients and state.

Unlike `random_graphs`, whose operations are exact or nearly so, these are meant for code that sums in
another order: values stay of order one, and nothing jumps (floor, comparisons) on computed values.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from graphc import ops
from graphc.autodiff import gradients
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, bool_, int64

SHAPES = ((5, 7), (7, 5), (5,), (33, 7), (2, 3, 9, 8), (2, 5, 7), (1,), (40, 40))
LARGEST = 20_000  # elements
ROWS = 4  # indices are in range(ROWS): less than any axis they are used on


class Program:
    """A program under construction: a pool of values, from which steps make more values."""

    shapes: Sequence[tuple[int, ...]] = SHAPES

    def __init__(self, seed: int, dtype: DType, loops: bool = False) -> None:
        self.pick, self.dtype, self.loops = random.Random(seed), dtype, loops
        self.rng = np.random.default_rng(seed)
        self.arrays: dict[Node, np.ndarray] = {}
        for shape in self.pick.sample(self.shapes, 5):
            self.input(shape)
        self.floats = list(self.arrays)
        self.pool = list(self.floats)
        self.key = self.given("key", np.array([seed, 3], np.int64), int64)
        self.streams = 0
        self.loop_count = 0

    def given(self, kind: str, array: np.ndarray, dtype: DType) -> Node:
        """A new input that holds `array`."""
        array = np.asarray(array)
        node = ops.input_(f"{kind}{len(self.arrays)}", TensorType(array.shape, dtype))
        self.arrays[node] = array
        return node

    def input(self, shape: tuple[int, ...]) -> Node:
        return self.given("x", self.rng.uniform(-1, 1, shape).astype(self.dtype.numpy), self.dtype)

    def grow(self, steps: int) -> None:
        """Add values. One in three steps makes something of the value made last, so that chains form."""
        makers = self.makers()
        for _ in range(steps):
            x = self.pool[-1] if self.pick.random() < 0.33 else self.pick.choice(self.pool)
            y = self.pick.choice(makers)(x)
            if 0 < y.type.size <= LARGEST:
                self.pool.append(y)

    def makers(self) -> Sequence[Callable[[Node], Node]]:
        """What a step may be, the likely ones several times."""
        return (
            *(self.unary,) * 4,
            *(self.binary,) * 5,
            *(self.view,) * 5,
            *(self.reduce,) * 3,
            *(self.dot, self.dot, self.convolve, self.convolve),
            *(self.normalise, self.softmax, self.pool_window, self.drop),
            *(self.gather, self.scatter, self.choose, self.scan),
            *(self.recur, self.recur, self.recur) * self.loops,
        )

    def tame(self, x: Node) -> Node:
        """Back to values below one."""
        return ops.tanh(x)

    def peer(self, x: Node) -> Node:
        """Another value of x's shape: there is one, or one is broadcast, or a new input."""
        same = [n for n in self.pool if n.shape == x.shape and n is not x]
        if same and self.pick.random() < 0.7:
            return self.pick.choice(same)
        for n in self.pick.sample(self.pool, len(self.pool)):
            if 0 < n.type.rank < x.type.rank and n.shape == x.shape[-n.type.rank :]:
                return ops.broadcast(n, x.shape, tuple(range(x.type.rank - n.type.rank, x.type.rank)))
        return self.input(x.shape)

    # ------------------------------------------------------------------ steps

    def unary(self, x: Node) -> Node:
        name = self.pick.choice(("neg", "abs", "sin", "cos", "tanh", "sigmoid", "erf", "exp", "sqrt"))
        if name == "exp":
            return ops.exp(ops.neg(ops.abs(x)))
        return ops.sqrt(ops.add(ops.mul(x, x), ops.like(x, 1.0))) if name == "sqrt" else getattr(ops, name)(x)

    def binary(self, x: Node) -> Node:
        name, y = self.pick.choice(("add", "sub", "mul", "div", "maximum", "minimum", "pow")), self.peer(x)
        one = ops.like(x, 1.0)
        if name == "div":
            return ops.div(x, ops.add(ops.mul(y, y), one))
        if name == "pow":
            return ops.pow(ops.add(ops.abs(self.tame(x)), one), self.tame(y))
        return self.tame(ops.mul(x, y)) if name == "mul" else getattr(ops, name)(x, y)

    def view(self, x: Node) -> Node:
        rank, kind = x.type.rank, self.pick.randrange(7)
        if kind == 0 or not rank:
            return ops.reshape(x, self.pick.choice([(x.type.size,), (1, *x.shape), (*x.shape, 1)]))
        axis = self.pick.randrange(rank)
        if kind == 1:
            return ops.transpose(x, tuple(self.pick.sample(range(rank), rank)))
        if kind == 2:
            dims = tuple(d for d in range(rank + 1) if d != axis)
            return ops.broadcast(x, (*x.shape[:axis], 3, *x.shape[axis:]), dims)
        if kind == 3:
            start = self.pick.randint(0, x.shape[axis] - 1)
            return ops.slice_axis(
                x, axis, start, self.pick.randint(start + 1, x.shape[axis]), self.pick.randint(1, 2)
            )
        if kind == 4:
            low, high = ([self.pick.randint(0, 2) for _ in range(rank)] for _ in "ab")
            return ops.pad(x, tuple(low), tuple(high), self.pick.choice((0.0, 0.5)))
        if kind == 5:
            return ops.flip(x, (axis,))
        return ops.concat([x, self.peer(x)], axis)

    def reduce(self, x: Node) -> Node:
        if not x.type.rank:
            return x
        axes = self.pick.sample(range(x.type.rank), self.pick.randint(1, min(2, x.type.rank)))
        name = self.pick.choice(("reduce_sum", "reduce_max", "reduce_min"))
        y = getattr(ops, name)(x, axes)
        return ops.mul(y, ops.like(y, y.type.size / x.type.size)) if name == "reduce_sum" else y

    def dot(self, x: Node) -> Node:
        """With a value that has a fitting axis, or a new one; batched when both have rank 3."""
        if not x.type.rank:
            return x
        axis = self.pick.randrange(x.type.rank)
        fitting = [n for n in self.pool if n.type.rank == 2 and x.shape[axis] in n.shape]
        if x.type.rank == 3:
            y = self.input((x.shape[0], 6, x.shape[2]))
            return self.tame(ops.dot_general(x, y, ((2,), (2,)), ((0,), (0,))))
        y = self.pick.choice(fitting) if fitting else self.input((x.shape[axis], 11))
        return self.tame(ops.dot_general(x, y, ((axis,), (y.shape.index(x.shape[axis]),))))

    def convolve(self, x: Node) -> Node:
        image = next((n for n in reversed(self.pool) if n.type.rank == 4 and min(n.shape[2:]) >= 3), None)
        if image is None:
            image = self.input((2, 4, 10, 9))
        channels = image.shape[1]
        groups = self.pick.choice([g for g in (1, 2, channels) if channels % g == 0])
        weight = self.input(
            (groups * self.pick.choice((1, 3)), channels // groups, 3, self.pick.choice((1, 3)))
        )
        pad = (1, 1 if weight.shape[3] == 3 else 0)
        stride = (self.pick.choice((1, 1, 2)),) * 2
        return self.tame(ops.conv(image, weight, stride, pad, pad, groups=groups))

    def rows(self, x: Node, y: Node) -> Node:
        """y, which lacks x's last axis, along it."""
        return ops.broadcast(y, x.shape, tuple(range(x.type.rank - 1)))

    def mean(self, x: Node) -> Node:
        total = ops.reduce_sum(x, (x.type.rank - 1,))
        return ops.mul(total, ops.like(total, 1.0 / x.shape[-1]))

    def normalise(self, x: Node) -> Node:
        """LayerNorm over the last axis."""
        if not x.type.rank:
            return x
        centred = ops.sub(x, self.rows(x, self.mean(x)))
        variance = self.mean(ops.mul(centred, centred))
        scale = ops.rsqrt(ops.add(variance, ops.like(variance, 0.1)))
        return ops.mul(centred, self.rows(x, scale))

    def softmax(self, x: Node) -> Node:
        if not x.type.rank:
            return x
        last = (x.type.rank - 1,)
        shifted = ops.exp(ops.sub(x, self.rows(x, ops.reduce_max(x, last))))
        return ops.div(shifted, self.rows(x, ops.reduce_sum(shifted, last)))

    def pool_window(self, x: Node) -> Node:
        """Maximum or mean of 3 or 2 neighbours along the last axis."""
        if not x.type.rank or x.shape[-1] < 3:
            return x
        size, stride = self.pick.choice(((2, 2), (3, 1), (3, 2)))
        taps = ops.window(x, (size,), (stride,), (0,), (0,), (1,))
        name = self.pick.choice(("reduce_max", "reduce_sum"))
        return self.tame(getattr(ops, name)(taps, (taps.type.rank - 1,)))

    def drop(self, x: Node) -> Node:
        """Dropout with a mask of its own."""
        self.streams += 1
        kept = ops.lt(drawn := ops.uniform(self.key, x.shape, self.streams, self.dtype), ops.like(drawn, 0.7))
        return ops.select(kept, x, ops.like(x, 0.0))

    def indices(self, shape: tuple[int, ...]) -> Node:
        return self.given("i", self.rng.integers(0, ROWS, shape), int64)

    def axis_for_rows(self, x: Node) -> int | None:
        axes = [a for a, n in enumerate(x.shape) if n >= ROWS]
        return self.pick.choice(axes) if axes else None

    def gather(self, x: Node) -> Node:
        axis = self.axis_for_rows(x)
        if axis is None:
            return x
        index = ops.check_index(self.indices((6,)), 0, ROWS, "row")
        if self.pick.random() < 0.5:
            return ops.take(x, index, axis)
        return ops.take_along(x, self.indices((*x.shape[:axis], 2, *x.shape[axis + 1 :])), axis)

    def scatter(self, x: Node) -> Node:
        axis = self.axis_for_rows(x)
        if axis is None:
            return x
        updates = self.input((*x.shape[:axis], 6, *x.shape[axis + 1 :]))
        return self.tame(ops.scatter_add(x, self.indices((6,)), updates, axis))

    def choose(self, x: Node) -> Node:
        """A select by booleans that are inputs: equal everywhere."""
        condition = self.given("b", self.rng.random(x.shape) < 0.5, bool_)
        return ops.select(condition, x, self.peer(x))

    def scan(self, x: Node) -> Node:
        if not x.type.rank:
            return x
        return self.tame(ops.cumsum(x, self.pick.randrange(x.type.rank), self.pick.random() < 0.5))

    def recur(self, x: Node) -> Node:
        """A loop over the first dim of x: what it gives after or before every step, or at last."""
        if x.type.rank < 2:
            return x
        step = TensorType(x.shape[1:], x.dtype)
        h, c = (ops.input_(f"{name}{self.loop_count}", step) for name in ("h", "c"))
        row = ops.input_(f"row{self.loop_count}", step)
        self.loop_count += 1
        mixed = ops.add(h, row)
        if step.rank and self.pick.random() < 0.7:
            weight = self.given(
                "w", self.rng.uniform(-0.4, 0.4, (step.shape[-1],) * 2).astype(x.dtype.numpy), self.dtype
            )
            mixed = ops.add(ops.dot_general(h, weight, ((step.rank - 1,), (0,)), ((), ())), row)
        elif self.pick.random() < 0.5:
            mixed = ops.add(mixed, self.peer(row) if step.rank else row)
        gate = ops.sigmoid(mixed)
        kept = ops.add(ops.mul(gate, c), ops.mul(ops.sub(ops.like(gate, 1.0), gate), self.tame(mixed)))
        hidden = self.tame(kept)
        nexts = self.pick.choice([[hidden, kept], [kept, hidden], [hidden, h], [c, hidden]])
        emits = [self.pick.choice([hidden, h, kept, gate])]
        init = [self.peer(ops.reduce_sum(x, (0,))), self.peer(ops.reduce_sum(x, (0,)))]
        made = ops.scan([h, c], [row], nexts, emits, init, [x], reverse=self.pick.random() < 0.4)
        return self.pick.choice([made.stacked[0], made.stacked[0], made.finals[0]])

    # --------------------------------------------------------------- programs

    def finish(self) -> tuple[Graph, dict[int, int]]:
        """Outputs: some values, and each float input moved against its gradient, in its own memory."""
        outputs = self.pick.sample(self.pool[len(self.floats) :], 3)
        loss = ops.like(self.floats[0], 0.0)
        loss = ops.reduce_sum(loss, range(loss.type.rank))
        for y in outputs:
            mean = ops.reduce_sum(ops.mul(y, y), range(y.type.rank))
            loss = ops.add(loss, ops.mul(mean, ops.like(mean, 1.0 / y.type.size)))
        state = self.floats[:3]
        found = gradients((loss,), (ops.like(loss, 1.0),), state)
        donate: dict[int, int] = {}
        outputs.append(loss)
        inputs = tuple(self.arrays)
        for x, g in zip(state, found, strict=True):
            if g is not None:
                donate[len(outputs)] = inputs.index(x)
                outputs.append(ops.sub(x, ops.mul(g, ops.like(g, 0.5))))
        return Graph(inputs, tuple(outputs)), donate


def random_program(
    seed: int, dtype: DType, steps: int = 14, loops: bool = False
) -> tuple[Graph, dict[int, int], list[np.ndarray]]:
    """A graph, which outputs take the memory of which inputs, and arrays for the inputs."""
    program = Program(seed, dtype, loops)
    program.grow(steps)
    while len(program.pool) < len(program.floats) + 3:
        program.grow(1)
    graph, donate = program.finish()
    return graph, donate, list(program.arrays.values())
