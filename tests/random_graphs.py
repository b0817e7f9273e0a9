"""Random valid graphs and inputs for property tests, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, bool_, float32, int64

UNARY = ("neg", "abs_", "floor", "trunc", "sqrt", "exp", "sin", "tanh", "sigmoid")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
CONSTANTS = (0.0, -0.0, 1.0, -1.0, 2.0, 0.25, 3.0, float("inf"), float("nan"))


class Maker:
    """Grows a graph node by node; every value stays small."""

    def __init__(self, seed: int, inputs: int = 3) -> None:
        self.pick = random.Random(seed)
        shapes = [(2, 3), (3, 2), (2, 3), (6,), (1, 3), (4, 2, 3)]
        self.inputs = [
            ops.input_(f"r{seed}.{i}", TensorType(self.pick.choice(shapes), float32)) for i in range(inputs)
        ]
        self.pool: list[Node] = list(self.inputs)

    def grow(self, steps: int) -> Maker:
        for _ in range(steps):
            maker: Callable[[], Node] = self.pick.choice(
                [
                    self._unary,
                    self._binary,
                    self._view,
                    self._view,
                    self._reduce,
                    self._select,
                    self._dot,
                    self._constant,
                ]
            )
            node = maker()
            if node.type.size <= 256:
                self.pool.append(node)
        return self

    def graph(self, outputs: int = 3) -> Graph:
        recent = self.pool[-max(outputs * 2, 4) :]
        return Graph(tuple(self.inputs), tuple(self.pick.choice(recent) for _ in range(outputs)))

    def some(self, dtype: DType = float32, test: Callable[[Node], bool] = lambda n: True) -> Node:
        found = [n for n in self.pool if n.dtype is dtype and test(n)]
        return self.pick.choice(found or self.inputs)

    def peer(self, x: Node) -> Node:
        """Another value of x's shape, made by reshaping or broadcasting if need be."""
        same = [n for n in self.pool if n.dtype is x.dtype and n.shape == x.shape]
        return self.pick.choice([*same, ops.like(x, self.pick.choice(CONSTANTS))])

    def _unary(self) -> Node:
        return getattr(ops, self.pick.choice(UNARY))(self.some())

    def _binary(self) -> Node:
        x = self.some()
        if self.pick.random() < 0.1:
            return ops.pow_(x, ops.like(x, self.pick.choice((0.0, 1.0, 2.0, -1.0))))
        return getattr(ops, self.pick.choice(BINARY))(*self.pick.sample([x, self.peer(x)], 2))

    def _select(self) -> Node:
        x = self.some()
        condition = getattr(ops, self.pick.choice(COMPARE))(x, self.peer(x))
        if self.pick.random() < 0.3:
            condition = ops.logical_not(condition)
        if self.pick.random() < 0.3:
            return ops.cast(ops.cast(condition, int64), float32)
        return ops.select(condition, self.peer(x), x)

    def _constant(self) -> Node:
        x = self.some()
        return ops.constant(np.arange(x.type.size, dtype=np.float32).reshape(x.shape) - 1.0)

    def _reduce(self) -> Node:
        x = self.some(test=lambda n: n.type.rank > 0 and n.type.size > 0)
        if not x.type.rank:
            return x
        axes = self.pick.sample(range(x.type.rank), self.pick.randint(1, x.type.rank))
        return getattr(ops, self.pick.choice(("reduce_sum", "reduce_max", "reduce_min")))(x, axes)

    def _dot(self) -> Node:
        x = self.some(test=lambda n: n.type.rank == 2)
        y = self.some(test=lambda n: n.type.rank == 2)
        for i in range(x.type.rank):
            for j in range(y.type.rank):
                if x.shape[i] == y.shape[j]:
                    return ops.dot_general(x, y, ((i,), (j,)))
        return x

    def _view(self) -> Node:
        x = self.some()
        rank, kind = x.type.rank, self.pick.randrange(7)
        if kind == 0:
            return ops.reshape(x, self.pick.choice([(x.type.size,), (1, *x.shape), (*x.shape, 1)]))
        if kind == 1:
            return ops.transpose(x, tuple(self.pick.sample(range(rank), rank)))
        if kind == 2:
            return ops.broadcast(x, (2, *x.shape), tuple(range(1, rank + 1)))
        if kind == 3 and rank:
            axis = self.pick.randrange(rank)
            stop = self.pick.randint(min(1, x.shape[axis]), x.shape[axis])
            return ops.slice_axis(
                x, axis, self.pick.randint(0, max(stop - 1, 0)), stop, self.pick.randint(1, 2)
            )
        if kind == 4:
            low, high = ([self.pick.randint(0, 1) for _ in range(rank)] for _ in "ab")
            return ops.pad(x, tuple(low), tuple(high), self.pick.choice(CONSTANTS))
        if kind == 5:
            return ops.flip(x, self.pick.sample(range(rank), self.pick.randint(0, rank)))
        return ops.concat([x, self.peer(x)], self.pick.randrange(rank)) if rank else x


def random_graph(seed: int, steps: int = 25, outputs: int = 3) -> Graph:
    return Maker(seed).grow(steps).graph(outputs)


def random_inputs(graph: Graph, seed: int, specials: bool = True) -> list[np.ndarray]:
    """Arrays for the inputs of a graph; `specials` mixes in -0.0, infinities and NaN."""
    rng = np.random.default_rng(seed)
    arrays = []
    for node in graph.inputs:
        if node.dtype is bool_:
            arrays.append(rng.random(node.shape) < 0.5)
        elif node.dtype.is_float:
            array = rng.integers(-3, 4, node.shape).astype(node.dtype.numpy) / 2
            if specials:
                mask = rng.random(node.shape) < 0.2
                array[mask] = rng.choice([-0.0, 0.0, np.inf, -np.inf, np.nan], mask.sum())
            arrays.append(array)
        else:
            arrays.append(rng.integers(0, 3, node.shape).astype(node.dtype.numpy))
    return [np.ascontiguousarray(a) for a in arrays]


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal bit for bit, except that one NaN is as good as another."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)
    if expected.dtype.kind == "f":
        finite = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual)[finite], np.signbit(expected)[finite])
