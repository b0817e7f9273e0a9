"""compile(): numbers against the oracle, odd outputs, caches, observers, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphc import ops, pipeline, program_cache
from graphc.analysis.evaluate import evaluate_graph
from graphc.debug import Validate, ValidationError, check_graph
from graphc.ir.graph import Graph, rewrite
from graphc.ir.node import Node
from graphc.ir.parser import parse_graph
from graphc.ir.types import TensorType, float32, int64
from graphc.ir.verify import VerifyError
from graphc.passes import simplify
from graphc.pipeline import Pass

from .random_graphs import random_graph, random_inputs

BACKENDS = ("reference", "llvm")
X = ops.input_("x", TensorType((4, 6), float32))
W = ops.input_("w", TensorType((4, 6), float32))
LABELS = ops.input_("labels", TensorType((4,), int64))


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-5)


def x(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 6)).astype(np.float32)


@pytest.mark.parametrize("block", range(3))
def test_random_graphs_agree_with_the_oracle(block: int) -> None:
    """Through fusion, lowering, planning and native code."""
    for seed in range(1000 + block * 8, 1008 + block * 8):
        graph = random_graph(seed, steps=20)
        arrays = random_inputs(graph, seed, specials=False)
        expected = evaluate_graph(graph, arrays)
        for actual, right in zip(pipeline.compile(graph)(arrays), expected, strict=True):
            np.testing.assert_allclose(actual, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
class TestOutputs:
    def test_input_unchanged(self, backend: str) -> None:
        given = x()
        (out,) = pipeline.compile(Graph((X,), (X,)), backend=backend)([given])
        close(out, given)
        assert not np.shares_memory(out, given)

    def test_view_of_another_value(self, backend: str) -> None:
        exp = ops.exp(X)
        flat, whole = pipeline.compile(Graph((X,), (ops.reshape(exp, (24,)), exp)), backend=backend)([x()])
        close(flat.reshape(4, 6), whole)
        assert not np.shares_memory(flat, whole)

    def test_same_node_twice(self, backend: str) -> None:
        y = ops.tanh(X)
        a, b = pipeline.compile(Graph((X,), (y, y)), backend=backend)([x()])
        close(a, np.tanh(x()))
        close(a, b)
        assert not np.shares_memory(a, b)

    def test_constants(self, backend: str) -> None:
        table = np.arange(6, dtype=np.float32).reshape(2, 3)
        outputs = (ops.constant(table), ops.constant(3, int64), ops.full((2, 2), 1.5, float32))
        a, b, c = pipeline.compile(Graph((), outputs), backend=backend)([])
        close(a, table)
        close(b, np.array(3))
        close(c, np.full((2, 2), 1.5, np.float32))
        a[:] = 0  # the program's own copy is not touched
        close(pipeline.compile(Graph((), outputs), backend=backend)([])[0], table)

    def test_empty(self, backend: str) -> None:
        none = ops.slice_axis(X, 0, 2, 2)
        outputs = (none, ops.exp(none), ops.reduce_sum(none, (0,)))
        a, b, c = pipeline.compile(Graph((X,), outputs), backend=backend)([x()])
        assert a.shape == b.shape == (0, 6)
        close(c, np.zeros(6, np.float32))

    def test_nothing_to_compute(self, backend: str) -> None:
        given = x()
        (out,) = pipeline.compile(Graph((X,), (X,)), {0: 0}, backend)([given])
        assert out is given
        assert pipeline.compile(Graph((X,), ()), backend=backend)([given]) == []

    def test_donation(self, backend: str) -> None:
        program = pipeline.compile(Graph((X, W), (ops.sub(W, X), ops.exp(W))), {0: 1}, backend)
        weight = x(1)
        for step in range(3):
            old = weight.copy()
            new, exp = program([x(2), weight])
            assert new is weight
            close(new, old - x(2))
            close(exp, np.exp(old))
            assert step < 3

    def test_swapped_states(self, backend: str) -> None:
        a, b = x(1), x(2)
        program = pipeline.compile(Graph((X, W), (W, X)), {0: 0, 1: 1}, backend)
        program([a, b])
        close(a, x(2))
        close(b, x(1))
        other = x(5)
        program([other, b])  # other arrays may follow
        close(other, x(1))
        close(b, x(5))

    def test_failed_check(self, backend: str) -> None:
        labels = ops.check_index(LABELS, 0, 6, "cross_entropy: label is not one of 6 classes")
        picked = ops.take_along(X, ops.reshape(labels, (4, 1)), 1)
        graph = Graph((X, LABELS, W), (ops.reduce_sum(picked, (0, 1)), ops.sub(W, X)))
        program = pipeline.compile(graph, {1: 2}, backend)
        weight = x(1)
        with pytest.raises(
            IndexError, match=r"label is not one of 6 classes \(got 6 at \[2\]; .*test_pipeline.py"
        ):
            program([x(), np.array([0, 5, 6, 1]), weight])
        close(weight, x(1))
        loss, _ = program([x(), np.array([0, 5, 3, 1]), weight])
        close(loss, x()[np.arange(4), [0, 5, 3, 1]].sum())
        close(weight, x(1) - x())


def test_arrays_that_do_not_fit_are_refused() -> None:
    program = pipeline.compile(Graph((X, W), (ops.sub(W, X),)), {0: 1})
    for bad in (np.zeros((6, 4), np.float32), np.zeros((4, 6)), np.zeros((6, 4), np.float32).T):
        with pytest.raises((ValueError, TypeError)):
            program([bad, x()])
        with pytest.raises((ValueError, TypeError)):
            program([x(), bad])
    with pytest.raises(ValueError, match="takes 2 inputs"):
        program([x()])
    weight = x()
    close(program([x(1), weight])[0], x() - x(1))


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"unknown backend 'cuda' \(known backends: .*llvm.*reference"):
        pipeline.compile(Graph((X,), (X,)), backend="cuda")


def test_impossible_donation_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="cannot take the memory"):
        pipeline.compile(Graph((X, LABELS), (ops.exp(X),)), {0: 1})


# ------------------------------------------------------------------------- caches


def unlike_others(name: str, factor: float) -> Graph:
    given = ops.input_(name, TensorType((3, 5), float32))
    return Graph((given,), (ops.mul(ops.exp(given), ops.like(given, factor)),))


def test_equal_structure_is_compiled_once() -> None:
    first = pipeline.compile(unlike_others("a", 1.25))
    again = pipeline.compile(unlike_others("b", 1.25))
    assert again.code is first.code
    assert again.origin == "memory"
    assert pipeline.compile(unlike_others("a", 1.5)).code is not first.code


def test_programs_come_back_from_disk() -> None:
    graph = unlike_others("a", 0.8125)
    given = np.ones((3, 5), np.float32)
    first = pipeline.compile(graph)
    expected = first([given])
    program_cache.clear()
    second = pipeline.compile(graph)
    assert second.origin == "disk"
    assert second.plan is None
    np.testing.assert_array_equal(second([given])[0], expected[0])


def test_checks_keep_their_messages_in_cached_programs() -> None:
    def program(message: str) -> pipeline.Program:
        checked = ops.check_index(LABELS, 0, 3, message)
        return pipeline.compile(Graph((LABELS,), (ops.neg(checked),)))

    for message in ("first", "second"):
        with pytest.raises(IndexError, match=message):
            program(message)([np.array([0, 1, 2, 3])])


def test_state_is_let_go_with_the_program() -> None:
    """Large batches at once; state (and small batches, which cost more to bind than they hold) at the end."""
    kind = TensorType((256, 128), float32)
    big, state = ops.input_("big", kind), ops.input_("state", kind)
    program = pipeline.compile(Graph((big, state), (ops.sub(state, big),)), {0: 1})
    weight, batch = np.ones((256, 128), np.float32), np.ones((256, 128), np.float32)
    program([batch, weight])
    assert sys.getrefcount(batch) == 2
    assert sys.getrefcount(weight) > 2
    del program
    assert sys.getrefcount(weight) == 2


def test_state_is_updated_by_calls_that_do_not_name_it() -> None:
    """Also where a check fails: that changes nothing, and is left to a whole call to say."""
    index = ops.input_("index", TensorType((2,), int64))
    kind = TensorType((4,), float32)
    state = ops.input_("state", kind)
    picked = ops.take(state, ops.check_index(index, 0, 4, "too far"), 0)
    program = pipeline.compile(Graph((index, state), (ops.add(state, state), picked)), {0: 1})
    program.keep([1])
    weight, steady = np.arange(4, dtype=np.float32), object()
    program([np.array([0, 3]), weight], steady=steady)
    found = program.again([np.array([1, 2])], steady)
    assert found is not None
    assert found[0] is None
    assert (found[1].tolist(), weight.tolist()) == ([2, 4], [0, 4, 8, 12])
    assert program.again([np.array([1, 4])], steady) is None
    assert weight.tolist() == [0, 4, 8, 12]
    with pytest.raises(IndexError, match="too far"):
        program([np.array([1, 4]), weight], steady=steady)


def test_arrays_for_outputs_stay_bound_while_they_are_the_same() -> None:
    """The second of two results goes to an array of the caller's, whatever was asked for in between."""
    x, state = (ops.input_(name, TensorType((4,), float32)) for name in ("x", "state"))
    results = ops.add(state, x), ops.mul(x, x), ops.neg(x)
    program = pipeline.compile(Graph((x, state), results), {0: 1})
    program.keep([1])
    weight, steady, total = np.zeros(4, np.float32), object(), 0
    program([np.zeros(4, np.float32), weight], steady=steady)
    mine, other = {2: np.empty(4, np.float32)}, {2: np.empty(4, np.float32)}
    held: list[tuple[np.ndarray, float]] = []
    for i, ready in enumerate([mine, mine, None, mine, mine, other, {}, mine, None], 1):
        kept = None if ready is mine else mine[2].copy()
        found = program.again([np.full(4, i, np.float32)], steady, ready)
        assert found is not None
        total += i
        assert found[0] is None
        assert weight.tolist() == [total] * 4
        assert found[1].tolist() == [i * i] * 4
        assert found[2].tolist() == [-i] * 4
        if ready:
            assert found[2] is ready[2]
        if kept is not None:
            assert mine[2].tobytes() == kept.tobytes()
        held.append((found[1], i * i))
        assert all(array.tolist() == [value] * 4 for array, value in held)


# ---------------------------------------------------------------------- observers


def test_report_has_every_stage() -> None:
    graph = Graph((X, W), (ops.sub(W, ops.mul(X, ops.like(X, 1.0))),), ("x", "w"), ("new",))
    report = pipeline.inspect(graph, {0: 1})
    names = [stage.name for stage in report.stages]
    assert names == [
        "trace",
        *[p.name for p in pipeline.PASSES],
        "checks",
        "layout",
        "remat",
        "partition",
        "loops",
        "plan",
    ]
    for stage in report.stages:
        if stage.graph is not None:
            assert parse_graph(stage.text, ops.REGISTRY).outputs == stage.graph.outputs
    assert "mul" in report["trace"].text
    assert "mul" not in report["simplify"].text
    assert "output 0 takes the memory of input 1" in report["plan"].text
    assert "kernel" in report["loops"].text
    assert len(report.kernels) == 1
    with pytest.raises(KeyError, match="no stage 'nonsense'"):
        report["nonsense"]


def test_dump_writes_numbered_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path))
    pipeline.compile(Graph((X,), (ops.exp(X),), name="a step"))
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("a_step-")
    files = sorted(f.name for f in folder.iterdir())
    assert files[:2] == ["00_trace.txt", "01_simplify.txt"]
    text = (folder / "00_trace.txt").read_text()
    assert parse_graph(text, ops.REGISTRY).outputs == (ops.exp(X),)


def broken(graph: Graph) -> Graph:
    """Exchanges the operands of every subtraction."""

    def swap(node: Node, inputs: tuple[Node, ...]) -> Node:
        return ops.sub(inputs[1], inputs[0]) if node.op.name == "sub" else node

    return rewrite(graph, swap)


def test_validation_names_the_pass_that_broke_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = ops.take(X, ops.check_index(LABELS, 0, 4, "row"), 0)
    graph = Graph((X, W, LABELS), (ops.sub(X, W), guarded))
    pipeline.compile(graph, observers=[Validate()])
    passes = (Pass("simplify", simplify.run), Pass("scramble", broken), Pass("cleanup", simplify.run))
    monkeypatch.setattr(pipeline, "PASSES", passes)
    with pytest.raises(ValidationError, match=r"scramble changed output 0: element \[\d, \d\] was"):
        pipeline.compile(graph, observers=[Validate()])


def test_verification_sees_every_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ops.input_("other", TensorType((4, 6), float32))
    stray = Pass("stray", lambda graph: graph.with_outputs((ops.exp(other),)))
    monkeypatch.setattr(pipeline, "PASSES", (stray,))
    with pytest.raises(VerifyError, match="not declared as an input"):
        pipeline.compile(Graph((X,), (ops.exp(X),)), observers=[check_graph])


def test_import_is_light() -> None:
    code = (
        "import sys, graphc.pipeline;"
        "print([m for m in ('llvmlite', 'networkx', 'graphc.backends') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_a_warm_start_loads_no_compiler(tmp_path) -> None:
    code = (
        "import sys, graphc;"
        "print((graphc.arange(6.0) * 0.8125).exp().sum().item());"
        "print([m for m in ('graphc.pipeline', 'graphc.loop.lower', 'graphc.backends.llvm.emit',"
        " 'importlib.metadata', 'networkx') if m in sys.modules])"
    )
    environment = dict(os.environ, GRAPHC_CACHE=str(tmp_path))
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        for _ in range(2)
    ]
    (cold, loaded), (warm, nothing) = [run.stdout.splitlines() for run in runs]
    assert cold == warm
    assert "graphc.pipeline" in loaded
    assert nothing == "[]"
