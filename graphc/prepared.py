"""Programs in two parts: what follows from fixed inputs is computed once and kept for the rest."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.arrays import aligned_empty
from graphc.compiled import Code, Program
from graphc.ir.graph import Graph
from graphc.program import Plan


class Prepared:
    """As `Program`, for a graph of which some inputs are fixed.

    `setup` computes from the inputs what is kept (packed weights, folded constants); `main` takes the inputs
    and what is kept. The first call runs both, later ones only `main`, unless the caller says that fixed
    inputs have changed.
    """

    def __init__(self, graph: Graph, setup: Program, main: Program) -> None:
        self.graph, self.setup, self.main = graph, setup, main
        self._lock = threading.Lock()
        self._kept: list[np.ndarray] | None = None
        self._steady: tuple[object, object] = (None, None)  # the caller's, and what it was kept with
        first = len(graph.inputs)
        main.keep(range(first, first + len(setup.graph.outputs)))

    @property
    def code(self) -> Code:
        """The code of the part that every call runs."""
        return self.main.code

    @property
    def plan(self) -> Plan | None:
        """The plan of the part that every call runs."""
        return self.main.plan

    @property
    def origin(self) -> str:
        """Where the code came from."""
        return self.main.origin

    @property
    def donated(self) -> dict[int, int]:
        """Output position -> position of the input whose memory it takes."""
        return self.main.donated

    def keep(self, inputs: Sequence[int]) -> None:
        """As `Program.keep`."""
        self.main.keep(inputs)

    def __call__(
        self,
        inputs: Sequence[np.ndarray],
        ready: Mapping[int, np.ndarray] | None = None,
        changed: bool = True,
        steady: object = None,
    ) -> list[np.ndarray]:
        """Run. `changed` is False if the fixed inputs hold the same values as in the last call; `steady` as
        for `Program`."""
        if len(inputs) != len(self.graph.inputs):
            raise ValueError(f"program takes {len(self.graph.inputs)} inputs (given {len(inputs)})")
        with self._lock:
            if changed or self._kept is None:
                self._kept = self._prepare(inputs)
            both = self._steady
            if both[0] is not steady or both[1] is not self._kept:
                both = self._steady = (steady, self._kept)
            return self.main([*inputs, *self._kept], ready, steady=both if steady is not None else None)

    def again(
        self, given: Sequence[np.ndarray], steady: object, ready: Mapping[int, np.ndarray] | None = None
    ) -> list[Any] | None:
        """As `Program.again`, with fixed inputs that have not changed."""
        with self._lock:
            both = self._steady
            if self._kept is None or both[0] is not steady or both[1] is not self._kept:
                return None
            return self.main.again(given, both, ready)

    def _prepare(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        kept = self._kept or [aligned_empty(n.shape, n.dtype.numpy) for n in self.setup.graph.outputs]
        self._kept = None  # what an interrupted run leaves is not to be trusted
        self.setup(inputs, dict(enumerate(kept)))
        self.setup.code.forget_arrays()
        return kept
