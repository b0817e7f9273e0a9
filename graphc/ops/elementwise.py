"""What all elementwise ops share: type rules, lowering, builders, registration, samples.

Operands have exactly equal shapes and dtypes; broadcasts and casts are nodes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc.ir.node import NO_ATTRS, Kind, Node, make
from graphc.ir.types import DType, TensorType, bool_, float32, int32, int64, uint8, uint32
from graphc.loop.ir import binary, unary
from graphc.ops.constant import wrong
from graphc.ops.op import fail, register
from graphc.ops.sample import FLOATS, Arg, ErrorSample, Sample, Typed

FLOATING = frozenset(FLOATS)
INTEGERS = frozenset((int64, int32, uint8, uint32))
NUMBERS = FLOATING | INTEGERS
BITS = INTEGERS | {bool_}
ANY = NUMBERS | {bool_}

INF = float("inf")
NAN = float("nan")
SPECIALS = (0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-30, 1e30, INF, -INF, NAN)

Vjp = Callable[[Node, Node], Sequence[Node | None]]
Binary = Callable[[Node, Node], Node]
Unary = Callable[[Node], Node]


def infer_equal(
    name: str, dtypes: frozenset[DType], arity: int, result: DType | None = None
) -> Callable[..., TensorType]:
    """The type rule of an op on `arity` operands of one type, whose dtype is in `dtypes`."""

    def infer(types: Sequence[TensorType], attrs: Any) -> TensorType:
        first = types[0]
        if len(types) != arity:
            raise fail(name, f"takes {arity} operands", types, TypeError)
        for other in types[1:]:
            if other is not first and other != first:
                raise _unequal(name, first, other, types)
        if first.dtype not in dtypes:
            wanted = ", ".join(sorted(t.name for t in dtypes))
            raise fail(name, f"needs one of {wanted}; cast first", types, TypeError)
        return first if result is None else TensorType(first.shape, result)

    return infer


def _unequal(name: str, a: TensorType, b: TensorType, types: Sequence[TensorType]) -> Exception:
    if a.shape != b.shape:
        return fail(name, "operands must have equal shapes; broadcast first", types)
    return fail(name, "operands must have equal dtypes; cast first", types, TypeError)


def of_dtypes(
    function: Callable[..., Node],
    dtypes: frozenset[DType],
    floats: Sequence[Any],
    whole: Sequence[Any],
    **options: Any,
) -> Iterable[Sample]:
    """Samples with `floats` as inputs for the float dtypes and `whole` for the others."""
    yes = tuple(t for t in FLOATS if t in dtypes)
    no = tuple(sorted(dtypes - FLOATING, key=lambda t: t.name))
    if yes:
        yield Sample(function, floats, yes, **options)
    if no:
        yield Sample(function, whole, no, gradient=False)


def refusals(
    function: Callable[..., Node], name: str, dtypes: frozenset[DType], arity: int
) -> Iterable[ErrorSample]:
    """The mistakes that every elementwise op must refuse."""
    good = float32 if float32 in dtypes else bool_ if bool_ in dtypes else int64
    if arity == 2:
        shapes = Typed((2, 3), good), Typed((3,), good)
        yield wrong(function, *shapes, says=f"{name}: operands must have equal shapes; broadcast first")
        mixed = Typed((2,), good), Typed((2,), int32)
        yield wrong(function, *mixed, says=f"{name}: operands must have equal dtypes", error=TypeError)
    bad = next((t for t in (bool_, int64, float32) if t not in dtypes), None)
    if bad is not None:
        yield wrong(function, *[Typed((2,), bad)] * arity, says=f"{name}: needs one of", error=TypeError)


def unary_op(
    name: str,
    doc: str,
    *,
    evaluate: Callable[[np.ndarray], Any],
    vjp: Vjp | None = None,
    loop: str | None = None,
    dtypes: frozenset[DType] = FLOATING,
    result: DType | None = None,
    domain: Arg | None = None,
    edges: Sequence[float] = SPECIALS,
    cost: float = 1.0,
    ulps: float = 64.0,
) -> Unary:
    """Register a scalar function of one tensor and return its builder.

    `loop` is its name in the loop IR, if another; `domain` gives the values where it is smooth,
    `edges` the special values it is evaluated at.
    """
    domain = domain or Arg((3, 5))
    loop_op = loop or name

    def samples() -> Iterable[Sample | ErrorSample]:
        yield from of_dtypes(build, dtypes, [domain], [Arg((5, 7), low=-9, high=10)], ulps=ulps)
        if dtypes & FLOATING and edges:
            yield Sample(
                build, [Arg((len(edges),), specials=tuple(edges))], FLOATS, False, ulps=ulps, label="edges"
            )
        yield from refusals(build, name, dtypes, 1)

    op = register(
        name,
        Kind.ELEMENTWISE,
        infer=infer_equal(name, dtypes, 1, result),
        evaluate=lambda arrays, attrs: evaluate(arrays[0]),
        vjp=vjp,
        lower=lambda node, index, reads: unary(loop_op, reads[0](index)),
        cost=cost,
        samples=samples,
    )

    def build(x: Node) -> Node:
        return make(op, (x,), NO_ATTRS)

    build.__name__, build.__doc__ = name, doc
    return build


def binary_op(
    name: str,
    doc: str,
    *,
    evaluate: Callable[[np.ndarray, np.ndarray], Any],
    vjp: Vjp | None = None,
    loop: str | None = None,
    dtypes: frozenset[DType] = NUMBERS,
    result: DType | None = None,
    domain: Sequence[Any] = ((2, 3), (2, 3)),
    whole: Sequence[Any] = (Arg((5, 7), low=-9, high=10), Arg((5, 7), low=-9, high=10)),
    edges: Sequence[float] = SPECIALS,
    cost: float = 1.0,
    typed_vjp: bool = True,
) -> Binary:
    """Register a scalar function of two tensors and return its builder.

    `domain` and `whole` are the float and integer inputs of its samples; `edges` are evaluated in
    all pairs.
    """
    loop_op = loop or name

    def samples() -> Iterable[Sample | ErrorSample]:
        yield from of_dtypes(build, dtypes, domain, whole)
        if dtypes & FLOATING and edges:
            left = tuple(a for a in edges for _ in edges)
            pairs = [Arg((len(left),), specials=v) for v in (left, tuple(edges) * len(edges))]
            yield Sample(build, pairs, FLOATS, False, label="edges")
        yield from refusals(build, name, dtypes, 2)

    op = register(
        name,
        Kind.ELEMENTWISE,
        infer=infer_equal(name, dtypes, 2, result),
        evaluate=lambda arrays, attrs: evaluate(arrays[0], arrays[1]),
        vjp=vjp,
        lower=lambda node, index, reads: binary(loop_op, reads[0](index), reads[1](index)),
        cost=cost,
        samples=samples,
        typed_vjp=typed_vjp,
    )

    def build(a: Node, b: Node) -> Node:
        return make(op, (a, b), NO_ATTRS)

    build.__name__, build.__doc__ = name, doc
    return build
