"""Running a partition through the loop-IR interpreter, and the NumPy oracle to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Node
from graphc.ir.partition import Partition
from graphc.loop.interpret import run
from graphc.loop.lower import lower_group
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

WIDE = Machine("wide", 64, ((6, 4), (8, 3), (14, 2), (28, 1)), True)
NARROW = Machine("narrow", 16, ((8, 3), (6, 4)), False)


def oracle(outputs: Sequence[Node], values: Mapping[Node, np.ndarray]) -> list[np.ndarray]:
    """NumPy's values of nodes, given those of the inputs."""
    known = dict(values)
    with np.errstate(all="ignore"):
        for node in toposort(outputs):
            if node not in known:
                assert node.op.evaluate is not None
                known[node] = np.asarray(node.op.evaluate([known[n] for n in node.inputs], node.attrs))
    return [known[n] for n in outputs]


def draw(node: Node, rng: np.random.Generator) -> np.ndarray:
    """A random value for an input."""
    if node.dtype.is_float:
        return rng.standard_normal(node.shape).astype(node.dtype.numpy)
    if node.dtype.kind == "b":
        return rng.integers(0, 2, node.shape).astype(bool)
    return rng.integers(0, 9, node.shape).astype(node.dtype.numpy)


def calls_of(parts: Partition, machine: Machine = WIDE) -> list[KernelCall]:
    return [call for group in parts.groups for call in lower_group(group, machine)]


def execute(parts: Partition, values: Mapping[Node, np.ndarray], machine: Machine = WIDE) -> list[np.ndarray]:
    """Values of the graph's outputs; the tasks of every kernel run backwards, since their order is free."""
    memory: dict[Node | Temp, np.ndarray] = dict(values)
    for node in parts.graph.nodes:
        if node.op.name == "constant":
            memory[node] = node.attrs.array
    for call in calls_of(parts, machine):
        for i, arg in enumerate(call.args):
            if arg not in memory:
                assert i in call.writes, f"{call.kernel.name} reads {arg} before it is written"
                memory[arg] = np.full(arg.type.shape, 99, arg.type.dtype.numpy)
        arrays = [np.ascontiguousarray(memory[a]) for a in call.args]
        status = run(call.kernel, arrays, tuple(reversed(range(call.kernel.tasks))))
        assert status == 0
        for i in call.writes:
            memory[call.args[i]] = arrays[i].reshape(call.args[i].type.shape)
    return [memory[n] if n in memory else np.zeros(n.shape, n.dtype.numpy) for n in parts.graph.outputs]


def check(graph: Graph, parts: Partition, machine: Machine = WIDE, tolerance: float = 2e-5) -> None:
    """Assert that the kernels compute what NumPy does, on random inputs."""
    rng = np.random.default_rng(0)
    values = {n: draw(n, rng) for n in graph.inputs}
    expected = oracle(graph.outputs, values)
    for got, want in zip(execute(parts, values, machine), expected, strict=True):
        compare(got, want, tolerance)


def compare(got: np.ndarray, want: np.ndarray, tolerance: float = 2e-5) -> None:
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(1.0, _scale(want)))
    else:
        np.testing.assert_array_equal(got, want)


def _scale(x: np.ndarray) -> float:
    finite = np.abs(x[np.isfinite(x)])
    return float(finite.max()) if finite.size else 0.0
