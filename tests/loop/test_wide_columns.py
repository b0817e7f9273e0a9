"""Sums over an axis that others follow: added up in the order of memory where that is far away."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.ir.graph import Graph
from graphc.loop.inplace import statements
from graphc.loop.ir import Accumulate
from graphc.passes.fuse import partition
from graphc.threads import get_num_threads, set_num_threads

from . import models as m
from .running import NARROW, WIDE, calls_of, check


def column_sums(*shape: int) -> Graph:
    x = m.leaf("x", *shape)
    return m.graph([x], [m.scale(ops.reduce_sum(m.scale(x, 3.0), (len(shape) - 2,)), 2.0)])


@pytest.mark.parametrize("shape", [(70, 40, 256), (3, 150, 700), (2, 5, 48, 600)])
def test_matrices_from_memory_are_added_up_row_by_row(shape: tuple[int, ...]) -> None:
    graph = column_sums(*shape)
    parts = partition(graph, WIDE)
    kernel = calls_of(parts)[0].kernel
    assert kernel.name == "stream"
    assert kernel.tasks > 1
    inner = [around[-1] for s, around in statements(kernel.body) if isinstance(s, Accumulate)]
    assert [loop.mode for loop in inner] == ["vector"]  # along a row of memory, not down a column
    check(graph, parts)


def test_few_matrices_are_cut_into_parts() -> None:
    graph = column_sums(2, 600, 700)
    parts = partition(graph, WIDE)
    assert [c.kernel.name for c in calls_of(parts)] == ["stream", "combine"]
    check(graph, parts)
    check(graph, partition(graph, NARROW), NARROW)


@pytest.mark.parametrize("shape", [(4, 40, 256), (70, 40, 24), (700, 6, 256)])
def test_matrices_in_cache_and_short_columns_are_added_up_in_registers(shape: tuple[int, ...]) -> None:
    graph = column_sums(*shape)
    parts = partition(graph, WIDE)
    assert calls_of(parts)[0].kernel.name != "stream"
    check(graph, parts)


def test_windows_that_overlap_are_added_up_in_registers() -> None:
    x = m.leaf("x", 8, 60, 200)
    taps = ops.window(x, (12, 3), (1, 1), (0, 0), (0, 0), (1, 1), 0.0)
    graph = m.graph([x], [ops.reduce_sum(taps, (3, 4))])
    parts = partition(graph, WIDE)
    assert [c.kernel.name for c in calls_of(parts)] == ["columns"]


def test_the_bits_do_not_depend_on_threads() -> None:
    x = np.random.default_rng(0).standard_normal((9, 160, 640)).astype(np.float32)
    before, found = get_num_threads(), []
    try:
        for number in (1, 2, 3):
            set_num_threads(number)
            found.append(graphc.from_numpy(x).sum(1).numpy())
    finally:
        set_num_threads(before)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    np.testing.assert_allclose(found[0], x.astype(np.float64).sum(1), rtol=0, atol=1e-4)
