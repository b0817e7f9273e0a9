"""Programs and mistakes that exercise scan; `loop.py` knows none of the ops a body is made of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphc.ir.node import Node, make
from graphc.ir.types import TensorType, int64
from graphc.ops.arithmetic import add, mul
from graphc.ops.constant import input_, wrong
from graphc.ops.contract import dot_general
from graphc.ops.math import tanh
from graphc.ops.sample import FLOATS, ErrorSample, Sample, Typed
from graphc.ops.scan.build import scan
from graphc.ops.scan.loop import SCAN, Loop, ScanAttrs
from graphc.ops.view import reshape


def _parameter(name: str, stack: Node) -> Node:
    return input_(name, TensorType(stack.type.shape[1:], stack.type.dtype))


def _sums(stack: Node, init: Node, reverse: bool = False) -> Node:
    """Running sums over the leading dim."""
    carry, x = input_("sum", init.type), _parameter("term", stack)
    after = add(carry, x)
    return scan([carry], [x], [after], [after], [init], [stack], reverse=reverse).stacked[0]


def _recurrent(stack: Node, init: Node, weight: Node) -> Node:
    """The last state of h = tanh(x + h @ weight)."""
    h, x = input_("h", init.type), _parameter("x", stack)
    after = tanh(add(x, dot_general(h, weight, ((1,), (0,)))))
    return scan([h], [x], [after], [], [init], [stack]).finals[0]


def _powers(x: Node) -> Node:
    """x ** 0, x ** 1, ...: a loop without xs that emits what it had before each step."""
    carry = input_("power", x.type)
    one = tanh(reshape(x, x.type.shape))
    return scan([carry], [], [mul(carry, x)], [carry], [one], [], length=4).stacked[0]


def _expected_recurrent(xs: np.ndarray, h: np.ndarray, weight: np.ndarray) -> np.ndarray:
    for x in xs:
        h = np.tanh(x + h @ weight)
    return h


def scan_samples() -> Iterable[Sample | ErrorSample]:
    """Samples of the op."""
    yield Sample(_sums, [(5, 3), (3,)], (*FLOATS, int64), expect=lambda xs, first: first + np.cumsum(xs, 0))
    yield Sample(
        lambda xs, first: _sums(xs, first, reverse=True),
        [(5, 3), (3,)],
        expect=lambda xs, first: (first + np.cumsum(xs[::-1], 0))[::-1],
    )
    yield Sample(_sums, [(1, 2, 3), (2, 3)], expect=lambda xs, first: first + xs)
    yield Sample(_recurrent, [(4, 2, 3), (2, 3), (3, 3)], expect=_expected_recurrent)
    yield Sample(
        _powers, [(2, 3)], expect=lambda x: np.stack([np.tanh(x) * x**n for n in range(4)]).astype(x.dtype)
    )
    yield wrong(_sums, (0, 3), (3,), says="scan: needs at least one step, not 0")
    yield wrong(
        lambda xs, n: scan([n], [], [_parameter("x", xs)], [], [n], [], length=2).finals[0],
        (4, 2),
        Typed((2,), int64),
        says="scan: carry 0 is i64[2] at first, i64[2] before a step and f32[2] after it",
    )
    yield wrong(_short, (4, 2), says="scan: the loop takes f32[2], f32[3, 2] (given f32[2], f32[4, 2])")


def _short(stack: Node) -> Node:
    """A loop of three steps on a stack of four."""
    carry = _parameter("carry0", stack)
    loop = Loop(3, False, (carry,), (_parameter("x0", stack),), (), (carry,))
    init = input_("init", carry.type)
    return make(SCAN, (init, stack), ScanAttrs(loop, None, 0))
