"""Attention in a graph: what is recognised, what is left alone, and that the kernels are right."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import graphc as T
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Partition
from graphc.loop.lower import lower_group
from graphc.loop.lower.attention import blocks as attention_blocks
from graphc.loop.lower.attention import is_attention
from graphc.loop.verify import verify_kernel
from graphc.nn import functional as F
from graphc.passes import attention, rowdot, simplify
from graphc.passes.fuse import partition
from tests.loop.running import NARROW, WIDE, check

Function = Callable[..., T.Tensor]


def tensors(*shapes: tuple[int, ...]) -> list[T.Tensor]:
    rng = np.random.default_rng(0)
    return [T.from_numpy(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes]


def plain(scores: Function, weights: Function = lambda w: w) -> Function:
    """Attention spelled out, with what the caller does to scores and weights."""

    def run(q, k, v):
        return weights(F.softmax(scores(q @ k.transpose(-2, -1)), dim=-1)) @ v

    return run


def future(rows: int, cols: int) -> T.Tensor:
    return T.triu(T.ones(rows, cols), diagonal=1) == 1


def additive(rows: int, cols: int) -> T.Tensor:
    mask = np.random.default_rng(3).standard_normal((rows, cols)).astype(np.float32)
    mask[:, ::3] = -math.inf
    return T.from_numpy(mask)


ROWS, COLS = 11, 21
FUNCTIONS: dict[str, Function] = {
    "plain": plain(lambda s: s),
    "scaled": plain(lambda s: s / math.sqrt(5)),
    "masked_fill": plain(lambda s: (s * 0.3).masked_fill(future(ROWS, COLS), -math.inf)),
    "where": plain(lambda s: T.where(future(ROWS, COLS), T.full((), -math.inf), s)),
    "added mask": plain(lambda s: s + additive(ROWS, COLS)),
    "soft cap": plain(lambda s: T.tanh(s / 5) * 5),
    "kept": plain(lambda s: s, lambda w: w * (additive(ROWS, COLS) > 0) * 2),
    "sdpa": F.scaled_dot_product_attention,
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "bool mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=additive(ROWS, COLS) > 0),
    "float mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=additive(ROWS, COLS)),
}


def prepared(graph: Graph) -> Graph:
    """The graph as partitioning gets it."""
    return simplify.run(rowdot.run(simplify.run(graph)))


def forward(function: Function, *args: T.Tensor) -> Graph:
    return prepared(T.trace(function, *args))


def backward(function: Function, *args: T.Tensor) -> Graph:
    """The gradients of every argument."""
    wanted = tuple(range(len(args)))
    return prepared(T.trace(T.grad(lambda *xs: (function(*xs) ** 2).sum(), wanted), *args))


def kernels(parts: Partition) -> list[str]:
    """The names of the attention kernels."""
    return [
        call.kernel.name for group in parts.groups if is_attention(group) for call in lower_group(group, WIDE)
    ]


def squares_stored(parts: Partition, rows: int, cols: int) -> list[Node]:
    """Values of rows * cols for each batch element that are written to memory."""
    outputs = [n for group in parts.groups for n in group.outputs]
    return [n for n in outputs if n.shape[-2:] == (rows, cols) and len(n.shape) > 2]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of rows and columns in squares that the interpreter can walk."""
    for name, size in (("ROWS", 4), ("COLS", 16), ("SKIPPED", 16)):
        monkeypatch.setattr(attention_blocks, name, size)


QKV = ((2, 1, ROWS, 5), (2, 1, COLS, 5), (2, 1, COLS, 3))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward(name: str, small_blocks: None) -> None:
    graph = forward(FUNCTIONS[name], *tensors(*QKV))
    parts = partition(graph, WIDE)
    assert kernels(parts) == ["attention"]
    assert not squares_stored(parts, ROWS, COLS)
    check(graph, parts)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_backward(name: str, small_blocks: None) -> None:
    graph = backward(FUNCTIONS[name], *tensors(*QKV))
    parts = partition(graph, NARROW)
    assert kernels(parts) == ["attention", "attention_grad", "attention_grad"]
    assert not squares_stored(parts, ROWS, COLS)
    check(graph, parts, NARROW)


def test_one_walk_for_many_batch_elements() -> None:
    graph = backward(FUNCTIONS["causal"], *tensors((4, 2, 9, 4), (4, 2, 17, 4), (4, 2, 17, 4)))
    parts = partition(graph, WIDE)
    assert kernels(parts) == ["attention", "attention_grad"]
    check(graph, parts)


def test_kernels_are_well_formed() -> None:
    for rows, cols in ((8, 16), (64, 128), (130, 300)):
        graph = backward(FUNCTIONS["causal"], *tensors((8, rows, 32), (8, cols, 32), (8, cols, 24)))
        for machine in (WIDE, NARROW):
            for group in partition(graph, machine).groups:
                for call in lower_group(group, machine):
                    verify_kernel(call.kernel)


def test_heads_are_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transposed views of one projection are operands; the result is written as the next product reads it."""
    batch, length, heads, size = 2, 12, 3, 4

    def run(x):
        q, k, v = (p.view(batch, length, heads, size).transpose(1, 2) for p in x.split(heads * size, dim=2))
        return FUNCTIONS["scaled"](q, k, v).transpose(1, 2).reshape(batch, length, heads * size)

    monkeypatch.setattr(attention, "LEAST_COLS", 12)
    graph = forward(run, *tensors((batch, length, 3 * heads * size)))
    parts = partition(graph, WIDE)
    (group,) = (g for g in parts.groups if is_attention(g))
    assert group.inputs == graph.inputs
    check(graph, parts)


def test_shared_heads() -> None:
    grouped = forward(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        *tensors((1, 4, 9, 4), (1, 2, 16, 4), (1, 2, 16, 4)),
    )
    one = forward(plain(lambda s: s), *tensors((2, 3, 9, 4), (16, 4), (16, 4)))
    for graph in (grouped, one):
        parts = partition(graph, WIDE)
        assert kernels(parts) == ["attention"]
        check(graph, parts)


def test_einsum() -> None:
    """Heads between batch and features on both sides, no transpose anywhere."""

    def run(q, k, v):
        weights = F.softmax(T.einsum("bqhd,bkhd->bhqk", q, k) * 0.5, dim=-1)
        return T.einsum("bhqk,bkhd->bqhd", weights, v)

    args = tensors((2, 9, 2, 4), (2, 17, 2, 4), (2, 17, 2, 3))
    for graph, names in (
        (forward(run, *args), ["attention"]),
        (backward(run, *args), ["attention", "attention_grad", "attention_grad"]),
    ):
        parts = partition(graph, WIDE)
        assert kernels(parts) == names
        assert set(parts.groups[0].inputs) <= set(graph.inputs)
        check(graph, parts)


def test_dropout_is_drawn_in_the_kernel() -> None:
    def run(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.4)

    graph = backward(run, *tensors((2, 9, 4), (2, 18, 4), (2, 18, 4)))
    parts = partition(graph, WIDE)
    assert kernels(parts) == ["attention", "attention_grad", "attention_grad"]
    assert all(is_attention(g) for g in parts.groups if any(n.kind is Kind.GENERATE for n in g.nodes))
    check(graph, parts)


def test_two_dropouts_of_the_same_weights() -> None:
    def run(q, k, v):
        scores = F.softmax(q @ k.transpose(-2, -1), dim=-1)
        return F.dropout(scores, 0.5) @ v - F.dropout(scores, 0.5) @ v

    graph = forward(run, *tensors((2, 9, 4), (2, 18, 4), (2, 18, 4)))
    parts = partition(graph, WIDE)
    assert not squares_stored(parts, 9, 18)
    check(graph, parts)


def _returns_weights(q, k, v):
    weights = F.softmax(q @ k.transpose(-2, -1), dim=-1)
    return weights @ v, weights


def _small(q, k, v):
    return plain(lambda s: s)(q[:, :4], k[:, :4], v[:, :4])


@pytest.mark.parametrize("function", [_returns_weights, _small])
def test_left_alone(function: Function) -> None:
    graph = forward(function, *tensors((2, 9, 4), (2, 18, 4), (2, 18, 4)))
    parts = partition(graph, WIDE)
    assert kernels(parts) == []
    check(graph, parts)


def test_gradient_of_a_bias_is_composed() -> None:
    def run(q, k, v, bias):
        return plain(lambda s: s + bias)(q, k, v)

    args = tensors((2, 9, 4), (2, 18, 4), (2, 18, 4), (9, 18))
    graph = backward(run, *args)
    parts = partition(graph, WIDE)
    assert kernels(parts) == []
    check(graph, parts)


def test_second_order() -> None:
    def norm(q, k, v):
        inner = T.grad(lambda q: (plain(lambda s: s)(q, k, v) ** 2).sum())(q)
        return (inner**2).sum()

    graph = prepared(T.trace(T.grad(norm, (0, 1, 2)), *tensors((2, 9, 4), (2, 18, 4), (2, 18, 4))))
    check(graph, partition(graph, WIDE), tolerance=2e-4)


def test_softmax_without_products_is_no_attention() -> None:
    def run(s, v):
        return F.softmax(s, dim=-1) @ v

    graph = forward(run, *tensors((2, 9, 18), (2, 18, 4)))
    assert attention.find(graph).clusters == []
