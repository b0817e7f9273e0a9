"""scan nodes: what the builder makes of a body, and that loops and unrolled loops are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from graphc import ops
from graphc.analysis.evaluate import evaluate_graph
from graphc.autodiff import gradients
from graphc.ir.graph import Graph, toposort
from graphc.ir.hashing import structural_hash
from graphc.ir.node import Kind, Node, make, no_sites
from graphc.ir.parser import ParseError, parse_graph
from graphc.ir.printer import print_graph
from graphc.ir.types import DType, TensorType, float64, int64
from graphc.ir.verify import VerifyError, verify
from graphc.ops.scan import SCAN, Loop, ScanAttrs
from graphc.passes import loops, simplify
from tests.random_loops import Pair, random_loop, unroll

SEEDS = range(120)


def values(pair: Pair, outputs, seed: int) -> list[np.ndarray]:
    return evaluate_graph(pair.graph(outputs), pair.arrays(seed))


def assert_equal(pair: Pair, seed: int) -> None:
    scanned, unrolled = [values(pair, outputs, seed) for outputs in (pair.scanned, pair.unrolled)]
    for one, other in zip(scanned, unrolled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_loops_equal_their_steps(seed: int) -> None:
    """Values, gradients and gradients of gradients; text, verifier and pass cope with all three."""
    pair = random_loop(seed)
    for order in range(3):
        assert_equal(pair, seed)
        graph = pair.graph(pair.scanned)
        verify(graph, ops.REGISTRY)
        assert parse_graph(print_graph(graph), ops.REGISTRY).outputs == graph.outputs
        improved = loops.run(simplify.run(graph))
        verify(improved, ops.REGISTRY)
        assert_equal(Pair(pair.inputs, improved.outputs, pair.unrolled), seed)
        if order < 2:
            pair = pair.gradients()


# ------------------------------------------------------------ what bodies become

T, B, H, WIDTH = 5, 2, 3, 4


def typed(name: str, *shape: int, dtype: DType = float64) -> Node:
    return ops.input_(name, TensorType(shape, dtype))


H0, X = typed("h0", B, H), typed("x", T, B, WIDTH)
W, U, BIAS, OUT = typed("w", WIDTH, H), typed("u", H, H), typed("bias", H), typed("out", H, 7)
CARRY, SLICE, SLICE_H = typed("h", B, H), typed("x_t", B, WIDTH), typed("x_h", B, H)


def matmul(a: Node, b: Node) -> Node:
    return ops.dot_general(a, b, ((1,), (0,)))


def cell() -> Node:
    """A plain recurrent cell, written naively."""
    z = ops.add(matmul(SLICE, W), ops.add(matmul(CARRY, U), ops.broadcast(BIAS, (B, H), (1,))))
    return ops.tanh(z)


def body_of(node: Node, *emits: Node) -> Counter[str]:
    """How often each op stands in the body of a loop."""
    return Counter(n.op.name for n in node.attrs.loop.body(emits).nodes)


def loops_of(nodes: Sequence[Node]) -> list[Loop]:
    return list(dict.fromkeys(n.attrs.loop for n in toposort(nodes) if n.kind is Kind.SCAN))


def test_work_on_xs_alone_goes_before_the_loop() -> None:
    after = cell()
    (last,) = ops.scan([CARRY], [SLICE], [after], [], [H0], [X]).finals
    assert body_of(last) == {"input": 4, "dot_general": 1, "broadcast": 1, "add": 2, "tanh": 1}
    (ahead,) = [n for n in last.inputs if n.op.name == "dot_general"]
    assert ahead.inputs == (X, W)
    assert ahead.shape == (T, B, H)


def test_work_that_no_carry_needs_goes_behind_the_loop() -> None:
    after = cell()
    y = ops.add(matmul(after, OUT), ops.like(matmul(after, OUT), 1.0))
    made = ops.scan([CARRY], [SLICE], [after], [y, after], [H0], [X])
    out, states = made.stacked
    assert states.kind is Kind.SCAN
    assert [n.op.name for n in toposort([out]) if n.shape[-1:] == (7,)][-2:] == ["broadcast", "add"]
    assert body_of(states)["dot_general"] == 1


def test_lookups_and_their_checks_leave_the_loop() -> None:
    rows, row, table = typed("rows", T, B, dtype=int64), typed("row", B, dtype=int64), typed("table", 9, H)
    found = ops.take(table, ops.check_index(row, 0, 9, "row"), 0)
    after = ops.tanh(ops.add(CARRY, found))
    (last,) = ops.scan([CARRY], [row], [after], [], [H0], [rows]).finals
    assert set(body_of(last)) == {"input", "add", "tanh"}
    assert [n.shape for n in toposort([last]) if n.kind is Kind.CHECK] == [(T, B)]


def test_checks_of_what_follows_from_a_carry_are_refused() -> None:
    token, table = typed("token", B, dtype=int64), typed("table", 9, H)
    row = ops.take(table, ops.check_index(token, 0, 9, "token"), 0)
    after = ops.cast(ops.reduce_sum(row, (1,)), int64)
    with pytest.raises(
        ValueError, match="an index that depends on the carry cannot be checked inside a loop"
    ):
        ops.scan([token], [], [after], [], [token], [], length=3)


def test_invariants_are_computed_once_and_views_of_them_are_read_in_place() -> None:
    weight = ops.tanh(U)
    after = ops.tanh(matmul(CARRY, ops.transpose(weight, (1, 0))))
    (last,) = ops.scan([CARRY], [], [after], [], [H0], [], length=T).finals
    assert last.inputs == (H0, weight)
    assert body_of(last) == {"input": 2, "transpose": 1, "dot_general": 1, "tanh": 1}


def test_results_that_need_no_loop_are_none() -> None:
    after = ops.tanh(CARRY)
    other = typed("other", B, H)
    made = ops.scan([CARRY, other], [SLICE], [after, other], [SLICE, BIAS], [H0, H0], [X])
    assert made.finals[1] is H0
    assert made.stacked[0] is X
    assert made.stacked[1] is ops.broadcast(BIAS, (T, H), (1,))
    one = ops.scan([CARRY], [], [after], [after], [H0], [], length=1)
    assert one.finals == [ops.tanh(H0)]


def test_equal_loops_are_one_node() -> None:
    def last(h: Node, x: Node) -> Node:
        after = ops.tanh(ops.add(matmul(x, W), h))
        return ops.scan([h], [x], [after], [], [H0], [X]).finals[0]

    assert last(CARRY, SLICE) is last(typed("a", B, H), typed("b", B, WIDTH))


@pytest.mark.parametrize(
    "change,says",
    [
        ({"init": []}, "1 carries, but 0 initial carries"),
        ({"nexts": []}, "1 carries, but 0 next values"),
        ({"nexts": [ops.reshape(CARRY, (H, B))]}, "f64[2, 3] before a step and f64[3, 2] after it"),
        ({"stacks": []}, "scan: needs xs with a leading dim of steps, or a length"),
        ({"length": 4}, "scan: 4 steps of f64[2, 4] are not a f64[5, 2, 4]"),
        ({"xs": []}, "scan: 1 xs, but a body of 0"),
    ],
)
def test_mistakes_are_named(change: dict, says: str) -> None:
    given = {"carries": [CARRY], "xs": [SLICE], "nexts": [CARRY], "emits": [], "init": [H0], "stacks": [X]}
    given.update(change)
    with pytest.raises(ValueError) as caught:
        ops.scan(**given)
    assert says in str(caught.value)


# --------------------------------------------------------------------- gradients


def lstm() -> tuple[list[Node], list[Node]]:
    """(initial states, xs and weights; last states and outputs) of an LSTM, written naively."""
    h, c, x = CARRY, typed("c", B, H), SLICE
    c0, wi, wh, b = typed("c0", B, H), typed("wi", 4 * H, WIDTH), typed("wh", 4 * H, H), typed("b", 4 * H)
    z = ops.add(
        ops.add(ops.dot_general(x, wi, ((1,), (1,))), ops.dot_general(h, wh, ((1,), (1,)))),
        ops.broadcast(b, (B, 4 * H), (1,)),
    )
    i, f, g, o = [ops.slice_axis(z, 1, k * H, (k + 1) * H) for k in range(4)]
    after = ops.add(ops.mul(ops.sigmoid(f), c), ops.mul(ops.sigmoid(i), ops.tanh(g)))
    out = ops.mul(ops.sigmoid(o), ops.tanh(after))
    made = ops.scan([h, c], [x], [out, after], [out], [H0, c0], [X])
    return [H0, c0, X, wi, wh, b], [*made.finals, *made.stacked]


def lstm_gradient() -> Graph:
    inputs, outputs = lstm()
    cts = [ops.input_(f"ct{i}", y.type) for i, y in enumerate(outputs)]
    grads = gradients(outputs, cts, inputs)
    return Graph((*inputs, *cts), tuple(g for g in grads if g is not None), (), (), "gradient")


def test_an_lstm_has_one_contraction_in_each_loop() -> None:
    """Weight gradients and projections are contractions over all steps, bias gradients one sum."""
    graph = lstm_gradient()
    forward, backward = sorted(loops_of(graph.outputs), key=lambda loop: loop.reverse)
    for loop in (forward, backward):
        assert sum(n.kind is Kind.CONTRACT for n in loop.body().nodes) == 1
    assert not any(n.kind is Kind.REDUCE for n in backward.body().nodes)
    assert len(backward.carries) == 2
    outside = [n for n in graph.nodes if n.kind is Kind.CONTRACT]
    assert sorted(n.shape for n in outside) == sorted(
        [(T, B, 4 * H), (T, B, WIDTH), (4 * H, WIDTH), (4 * H, H)]
    )
    assert [n.shape for n in graph.nodes if n.kind is Kind.REDUCE] == [(4 * H,)]


def test_what_an_lstm_saves() -> None:
    """The four gates, tanh(c), and the states before each step: nothing that is cheap to compute."""
    results = [n for n in lstm_gradient().nodes if n.kind is Kind.SCAN and not n.attrs.loop.reverse]
    emits = Counter(n.attrs.emit.op.name for n in results if n.attrs.emit is not None)
    assert emits == {"sigmoid": 3, "tanh": 2, "input": 2}


def test_gradient_of_an_lstm_as_text(golden: Callable[[str, str], None]) -> None:
    with no_sites():
        golden("lstm_gradient", print_graph(lstm_gradient(), sites=False))


def test_gradient_of_a_lookup_is_one_scatter() -> None:
    """Indices that are carried: nothing can be moved ahead, but updates are added after the loop."""
    token, table = typed("token", B, dtype=int64), typed("table", 9, H)
    found = ops.take(table, token, 0)
    after = ops.tanh(ops.add(CARRY, found))
    step = ops.rem(ops.add(token, ops.like(token, 1)), ops.like(token, 9))
    (last, _) = ops.scan([CARRY, token], [], [after, step], [], [H0, token], [], length=T).finals
    (grad,) = gradients([last], [ops.ones(last.type)], [table])
    assert grad is not None
    assert [n.shape for n in toposort([grad]) if n.kind is Kind.SCATTER] == [(9, H)]
    assert all(n.kind is not Kind.SCATTER for loop in loops_of([grad]) for n in loop.body().nodes)


def test_a_stopped_carry_sends_no_gradient_back() -> None:
    after = ops.add(ops.stop_gradient(CARRY), SLICE_H)
    (last,) = ops.scan([CARRY], [SLICE_H], [after], [], [H0], [typed("xs", T, B, H)]).finals
    assert gradients([last], [ops.ones(last.type)], [H0]) == [None]


def test_nested_loops() -> None:
    """A loop in a loop equals its unrolled form, gradients too; the inner reads the outer's carry."""
    inner, outer, seeds = typed("inner", H), typed("outer", H), typed("seeds", T, H)
    seed = typed("seed", H)

    def body() -> Node:
        step = ops.tanh(ops.add(ops.mul(inner, outer), ops.dot_general(U, inner, ((1,), (0,)))))
        return ops.scan([inner], [], [step], [step], [ops.add(seed, outer)], [], length=3).stacked[0]

    after = ops.tanh(ops.reduce_sum(body(), (0,)))
    start = typed("start", H)
    made = ops.scan([outer], [seed], [after], [after], [start], [seeds], reverse=True)
    flat = unroll([outer], [seed], [after], [after], [start], [seeds], T, True)
    pair = Pair((start, seeds, U), (*made.finals, *made.stacked), flat)
    for _ in range(3):
        assert_equal(pair, 0)
        graph = pair.graph(pair.scanned)
        verify(graph, ops.REGISTRY)
        assert parse_graph(print_graph(graph), ops.REGISTRY).outputs == graph.outputs
        improved = loops.run(simplify.run(graph))
        assert_equal(Pair(pair.inputs, improved.outputs, pair.unrolled), 0)
        pair = pair.gradients()


# ------------------------------------------------------------- hashes, texts, rules


def test_hash_covers_the_body() -> None:
    def program(h: Node, scale: float, emit: bool, reverse: bool = False) -> Graph:
        after = ops.tanh(ops.mul(h, ops.like(h, scale)))
        made = ops.scan([h], [], [after], [after, h], [H0], [], length=T, reverse=reverse)
        return Graph((H0,), (made.stacked[0 if emit else 1],))

    base = structural_hash(program(CARRY, 2.0, True))
    assert structural_hash(program(typed("another", B, H), 2.0, True)) == base
    others = [program(CARRY, 3.0, True), program(CARRY, 2.0, False), program(CARRY, 2.0, True, reverse=True)]
    assert len({base, *map(structural_hash, others)}) == 4


def test_verify_looks_into_bodies() -> None:
    stray = ops.scan([CARRY], [], [ops.tanh(CARRY)], [], [H0], [], length=T).finals[0]
    loop = replace(stray.attrs.loop, nexts=(ops.tanh(typed("carry9", B, H)),))
    with pytest.raises(VerifyError, match=r"broken body: input node .* is not declared"):
        verify(Graph((H0,), (make(SCAN, (H0,), ScanAttrs(loop, None, 0)),)))
    token = typed("carry0", B, dtype=int64)
    checked = Loop(T, False, (token,), (), (), (ops.check_index(token, 0, 3, "late"),))
    with pytest.raises(VerifyError, match="stands in the body of a loop"):
        verify(Graph((token,), (make(SCAN, (token,), ScanAttrs(checked, None, 0)),)))
    renamed = Loop(T, False, (CARRY,), (), (), (CARRY,))
    with pytest.raises(VerifyError, match="parameter carry0 of a loop but has another name"):
        verify(Graph((H0,), (make(SCAN, (H0,), ScanAttrs(renamed, None, 0)),)))


@pytest.mark.parametrize(
    "old,new,says",
    [
        ("loop @0", "loop @1", "@0 is not defined before"),
        ("emit=%", "emit=%9", "is not defined before"),
        ("carry=%0", "carrier=%0", "parameters called carry, x and const"),
        ("length=5, ", "", "a loop has length and reverse"),
        ("final=0", "last=0", "expected 'emit' or 'final'"),
        ("final=0", "final=3", "carry 3 is not one of"),
    ],
)
def test_mistakes_in_texts_are_named(old: str, new: str, says: str) -> None:
    made = ops.scan([CARRY], [SLICE], [cell()], [cell()], [H0], [X])
    text = print_graph(Graph((H0, X, W, U, BIAS), (*made.finals, *made.stacked)))
    assert old in text
    with pytest.raises(ParseError) as caught:
        parse_graph(text.replace(old, new), ops.REGISTRY)
    assert says in str(caught.value)


# -------------------------------------------------------------------------- pass


def test_dead_carries_and_xs_are_dropped() -> None:
    other, extra = typed("other", B, H), typed("extra", B, H)
    nexts = [ops.tanh(CARRY), ops.add(other, extra)]
    made = ops.scan([CARRY, other], [extra], nexts, [], [H0, H0], [typed("extras", T, B, H)])
    graph = Graph((H0, typed("extras", T, B, H)), (made.finals[0],))
    (loop,) = loops_of(loops.run(graph).outputs)
    assert len(loop.params) == 1


def test_a_carry_that_never_changes_is_a_constant() -> None:
    other = typed("other", B, H)
    made = ops.scan(
        [CARRY, other], [], [ops.mul(CARRY, other), other], [], [H0, typed("k", B, H)], [], length=T
    )
    (loop,) = loops_of(loops.run(Graph((H0, typed("k", B, H)), (made.finals[0],))).outputs)
    assert (len(loop.carries), len(loop.consts)) == (1, 1)


def test_bodies_are_simplified_and_results_stay_siblings() -> None:
    after = ops.mul(ops.tanh(CARRY), ops.like(CARRY, 1.0))
    made = ops.scan([CARRY], [], [after], [after, CARRY], [H0], [], length=T)
    graph = loops.run(Graph((H0,), (*made.finals, *made.stacked)))
    (loop,) = loops_of(graph.outputs)
    assert Counter(n.op.name for n in loop.body().nodes) == {"input": 1, "tanh": 1}
    assert loops.run(graph) is graph


def test_bias_gradients_are_summed_behind_the_loop() -> None:
    """Also those of a part of the bias, and of a scale: the loop stacks what is summed, no more."""
    scale = typed("scale", H)
    z = ops.add(matmul(CARRY, U), ops.broadcast(BIAS, (B, H), (1,)))
    half = ops.pad(ops.slice_axis(BIAS, 0, 1, H), (1,), (0,), 0)
    z = ops.mul(ops.add(z, ops.broadcast(half, (B, H), (1,))), ops.broadcast(scale, (B, H), (1,)))
    (last,) = ops.scan([CARRY], [], [ops.tanh(z)], [], [H0], [], length=T).finals
    grads = gradients([last], [ops.ones(last.type)], [BIAS, scale])
    assert all(g is not None for g in grads)
    (loop,) = [loop for loop in loops_of([g for g in grads if g]) if loop.reverse]
    assert len(loop.carries) == 1
    assert not any(n.kind is Kind.REDUCE for n in loop.body().nodes)
