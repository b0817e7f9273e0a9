"""Batching rules: every sample of every op, over a stack of steps, is what it is step by step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphc import ops
from graphc.analysis.evaluate import evaluate_graph
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.types import TensorType
from graphc.ops.batching import batch, can_batch
from graphc.ops.samples import Case, all_samples

STEPS = 3
# What has no rule: leaves and loops, draws, and operands for which steps are no dim of one op.
WITHOUT = {
    "input", "constant", "iota", "scan", "random_bits", "scatter_add", "conv_weight_grad", "conv",
    "conv_input_grad", "take",
}  # fmt: skip


def single(case: Case) -> Graph | None:
    """The sample's graph, if it is one op on distinct inputs."""
    graph = case.build(case.dtypes[0])
    (node,) = graph.outputs
    plain = node.inputs and all(x.kind is Kind.INPUT for x in node.inputs)
    return Graph(node.inputs, (node,)) if plain and len(set(node.inputs)) == len(node.inputs) else None


CASES = [(case, graph) for case in all_samples() if (graph := single(case)) is not None]


@pytest.mark.parametrize("case,graph", CASES, ids=[case.id for case, _ in CASES])
def test_rule(case: Case, graph: Graph) -> None:
    """All ways in which some operands are stacks and the others are not."""
    (node,) = graph.outputs
    rng = np.random.default_rng(5)
    drawn = [case.inputs(rng, case.dtypes[0]) for _ in range(STEPS)]
    position = {x: i for i, x in enumerate(case.build(case.dtypes[0]).inputs)}
    steps = [[arrays[position[x]] for x in graph.inputs] for arrays in drawn]
    for batched in itertools.product((False, True), repeat=len(graph.inputs)):
        if not any(batched) or not can_batch(node, batched):
            assert not any(batched) or node.op.name in WITHOUT, f"{node.op.name} has no rule for {batched}"
            continue
        check(node, batched, steps)


def check(node: Node, batched: tuple[bool, ...], steps: list[list[np.ndarray]]) -> None:
    operands = [
        ops.input_(f"stack{i}", TensorType((STEPS, *x.shape), x.dtype)) if is_stack else x
        for i, (x, is_stack) in enumerate(zip(node.inputs, batched, strict=True))
    ]
    made = batch(node, operands, batched, STEPS)
    assert made is not None
    given = [
        np.stack([step[i] for step in steps]) if is_stack else steps[0][i]
        for i, is_stack in enumerate(batched)
    ]
    (got,) = evaluate_graph(Graph(tuple(operands), (made,)), given)
    single_step = Graph(node.inputs, (node,))
    expected = []
    for step in steps:
        arrays = [step[i] if is_stack else steps[0][i] for i, is_stack in enumerate(batched)]
        expected += evaluate_graph(single_step, arrays)
    np.testing.assert_allclose(got, np.stack(expected), rtol=1e-5, atol=1e-5)


def test_rules_are_for_most_ops() -> None:
    covered = {graph.outputs[0].op.name for case, graph in CASES}
    assert len(covered - WITHOUT) > 60
