"""Fetches shared out over tiles by lists: every line is on the list of a tile that gets round to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops
from graphc.ir.types import float32
from graphc.loop.inplace import inplace_pairs, statements
from graphc.loop.interpret import run
from graphc.loop.ir import (
    FETCH_STEPS,
    Accumulate,
    Block,
    Buffer,
    Const,
    Fetch,
    For,
    If,
    Kernel,
    Listed,
    Note,
    Prefetch,
    Stmt,
    Tile,
    binary,
    index_const,
)
from graphc.loop.lower.ways import repeated_contraction
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel

from .test_ahead import LINE, check_lines_are_met_once, momentum, prefetches, tiled
from .test_ways import WIDE, check, group_of, leaf


def listed(kernel: Kernel) -> list[Tile]:
    return [s for s, _ in statements(kernel.body) if isinstance(s, Tile) and isinstance(s.fetch, Listed)]


def counted(body: Block, lines: int, marks: dict[Buffer, Buffer]) -> Block:
    """The body with a count at each line that a note stands for."""
    result: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, Note) and stmt.buffer.space == "param":
            mark = marks.setdefault(stmt.buffer, replace(stmt.buffer, dtype=float32))
            (index,) = stmt.index
            for line in range(lines):
                place = binary("add", index, index_const(LINE * line))
                result.append(Accumulate(mark, (place,), "add", Const(float32, 1.0)))
            continue
        if isinstance(stmt, For | If):
            stmt = replace(stmt, body=counted(stmt.body, lines, marks))
        result.append(stmt)
    return tuple(result)


@pytest.mark.parametrize("m,n", [(20, 128), (17, 192)])
def test_every_line_is_asked_for(m: int, n: int) -> None:
    """What an optimizer's step reads and writes, rows of short tiles included; the state is updated in
    place."""
    outputs = momentum(200, m, n)
    check(*outputs, machine=WIDE, tolerance=1e-4)
    call = tiled(outputs, WIDE)
    verify_kernel(call.kernel)
    text = print_kernel(call.kernel)
    assert print_kernel(parse_kernel(text)) == text
    tiles = listed(call.kernel)
    assert tiles
    assert not prefetches(call.kernel)
    p, v = (node for node in group_of(*outputs).inputs if node.shape == (m, n))
    at = call.args.index
    assert {(at(p), at(outputs[0])), (at(v), at(outputs[1]))} <= inplace_pairs(call.kernel)
    marks: dict[Buffer, Buffer] = {}
    (lines,) = {tile.fetch.lines for tile in tiles}
    body = counted(call.kernel.body, lines, marks)
    check_lines_are_met_once(call, body, marks, m * n, 4)


def test_tiles_get_round_to_all_of_the_list() -> None:
    """The list is as long as what the tiles go through, and no note is beyond that."""
    call = tiled(momentum(200, 20, 128), WIDE)
    notes = [s for s, _ in statements(call.kernel.body) if isinstance(s, Note)]
    (places,) = {note.places for note in notes}
    assert places.shape == (200 // FETCH_STEPS,)
    assert run(call.kernel, [np.ones(a.type.shape, a.type.dtype.numpy) for a in call.args], range(1)) == 0


def test_too_few_steps_for_a_list() -> None:
    """What tiles would not get round to is asked for before them."""
    kernel = tiled(momentum(32, 20, 96), WIDE).kernel
    assert not listed(kernel)
    assert [s for s, _ in statements(kernel.body) if isinstance(s, Prefetch)]


@pytest.mark.parametrize("rows,listing", [(128, True), (4, False)])
def test_cells_of_tall_products_come_before_the_next_panel(rows: int, listing: bool) -> None:
    """What follows a tile of few rows waits for its panel instead: that one is asked for."""
    x, w = leaf("x", rows, 1024), leaf("w", 1024, 512)
    a, b = leaf("a", rows, 512), leaf("b", rows, 512)
    product = ops.dot_general(x, w, ((1,), (0,)))
    group = group_of(ops.concat([ops.mul(product, a), ops.mul(product, b)], 1))
    (call,) = repeated_contraction(group, WIDE, frozenset({w})).each
    tiles = [s for s, _ in statements(call.kernel.body) if isinstance(s, Tile)]
    assert tiles
    assert all(isinstance(tile.fetch, Listed if listing else Fetch) for tile in tiles)


def test_state_comes_before_the_next_panel_that_many_tiles_share() -> None:
    """An optimizer's step reads and writes more than there is in a panel: it is not asked for all at once."""
    (call,) = repeated_contraction(group_of(*momentum(128, 128, 2048)), WIDE, frozenset()).each
    tiles = [s for s, _ in statements(call.kernel.body) if isinstance(s, Tile)]
    assert tiles
    assert all(isinstance(tile.fetch, Listed) for tile in tiles)
    assert not prefetches(call.kernel)


def test_a_bias_is_asked_for_at_once_and_rows_of_the_result_from_the_list() -> None:
    """All rows read the same line of a bias: it does not keep what they store off the list."""
    m, k, n = 20, 200, 128
    product = ops.dot_general(leaf("x", m, k), leaf("w", k, n), ((1,), (0,)))
    z = ops.add(product, ops.broadcast(leaf("bias", n), (m, n), (1,)))
    outputs = z, ops.tanh(z)
    check(*outputs, machine=WIDE, tolerance=1e-4)
    call = tiled(outputs, WIDE)
    tiles = listed(call.kernel)
    assert tiles
    (bias,) = {s.buffer for s, _ in statements(call.kernel.body) if isinstance(s, Prefetch)}
    assert bias.shape == (n,)
    marks: dict[Buffer, Buffer] = {}
    (lines,) = {tile.fetch.lines for tile in tiles}
    body = counted(call.kernel.body, lines, marks)
    check_lines_are_met_once(call, body, marks, m * n, 2)
