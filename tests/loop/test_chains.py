"""Epilogues in which functions follow one another: a loop over rows for each link of the chain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops
from graphc.ir.types import float32, int64
from graphc.loop import index as ix
from graphc.loop.inplace import expressions, inplace_pairs, statements, walk
from graphc.loop.interpret import run
from graphc.loop.ir import (
    Alloc,
    Buffer,
    For,
    If,
    Kernel,
    Let,
    Listed,
    Local,
    Note,
    Store,
    Tile,
    Unary,
    Var,
    binary,
    index_const,
    load,
    unary,
)
from graphc.loop.lower.chains import LONG, link_by_link
from graphc.loop.lower.ways import lower_contraction
from tests.loop.test_cells import gates, lstm, matmul
from tests.loop.test_ways import WIDE, group_of, leaf


def functions(loop: For) -> list[str]:
    """The functions that a loop computes itself."""
    found = [e for s in loop.body for root in expressions(s) for e in walk(root)]
    return [e.op for e in found if isinstance(e, Unary) and e.op in LONG]


def row_loops(kernel: Kernel) -> list[list[str]]:
    """The functions of each loop that computes any."""
    loops = {id(loop): loop for _, around in statements(kernel.body) for loop in around[-1:]}
    return [names for names in map(functions, loops.values()) if names]


def the_kernel(*outputs) -> Kernel:
    (kernel,) = [
        call.kernel
        for call in lower_contraction(group_of(*outputs), WIDE)
        if call.kernel.name == "dot_general"
    ]
    return kernel


def test_a_new_state_s_tanh_is_a_loop_of_its_own():
    (h, c), _, _ = lstm(32, 64)
    first, second = row_loops(the_kernel(h, c))
    assert sorted(first) == ["sigmoid", "sigmoid", "sigmoid", "tanh"]
    assert second == ["tanh"]


def test_functions_side_by_side_stay_in_one_loop():
    (_, c), _, _ = lstm(32, 64)
    (only,) = row_loops(the_kernel(c))
    assert len(only) == 3


def test_few_rows_stay_in_one_loop():
    (h, c), _, _ = lstm(2, 64)
    (only,) = row_loops(the_kernel(h, c))
    assert len(only) == 5


def test_gates_may_still_be_written_over_what_they_are_made_of():
    """The stack of gates that the gradient needs takes the place of the input's part of them."""
    batch, hidden = 32, 64
    h, w, x = leaf("h", batch, hidden), leaf("w", hidden, 4 * hidden), leaf("x", batch, 4 * hidden)
    i, f, g, o = gates(ops.add(matmul(h, w), x), 4)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    state = ops.mul(o, ops.tanh(ops.add(f, ops.mul(i, g))))
    group = group_of(state, ops.concat([i, f, g, o], 1))
    (call,) = [c for c in lower_contraction(group, WIDE) if c.kernel.name == "dot_general"]
    assert len(row_loops(call.kernel)) == 2
    source, target = call.args.index(x), call.args.index(group.outputs[1])
    assert (source, target) in inplace_pairs(call.kernel)


def _nest(rows: int) -> For:
    """x[r, j] = exp(x[r, j]) + tanh(exp(x[r, j])), a row after the other."""
    x = Buffer("x", float32, (rows * 16,))
    r, j = Var(int64, "r", rows), Var(int64, "j", 16)
    place = (binary("add", binary("mul", r, index_const(16)), j),)
    a, b = Local(float32, "a"), Local(float32, "b")
    body = (
        Let(a, unary("exp", load(x, place))),
        Let(b, unary("tanh", a)),
        Store(x, place, binary("add", a, b)),
    )
    return For(j, index_const(16), (For(r, index_const(rows), body),), "vector", 16)


@pytest.mark.parametrize("rows,loops", [(3, 1), (4, 2), (9, 2)])
def test_a_value_that_a_later_link_reads_is_kept(rows, loops):
    nest = _nest(rows)
    *kept, cut = link_by_link([nest], lambda stem: f"{stem}0")
    assert isinstance(cut, For)
    assert len(cut.body) == loops
    assert [s.buffer.shape for s in kept if isinstance(s, Alloc)] == [(rows, 16)] * (loops - 1)
    x = nest.body[0].body[-1].buffer
    data = np.linspace(-3, 1, rows * 16, dtype=np.float32)
    expected = np.exp(data) + np.tanh(np.exp(data))
    run(Kernel("k", (x,), Var(int64, "t", 1), 1, (*kept, cut)), [data])
    np.testing.assert_allclose(data, expected, rtol=1e-6)


def test_other_statements_keep_a_loop_whole():
    """A condition inside: which values there are is not the same on every row."""
    nest = _nest(8)
    (rows,) = nest.body
    nest = replace(
        nest, body=(replace(rows, body=(If(ix.compare("lt", rows.var, index_const(3)), rows.body),)),)
    )
    (same,) = link_by_link([nest], lambda stem: stem)
    assert isinstance(same, For)
    assert same.body == nest.body


def test_the_lines_of_all_links_are_asked_for_while_tiles_multiply():
    """The list of what an epilogue reads and writes is that of the whole epilogue."""
    (h, c), _, _ = lstm(32, 256)
    (kernel,) = [call.kernel for call in lower_contraction(group_of(h, c), WIDE)]
    assert len(row_loops(kernel)) == 2
    stmts = [stmt for stmt, _ in statements(kernel.body)]
    assert all(isinstance(stmt.fetch, Listed) for stmt in stmts if isinstance(stmt, Tile))
    noted = {stmt.buffer for stmt in stmts if isinstance(stmt, Note)}
    assert {
        stmt.buffer for stmt in stmts if isinstance(stmt, Store) and stmt.buffer.space == "param"
    } <= noted
