"""Programs that keep what follows from fixed inputs: right values, run once, run again after a change."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

import graphc
from graphc import nn, ops, pipeline, program_cache
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, float32, float64, int64
from graphc.passes import prepare
from graphc.prepared import Prepared

from .random_programs import random_program

X = ops.input_("x", TensorType((8, 64), float32))
W = ops.input_("w", TensorType((128, 64), float32))
B = ops.input_("b", TensorType((128,), float32))


def linear() -> Graph:
    """x W^T + exp(b): the packed weight and the exponential follow from w and b alone."""
    product = ops.dot_general(X, W, ((1,), (1,)), ((), ()))
    return Graph((X, W, B), (ops.add(product, ops.broadcast(ops.exp(B), (8, 128), (1,))),))


def arrays(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n.shape).astype(np.float32) for n in (X, W, B)]


def expected(given: list[np.ndarray]) -> np.ndarray:
    x, w, b = given
    return x @ w.T + np.exp(b)


def test_kept_until_a_call_says_so() -> None:
    program = pipeline.compile(linear(), fixed={1, 2})
    assert isinstance(program, Prepared)
    assert len(program.setup.graph.outputs) == 2
    given = arrays()
    np.testing.assert_allclose(program(given)[0], expected(given), rtol=1e-5, atol=1e-5)
    given[0] = arrays(1)[0]
    np.testing.assert_allclose(program(given, changed=False)[0], expected(given), rtol=1e-5, atol=1e-5)
    before = expected(given)
    given[1] *= 2  # not said: the kept values are used on
    np.testing.assert_allclose(program(given, changed=False)[0], before, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(program(given)[0], expected(given), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="takes 3 inputs"):
        program(given[:2])


def test_calls_with_the_state_of_the_last_one() -> None:
    program = pipeline.compile(linear(), fixed={1, 2})
    program.keep([1, 2])
    given, steady = arrays(), object()
    assert program.again(given[:1], steady) is None, "there has been no call"
    program(given, steady=steady)
    for seed in (1, 2):
        given[0] = arrays(seed)[0]
        found = program.again(given[:1], steady)
        assert found is not None
        np.testing.assert_allclose(found[0], expected(given), rtol=1e-5, atol=1e-5)
        ready = np.empty((8, 128), np.float32)
        assert program.again(given[:1], steady, {0: ready})[0] is ready
        assert ready.tobytes() == found[0].tobytes()
    assert program.again(given[:1], object()) is None
    other = pipeline.compile(linear(), fixed={1, 2})
    other(arrays(3), steady=object())
    assert program.again(given[:1], steady) is None, "the code has other arrays now"
    np.testing.assert_allclose(program(given, steady=steady)[0], expected(given), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="input 0"):
        program.again([np.zeros((8, 63), np.float32)], steady)


def test_nothing_to_keep_is_an_ordinary_program() -> None:
    program = pipeline.compile(Graph((X, B), (ops.exp(X), B)), fixed={1})
    assert not isinstance(program, Prepared)


def test_found_in_memory_and_on_disk() -> None:
    graph = linear()
    first = pipeline.compile(graph, fixed={1, 2})
    given = arrays()
    value = first(given)[0]
    again = pipeline.compile(graph, fixed={1, 2})
    assert (again.origin, again.code) == ("memory", first.code)
    program_cache.clear()
    stored = pipeline.compile(graph, fixed={1, 2})
    assert isinstance(stored, Prepared)
    assert stored.origin == "disk"
    np.testing.assert_array_equal(stored(given)[0], value)
    assert not isinstance(pipeline.compile(graph), Prepared)  # another key


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_random_programs(seed: int, dtype: object) -> None:
    graph, donated, given = random_program(3000 + seed, dtype, 25)
    free = sorted(set(range(len(graph.inputs))) - set(donated.values()))
    fixed = frozenset(random.Random(seed).sample(free, max(1, 2 * len(free) // 3)))
    plain = pipeline.compile(graph, donated)([a.copy() for a in given])
    program = pipeline.compile(graph, donated, fixed=fixed)
    tolerance = 2e-4 if dtype is float32 else 1e-9
    for changed in (True, False):
        for actual, right in zip(program([a.copy() for a in given], changed=changed), plain, strict=True):
            np.testing.assert_allclose(actual, right, rtol=tolerance, atol=tolerance)


def test_split() -> None:
    """Small computed values go; views, and what is much larger than the inputs, stay."""
    big = ops.broadcast(ops.exp(B), (1000, 128), (1,))
    graph = Graph((X, B), (ops.add(big, ops.sin(big)), ops.neg(X), ops.reshape(B, (2, 64))))
    found = prepare.split(graph, {B})
    assert [node.op.name for node in found.kept.values()] == ["exp"]
    main = found.main
    assert main.inputs == (X, B, *found.kept)
    assert {n.op.name for n in main.nodes} == {"input", "broadcast", "sin", "add", "neg", "reshape"}
    assert prepare.split(graph, {X}).kept != {}
    assert prepare.split(graph, set()).main.outputs == graph.outputs


def test_loops_are_kept() -> None:
    """Results of a loop over fixed values lie inside one another: its last state in the stack of all."""
    graphc.manual_seed(0)
    xs, u, start = graphc.randn(5, 3, 4), graphc.randn(4, 4), graphc.randn(3, 4)

    def step(h: graphc.Tensor, x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        h = graphc.tanh(x + h @ u)
        return h, h

    def model(w: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        last, states = graphc.scan(step, start, xs)
        return (states * w).sum(), last * w[0]

    h, states = start.numpy(), []
    for x in xs.numpy():
        h = np.tanh(x + h @ u.numpy())
        states.append(h)
    compiled = graphc.compile(model)
    for w in (graphc.randn(5, 3, 4), graphc.randn(5, 3, 4)):
        total, last = compiled(w)
        np.testing.assert_allclose(total.item(), (np.stack(states) * w.numpy()).sum(), rtol=1e-4)
        np.testing.assert_allclose(last.numpy(), h * w.numpy()[0], rtol=1e-4, atol=1e-6)


def test_a_failed_check_says_what_it_would() -> None:
    labels = ops.input_("i", TensorType((3,), int64))
    table = ops.exp(ops.input_("t", TensorType((5, 4), float32)))
    rows = ops.take(table, ops.check_index(labels, 0, 5, "row out of range"), 0)
    graph = Graph((labels, table.inputs[0]), (rows,))
    program = pipeline.compile(graph, fixed={1})
    assert isinstance(program, Prepared)
    values = np.ones((5, 4), np.float32)
    for _ in range(2):
        with pytest.raises(IndexError, match="got 7 at"):
            program([np.array([0, 7, 1]), values], changed=False)
    assert program([np.array([0, 4, 1]), values], changed=False)[0].shape == (3, 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 36, 5)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.fc(nn.functional.relu(self.norm(self.conv(x))).flatten(1))


def test_every_way_to_change_a_parameter_is_noticed() -> None:
    net = Net().eval()
    compiled = graphc.compile(net)
    x = graphc.randn(4, 3, 6, 6)
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.1)

    def agree() -> graphc.Tensor:
        with graphc.no_grad():
            for _ in range(2):
                result = compiled(x)
                np.testing.assert_allclose(result.numpy(), net(x).numpy(), rtol=1e-4, atol=1e-5)
        return result

    def train() -> None:
        net(x).square().sum().backward()
        optimizer.step()

    def scale() -> None:
        with graphc.no_grad():
            net.fc.weight.mul_(0.5)

    def write() -> None:
        net.conv.weight.data[0] = 1.0

    def running() -> None:
        net.train()
        net(x)
        net.eval()

    changes = [train, scale, write, running, lambda: net.load_state_dict(Net().state_dict())]
    last = agree()
    variant = next(iter(compiled._variants.values()))[0]
    assert isinstance(variant.program, Prepared)
    for change in changes:
        change()
        now = agree()
        assert (now != last).any()
        last = now
    assert compiled.compilations == 1


def test_setup_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net().eval()
    compiled = graphc.compile(net)
    with graphc.no_grad():
        compiled(graphc.randn(2, 3, 6, 6))
        program = next(iter(compiled._variants.values()))[0].program
        runs = []
        prepare_ = program._prepare
        monkeypatch.setattr(program, "_prepare", lambda inputs: runs.append(1) or prepare_(inputs))
        for _ in range(3):
            compiled(graphc.randn(2, 3, 6, 6))
        assert runs == []
        net.fc.bias.add_(1)
        compiled(graphc.randn(2, 3, 6, 6))
        assert runs == [1]


def test_a_program_may_be_collected_while_another_with_its_code_is_called() -> None:
    """The garbage collector comes at any time, in the thread that makes the call too."""
    x = ops.input_("x", TensorType((3,), float32))
    graph = Graph((x,), (ops.add(x, x),))
    kept, others = pipeline.compile(graph), [pipeline.compile(graph)]
    assert kept.code is others[0].code
    others[0]([np.ones(3, np.float32)])
    with kept.code.lock:
        collecting = threading.Thread(target=others.clear, daemon=True)
        collecting.start()
        collecting.join(20)
        assert not collecting.is_alive()
    np.testing.assert_array_equal(kept([np.ones(3, np.float32)])[0], 2)
