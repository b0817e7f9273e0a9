"""Counter-based random numbers: Philox-4x32-10 (Salmon et al., "Parallel random numbers", 2011).

The bits of element e of a draw are a function of (seed, offset + stream, e) alone: they do not depend
on the order of evaluation, the number of threads, or the other draws of a program.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import DType, Shape, TensorType, float32, float64, int32, int64, uint32
from graphc.loop import index as ix
from graphc.loop.ir import Const, Expr, binary, cast, index_const, select
from graphc.ops.arithmetic import add, mul, sub
from graphc.ops.compare import cast as cast_node
from graphc.ops.compare import shr
from graphc.ops.constant import wrong
from graphc.ops.math import cos, log, sqrt
from graphc.ops.op import Read, fail, register
from graphc.ops.sample import Arg, ErrorSample, Sample, Typed
from graphc.ops.spread import full, like
from graphc.ops.view import reshape, slice_axis

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class RandomAttrs(Attrs):
    """`stream` tells apart the draws that share a key: it is added to the key's counter offset."""

    shape: Shape
    stream: int


@dataclass(frozen=True)
class _Words:
    """Arithmetic on 32-bit words: of NumPy arrays, or of loop-IR expressions."""

    constant: Callable[[int], Any]
    add: Callable[[Any, Any], Any]
    product: Callable[[Any, Any], tuple[Any, Any]]  # its high and its low word
    xor: Callable[[Any, Any], Any]


def philox(counter: Sequence[Any], key: Sequence[Any], words: _Words) -> tuple[Any, Any, Any, Any]:
    """Four random words from a counter of four words and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    m0, m1 = map(words.constant, _MULTIPLIERS)
    w0, w1 = map(words.constant, _WEYL)
    for r in range(_ROUNDS):
        if r:
            k0, k1 = words.add(k0, w0), words.add(k1, w1)
        (high0, low0), (high1, low1) = words.product(m0, c0), words.product(m1, c2)
        c0, c1, c2, c3 = words.xor(words.xor(high1, c1), k0), low1, words.xor(words.xor(high0, c3), k1), low0
    return c0, c1, c2, c3


def _infer_random(types: Sequence[TensorType], attrs: RandomAttrs) -> TensorType:
    if types[0].shape != (2,) or types[0].dtype is not int64:
        raise fail("random_bits", "the key must be i64[2]: seed and counter offset", types, TypeError)
    return TensorType(attrs.shape, uint32)


def _wide_product(a: np.uint32, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The high and the low words of 64-bit products: every other word of them in memory."""
    halves = np.multiply(b, a, dtype=np.uint64).view(np.uint32)
    low, high = halves[::2], halves[1::2]
    return (high, low) if sys.byteorder == "little" else (low, high)


_ARRAYS = _Words(constant=np.uint32, add=np.add, product=_wide_product, xor=np.bitwise_xor)
_CHUNK = 1 << 13  # blocks of four words at a time, which stay in cache


def _evaluate_random(arrays: Sequence[np.ndarray], attrs: RandomAttrs) -> np.ndarray:
    size = math.prod(attrs.shape)
    count = (size + 3) // 4
    seed, counter = int(arrays[0][0]) % 2**64, (int(arrays[0][1]) + attrs.stream) % 2**64
    key = [np.array([seed >> shift & 0xFFFFFFFF], np.uint32) for shift in (0, 32)]
    out = np.empty((count, 4), np.uint32)
    for start in range(0, count, _CHUNK):
        blocks = np.arange(start, min(start + _CHUNK, count), dtype=np.uint64)
        place = [(blocks >> np.uint64(shift)).astype(np.uint32) for shift in (0, 32)]
        place += [np.full(len(blocks), counter >> shift & 0xFFFFFFFF, np.uint32) for shift in (0, 32)]
        for lane, word in enumerate(philox(place, key, _ARRAYS)):
            out[start : start + _CHUNK, lane] = word
    return out.reshape(-1)[:size].reshape(attrs.shape)


@lru_cache(4096)
def _word(op: str, a: Expr, b: Expr) -> Expr:
    """One operation on words: the same object for the same operands, so that the four words of a block, asked
    for one by one, share their rounds."""
    return binary(op, a, b)


@cache
def _constant(value: int) -> Expr:
    return Const(uint32, value)


_EXPRESSIONS = _Words(
    constant=_constant,
    add=partial(_word, "add"),
    product=lambda a, b: (_word("mulhi", a, b), _word("mul", a, b)),
    xor=partial(_word, "xor"),
)


def _halves(value: Expr) -> tuple[Expr, Expr]:
    """The low and high words of an int64 expression."""
    return _low(value), _low(_word("shr", value, ix.const(32)))


@lru_cache(4096)
def _low(value: Expr) -> Expr:
    return cast(value, uint32)


def _pick(condition: Expr, a: Expr, b: Expr) -> Expr:
    if ix.is_true(condition):
        return a
    return b if ix.is_false(condition) else select(condition, a, b)


def _lower_random(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    element = ix.flatten(index, node.type.shape)
    block, lane = ix.floordiv(element, 4), ix.mod(element, 4)
    seed, offset = reads[0]((index_const(0),)), reads[0]((index_const(1),))
    counter = _word("add", offset, ix.const(node.attrs.stream))
    small = node.type.size <= 2**34  # then the block number is one word
    place = (_low(block), _constant(0)) if small else _halves(block)
    a, b, c, d = philox((*place, *_halves(counter)), _halves(seed), _EXPRESSIONS)
    low = _pick(ix.compare("lt", lane, 1), a, b)
    return _pick(ix.compare("lt", lane, 2), low, _pick(ix.compare("lt", lane, 3), c, d))


_KEY = Arg((2,), int64, low=0, high=2**62)


def _random_samples() -> Iterable[Sample | ErrorSample]:
    for shape, stream in (((3, 5), 0), ((64,), 7), ((), 1), ((2, 3, 7), 2**33), ((0, 2), 0)):
        yield Sample(lambda k, s=shape, n=stream: random_bits(k, s, n), [_KEY], (uint32,), gradient=False)
    yield Sample(
        lambda k: random_bits(k, (9,), 1), [Arg((2,), int64, low=-9, high=-1)], (uint32,), gradient=False
    )
    yield wrong(
        lambda k: random_bits(k, (3,), 0),
        Typed((2,), float32),
        says="the key must be i64[2]",
        error=TypeError,
    )
    yield wrong(
        lambda k: random_bits(k, (3,), 0), Typed((3,), int64), says="the key must be i64[2]", error=TypeError
    )


RANDOM_BITS = register(
    "random_bits",
    Kind.GENERATE,
    infer=_infer_random,
    evaluate=_evaluate_random,
    lower=_lower_random,
    attrs=RandomAttrs,
    cost=70.0,
    samples=_random_samples,
)


def random_bits(key: Node, shape: Shape, stream: int = 0) -> Node:
    """Independent uniform uint32 words; key is i64[2]: seed and counter offset."""
    return make(RANDOM_BITS, (key,), RandomAttrs(shape, stream))


def uniform(key: Node, shape: Shape, stream: int = 0, dtype: DType = float32) -> Node:
    """Independent numbers uniform in [0, 1): multiples of 2**-24 (float32) or 2**-53 (float64)."""
    if dtype is float32:
        return mul(_high_bits(random_bits(key, shape, stream), 24, dtype), full(shape, 2.0**-24, dtype))
    if dtype is not float64:
        raise fail("uniform", f"makes float32 or float64, not {dtype.name}", error=TypeError)
    high, low = _pair(random_bits(key, (2, *shape), stream))
    whole = add(mul(_high_bits(high, 27, dtype), full(shape, 2.0**26, dtype)), _high_bits(low, 26, dtype))
    return mul(whole, full(shape, 2.0**-53, dtype))


def normal(key: Node, shape: Shape, stream: int = 0, dtype: DType = float32) -> Node:
    """Independent numbers of the standard normal distribution (Box and Muller's transform)."""
    radius, angle = _pair(uniform(key, (2, *shape), stream, dtype))
    # 1 - u is in (0, 1]: its logarithm is finite
    distance = sqrt(mul(log(sub(like(radius, 1), radius)), like(radius, -2)))
    return mul(distance, cos(mul(angle, like(angle, 2 * math.pi))))


def _high_bits(words: Node, count: int, dtype: DType) -> Node:
    """The leading `count` bits of uint32 words as a float; through int32, which converts faster."""
    return cast_node(cast_node(shr(words, like(words, 32 - count)), int32), dtype)


def _pair(x: Node) -> tuple[Node, Node]:
    """The two halves along the first dim, which is dropped."""
    first, second = (reshape(slice_axis(x, 0, i, i + 1), x.type.shape[1:]) for i in range(2))
    return first, second
