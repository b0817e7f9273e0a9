"""What a sample of an op is: data that stands next to the op and that tests iterate.

    Sample(lambda x, y: add(x, y), [(2, 3), (2, 3)])

is a one-op program of two inputs of the tested dtype. An ErrorSample is a mistake and what the
message must say. `graphc/ops/samples.py` turns samples into graphs and arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphc.ir.node import Node
from graphc.ir.types import DType, Shape, TensorType, float32, float64

FLOATS = (float32, float64)


class Arg(NamedTuple):
    """An input of a sample: its shape, its dtype (None: the tested one), and the values it takes.

    Floats are uniform in [low, high), integers in range(low, high). `specials` replace the first
    elements (infinities, NaN, ties): such samples are for evaluation only. `distinct` floats differ
    from one another by much more than a numeric gradient's step (for max, min, floor).
    """

    shape: Shape
    dtype: DType | None = None
    low: float = -2.0
    high: float = 2.0
    specials: tuple[float, ...] = ()
    distinct: bool = False


@dataclass(frozen=True)
class Sample:
    """`function` of input nodes, with inputs `args` (a bare shape: an Arg with any values).

    gradient    compare the VJP with numeric gradients, first and second order, in float64
    expect      an independent NumPy expectation: expect(*arrays) -> array
    ulps        how far another backend may be from the reference, relative to the largest value
    """

    function: Callable[..., Node]
    args: Sequence[Arg | Shape] = ()
    dtypes: tuple[DType, ...] = FLOATS
    gradient: bool = True
    expect: Callable[..., Any] | None = None
    ulps: float = 64.0
    label: str = ""


@dataclass(frozen=True)
class ErrorSample:
    """`build()` must raise `error` with `fragment` in its message."""

    build: Callable[[], Node]
    error: type[Exception]
    fragment: str


class Typed(NamedTuple):
    """Shorthand for error samples: a shape and dtype to make an input of."""

    shape: Shape
    dtype: DType = float32


def mistake(
    make_input: Callable[[str, TensorType], Node],
    function: Callable[..., Node],
    *args: Typed | Shape,
    says: str,
    error: type[Exception] = ValueError,
) -> ErrorSample:
    """`function` of fresh inputs of the given shapes must raise `error` saying `says`."""

    def build() -> Node:
        typed = [a if isinstance(a, Typed) else Typed(tuple(a)) for a in args]
        return function(
            *[make_input(f"x{i}", TensorType(tuple(t.shape), t.dtype)) for i, t in enumerate(typed)]
        )

    return ErrorSample(build, error, says)
