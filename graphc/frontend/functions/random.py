"""Random tensors: Philox bits in the graph, a (seed, offset) generator outside it.

A draw depends only on (seed, offset, element). Lazily every draw reads a key of its own; in a
compiled program all draws of one generator share a key and number themselves by `stream`. Both
add up to the same counter, so lazy and compiled runs give the same bits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.cell import fresh_input, leaf_node
from graphc.frontend.drawn import Drawn, evaluate
from graphc.frontend.errors import TracerError, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.convert import check_device
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.placement import placed
from graphc.frontend.modes import MODE, not_while_recording
from graphc.frontend.nodes import cast, number, shape_args
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor, apply, from_array, from_node, inplace
from graphc.ir.node import Node
from graphc.ir.types import DType, Shape, float32, float64, int64


class Generator:
    """A seed and the number of draws made with it."""

    def __init__(self, device: Any = "cpu") -> None:
        check_device(device)
        self.seed_value = _DEFAULT_SEED
        self.offset = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start anew from a seed (any int)."""
        self.seed_value = int(seed) & (2**63 - 1)
        self.offset = 0
        return self

    def initial_seed(self) -> int:
        """The seed in use."""
        return self.seed_value

    def seed(self) -> int:
        """Start anew from a seed taken from the operating system; returns it."""
        self.manual_seed(int.from_bytes(os.urandom(7), "little"))
        return self.seed_value

    def get_state(self) -> Tensor:
        """(seed, draws) as an int64 tensor."""
        return from_array(np.array([self.seed_value, self.offset], np.int64))

    def set_state(self, state: Tensor) -> Generator:
        """Go back to a state from `get_state`."""
        self.seed_value, self.offset = (int(v) for v in value(state))
        return self

    def key(self) -> np.ndarray:
        """The key of the next draw."""
        return np.array([self.seed_value, self.offset], np.int64)


_DEFAULT_SEED = 67280421310721  # PyTorch's, so that initial_seed() agrees
default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Put the default generator back to a state."""
    default_generator.set_state(state)


def next_key(generator: Generator | None = None) -> tuple[Node, int]:
    """(key node, stream) of one draw: give them to `ops.random_bits`, `uniform` or `normal`."""
    not_while_recording()
    source = generator or default_generator
    if MODE.trace is not None:
        return MODE.trace.random_key(source)
    node = leaf_node(source.key())
    source.offset += 1
    return node, 0


# -------------------------------------------------------------------------- nodes


def uniform_node(shape: Shape, dtype: DType, generator: Generator | None = None) -> Node:
    """A draw of numbers uniform in [0, 1)."""
    key, stream = next_key(generator)
    return ops.uniform(key, shape, stream, dtype)


def normal_node(shape: Shape, dtype: DType, generator: Generator | None = None) -> Node:
    """A draw of standard normal numbers."""
    key, stream = next_key(generator)
    return ops.normal(key, shape, stream, dtype)


def keep_mask(shape: Shape, p: float, dtype: DType, generator: Generator | None = None) -> Node:
    """A draw for dropout: 1 / (1 - p) with probability 1 - p, else 0."""
    kept = ops.ge(uniform_node(shape, float32, generator), number(p, float32, shape))
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0
    return ops.select(kept, number(scale, dtype, shape), number(0.0, dtype, shape))


def integers_node(low: int, high: int, shape: Shape, generator: Generator | None = None) -> Node:
    """A draw of int64 numbers from range(low, high)."""
    key, stream = next_key(generator)
    span = high - low
    words = ops.cast(ops.random_bits(key, shape, stream), int64)
    if span <= 2**31:  # (word * span) / 2**32 fits in 63 bits
        scaled = ops.shr(ops.mul(words, number(span, int64, shape)), number(32, int64, shape))
    else:
        more, second = next_key(generator)
        wide = ops.cast(ops.random_bits(more, shape, second), int64)
        bits = ops.bit_or(ops.shl(ops.shr(words, number(1, int64, shape)), number(32, int64, shape)), wide)
        scaled = ops.rem(bits, number(span, int64, shape))
    return ops.add(scaled, number(low, int64, shape))


# ----------------------------------------------------------------------- creation


def _made(node: Node, dtype: DType, requires_grad: bool) -> Tensor:
    made = from_node(cast(node, dtype))
    return made.requires_grad_() if requires_grad else made


def _float(dtype: DType | None, name: str) -> DType:
    found = dtype or get_default_dtype()
    if not found.is_float:
        raise fail(NotImplementedError, f"\"{name}\" not implemented for '{found.name}'")
    return found


@placed
def rand(
    *size: Any,
    dtype: DType | None = None,
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers uniform in [0, 1)."""
    found = _float(dtype, "rand")
    return _made(uniform_node(shape_args(size), found, generator), found, requires_grad)


@placed
def randn(
    *size: Any,
    dtype: DType | None = None,
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Standard normal numbers."""
    found = _float(dtype, "randn")
    return _made(normal_node(shape_args(size), found, generator), found, requires_grad)


@placed
def randint(
    low: int,
    high: Any = None,
    size: Sequence[int] | None = None,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Integers from range(low, high): `randint(high, size)` or `randint(low, high, size)`."""
    if size is None:
        low, high, size = 0, low, high
    if high is None or size is None:
        raise fail(TypeError, "randint() needs a size: randint(high, size) or randint(low, high, size)")
    if low >= high:
        raise fail(
            RuntimeError, f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    node = integers_node(int(low), int(high), shape_args((size,)), generator)
    return _made(node, dtype or int64, requires_grad)


@method(only_function=True)
@placed
def rand_like(input: Tensor, *, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Uniform numbers with the shape and dtype of `input`."""
    return rand(tuple(input.shape), dtype=dtype or input.dtype, requires_grad=requires_grad)


@method(only_function=True)
@placed
def randn_like(input: Tensor, *, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Standard normal numbers with the shape and dtype of `input`."""
    return randn(tuple(input.shape), dtype=dtype or input.dtype, requires_grad=requires_grad)


@method(only_function=True)
@placed
def randint_like(
    input: Tensor,
    low: int,
    high: int | None = None,
    *,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Random integers with the shape and dtype of `input`."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, tuple(input.shape), dtype=dtype or input.dtype, requires_grad=requires_grad)


@placed
def randperm(
    n: int,
    *,
    dtype: DType | None = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A random order of range(n)."""
    if MODE.trace is not None:
        raise fail(
            RuntimeError,
            "randperm() inside a traced function is not supported: make the permutation "
            "outside and pass it as an argument",
        )
    key, stream = next_key(generator)
    words = evaluate(ops.random_bits(key, (2, n), stream)).astype(np.uint64)
    order = np.argsort((words[0] << np.uint64(32)) | words[1], kind="stable")
    return from_array(order.astype((dtype or int64).numpy), requires_grad)


def _shaped(like: Sequence[Any], size: Any) -> Shape:
    tensors = [v for v in like if isinstance(v, Tensor)]
    if tensors:
        return tuple(np.broadcast_shapes(*[tuple(t.shape) for t in tensors]))
    if size is None:
        raise fail(TypeError, "normal() of two numbers needs a size")
    return shape_args((size,))


def _check_std(std: float) -> None:
    if std < 0:
        raise fail(RuntimeError, f"normal expects std >= 0.0, but found std {std}")


def _check_chance(p: float) -> None:
    if not 0 <= p <= 1:
        raise fail(RuntimeError, f"bernoulli expects p to be in [0, 1], but got p={p}")


@placed
def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: DType | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal numbers with given means and standard deviations (numbers or tensors)."""
    if not isinstance(std, Tensor):
        _check_std(std)
    first = next((v for v in (mean, std) if isinstance(v, Tensor)), None)
    found = dtype or (first.dtype if first is not None else get_default_dtype())
    noise = from_node(normal_node(_shaped((mean, std), size), found, generator))
    made = noise * std + mean
    return made.detach().requires_grad_() if requires_grad else made


@method()
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with probability `input` (or `p`), else 0, elementwise."""
    if not input.dtype.is_float:
        raise fail(RuntimeError, f"bernoulli() needs floating-point probabilities, got {input.dtype.name}")
    if p is not None:
        _check_chance(p)
    kind = input._cell.node.type
    draw = uniform_node(kind.shape, kind.dtype, generator)
    chance = (lambda n: n) if p is None else (lambda n: number(p, n.dtype, n.shape))
    return apply("BernoulliBackward0", lambda n: cast(ops.lt(draw, chance(n)), n.dtype), input)


@method()
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with the given weights, per row."""
    if MODE.trace is not None:
        raise fail(
            TracerError, "multinomial() inside a traced function is not supported: draw outside the trace"
        )
    if input.ndim not in (1, 2):
        raise fail(RuntimeError, f"prob_dist must be 1 or 2 dim, got {input.ndim}")
    if not input.dtype.is_float:
        raise fail(
            RuntimeError,
            f"multinomial only supports floating-point dtypes for input, got: {input.dtype.name}",
        )
    if num_samples <= 0:
        raise fail(RuntimeError, f"cannot sample n_sample <= 0 samples, got {num_samples}")
    weights = np.atleast_2d(value(input).astype(np.float64))
    if (weights < 0).any() or not np.isfinite(weights).all():
        raise fail(RuntimeError, "probability tensor contains either `inf`, `nan` or element < 0")
    if (weights.sum(-1) <= 0).any():
        raise fail(RuntimeError, "invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement and num_samples > (weights > 0).sum(-1).min():
        raise fail(RuntimeError, "cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    key, stream = next_key(generator)
    if replacement:
        draws = evaluate(ops.uniform(key, (weights.shape[0], num_samples), stream, float64))
        edges = np.cumsum(weights, -1)
        picks = np.stack(
            [np.searchsorted(e, d * e[-1], side="right") for e, d in zip(edges, draws, strict=True)]
        )
    else:  # the largest of u ** (1 / w), which is sampling without replacement
        draws = evaluate(ops.uniform(key, weights.shape, stream, float64))
        with np.errstate(divide="ignore"):
            scores = np.where(weights > 0, np.log1p(-draws) / weights, -np.inf)
        picks = np.argsort(-scores, -1, kind="stable")[:, :num_samples]
    picks = picks.astype(np.int64)
    return from_array(picks if input.ndim == 2 else picks[0])


# ------------------------------------------------------------------ in-place fills


def _fill(self: Tensor, build: Callable[[Shape, DType], Node]) -> Tensor:
    """Store a draw in `self`. Outside traces it takes place when somebody reads it."""
    kind = self._cell.node.type
    node = cast(build(kind.shape, kind.dtype), kind.dtype)
    return inplace(self, from_node(node if MODE.trace is not None else fresh_input(kind, Drawn(node))))


def _affine(node: Node, scale: float, shift: float) -> Node:
    kind = node.type
    return ops.add(
        ops.mul(node, number(scale, kind.dtype, kind.shape)), number(shift, kind.dtype, kind.shape)
    )


@method("uniform_", function=False)
def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Filled with numbers uniform in [a, b)."""
    if a > b:
        raise fail(
            RuntimeError, f"uniform_ expects to return a [from, to) range, but found from={a} > to={b}"
        )
    return _fill(self, lambda s, d: _affine(uniform_node(s, _float(d, "uniform_"), generator), b - a, a))


@method("normal_", function=False)
def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Filled with normal numbers."""
    _check_std(std)
    return _fill(self, lambda s, d: _affine(normal_node(s, _float(d, "normal_"), generator), std, mean))


@method("random_", function=False)
def random_(
    self: Tensor, low: int = 0, high: int | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Filled with integers: random_(high) or random_(low, high)."""
    if high is None:
        low, high = 0, low or (2**24 if self.dtype.is_float else 2**31)
    top = high
    return _fill(self, lambda s, d: integers_node(low, top, s, generator))


@method("bernoulli_", function=False)
def bernoulli_(self: Tensor, p: float | Tensor = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Filled with 1 with probability p, else 0."""
    if isinstance(p, Tensor):
        return inplace(self, bernoulli(p.expand(self.shape), generator=generator).to(self.dtype))
    _check_chance(p)
    chance = p
    return _fill(self, lambda s, d: ops.lt(uniform_node(s, float32, generator), number(chance, float32, s)))


@method("exponential_", function=False)
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Filled with exponentially distributed numbers."""

    def build(shape: Shape, dtype: DType) -> Node:
        draw = uniform_node(shape, _float(dtype, "exponential_"), generator)
        logs = ops.log(ops.sub(ops.full(shape, 1, dtype), draw))
        return ops.mul(logs, number(-1.0 / lambd, dtype, shape))

    return _fill(self, build)


@method("log_normal_", function=False)
def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """Filled with numbers whose logarithms are normal. RuntimeError unless std > 0."""
    if not std > 0:
        raise fail(RuntimeError, f"log_normal_ expects std > 0.0, but found std={std}")

    def build(shape: Shape, dtype: DType) -> Node:
        return ops.exp(_affine(normal_node(shape, _float(dtype, "log_normal_"), generator), std, mean))

    return _fill(self, build)


@method("cauchy_", function=False)
def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Filled with numbers of Cauchy's distribution. RuntimeError unless sigma > 0."""
    if not sigma > 0:
        raise fail(RuntimeError, f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")

    def build(shape: Shape, dtype: DType) -> Node:
        draw = uniform_node(shape, _float(dtype, "cauchy_"), generator)
        return _affine(ops.tan(_affine(draw, math.pi, -0.5 * math.pi)), sigma, median)

    return _fill(self, build)


@method("geometric_", function=False)
def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Filled with how many trials it takes until one succeeds, with probability p: 1, 2, ...

    RuntimeError unless 0 < p < 1.
    """
    if not 0 < p < 1:
        raise fail(RuntimeError, f"geometric_ expects p to be in (0, 1), but got p={p}")

    def build(shape: Shape, dtype: DType) -> Node:
        draw = ops.sub(ops.full(shape, 1, float64), uniform_node(shape, float64, generator))  # in (0, 1]
        trials = ops.ceil(_affine(ops.log(draw), 1 / math.log1p(-p), 0.0))
        return ops.maximum(trials, ops.full(shape, 1, float64))

    return _fill(self, build)
