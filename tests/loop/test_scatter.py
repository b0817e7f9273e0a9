"""Rows that are scattered: found block by block, added in order, asked for before they are needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.types import DType, float32, float64, int64
from graphc.loop.inplace import statements
from graphc.loop.ir import Accumulate, For, If, Prefetch
from graphc.loop.lower.scatter import AHEAD, BLOCK, LINES
from graphc.passes.fuse import partition
from graphc.threads import get_num_threads, set_num_threads

from . import models as m
from .running import NARROW, WIDE, calls_of, check


def added(count: int, extent: int, width: int, dtype: DType = float32) -> Graph:
    """`count` rows that are added to `extent` rows, at places that are data."""
    base, rows = m.leaf("base", extent, width, dtype=dtype), m.leaf("rows", count, width, dtype=dtype)
    at = m.leaf("at", count, dtype=int64)
    places = ops.rem(ops.abs(at), ops.full((count,), extent, int64))
    return m.graph([base, at, rows], [ops.scatter_add(base, places, rows, 0)])


@pytest.mark.parametrize("machine", [WIDE, NARROW])
@pytest.mark.parametrize("count", [AHEAD - 1, 300, BLOCK, 2 * BLOCK + 77])
def test_rows_are_added_where_they_belong(count: int, machine: graphc.program.Machine) -> None:
    graph = added(count, 2000, 24)
    parts = partition(graph, machine)
    assert calls_of(parts)[-1].kernel.tasks > 1
    check(graph, parts, machine)


def test_the_lines_of_a_row_are_asked_for() -> None:
    """All lines of a short row, the first of a long one; nothing where the rows are computed."""

    def asked(graph: Graph) -> int:
        kernel = calls_of(partition(graph, WIDE))[-1].kernel
        assert kernel.name == "scatter_add"
        return sum(isinstance(s, Prefetch) for s, _ in statements(kernel.body))

    assert asked(added(3000, 2000, 64)) == 4
    assert asked(added(3000, 2000, 32, float64)) == 4
    assert asked(added(3000, 2000, 1024)) == LINES


def test_rows_of_a_range_are_found_without_branches() -> None:
    kernel = calls_of(partition(added(3000, 2000, 64), WIDE))[-1].kernel
    found = list(statements(kernel.body))
    assert not any(isinstance(s, If) for s, _ in found)
    adding = [around for s, around in found if isinstance(s, Accumulate) and s.buffer in kernel.params]
    assert [loop.mode for loop in adding[0]] == ["serial", "serial", "vector"]
    assert isinstance(adding[0][0], For)


def test_one_task_takes_the_rows_as_they_come() -> None:
    graph = added(20, 10, 8)
    parts = partition(graph, WIDE)
    (kernel,) = [c.kernel for c in calls_of(parts) if c.kernel.name == "scatter_add"]
    assert kernel.tasks == 1
    assert not any(isinstance(s, Prefetch) for s, _ in statements(kernel.body))
    check(graph, parts)


@pytest.fixture
def threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_an_embedding_gradient_does_not_depend_on_threads() -> None:
    """Few places, many rows for each: rounding would show another order of additions."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5000, 48)).astype(np.float32)
    at = rng.integers(0, 700, 5000)
    results = []
    for number in (1, 2, 3):
        set_num_threads(number)
        table = graphc.zeros(700, 48, requires_grad=True)
        graphc.nn.functional.embedding(graphc.from_numpy(at), table).backward(graphc.from_numpy(rows))
        assert table.grad is not None
        results.append(table.grad.numpy())
    expected = np.zeros((700, 48), np.float32)
    for place, row in zip(at, rows, strict=True):
        expected[place] += row
    for result in results:
        assert np.array_equal(result, expected)
