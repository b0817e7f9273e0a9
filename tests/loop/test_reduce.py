"""Loops of reductions: each shape of nest is taken where it should be, and computes what NumPy does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.partition import Group, Partition
from graphc.ir.types import float64, int64
from graphc.loop.inplace import statements
from graphc.loop.ir import Alloc, Binary, For, Kernel, Let, Store, Unary
from graphc.loop.lower import cost
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel
from graphc.passes.fuse import partition
from graphc.program import Machine

from . import models as m
from .running import NARROW, WIDE, calls_of, check


def sums(axes: tuple[int, ...], *shape: int) -> Graph:
    x = m.leaf("x", *shape)
    return m.graph([x], [m.scale(ops.reduce_sum(x, axes), 2.0)])


def bags(rows: int, bags: int, size: int, width: int) -> Graph:
    """Sums of rows of a table at positions that are data: neighbours in memory are the row's elements."""
    table, at = m.leaf("table", rows, width), m.leaf("at", bags, size, dtype=int64)
    return m.graph([table, at], [ops.reduce_sum(ops.take(table, at, 0), (1,))])


def looked_up(*shape: int) -> Graph:
    """What a cross entropy along the last axis but one reads: the sum of a row, and one of its elements."""
    x, at = m.leaf("x", *shape), m.leaf("at", shape[0], 1, shape[2], dtype=int64)
    one = ops.reshape(ops.take_along(x, at, 1), (shape[0], shape[2]))
    return m.graph([x, at], [ops.sub(ops.reduce_sum(ops.exp(x), (1,)), one)])


def pool(size: int, stride: int, low: int, *shape: int) -> Graph:
    """Overlapping max pooling, forward and backward."""
    x = m.leaf("x", *shape)
    args = ((size, size), (stride, stride), (low, low), (low, low), (1, 1))
    y = ops.reduce_max(ops.window(x, *args, float("-inf")), (x.type.rank, x.type.rank + 1))
    ct = m.leaf("ct", *y.shape)
    return m.graph([x, ct], m.with_gradients(y, [x], ct))


def softmax_1(x: Node) -> Node:
    """Over the last axis but one."""
    swapped = (*range(x.type.rank - 2), x.type.rank - 1, x.type.rank - 2)
    return ops.transpose(m.softmax(ops.transpose(x, swapped)), swapped)


NESTS = {
    "rows": (lambda: sums((1,), 40, 200), ["rows"]),
    "rows of short runs": (lambda: sums((0, 2), 50, 7, 9), ["rows"]),
    "all": (lambda: sums((0, 1), 170, 170), ["rows_parts", "combine"]),
    "few rows": (lambda: sums((0, 2, 3), 9, 2, 30, 30), ["rows_parts", "combine"]),
    "narrow columns": (lambda: sums((0,), 300, 20), ["columns"]),
    "wide columns": (lambda: sums((0,), 200, 200), ["stream", "combine"]),
    "wide columns, one task": (lambda: sums((0,), 40, 150), ["stream"]),
    "middle axis": (lambda: sums((1,), 6, 5, 40), ["columns"]),
    "transposed rows": (
        lambda: m.graph([x := m.leaf("x", 30, 50)], [ops.reduce_max(ops.transpose(x, (1, 0)), (1,))]),
        ["columns"],
    ),
    "dear values of columns": (lambda: m.graph([x := m.leaf("x", 3, 40, 96)], [softmax_1(x)]), ["columns"]),
    "dear values of many columns": (
        lambda: m.graph([x := m.leaf("x", 20, 3328)], [softmax_1(x)]),
        ["columns"],
    ),
    "dear values of odd columns": (
        lambda: m.graph([x := m.leaf("x", 3, 40, 37)], [softmax_1(x)]),
        ["columns"],
    ),
    "columns of which one element is looked up": (lambda: looked_up(2, 30, 48), ["columns"]),
    "short rows": (lambda: m.softmax_backward(100, 10), ["columns"]),
    "short rows, too few of them": (lambda: m.softmax_backward(6, 10), ["rows"]),
    "rows of two vectors": (lambda: m.softmax_backward(100, 30), ["rows"]),
    "rows looked up": (lambda: bags(17, 6, 20, 40), ["columns"]),
    "nothing to reduce": (lambda: sums((1,), 5, 0), ["columns"]),
    "windows": (lambda: pool(3, 2, 1, 2, 3, 10, 12), ["columns", "columns"]),
    "windows that do not divide": (lambda: pool(3, 2, 1, 2, 2, 7, 9), ["columns", "columns"]),
    "sparse windows": (lambda: pool(2, 3, 0, 2, 2, 9, 11), ["columns", "columns"]),
}


@pytest.mark.parametrize("name", NESTS)
def test_nest(name: str) -> None:
    build, kernels = NESTS[name]
    graph = build()
    parts = partition(graph, WIDE)
    calls = calls_of(parts)
    assert [c.kernel.name for c in calls] == kernels
    for call in calls:
        verify_kernel(call.kernel)
    check(graph, parts)
    check(graph, partition(graph, NARROW), NARROW)


@pytest.mark.parametrize("dtype", [float64, int64], ids=lambda t: t.name)
def test_other_dtypes(dtype) -> None:
    x = m.leaf("x", 130, 150, dtype=dtype)
    graph = m.graph([x], [ops.reduce_sum(x, (0,)), ops.reduce_max(x, (1,)), ops.reduce_min(x, (0, 1))])
    check(graph, partition(graph, WIDE))


def kernel_of(graph: Graph) -> Kernel:
    (call,) = calls_of(partition(graph, WIDE))
    return call.kernel


def test_softmax_computes_each_exponential_once() -> None:
    x = m.leaf("x", 6, 40)
    kernel = kernel_of(m.graph([x], [m.softmax(x)]))
    exps = [
        s
        for s, _ in statements(kernel.body)
        if isinstance(s, Let) and isinstance(s.value, Unary) and s.value.op == "exp"
    ]
    assert len(exps) == 1
    assert [
        s.buffer.shape for s, _ in statements(kernel.body) if isinstance(s, Alloc) and s.buffer.shape
    ] == [(40,)]


def test_values_of_a_row_are_computed_outside_its_loops() -> None:
    """Nothing that depends on the channel alone is inside the loop over its pixels."""
    kernel = kernel_of(m.batchnorm(3, 5, 8, 8, False))
    for stmt, loops in statements(kernel.body):
        if isinstance(stmt, Let) and isinstance(stmt.value, Unary) and stmt.value.op == "rsqrt":
            assert all(loop.mode != "vector" for loop in loops)


@pytest.mark.parametrize(
    "build",
    [
        lambda: m.graph([x := m.leaf("x", 2, 32, 1004)], [m.scale(ops.reduce_sum(x, (1,)), 2.0)]),
        lambda: m.graph([x := m.leaf("x", 2, 31004)], [ops.reduce_max(x, (1,)), ops.exp(x)]),
        lambda: m.graph(
            [x := m.leaf("x", 2, 31004), r := m.leaf("r", 2)],
            [ops.mul(x, ops.broadcast(r, (2, 31004), (0,)))],
        ),
    ],
    ids=["columns", "parts of rows", "points"],
)
def test_short_last_blocks_leave_no_divisions_in_loops(build: Callable[[], Graph]) -> None:
    graph = build()
    parts = partition(graph, WIDE)
    for call in calls_of(parts):
        assert call.kernel.tasks == 1 or "min(" in print_kernel(call.kernel)  # the case in question
        assert not re.search(r"(div|rem)\([^t]*i\d", print_kernel(call.kernel))
    check(graph, parts)


def test_overlapping_windows_have_no_divisions_left() -> None:
    kernel = calls_of(partition(pool(3, 2, 1, 2, 3, 8, 16), WIDE))[-1].kernel
    assert not re.search(r"div\(|rem\(", print_kernel(kernel))
    outputs = [s for s, _ in statements(kernel.body) if isinstance(s, Store) and s.buffer in kernel.params]
    assert len(outputs) == 4  # one for each phase of the two strides


def test_special_ops_with_several_tasks() -> None:
    x, base, u = m.leaf("x", 120, 90), m.leaf("base", 200, 32), m.leaf("u", 300, 32)
    at = ops.rem(ops.abs(m.leaf("at", 300, dtype=int64)), ops.full((300,), 200, int64))
    graph = m.graph(
        [x, base, u, m.leaf("at", 300, dtype=int64)],
        [ops.cumsum(x, 0), ops.cumsum(x, 1, True), ops.scatter_add(base, at, u, 0)],
    )
    parts = partition(graph, WIDE)
    assert all(c.kernel.tasks > 1 for c in calls_of(parts) if c.kernel.name in ("cumsum", "scatter_add"))
    check(graph, parts)


def test_reductions_that_share_no_rows_are_lowered_apart() -> None:
    """A group that fusion would not form."""
    x = m.leaf("x", 6, 7)
    e = ops.exp(x)
    y = ops.div(e, m.spread(ops.reduce_sum(e, (0,)), e, (1,)))
    z = ops.mul(y, m.spread(ops.reduce_max(y, (1,)), y, (0,)))
    graph = m.graph([x], [z])
    members = tuple(n for n in graph.nodes if n is not x)
    parts = Partition(graph, (Group(members, (x,), (z,)),))
    assert len(calls_of(parts)) == 3
    check(graph, parts)


def test_outputs_of_rows_may_stand_in_another_order() -> None:
    x = m.leaf("x", 2, 5, 12, 3)
    total = ops.reduce_sum(x, (3,))
    y = ops.exp(ops.transpose(total, (0, 2, 1)))
    graph = m.graph([x], [total, y])
    parts = partition(graph, WIDE)
    assert len(parts.groups) == 1
    check(graph, parts)
    check(graph, partition(graph, NARROW), NARROW)


@pytest.mark.parametrize("shape", [(4, 3, 10, 11), (2, 9, 9, 8), (5, 7, 3, 6)])
def test_rows_cut_unevenly(shape: tuple[int, ...]) -> None:
    """The row of an element is recognised whatever the blocks of the tasks are."""
    x = m.leaf("x", *shape)
    wide = m.leaf("w", *shape, 40)
    y = m.softmax(ops.mul(wide, ops.broadcast(x, wide.shape, (0, 1, 2, 3))))
    graph = m.graph([x, wide], [y, ops.reduce_max(y, (4,))])
    parts = partition(graph, WIDE)
    (call,) = calls_of(parts)
    assert call.kernel.name == "rows"


def divisions(graph: Graph, machine: Machine = WIDE) -> list[bool]:
    """For each division of the kernels: whether it stands in a loop inside that over the rows."""
    found: list[bool] = []

    def look(stmts: tuple, depth: int) -> None:
        for s in stmts:
            if isinstance(s, For):
                look(s.body, depth + 1)
            elif isinstance(s, Let) and isinstance(s.value, Binary) and s.value.op == "div":
                found.extend([depth > 1] if s.value.dtype.is_float else [])

    for call in calls_of(partition(graph, machine), machine):
        look(call.kernel.body, 0)
    return found


@pytest.mark.parametrize("shape", [(2, 3, 25, 50), (5, 4, 14, 14), (3, 4, 5, 40, 2)])
def test_rows_over_several_axes_cut_anywhere(shape: tuple[int, ...]) -> None:
    """Vectors run across rows, and blocks of them end amid an axis: a row written in two ways is one."""
    x, ct = m.leaf("x", *shape), m.leaf("ct", *shape)
    last = (0, *range(2, len(shape)), 1)
    first = (0, len(shape) - 1, *range(1, len(shape) - 1))
    y = ops.transpose(m.softmax(ops.transpose(x, last)), first)
    graph = m.graph([x, ct], m.with_gradients(y, [x], ct))
    for machine in (WIDE, NARROW):
        check(graph, partition(graph, machine), machine)


@pytest.mark.parametrize("axis", [1, 0])
def test_softmax_divides_once_a_row(axis: int) -> None:
    """Its sum is at least one, so its inverse is exact enough; that of any other sum need not be."""

    def rows(total: Callable[[Node], Node], power: Callable[[Node], Node]) -> Graph:
        x = m.leaf("x", 40, 60)
        top = ops.reduce_max(x, (axis,))
        e = power(ops.sub(x, m.spread(top, x, (1 - axis,))))
        return m.graph([x], [ops.div(e, m.spread(total(ops.reduce_sum(e, (axis,))), x, (1 - axis,)))])

    graph = rows(lambda t: t, ops.exp)
    assert divisions(graph) == [False]
    check(graph, partition(graph, WIDE))
    for other in (rows(lambda t: ops.add(t, ops.like(t, 1e-30)), ops.exp), rows(lambda t: t, ops.abs)):
        assert divisions(other) == [True]


@pytest.mark.parametrize("shape", [(3, 40, 96), (20, 3328), (3, 40, 37)])
def test_columns_keep_exponentials(shape: tuple[int, ...]) -> None:
    """Computed once for an element, kept for a vector loop of columns that fits in the cache."""
    x = m.leaf("x", *shape)
    (call,) = calls_of(partition(m.graph([x], [softmax_1(x)]), WIDE))
    text = print_kernel(call.kernel)
    assert text.count("exp(") == 1
    ((elements, columns),) = re.findall(r"alloc \w+: f32\[(\d+), (\d+)\] scratch", text)
    assert int(elements) == shape[-2]
    assert 4 * int(elements) * int(columns) <= WIDE.l2_bytes // 4


@pytest.mark.parametrize("shape", [(20, 150), (2, 20, 192), (5, 20, 150)])
def test_columns_keep_exponentials_in_pieces(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a task has too many columns for the cache, even or not."""
    monkeypatch.setattr(cost, "GRAIN", 1e9)  # one task
    x = m.leaf("x", *shape)
    graph, machine = m.graph([x], [softmax_1(x)]), replace(WIDE, l2_bytes=24 << 10)
    parts = partition(graph, machine)
    (call,) = calls_of(parts, machine)
    text = print_kernel(call.kernel)
    assert text.count("exp(") == 1
    assert f"alloc s0: f32[{shape[-2]}, 64] scratch" in text
    check(graph, parts, machine)
