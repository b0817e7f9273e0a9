"""The op registry, and the form that lowering rules take.

A primitive is registered once, where its rules stand. `Op.lower` depends on the kind:

ELEMENTWISE, VIEW, GENERATE, GATHER, CHECK, BARRIER ("injective": one output element needs a fixed few
input elements):

    lower(node, index, reads) -> Expr

where `index` is the tuple of loop-IR expressions of the output element, and
`reads[i](index, mask=None, other=None) -> Expr` gives input i at an index
(`other` where the bool expression `mask` is false, without touching memory).

REDUCE:

    lower(node) -> Reduction

CONTRACT, CONV, SCATTER, CUMULATIVE, SORT, SCAN have lowerings of their own in
`graphc/loop/lower`, chosen by kind and driven by their attrs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.node import Attrs, Kind, NoAttrs, Node, Op
from graphc.ir.types import TensorType
from graphc.loop.ir import Combine, Expr

Read = Callable[..., Expr]
REGISTRY: dict[str, Op] = {}
SAMPLES: dict[str, Callable[[], Iterable[Any]]] = {}  # op name -> its samples (graphc/ops/sample.py)

INJECTIVE = frozenset({Kind.ELEMENTWISE, Kind.VIEW, Kind.GENERATE, Kind.GATHER, Kind.CHECK, Kind.BARRIER})


@dataclass(frozen=True, eq=False)
class Reduction:
    """out[index] = combine over r in the box `extents` of element(index, r, reads).

    `axes` says, for a plain reduction over axes of its input, which input axes r runs over
    (in order), so that fusion can align loops; None for a windowed one (fold).
    """

    extents: tuple[int, ...]
    combine: Combine
    element: Callable[[tuple[Expr, ...], tuple[Expr, ...], Sequence[Read]], Expr]
    axes: tuple[int, ...] | None


def register(
    name: str,
    kind: Kind,
    *,
    infer: Callable[[Sequence[TensorType], Any], TensorType],
    evaluate: Callable[[Sequence[np.ndarray], Any], np.ndarray] | None = None,
    vjp: Callable[[Node, Node], Sequence[Node | None]] | None = None,
    lower: Callable[..., Any] | None = None,
    attrs: type[Attrs] = NoAttrs,
    cost: float = 1.0,
    samples: Callable[[], Iterable[Any]] | None = None,
    typed_vjp: bool = True,
) -> Op:
    """Make an Op and enter it in the registry. Names are unique.

    `samples` lists programs and mistakes that exercise the op; nothing but tests calls it.
    """
    if name in REGISTRY:
        raise ValueError(f"op {name!r} is registered twice")
    op = Op(name, kind, infer, evaluate, vjp, lower, attrs, cost, typed_vjp)
    REGISTRY[name] = op
    if samples is not None:
        SAMPLES[name] = samples
    return op


def fail(
    op: str, message: str, types: Sequence[TensorType] = (), error: type[Exception] = ValueError
) -> Exception:
    """A shape or dtype error, worded alike for every op: `raise fail("add", "...", types)`."""
    given = f" (given {', '.join(map(str, types))})" if types else ""
    return error(f"{op}: {message}{given}")
