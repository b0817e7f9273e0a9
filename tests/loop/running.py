"""Running a partition through the loop-IR interpreter, and the NumPy oracle to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc import repeat
from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Node
from graphc.ir.partition import Partition
from graphc.loop.interpret import run
from graphc.loop.lower import lower_group, ways
from graphc.loop.lowered import Arg, KernelCall, Part, Repeat, Step, Temp, Trips, Turns, values_of
from graphc.program import Machine

WIDE = Machine("wide", 64, ((6, 4), (8, 3), (14, 2), (28, 1)), True)
NARROW = Machine("narrow", 16, ((8, 3), (6, 4)), False)


def make_free(monkeypatch: pytest.MonkeyPatch, way: str) -> list[Any]:
    """Make a way of lowering contractions (`plan_dots`) free of charge, so that it is always chosen; the list
    fills with the plans that are made, at their real costs."""
    plan, found = getattr(ways, way), []

    def cheap(*args: Any) -> Any:
        result = plan(*args)
        if result is not None:
            found.append(result)
            result = replace(result, cost=0.0)
        return result

    monkeypatch.setattr(ways, way, cheap)
    return found


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
    memory = Memory(values)
    for node in parts.graph.nodes:
        if node.op.name == "constant":
            memory.put(node, node.attrs.array)
    for group in parts.groups:
        lowered = repeat.lower(group, machine)
        memory.run((*lowered.once, *lowered.steps), {})
        memory.parts.update(lowered.parts)
    return [memory.get(node) for node in parts.graph.outputs]


class Memory:
    """The bytes of every value; unwritten ones are 99s."""

    def __init__(self, values: Mapping[Node, np.ndarray]) -> None:
        self.bytes: dict[Node | Temp, np.ndarray] = {}
        self.parts: dict[Node, Part] = {}
        for value, array in values.items():
            self.put(value, array)

    def put(self, value: Node | Temp, array: np.ndarray) -> None:
        self.bytes[value] = np.array(array, order="C").reshape(-1).view(np.uint8)

    def get(self, node: Node) -> np.ndarray:
        if node in self.parts or node in self.bytes:
            return self.view(self.parts.get(node, node), {}).reshape(node.shape)
        return np.zeros(node.shape, node.dtype.numpy)

    def view(self, arg: Arg, trips: Mapping[Trips, int]) -> np.ndarray:
        """The elements of an argument."""
        while isinstance(arg, Turns):
            trip = trips[arg.loop]
            skipped = 0 if arg.first is None else 1
            starting = arg.first is not None and trip == 0
            arg = arg.first if starting else arg.rest[(trip - skipped) % len(arg.rest)]
        place = arg if isinstance(arg, Part) else Part(self.parts.get(arg, arg), arg.type)
        if isinstance(place.value, Part):
            place = place.value
        low = place.offset + sum(trips[loop] * step for loop, step in place.steps)
        raw = self.bytes[place.value][low : low + place.type.nbytes]
        assert low >= 0
        assert len(raw) == place.type.nbytes
        return raw.view(place.type.dtype.numpy)

    def run(self, steps: Sequence[Step], trips: dict[Trips, int]) -> None:
        for step in steps:
            if isinstance(step, Repeat):
                for trip in range(step.trips.count):
                    self.run(step.body, {**trips, step.trips: trip})
            else:
                self.call(step, trips)

    def call(self, call: KernelCall, trips: Mapping[Trips, int]) -> None:
        for i, arg in enumerate(call.args):
            for value in values_of(arg):
                if value not in self.bytes and value not in self.parts:
                    assert arg is not value or i in call.writes, f"{call.kernel.name} reads {value} too early"
                    self.put(value, np.full(value.type.shape, 99, value.type.dtype.numpy))
        arrays = [self.view(arg, trips) for arg in call.args]
        arrays = [a.reshape(p.shape) for a, p in zip(arrays, call.kernel.params, strict=True)]
        assert run(call.kernel, arrays, tuple(reversed(range(call.kernel.tasks)))) == 0


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
