"""dot_general: every matrix product, batched or transposed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import TensorType, int64
from graphc.ops.constant import wrong
from graphc.ops.elementwise import NUMBERS
from graphc.ops.op import fail, register
from graphc.ops.sample import FLOATS, ErrorSample, Sample, Typed
from graphc.ops.spread import Axes
from graphc.ops.view import inverse, transpose

Pair = tuple[Axes, Axes]


@dataclass(frozen=True, eq=False)
class DotAttrs(Attrs):
    """Which dims of a and of b are summed over, and which are walked in step, pairwise."""

    contract: Pair
    batch: Pair

    def free(self, side: int, rank: int) -> Axes:
        """The dims of operand `side` (0 or 1) that are neither contracted nor batch, in order."""
        return tuple([d for d in range(rank) if d not in self.contract[side] and d not in self.batch[side]])


def _infer_dot(types: Sequence[TensorType], attrs: DotAttrs) -> TensorType:
    a, b = types
    return _type_of_dot(a, b, attrs)


@lru_cache(1024)
def _type_of_dot(a: TensorType, b: TensorType, attrs: DotAttrs) -> TensorType:
    types = (a, b)
    if a.dtype is not b.dtype or a.dtype not in NUMBERS:
        raise fail("dot_general", "operands must be numbers of equal dtype; cast first", types, TypeError)
    for what, pair in (("contract", attrs.contract), ("batch", attrs.batch)):
        if len(pair[0]) != len(pair[1]):
            raise fail("dot_general", f"{what} dims {pair} must pair up", types)
    for side, t in enumerate((a, b)):
        used = attrs.contract[side] + attrs.batch[side]
        if len(set(used)) != len(used) or any(not 0 <= d < t.rank for d in used):
            raise fail(
                "dot_general",
                f"dims {used} of operand {side} must be distinct and within rank {t.rank}",
                types,
            )
    for what, pair in (("contracted", attrs.contract), ("batch", attrs.batch)):
        for i, j in zip(*pair, strict=True):
            if a.shape[i] != b.shape[j]:
                raise fail(
                    "dot_general",
                    f"{what} dims must have equal sizes: dim {i} has {a.shape[i]}, dim {j} has {b.shape[j]}",
                    types,
                )
    kept = [a.shape[i] for i in (*attrs.batch[0], *attrs.free(0, a.rank))]
    return TensorType((*kept, *[b.shape[i] for i in attrs.free(1, b.rank)]), a.dtype)


def _evaluate_dot(arrays: Sequence[np.ndarray], attrs: DotAttrs) -> np.ndarray:
    """As one batched matmul [batch, m, k] @ [batch, k, n]."""
    a, b = arrays
    (ca, cb), (ba, bb) = attrs.contract, attrs.batch
    fa, fb = attrs.free(0, a.ndim), attrs.free(1, b.ndim)
    batch, m, n = [a.shape[i] for i in ba], [a.shape[i] for i in fa], [b.shape[i] for i in fb]
    depth = prod(a.shape[i] for i in ca)
    left = a.transpose(*ba, *fa, *ca).reshape(prod(batch), prod(m), depth)
    right = b.transpose(*bb, *cb, *fb).reshape(prod(batch), depth, prod(n))
    return np.matmul(left, right).reshape((*batch, *m, *n))


def _vjp_dot(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return None, None
    attrs, (a, b) = node.attrs, node.inputs
    nb = len(attrs.batch[0])
    na = len(attrs.free(0, a.type.rank))
    rows = tuple(range(nb, nb + na))
    columns = tuple(range(nb + na, ct.type.rank))
    return _pull(ct, b, attrs, 0, a.type.rank, columns), _pull(ct, a, attrs, 1, b.type.rank, rows)


def _pull(ct: Node, other: Node, attrs: DotAttrs, side: int, rank: int, summed: Axes) -> Node:
    """The cotangent of operand `side`: ct contracted with the other operand's free dims."""
    theirs = 1 - side
    free = attrs.free(theirs, other.type.rank)
    batch = tuple(range(len(attrs.batch[0])))
    order = sorted(range(len(attrs.contract[side])), key=lambda i: attrs.contract[theirs][i])
    contracted = tuple([attrs.contract[side][i] for i in order])
    # The dims of the result as dims of this operand. Take the order of operands that needs no transpose.
    dims = (*attrs.batch[side], *contracted, *attrs.free(side, rank))
    if dims == tuple(range(rank)):
        return dot_general(other, ct, (free, summed), (attrs.batch[theirs], batch))
    dims = (*attrs.batch[side], *attrs.free(side, rank), *contracted)
    out = dot_general(ct, other, (summed, free), (batch, attrs.batch[theirs]))
    return transpose(out, inverse(dims))


def _dot_samples() -> Iterable[Sample | ErrorSample]:
    def dot(contract: Pair, batch: Pair = ((), ())):
        return lambda a, b: dot_general(a, b, contract, batch)

    plain = dot(((1,), (0,)))
    yield Sample(plain, [(4, 5), (5, 3)], (*FLOATS, int64), expect=lambda a, b: a @ b)
    yield Sample(dot(((0,), (0,))), [(5, 4), (5, 3)], expect=lambda a, b: a.T @ b)
    yield Sample(dot(((1,), (1,))), [(4, 5), (3, 5)], expect=lambda a, b: a @ b.T)
    yield Sample(dot(((0,), (1,))), [(5, 4), (3, 5)], expect=lambda a, b: a.T @ b.T)
    yield Sample(dot(((2,), (1,)), ((0,), (0,))), [(2, 4, 5), (2, 5, 3)], expect=lambda a, b: a @ b)
    heads = dot(((3,), (3,)), ((0, 2), (0, 2)))
    yield Sample(heads, [(2, 3, 2, 4), (2, 5, 2, 4)], expect=lambda a, b: np.einsum("bqhd,bkhd->bhqk", a, b))
    twisted = dot(((0, 2), (3, 1)), ((1,), (0,)))
    yield Sample(twisted, [(2, 3, 4, 5), (3, 4, 6, 2)], expect=lambda a, b: np.einsum("ibjm,bjni->bmn", a, b))
    yield Sample(dot(((0,), (0,))), [(7,), (7,)], expect=lambda a, b: a @ b)
    yield Sample(dot(((1,), (0,))), [(33, 70), (70,)], expect=lambda a, b: a @ b)
    yield Sample(dot(((0,), (0,))), [(70,), (70, 33)], expect=lambda a, b: a @ b)
    yield Sample(dot(((), ())), [(3,), (4,)], expect=lambda a, b: a[:, None] * b)
    yield Sample(plain, [(37, 65), (65, 71)], gradient=False, expect=lambda a, b: a @ b)
    yield Sample(plain, [(3, 0), (0, 4)], gradient=False, expect=lambda a, b: a @ b)
    yield wrong(
        plain,
        (2, 3),
        (4, 5),
        says="dot_general: contracted dims must have equal sizes: dim 1 has 3, dim 0 has 4",
    )
    yield wrong(plain, (2, 3), Typed((3, 2), int64), says="equal dtype; cast first", error=TypeError)
    yield wrong(dot(((1,), ())), (2, 3), (3, 2), says="contract dims ((1,), ()) must pair up")
    yield wrong(
        dot(((2,), (0,))), (2, 3), (3, 2), says="dims (2,) of operand 0 must be distinct and within rank 2"
    )


DOT = register(
    "dot_general",
    Kind.CONTRACT,
    infer=_infer_dot,
    evaluate=_evaluate_dot,
    vjp=_vjp_dot,
    attrs=DotAttrs,
    cost=2.0,
    samples=_dot_samples,
)


def dot_general(a: Node, b: Node, contract: Pair, batch: Pair = ((), ())) -> Node:
    """Sum of products over the `contract` dims; the result's dims are batch, a's free, b's free dims."""
    return make(DOT, (a, b), _attrs(contract, batch))


@cache
def _attrs(contract: Pair, batch: Pair) -> DotAttrs:
    """One object for equal dims, so that its key is made once."""
    return DotAttrs(contract, batch)
