"""Values of samples against PyTorch, where it is installed: an oracle for the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, float32, float64, int32, int64
from graphc.ops.samples import Case, all_samples
from tests.ops.numeric import evaluate

torch = pytest.importorskip("torch")
SAME_NAME = (
    "neg abs sign floor ceil round trunc sqrt rsqrt exp expm1 log log1p log2 sin cos tan asin acos atan sinh "
    "cosh asinh acosh atanh tanh erf sigmoid isnan isinf isfinite logical_not add sub mul pow "
    "maximum minimum atan2 eq ne lt le gt ge"
).split()
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in SAME_NAME},
    "div": torch.div,
    "rem": torch.remainder,
    "bit_and": torch.bitwise_and,
    "bit_or": torch.bitwise_or,
    "bit_xor": torch.bitwise_xor,
    "shl": torch.bitwise_left_shift,
    "shr": torch.bitwise_right_shift,
    "select": torch.where,
}
INTEGER = {"div": lambda a, b: torch.div(a, b, rounding_mode="floor")}
KNOWN = {t.name for t in (float32, float64, int64, int32)} | {"bool"}
CASES = [(c, t) for c in all_samples() if c.op in FUNCTIONS for t in c.dtypes if t.name in KNOWN]


@pytest.mark.parametrize("case,dtype", CASES, ids=lambda v: v.id if isinstance(v, Case) else v.name)
def test_elementwise(case: Case, dtype: DType) -> None:
    graph = case.build(dtype)
    arrays = case.inputs(np.random.default_rng(1), dtype)
    if dtype.is_integer and case.op in ("div", "rem"):
        arrays[1][arrays[1] == 0] = 3  # PyTorch raises; see test_integer_division_by_zero
    function = FUNCTIONS[case.op]
    if dtype.is_integer:
        function = INTEGER.get(case.op, function)
    expected = function(*[torch.from_numpy(a) for a in arrays]).numpy()
    (got,) = evaluate(graph, arrays)
    tolerance = 2e-6 if dtype is float32 else 1e-13
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance / 10)


def test_integer_division_by_zero() -> None:
    """0, as NumPy: a native kernel must not trap."""
    a, b = (ops.input_(n, TensorType((3,), int32)) for n in "ab")
    arrays = [np.array([5, -5, 0], np.int32), np.zeros(3, np.int32)]
    for node in (ops.div(a, b), ops.rem(a, b)):
        np.testing.assert_array_equal(evaluate(Graph((a, b), (node,)), arrays)[0], 0)


# ----------------------------------------------------------------- convolution


def leaf(name: str, shape: tuple[int, ...]) -> Node:
    return ops.input_(name, TensorType(shape, float64))


CONVS = [
    ((2, 3, 9, 8), (4, 3, 3, 3), {"stride": (2, 1), "padding": (1, 2)}),
    ((2, 4, 9, 8), (6, 2, 3, 2), {"dilation": (2, 1), "groups": 2, "padding": (2, 0)}),
    ((1, 6, 7, 7), (6, 1, 3, 3), {"groups": 6, "padding": (1, 1)}),
    ((2, 3, 11), (5, 3, 4), {"stride": (3,), "padding": (2,)}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"stride": (2, 1, 2), "padding": (0, 1, 1)}),
]


@pytest.mark.parametrize("x_shape,w_shape,options", CONVS)
def test_convolution_and_its_gradients(x_shape: tuple, w_shape: tuple, options: dict) -> None:
    rank = len(w_shape) - 2
    padding = options.get("padding", (0,) * rank)
    ours = {k: v for k, v in options.items() if k != "padding"} | {"low": padding, "high": padding}
    x, w = leaf("x", x_shape), leaf("w", w_shape)
    y = ops.conv(x, w, **ours)
    dy = leaf("dy", y.shape)
    dx = ops.conv_input_grad(dy, w, x_shape[2:], **ours)
    dw = ops.conv_weight_grad(x, dy, w_shape[2:], **ours)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in (x_shape, w_shape, y.shape)]
    got = evaluate(Graph((x, w, dy), (y, dx, dw)), arrays)
    tx, tw = (torch.tensor(a, requires_grad=True) for a in arrays[:2])
    ty = getattr(torch.nn.functional, f"conv{rank}d")(tx, tw, **options)
    ty.backward(torch.tensor(arrays[2]))
    for result, expected in zip(got, (ty.detach(), tx.grad, tw.grad), strict=True):
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-10, atol=1e-10)


def test_input_gradient_is_transposed_convolution() -> None:
    y, w = leaf("y", (2, 4, 5, 6)), leaf("w", (4, 3, 3, 3))
    node = ops.conv_input_grad(y, w, (10, 13), stride=(2, 2), low=(1, 0), high=(1, 0))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n.shape) for n in (y, w)]
    expected = torch.nn.functional.conv_transpose2d(
        *map(torch.tensor, arrays), stride=2, padding=(1, 0), output_padding=(1, 0)
    )
    np.testing.assert_allclose(evaluate(Graph((y, w), (node,)), arrays)[0], expected.numpy(), atol=1e-12)


# --------------------------------------------------------------------- windows


def test_window_and_fold_are_unfold_and_fold() -> None:
    x = leaf("x", (2, 3, 8, 9))
    geometry = ((3, 2), (2, 1), (1, 1), (1, 1), (1, 2))
    windows = ops.window(x, *geometry)
    array = np.random.default_rng(0).standard_normal(x.shape)
    back = ops.fold(windows, (8, 9), *geometry)
    got, folded = evaluate(Graph((x,), (windows, back)), [array])
    options = {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "dilation": (1, 2)}
    columns = torch.nn.functional.unfold(torch.tensor(array), **options)
    expected = columns.numpy().reshape(2, 3, 3, 2, *windows.shape[2:4]).transpose(0, 1, 4, 5, 2, 3)
    np.testing.assert_array_equal(got, expected)
    refolded = torch.nn.functional.fold(columns, (8, 9), **options)
    np.testing.assert_allclose(folded, refolded.numpy(), atol=1e-12)


def test_maximum_of_windows_is_max_pool() -> None:
    x = leaf("x", (2, 3, 8, 9))
    windows = ops.window(x, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), float("-inf"))
    array = np.random.default_rng(0).standard_normal(x.shape)
    (got,) = evaluate(Graph((x,), (ops.reduce_max(windows, (4, 5)),)), [array])
    expected = torch.nn.functional.max_pool2d(torch.tensor(array), 3, 2, 1)
    np.testing.assert_array_equal(got, expected.numpy())


# ------------------------------------------------------------- gather and scatter


def test_take_along_and_its_transpose() -> None:
    rng = np.random.default_rng(0)
    x, u = leaf("x", (4, 5, 3)), leaf("u", (2, 6, 3))
    i = ops.input_("i", TensorType((2, 6, 3), int64))
    arrays = [rng.standard_normal(x.shape), rng.standard_normal(u.shape), rng.integers(0, 5, i.shape)]
    nodes = ops.take_along(x, i, 1), ops.scatter_add_along(x, i, u, 1)
    got = evaluate(Graph((x, u, i), nodes), arrays)
    tx, tu, ti = map(torch.tensor, arrays)
    np.testing.assert_array_equal(got[0], tx.gather(1, ti).numpy())
    np.testing.assert_allclose(got[1], tx.scatter_add(1, ti, tu).numpy())


def test_scatter_add_is_index_add() -> None:
    rng = np.random.default_rng(0)
    x, u = leaf("x", (4, 5, 3)), leaf("u", (4, 7, 3))
    i = ops.input_("i", TensorType((7,), int64))
    arrays = [rng.standard_normal(x.shape), rng.standard_normal(u.shape), rng.integers(0, 5, i.shape)]
    (got,) = evaluate(Graph((x, u, i), (ops.scatter_add(x, i, u, 1),)), arrays)
    tx, tu, ti = map(torch.tensor, arrays)
    np.testing.assert_allclose(got, tx.index_add(1, ti, tu).numpy())
