"""All samples of all ops as graphs and arrays: what the table-driven tests iterate.

for case in all_samples():
    for dtype in case.dtypes:
        graph, arrays = case.build(dtype), case.inputs(np.random.default_rng(0), dtype)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, bool_
from graphc.ops.constant import input_
from graphc.ops.op import SAMPLES
from graphc.ops.sample import Arg, ErrorSample, Sample


@dataclass(frozen=True)
class Case:
    """A sample of op `op`: build(dtype) is its graph, inputs(rng, dtype) fitting arrays."""

    op: str
    number: int
    sample: Sample

    @property
    def id(self) -> str:
        return f"{self.op}-{self.number}"

    @property
    def dtypes(self) -> tuple[DType, ...]:
        return self.sample.dtypes

    @property
    def args(self) -> list[Arg]:
        return [a if isinstance(a, Arg) else Arg(tuple(a)) for a in self.sample.args]

    def build(self, dtype: DType) -> Graph:
        """The sample's program at a dtype."""
        types = [TensorType(tuple(a.shape), a.dtype or dtype) for a in self.args]
        inputs = tuple(input_(f"x{i}", t) for i, t in enumerate(types))
        names = tuple(f"x{i}" for i in range(len(inputs)))
        return Graph(inputs, (self.sample.function(*inputs),), names, ("out",), self.op)

    def inputs(self, rng: np.random.Generator, dtype: DType) -> list[np.ndarray]:
        """Random arrays in the sample's domain."""
        return [draw(rng, a, a.dtype or dtype) for a in self.args]


def draw(rng: np.random.Generator, arg: Arg, dtype: DType) -> np.ndarray:
    """Random values for one argument."""
    if dtype is bool_:
        return np.asarray(rng.random(arg.shape) < 0.5)
    if dtype.is_integer:
        low = max(int(arg.low), 0) if dtype.kind == "u" else int(arg.low)
        return np.asarray(rng.integers(low, max(int(arg.high), low + 1), arg.shape)).astype(dtype.numpy)
    if arg.distinct:
        size = int(np.prod(arg.shape))
        array = rng.permutation(np.linspace(arg.low, arg.high, size)).reshape(arg.shape).astype(dtype.numpy)
    else:
        array = np.asarray(rng.uniform(arg.low, arg.high, arg.shape)).astype(dtype.numpy)
    array.reshape(-1)[: len(arg.specials)] = arg.specials
    return array


def all_samples() -> Iterator[Case]:
    """Every sample of every registered op."""
    for op, samples in SAMPLES.items():
        good = [s for s in samples() if isinstance(s, Sample)]
        yield from (Case(op, i, s) for i, s in enumerate(good))


def all_errors() -> Iterator[tuple[str, ErrorSample]]:
    """Every mistake that an op must refuse."""
    for op, samples in SAMPLES.items():
        yield from ((op, s) for s in samples() if isinstance(s, ErrorSample))
