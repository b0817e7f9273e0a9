"""Random loops: bodies of contractions, views, reductions and other loops; carries that swap."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType

SHAPES = ((3, 4), (4, 3), (12,), (4,), (2, 6))


class Scans:
    """A program under construction: a pool of values from which loops make more."""

    def __init__(self, seed: int, dtype: DType) -> None:
        self.pick, self.dtype = random.Random(seed), dtype
        self.rng = np.random.default_rng(seed)
        self.arrays: dict[Node, np.ndarray] = {}
        self.placeholders = 0

    def given(self, shape: Sequence[int]) -> Node:
        """A new input."""
        node = ops.input_(f"in{len(self.arrays)}", TensorType(tuple(shape), self.dtype))
        self.arrays[node] = self.rng.uniform(-1, 1, shape).astype(self.dtype.numpy)
        return node

    def placeholder(self, shape: Sequence[int]) -> Node:
        self.placeholders += 1
        return ops.input_(f"body{self.placeholders}", TensorType(tuple(shape), self.dtype))

    def value(self, pool: list[Node], shape: Sequence[int]) -> Node:
        """A value of a shape: from the pool, reshaped from it, or a new input."""
        shape = tuple(shape)
        size = int(np.prod(shape))
        fits = [v for v in pool if v.type.size == size]
        if not fits or self.pick.random() < 0.2:
            return self.given(shape)
        found = self.pick.choice(fits)
        return found if found.shape == shape else ops.reshape(found, shape)

    def grow(self, pool: list[Node], steps: int, depth: int) -> None:
        """Add values made from those of the pool; `depth` more loops may be opened."""
        for _ in range(steps):
            x = self.pick.choice(pool)
            makers = [self.mix, self.mix, self.contract, self.turn, self.total]
            if depth:
                makers.append(lambda pool, x: self.loop(pool, depth - 1))
            made = self.pick.choice(makers)(pool, x)
            pool += made if isinstance(made, list) else [made]

    def mix(self, pool: list[Node], x: Node) -> Node:
        y = self.value(pool, x.shape)
        return self.pick.choice([ops.add, ops.mul, ops.sub])(ops.tanh(x), y)

    def contract(self, pool: list[Node], x: Node) -> Node:
        width = self.pick.choice([3, 4, 17])
        weight = self.value([v for v in pool if v.type.rank == 2], (width, x.shape[-1]))
        return ops.tanh(ops.dot_general(x, weight, ((x.type.rank - 1,), (1,)), ((), ())))

    def turn(self, pool: list[Node], x: Node) -> Node:
        if x.type.rank == 2 and self.pick.random() < 0.6:
            return ops.transpose(x, (1, 0))
        return ops.flip(x, (self.pick.randrange(x.type.rank),))

    def total(self, pool: list[Node], x: Node) -> Node:
        axis = self.pick.randrange(x.type.rank)
        kept = tuple(d for d in range(x.type.rank) if d != axis)
        mean = ops.broadcast(ops.reduce_sum(x, (axis,)), x.shape, kept)
        return ops.sub(x, ops.tanh(mean))

    def loop(self, pool: list[Node], depth: int) -> list[Node]:
        """The results of a loop over values of the pool: finals and stacks."""
        pick = self.pick
        length = pick.choice([1, 2, 3, 4, 5, 8])
        carries = [self.placeholder(pick.choice(SHAPES)) for _ in range(pick.randint(1, 3))]
        xs = [self.placeholder(pick.choice(SHAPES)) for _ in range(pick.randint(0, 2))]
        outer = pick.sample(pool, min(len(pool), pick.randint(0, 2)))
        body = [*carries, *xs, *outer]
        self.grow(body, pick.randint(1, 6), depth)
        nexts = []
        for carry in carries:
            same = [v for v in body if v.type == carry.type and v is not carry]
            computed = ops.tanh(self.value([v for v in body if v.type.size == carry.type.size], carry.shape))
            nexts.append(pick.choice(same) if same and pick.random() < 0.6 else computed)
        emits = pick.sample(body, pick.randint(1, min(4, len(body))))
        emits += pick.sample([*nexts, *carries], pick.randint(0, 2))
        init = [self.value(pool, c.shape) for c in carries]
        stacks = [self.value(pool, (length, *x.shape)) for x in xs]
        made = ops.scan(carries, xs, nexts, emits, init, stacks, length, pick.random() < 0.5)
        results = list(dict.fromkeys((*made.finals, *made.stacked)))
        return pick.sample(results, pick.randint(1, len(results)))


def random_scans(seed: int, dtype: DType, depth: int = 0, loops: int = 2) -> tuple[Graph, list[np.ndarray]]:
    """A graph with loops (`depth` deep inside others), and arrays for its inputs."""
    made = Scans(seed, dtype)
    pool = [made.given(shape) for shape in made.pick.sample(SHAPES, 3)]
    outputs: list[Node] = []
    for _ in range(loops):
        results = made.loop(pool, depth)
        outputs += results
        pool += [r for r in results if r.type.size <= 500]
        made.grow(pool, 2, 0)
    outputs += made.pick.sample(pool, 2)
    return Graph(tuple(made.arrays), tuple(dict.fromkeys(outputs))), list(made.arrays.values())
