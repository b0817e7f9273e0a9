"""The lowering rules alone: the plainest loop nest around each rule, interpreted, against the oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.types import DType, int64
from graphc.loop import interpret
from graphc.loop.ir import (
    Accumulate,
    Block,
    Buffer,
    Expr,
    For,
    Kernel,
    Stmt,
    Store,
    Var,
    identity_of,
    index_const,
    load,
)
from graphc.ops.op import INJECTIVE, Read
from graphc.ops.samples import Case, all_samples
from tests.ops.numeric import evaluate

RULED = INJECTIVE | {Kind.REDUCE}
CASES = [(c, t) for c in all_samples() for t in c.dtypes]


def _nest(names: str, extents: Sequence[int]) -> tuple[tuple[Var, ...], list[For]]:
    loops = tuple(Var(int64, f"{names}{d}", extent) for d, extent in enumerate(extents))
    return loops, [For(v, index_const(v.extent), ()) for v in loops]


def _wrap(loops: list[For], body: Block) -> Block:
    for loop in reversed(loops):
        body = (For(loop.var, loop.extent, body),)
    return body


def _reader(buffer: Buffer) -> Read:
    def read(index: tuple[Expr, ...], mask: Expr | None = None, other: Expr | None = None) -> Expr:
        return load(buffer, index, mask, other)

    return read


def _kernel(node: Node) -> Kernel:
    params = [Buffer(f"in{i}", x.dtype, x.shape) for i, x in enumerate(node.inputs)]
    out = Buffer("out", node.dtype, node.shape)
    reads = [_reader(b) for b in params]
    index, loops = _nest("i", node.shape)
    body: tuple[Stmt, ...]
    assert node.op.lower is not None
    if node.kind is Kind.REDUCE:
        reduction = node.op.lower(node)
        r, inner = _nest("r", reduction.extents)
        first = Store(out, index, identity_of(reduction.combine, node.dtype))
        step = Accumulate(out, index, reduction.combine, reduction.element(index, r, reads))
        body = (first, *_wrap(inner, (step,)))
    else:
        body = (Store(out, index, node.op.lower(node, index, reads)),)
    return Kernel("sample", (*params, out), Var(int64, "task", 1), 1, _wrap(loops, body))


def _id(value: object) -> str:
    return value.id if isinstance(value, Case) else getattr(value, "name", "")


@pytest.mark.parametrize("case,dtype", CASES, ids=_id)
def test_rule(case: Case, dtype: DType) -> None:
    graph = case.build(dtype)
    (node,) = graph.outputs
    if node.kind not in RULED or len(graph.nodes) != len(node.inputs) + 1 or node.type.size > 2000:
        pytest.skip("lowered by graphc/loop/lower, or covered by smaller samples")
    arrays = case.inputs(np.random.default_rng(5), dtype)
    (expected,) = evaluate(graph, arrays)
    operands = [arrays[graph.inputs.index(x)] for x in node.inputs]
    result = np.full(node.shape, 77).astype(node.dtype.numpy)
    interpret.run(_kernel(node), [*operands, result])
    tolerance = 1e-5 if node.dtype.numpy == np.float32 else 1e-12
    if node.dtype.is_float:
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(result, expected)


def test_no_skipped_op_has_a_rule() -> None:
    """Every op of a kind with rules has one, and is really tried above."""
    tried = set()
    for case, dtype in CASES:
        graph: Graph = case.build(dtype)
        (node,) = graph.outputs
        if node.op.lower is not None and len(graph.nodes) == len(node.inputs) + 1:
            tried.add(node.op.name)
    results = [case.build(dtype).outputs[0] for case, dtype in CASES]
    ruled = {node.op.name for node in results if node.kind in RULED}
    assert ruled <= tried
