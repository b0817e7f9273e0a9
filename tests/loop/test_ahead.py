"""What epilogues read is asked for before their tiles, all of it, where there is time to hide it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import float32
from graphc.loop.inplace import inplace_pairs, statements
from graphc.loop.interpret import run
from graphc.loop.ir import Accumulate, Block, Buffer, Const, For, If, Kernel, Prefetch, Tile
from graphc.loop.lower.contraction.blocking import choose_tile
from graphc.loop.lower.ways import lower_contraction
from graphc.loop.lowered import KernelCall
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel
from graphc.program import Machine

from .test_ways import CRAMPED, WIDE, check, group_of, leaf

LINE = 16  # elements


def momentum(k: int, m: int, n: int) -> tuple[Node, Node]:
    """A weight gradient with the step of SGD with momentum."""
    x, g, p, v = leaf("x", k, m), leaf("g", k, n), leaf("p", m, n), leaf("v", m, n)
    gradient = ops.dot_general(x, g, ((0,), (0,)))
    velocity = ops.add(ops.mul(v, ops.like(v, 0.9)), gradient)
    return ops.sub(p, ops.mul(velocity, ops.like(p, 0.01))), velocity


def tiled(outputs: tuple[Node, ...], machine: Machine) -> KernelCall:
    """The call with the tiles."""
    (found,) = [
        call
        for call in lower_contraction(group_of(*outputs), machine)
        if any(isinstance(s, Tile) for s, _ in statements(call.kernel.body))
    ]
    return found


def prefetches(kernel: Kernel) -> list[Prefetch]:
    return [s for s, _ in statements(kernel.body) if isinstance(s, Prefetch)]


def counted(body: Block, marks: dict[Buffer, Buffer]) -> Block:
    """The body with a count at each prefetched element."""
    result = []
    for stmt in body:
        if isinstance(stmt, Prefetch):
            mark = marks.setdefault(stmt.buffer, replace(stmt.buffer, dtype=float32))
            stmt = Accumulate(mark, stmt.index, "add", Const(float32, 1.0))
        elif isinstance(stmt, For | If):
            stmt = replace(stmt, body=counted(stmt.body, marks))
        result.append(stmt)
    return tuple(result)


@pytest.mark.parametrize("machine,k", [(WIDE, 32), (CRAMPED, 100)])
def test_state_of_an_optimizer(machine: Machine, k: int) -> None:
    """Above the tile; of a product whose K is many blocks, sums are far older than what is read with them.
    Either way the state is updated in place."""
    outputs = momentum(k, 13, 32)
    check(*outputs, machine=machine, tolerance=1e-4)
    call = tiled(outputs, machine)
    verify_kernel(call.kernel)
    text = print_kernel(call.kernel)
    assert print_kernel(parse_kernel(text)) == text
    order = [type(s) for s, _ in statements(call.kernel.body) if isinstance(s, Prefetch | Tile)]
    assert (order[0] is Prefetch) == (machine is WIDE)
    p, v = (n for n in group_of(*outputs).inputs if n.shape == (13, 32))
    at = call.args.index
    assert {(at(p), at(outputs[0])), (at(v), at(outputs[1]))} <= inplace_pairs(call.kernel)


def check_lines_are_met_once(
    call: KernelCall, body: Block, marks: dict[Buffer, Buffer], size: int, buffers: int
) -> None:
    """Run a kernel whose `body` counts in `marks` what it asks for: every line of `buffers` arrays, once."""
    kernel = replace(call.kernel, params=(*call.kernel.params, *marks.values()), body=body)
    counts = [np.zeros(size, np.float32) for _ in marks]
    arrays = [np.ones(a.type.shape, a.type.dtype.numpy) for a in call.args]
    assert run(kernel, [*arrays, *counts], range(kernel.tasks)) == 0
    assert len(counts) == buffers
    for count in counts:
        assert (count.reshape(-1, LINE).sum(1) == 1).all()


@pytest.mark.parametrize("m,n", [(13, 96), (17, 64), (20, 48)])
def test_every_line_once(m: int, n: int) -> None:
    """Rows of short tiles and narrow last tiles included."""
    call = tiled(momentum(32, m, n), WIDE)
    marks: dict[Buffer, Buffer] = {}
    body = counted(call.kernel.body, marks)
    check_lines_are_met_once(call, body, marks, m * n, 2)


def test_short_tiles_fetch_nothing() -> None:
    """With few multiply-adds there is nothing to hide a fetch behind."""
    assert prefetches(tiled(momentum(32, 20, 96), WIDE).kernel)
    assert not prefetches(tiled(momentum(12, 20, 96), WIDE).kernel)


def test_arrays_beside_the_result_want_wide_tiles() -> None:
    """Going through an optimizer's state, a tile of 64 columns has a quarter of the runs of one of 16."""
    size = (256, 784, 128)
    assert choose_tile(*size, WIDE, 4, 4)[1] < 64
    assert choose_tile(*size, WIDE, 4, 4, beside=5) == (6, 64)
    assert choose_tile(512, *size[1:], WIDE, 4, 4) == (6, 64)  # the result itself is beyond the cache
    kernel = tiled(momentum(32, 64, 208), WIDE).kernel
    assert {s.lanes for s, _ in statements(kernel.body) if isinstance(s, Tile)} >= {64}
