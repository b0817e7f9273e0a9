"""Random loops, as one scan and unrolled step by step: the same values, and the same gradients."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc import ops
from graphc.autodiff import gradients
from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float64, int64
from graphc.ops.scan import replaced

SHAPES = ((2, 3), (3,), (2,), (), (3, 3), (4, 2, 3))
ROWS = 4  # what the indices among xs are smaller than


@dataclass(frozen=True)
class Pair:
    """One loop in two forms; outputs correspond."""

    inputs: tuple[Node, ...]
    scanned: tuple[Node, ...]
    unrolled: tuple[Node, ...]

    def graph(self, outputs: Sequence[Node]) -> Graph:
        return Graph(self.inputs, tuple(outputs))

    def arrays(self, seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [
            rng.uniform(-1, 1, n.shape) if n.dtype.is_float else rng.integers(0, ROWS, n.shape)
            for n in self.inputs
        ]

    def gradients(self) -> Pair:
        """The gradients of a random functional of the outputs, in both forms."""
        wrt = [n for n in self.inputs if n.dtype.is_float]
        found = [_pulled(outputs, wrt) for outputs in (self.scanned, self.unrolled)]
        connected = [i for i, g in enumerate(found[0]) if g is not None or found[1][i] is not None]
        one, other = [
            tuple([ops.zeros(wrt[i].type) if grads[i] is None else grads[i] for i in connected])
            for grads in found
        ]
        return Pair(self.inputs, one, other)


def _pulled(outputs: Sequence[Node], wrt: Sequence[Node]) -> list[Node | None]:
    rng = np.random.default_rng(0)
    floats = [y for y in outputs if y.dtype.is_float]
    seeds = [ops.mul(ops.constant(rng.uniform(0.5, 1, y.shape), float64), ops.cos(y)) for y in floats]
    return gradients(floats, seeds, wrt)


def unroll(
    carries: Sequence[Node],
    xs: Sequence[Node],
    nexts: Sequence[Node],
    emits: Sequence[Node],
    init: Sequence[Node],
    stacks: Sequence[Node],
    length: int,
    reverse: bool,
) -> tuple[Node, ...]:
    """What ops.scan means, with a copy of the body for each step: finals, then stacks."""
    order = toposort((*carries, *xs, *nexts, *emits))
    carried = list(init)
    slices: list[dict[Node, Node]] = [{} for _ in range(length)]
    for t in reversed(range(length)) if reverse else range(length):
        parts = [ops.reshape(ops.slice_axis(s, 0, t, t + 1), s.shape[1:]) for s in stacks]
        new = replaced(order, dict(zip((*carries, *xs), (*carried, *parts), strict=True)))
        carried = [new[n] for n in nexts]
        slices[t] = {e: ops.reshape(new[e], (1, *e.shape)) for e in emits}
    return (*carried, *[ops.concat([part[e] for part in slices], 0) for e in emits])


class Maker:
    """Grows a body from carries, slices of xs and values from outside."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.seed = seed
        self.length = self.pick.choice((1, 2, 3, 5))
        self.reverse = self.pick.random() < 0.5
        shapes = [self.pick.choice(SHAPES) for _ in range(7)]
        n, m = self.pick.choice((0, 1, 1, 2, 3)), self.pick.choice((0, 1, 2))
        self.init = [self._input(f"init{i}", shapes[i]) for i in range(n)]
        self.stacks = [self._input(f"stack{i}", (self.length, *shapes[3 + i])) for i in range(m)]
        self.outer = [
            self._input("square", (3, 3)),
            self._input("line", (3,)),
            self._input("table", (ROWS, 3)),
        ]
        self.rows = ops.input_(f"loop{seed}.rows", TensorType((self.length, 2), int64))
        self.carries = [ops.input_(f"c{i}", x.type) for i, x in enumerate(self.init)]
        self.xs = [ops.input_(f"s{i}", TensorType(x.shape[1:], x.dtype)) for i, x in enumerate(self.stacks)]
        self.row = ops.input_("row", TensorType((2,), int64))
        self.pool: list[Node] = [*self.carries, *self.xs, *self.outer]

    def _input(self, name: str, shape: tuple[int, ...]) -> Node:
        return ops.input_(f"loop{self.seed}.{name}", TensorType(shape, float64))

    def pair(self, steps: int = 14) -> Pair:
        """The loop in both forms."""
        for _ in range(steps):
            node = self._some_op()
            if node.type.size <= 64:
                self.pool.append(node)
        nexts = [self._of_shape(c.shape) for c in self.carries]
        emits = [self.pick.choice(self.pool[-6:]) for _ in range(self.pick.choice((0, 1, 3)))]
        emits += [self.pick.choice(self.carries)] if self.carries and self.pick.random() < 0.3 else []
        xs, stacks = [*self.xs, self.row], [*self.stacks, self.rows]
        made = ops.scan(
            self.carries, xs, nexts, emits, self.init, stacks, length=self.length, reverse=self.reverse
        )
        unrolled = unroll(self.carries, xs, nexts, emits, self.init, stacks, self.length, self.reverse)
        inputs = (*self.init, *self.stacks, *self.outer, self.rows)
        return Pair(inputs, (*made.finals, *made.stacked), unrolled)

    def some(self, test: Callable[[Node], bool] = lambda n: True) -> Node:
        return self.pick.choice([n for n in self.pool if test(n)] or self.outer)

    def _of_shape(self, shape: tuple[int, ...]) -> Node:
        """A bounded value of a shape, made from whatever there is."""
        x = self.some(lambda n: n.shape == shape)
        if x.shape != shape:
            x = self._spread(x, shape)
        return ops.tanh(x)

    def _spread(self, x: Node, shape: tuple[int, ...]) -> Node:
        total = ops.reduce_sum(x, range(x.type.rank))
        return ops.broadcast(total, shape, ()) if shape else total

    def _some_op(self) -> Node:
        kinds = (self._unary, self._binary, self._binary, self._dot, self._dot, self._view, self._reduce,
                 self._choose, self._take)  # fmt: skip
        return self.pick.choice(kinds)()

    def _unary(self) -> Node:
        name = self.pick.choice(("neg", "tanh", "sin", "sigmoid", "stop_gradient"))
        return getattr(ops, name)(self.some())

    def _binary(self) -> Node:
        x = self.some()
        y = self.some(lambda n: n.shape == x.shape)
        if y.shape != x.shape:
            y = self._spread(y, x.shape)
        if self.pick.random() < 0.2:
            return ops.div(x, ops.add(ops.like(y, 2.0), ops.sin(y)))
        return getattr(ops, self.pick.choice(("add", "sub", "mul")))(x, y)

    def _dot(self) -> Node:
        x = self.some(lambda n: 3 in n.shape)
        y = self.some(lambda n: 3 in n.shape)
        i, j = (self.pick.choice([d for d, e in enumerate(n.shape) if e == 3]) for n in (x, y))
        both = [
            d for d in range(min(x.type.rank, y.type.rank)) if d not in (i, j) and x.shape[d] == y.shape[d]
        ]
        batch = ((both[0],), (both[0],)) if both and self.pick.random() < 0.3 else ((), ())
        return ops.tanh(ops.dot_general(x, y, ((i,), (j,)), batch))

    def _view(self) -> Node:
        x = self.some(lambda n: n.type.rank > 0)
        axis = self.pick.randrange(x.type.rank)
        ones = tuple([1 if d == axis else 0 for d in range(x.type.rank)])
        kind = self.pick.choice(("slice", "flip", "transpose", "pad", "concat", "reshape", "broadcast"))
        if kind == "slice":
            return ops.slice_axis(x, axis, 0, self.pick.randint(1, x.shape[axis]))
        if kind == "flip":
            return ops.flip(x, (axis,))
        if kind == "transpose":
            return ops.transpose(x, tuple(range(x.type.rank))[::-1])
        if kind == "pad":
            return ops.pad(x, ones, (0,) * x.type.rank, 0)
        if kind == "concat":
            return ops.concat([x, ops.sin(x)], axis)
        if kind == "reshape":
            return ops.reshape(x, (x.type.size,))
        return ops.broadcast(x, (2, *x.shape), tuple(range(1, x.type.rank + 1)))

    def _reduce(self) -> Node:
        x = self.some(lambda n: n.type.rank > 0)
        return ops.reduce_sum(x, (self.pick.randrange(x.type.rank),))

    def _choose(self) -> Node:
        x = self.some()
        return ops.select(ops.lt(ops.sin(x), ops.like(x, 0.1)), x, ops.mul(x, x))

    def _take(self) -> Node:
        rows = ops.check_index(self.row, 0, ROWS, "row is out of range")
        table = self.pick.choice([self.outer[2], self.some(lambda n: n.shape[:1] == (ROWS,))])
        return ops.take(table if table.shape[:1] == (ROWS,) else self.outer[2], rows, 0)


def random_loop(seed: int) -> Pair:
    """A loop, in both forms, that depends on the seed alone."""
    return Maker(seed).pair()
