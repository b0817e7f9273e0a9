"""Random matrix products and convolutions with what stands around them: operands seen through views, and
epilogues of other values."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import Shape, TensorType, float32, float64

SIDES = (1, 1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 31, 32, 33, 48, 64, 65, 100, 130)
EXTENTS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 14, 16, 19, 28, 33)
TAPS = (1, 1, 2, 3, 3, 3, 4, 5, 7)
MOST_FLOPS, MOST_ELEMENTS = 1e7, 2e5  # NumPy must get through


class Grower:
    """Makes nodes, and arrays for the inputs that they need."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.dtype = self.pick.choice((float32, float32, float64))
        self.arrays: dict[Node, np.ndarray] = {}

    def given(self, shape: Sequence[int]) -> Node:
        node = ops.input_(f"x{len(self.arrays)}", TensorType(tuple(shape), self.dtype))
        self.arrays[node] = self.rng.uniform(-1, 1, shape).astype(self.dtype.numpy)
        return node

    def operand(self, shape: Shape) -> Node:
        """A value of this shape: an input, or a view of one."""
        rank, kind = len(shape), self.pick.randrange(9)
        if not rank or kind > 5:
            return self.given(shape)
        axis = self.pick.randrange(rank)
        here = tuple(int(d == axis) for d in range(rank))
        if kind == 0:
            perm = tuple(self.pick.sample(range(rank), rank))
            return ops.transpose(self.given([shape[perm.index(d)] for d in range(rank)]), perm)
        if kind == 1:
            wide = self.given([n + 3 * h for n, h in zip(shape, here, strict=True)])
            return ops.slice_axis(wide, axis, 2, 2 + shape[axis])
        if kind == 2:
            return ops.reshape(self.given((int(np.prod(shape)),)), shape)
        if kind == 3:
            less = self.given(shape[:axis] + shape[axis + 1 :])
            return ops.broadcast(less, shape, tuple(d for d in range(rank) if d != axis))
        if kind == 4 and shape[axis] > 1:
            return ops.pad(self.given([n - h for n, h in zip(shape, here, strict=True)]), here, (0,) * rank)
        return ops.flip(self.given(shape), (axis,))

    def epilogue(self, y: Node) -> Node:
        """y, and up to three functions of it and of other values."""
        for _ in range(self.pick.choice((0, 1, 1, 2, 3))):
            rank, kind = y.type.rank, self.pick.randrange(8)
            small = ops.mul(y, ops.like(y, 0.1))
            if kind == 0 and rank > 1:
                axis = self.pick.choice((1, rank - 1))
                y = ops.add(y, ops.broadcast(self.given((y.shape[axis],)), y.shape, (axis,)))
            elif kind == 1:
                y = ops.maximum(y, ops.like(y, 0.0))
            elif kind == 2:
                y = ops.add(y, self.operand(y.shape))
            elif kind == 3:
                y = ops.tanh(small)
            elif kind == 4:
                y = ops.mul(y, self.given(y.shape))
            elif kind == 5:
                y = ops.sub(self.given(y.shape), small)
            elif kind == 6 and rank:
                y = ops.mul(y, ops.broadcast(self.given(y.shape[1:]), y.shape, tuple(range(1, rank))))
            elif rank > 1:
                y = ops.transpose(y, tuple(self.pick.sample(range(rank), rank)))
        return y

    # ---------------------------------------------------------------- products

    def dot(self) -> Node:
        """Any number of batch, row, column and summed axes, in any order."""
        pick = self.pick
        batch, rows, cols, depth = sizes = self._sides()
        while np.prod(sum(sizes, ())) > MOST_FLOPS or max(map(np.prod, sizes)) ** 2 > MOST_ELEMENTS:
            batch, rows, cols, depth = sizes = self._sides()

        def side(free: Shape) -> tuple[Node, Shape, Shape]:
            places = [("b", n) for n in batch] + [("k", n) for n in depth] + [("free", n) for n in free]
            order = pick.sample(range(len(places)), len(places))
            at = [order.index(i) for i in range(len(places))]
            node = self.operand(tuple(places[i][1] for i in order))
            return node, tuple(at[: len(batch)]), tuple(at[len(batch) : len(batch) + len(depth)])

        (x, x_batch, x_depth), (y, y_batch, y_depth) = side(rows), side(cols)
        return self.epilogue(ops.dot_general(x, y, (x_depth, y_depth), (x_batch, y_batch)))

    def _sides(self) -> tuple[Shape, Shape, Shape, Shape]:
        pick = self.pick
        counts = pick.choice((0, 0, 0, 1, 1, 2)), pick.choice((0, 1, 1, 1, 2)), pick.choice((0, 1, 1, 1, 2))
        rows, cols, depth = (
            tuple(pick.choice(SIDES) for _ in range(n)) for n in (*counts[1:], pick.choice((1, 1, 1, 2)))
        )
        return tuple(pick.choice((1, 2, 3)) for _ in range(counts[0])), rows, cols, depth

    # ------------------------------------------------------------ convolutions

    def conv(self) -> Node:
        """A convolution or one of its gradients: channels first or last, any geometry."""
        while (found := self._geometry()) is None:
            pass
        (n, c, o, groups), spatial, out, kernel, where = found
        last = self.pick.random() < 0.15

        def place(channels: int, extents: Shape) -> Shape:
            return (n, *extents, channels) if last else (n, channels, *extents)

        x, y, w = place(c, spatial), place(o, out), (o, c // groups, *kernel)
        kind = self.pick.choice(("forward", "forward", "input", "weight"))
        if kind == "forward":
            made = ops.conv(self.operand(x), self.operand(w), *where, groups, last)
        elif kind == "input":
            made = ops.conv_input_grad(self.operand(y), self.operand(w), spatial, *where, groups, last)
        else:
            made = ops.conv_weight_grad(self.operand(x), self.operand(y), kernel, *where, groups, last)
        return self.epilogue(made)

    def _geometry(self) -> tuple[Shape, Shape, Shape, Shape, tuple[Shape, ...]] | None:
        """(samples, channels in and out, groups), extents in and out, kernel, (stride, padding, dilation)."""
        pick = self.pick
        rank = pick.choice((1, 2, 2, 2, 2, 3))

        def each(choices: Sequence[int], alike: float) -> Shape:
            if pick.random() < alike:
                return (pick.choice(choices),) * rank
            return tuple(pick.choice(choices) for _ in range(rank))

        kernel, spatial = each(TAPS, 0.6), each(EXTENTS, 0.5)
        stride, dilation = each((1, 1, 1, 2, 2, 3), 0.9), each((1, 1, 1, 1, 2, 3), 0.9)
        low = tuple(pick.choice((0, k // 2, pick.randint(0, k))) for k in kernel)
        high = low if pick.random() < 0.8 else tuple(pick.randint(0, k) for k in kernel)
        n, groups = pick.choice((1, 1, 2, 3, 8)), pick.choice((1, 1, 1, 1, 1, 2, 4, 8, 16, 32))
        c, o = (
            groups * pick.choice((1, 1, 2, 3, 4, 8, 16, 17, 32)),
            groups * pick.choice((1, 1, 2, 3, 8, 16, 20)),
        )
        dims = zip(spatial, low, high, dilation, kernel, stride, strict=True)
        out = tuple((x + a + b - d * (k - 1) - 1) // s + 1 for x, a, b, d, k, s in dims)
        flops = n * o * np.prod(out) * np.prod(kernel) * c // groups
        elements = n * max(c * np.prod(spatial), o * np.prod(out))
        if min(out) < 1 or flops > MOST_FLOPS or elements > MOST_ELEMENTS:
            return None
        return (n, c, o, groups), spatial, out, kernel, (stride, low, high, dilation)


def random_contraction(seed: int) -> tuple[Graph, list[np.ndarray]]:
    """A graph of one product or convolution, and arrays for its inputs."""
    grower = Grower(seed)
    output = grower.dot() if grower.pick.random() < 0.4 else grower.conv()
    return Graph(tuple(grower.arrays), (output,)), list(grower.arrays.values())
