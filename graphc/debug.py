"""Observers of the pipeline: dump, timing, verifier, validation. Passes themselves never print.

``GRAPHC_DUMP=dir``     every stage as text: 00_trace.txt, 01_simplify.txt, ...
``GRAPHC_DEBUG=1``      verify the graph after every pass; ``2``: also log the time of every stage
``GRAPHC_VALIDATE=1``   run the NumPy oracle around every pass, and name the pass that broke the numbers
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphc.analysis.evaluate import evaluate_graph
from graphc.ir.graph import Graph
from graphc.ir.hashing import structural_hash
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Partition
from graphc.ir.verify import verify
from graphc.ops.op import REGISTRY

logger = logging.getLogger("graphc")


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of a compilation: its name, what it took, and its text, rendered when asked for.

    `graph` is set for stages that are graphs, `partition` for the one that is a partition.
    """

    name: str
    seconds: float
    render: Callable[[], str]
    graph: Graph | None = None
    before: Graph | None = None
    partition: Partition | None = None

    @property
    def text(self) -> str:
        return self.render()


Observer = Callable[[Stage], None]


class ValidationError(Exception):
    """A stage of the compiler changed what the program computes."""


@dataclass
class Record:
    """Keeps the stages, for reports."""

    stages: list[Stage] = field(default_factory=list)

    def __call__(self, stage: Stage) -> None:
        self.stages.append(stage)


class Dump:
    """Writes each stage to a numbered file in a folder of the program's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder: Path | None = None
        self.count = 0

    def __call__(self, stage: Stage) -> None:
        if self.folder is None:
            self.folder = self.root / self._name(stage)
            self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{self.count:02d}_{stage.name}.txt").write_text(stage.text)
        self.count += 1

    @staticmethod
    def _name(first: Stage) -> str:
        if first.graph is None:
            return "program"
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", first.graph.name) or "program"
        return f"{name}-{structural_hash(first.graph)[:8]}"


def log_time(stage: Stage) -> None:
    """Log how long a stage took."""
    logger.warning("%-12s %8.2f ms", stage.name, 1e3 * stage.seconds)


def check_graph(stage: Stage) -> None:
    """Verify a stage's graph; raises VerifyError."""
    if stage.graph is not None:
        verify(stage.graph, REGISTRY)


class Validate:
    """Compares the oracle's results on a graph before and after each stage. Raises ValidationError."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.inputs: list[np.ndarray] | None = None
        self.results: tuple[Graph, list[np.ndarray]] | None = None

    def __call__(self, stage: Stage) -> None:
        if stage.graph is None or not stage.graph.outputs:
            return
        if stage.before is None or self.results is None:
            self.inputs = sample_inputs(stage.graph, self.seed)
            self.results = stage.graph, evaluate_graph(stage.graph, self.inputs)
            return
        if stage.graph is self.results[0]:
            return
        assert self.inputs is not None
        results = evaluate_graph(stage.graph, self.inputs)[: len(self.results[1])]  # without check flags
        compare(stage.name, self.results[1], results)
        self.results = stage.graph, results

    def check(self, name: str, run: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]) -> None:
        """Compare what something compiled computes with the oracle."""
        if self.inputs is not None and self.results is not None:
            compare(name, self.results[1], run([array.copy() for array in self.inputs]))


def sample_inputs(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Random inputs: floats from a normal distribution, indices within what is checked of them."""
    rng = np.random.default_rng(seed)
    limits = _checked_ranges(graph)
    return [_sample(node, rng, limits.get(node, (0, 2))) for node in graph.inputs]


def _checked_ranges(graph: Graph) -> Mapping[Node, tuple[int, int]]:
    ranges: dict[Node, tuple[int, int]] = {}
    for node in graph.nodes:
        if node.kind is Kind.CHECK:
            source = node.inputs[0]
            while source.kind is Kind.VIEW and len(source.inputs) == 1:
                source = source.inputs[0]
            low, high = ranges.get(source, (node.attrs.low, node.attrs.high))
            ranges[source] = max(low, node.attrs.low), min(high, node.attrs.high)
    return ranges


def _sample(node: Node, rng: np.random.Generator, limits: tuple[int, int]) -> np.ndarray:
    if node.dtype.is_float:
        return np.asarray(rng.standard_normal(node.shape), node.dtype.numpy)
    if node.dtype.kind == "b":
        return np.asarray(rng.random(node.shape) < 0.5)
    low, high = limits
    return np.asarray(rng.integers(low, max(high, low + 1), node.shape), node.dtype.numpy)


def compare(name: str, expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> None:
    """Raise ValidationError if results differ by more than rounding."""
    for position, (old, new) in enumerate(zip(expected, actual, strict=True)):
        if old.dtype != new.dtype or old.shape != new.shape:
            raise ValidationError(
                f"{name}: output {position} was {old.dtype}{old.shape}, is {new.dtype}{new.shape}"
            )
        if old.dtype.kind != "f":
            same = bool(np.array_equal(old, new))
        else:
            scale = np.max(np.abs(old), initial=0, where=np.isfinite(old))
            tolerance = (1e-3 if old.dtype.itemsize == 4 else 1e-8) * max(float(scale), 1e-6)
            same = bool(np.allclose(new, old, rtol=0, atol=tolerance, equal_nan=True))
        if not same:
            raise ValidationError(f"{name} changed output {position}: {_worst(old, new)}")


def _worst(old: np.ndarray, new: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        error = np.abs(new.astype(np.float64) - old.astype(np.float64))
    error = np.where(np.isnan(error), np.where(np.isnan(old) == np.isnan(new), 0, np.inf), error)
    place = np.unravel_index(int(np.argmax(error)), error.shape)
    return f"element {[int(i) for i in place]} was {old[place]}, is {new[place]}"


def observers_from_environment() -> list[Observer]:
    """The observers that the GRAPHC_* variables ask for."""
    found: list[Observer] = []
    level = os.environ.get("GRAPHC_DEBUG", "0")
    level_number = int(level) if level.isdigit() else 1
    if os.environ.get("GRAPHC_DUMP"):
        found.append(Dump(Path(os.environ["GRAPHC_DUMP"])))
    if level_number >= 1:
        found.append(check_graph)
    if level_number >= 2:
        found.append(log_time)
    if os.environ.get("GRAPHC_VALIDATE", "0") not in ("", "0"):
        found.append(Validate())
    return found
