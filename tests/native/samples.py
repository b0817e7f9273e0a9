"""Many samples in one program: thousands of programs of one op each would take minutes to compile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc import ops, pipeline
from graphc.autodiff import gradients
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType
from graphc.ops.sample import Sample
from graphc.ops.samples import Case, draw


@dataclass(frozen=True)
class Placed:
    """A sample at a dtype, with inputs of its own and drawn arrays for them."""

    case: Case
    dtype: DType
    inputs: tuple[Node, ...]
    arrays: tuple[np.ndarray, ...]

    @property
    def name(self) -> str:
        return f"{self.case.id} {self.dtype.name} {self.sample.label}".rstrip()

    @property
    def sample(self) -> Sample:
        return self.case.sample

    @property
    def output(self) -> Node:
        """The sample's result."""
        return self.sample.function(*self.inputs)


def place(case: Case, dtype: DType, seed: int = 3) -> Placed:
    """Inputs are named after the case, so that no two samples share one."""
    rng = np.random.default_rng(seed)
    types = [TensorType(tuple(a.shape), a.dtype or dtype) for a in case.args]
    inputs = [ops.input_(f"{case.id}.{dtype.name}.{i}", t) for i, t in enumerate(types)]
    arrays = [draw(rng, a, t.dtype) for a, t in zip(case.args, types, strict=True)]
    return Placed(case, dtype, tuple(inputs), tuple(arrays))


@dataclass(frozen=True)
class Pulled:
    """The gradient of a sample: `outputs` for each float input, and the cotangent they are pulled from."""

    placed: Placed
    cotangent: Node
    weights: np.ndarray
    outputs: tuple[Node, ...]


def pull(placed: Placed) -> Pulled | None:
    """<output, weights> differentiated by every float input; None where there is no gradient to take."""
    floats = [x for x in placed.inputs if x.dtype.is_float]
    output = placed.output
    if not floats or not output.dtype.is_float:
        return None
    cotangent = ops.input_(f"{placed.name} cotangent", output.type)
    found = [g for g in gradients((output,), (cotangent,), floats) if g is not None]
    weights = np.random.default_rng(5).uniform(-1, 1, output.shape).astype(output.dtype.numpy)
    return Pulled(placed, cotangent, weights, tuple(found)) if found else None


def run_both(
    arrays: dict[Node, np.ndarray], outputs: Sequence[Node]
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """(native, reference) values of every output of one program."""
    graph = Graph(tuple(arrays), tuple(outputs))
    given = list(arrays.values())
    expected = pipeline.compile(graph, backend="reference")(given)
    native = pipeline.compile(graph, backend="llvm")(given)
    return zip(native, expected, strict=True)


def disagreement(
    actual: np.ndarray, expected: np.ndarray, ulps: float, each: bool = False, floor: float = 0.0
) -> str:
    """What is wrong with `actual`; the empty string if nothing is.

    Integers, booleans, infinities and the places of NaN must be equal. Floats may be `ulps` units of the
    last place of the largest finite value away, or of each value itself if `each`; or of `floor`, for
    values that may be differences of larger ones.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return f"{actual.dtype}{actual.shape} for {expected.dtype}{expected.shape}"
    if expected.dtype.kind != "f":
        return _first(actual, expected, actual != expected)
    exact = ~np.isfinite(expected)
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    if not same[exact].all():
        return _first(actual, expected, exact & ~same)
    size = np.abs(np.where(exact, 0, expected))
    scale = size if each else size.max(initial=0)
    info = np.finfo(expected.dtype)
    allowed = ulps * info.eps * np.maximum(scale, max(floor, float(info.tiny)))
    with np.errstate(invalid="ignore"):
        near = np.abs(actual - expected) <= allowed
    return _first(actual, expected, ~(same | near))


def _first(actual: np.ndarray, expected: np.ndarray, wrong: np.ndarray) -> str:
    """The first wrong element."""
    places = np.argwhere(wrong)
    if not len(places):
        return ""
    at = tuple(int(i) for i in places[0])
    return f"{list(at)}: {actual[at]!r} for {expected[at]!r} ({len(places)} of {wrong.size} elements)"
