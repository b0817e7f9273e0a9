"""A compiled program as Python calls it: arrays in, arrays out, one native call between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.graph import Graph
from graphc.program import Executable, Plan


class Code:
    """What programs of equal structure share: the executable and how to feed it."""

    def __init__(self, executable: Executable | None, graph: Graph, donated: Mapping[int, int]) -> None:
        """`executable` is None for a program that computes nothing (every output keeps its input)."""
        self.executable = executable
        self.lock = threading.Lock()
        self.donated = dict(donated)
        self.n_inputs = len(graph.inputs)
        self.kept = tuple(self.donated.items())
        self.fresh = tuple(
            (o, node.shape, node.dtype.numpy) for o, node in enumerate(graph.outputs) if o not in self.donated
        )
        state = set(self.donated.values())
        self.loose = tuple(i for i in range(self.n_inputs) if i not in state)
        self.state = tuple(sorted(state))
        self.bound: list[np.ndarray | None] = [None] * self.n_inputs
        self.output_of = {i: o for o, i in self.kept}
        self.binds = hasattr(executable, "bind_input")


class Program:
    """A compiled graph. Calling it runs it.

    `outputs = program(inputs)`: inputs are C-contiguous arrays of the graph's input types, in order.
    A donated input is overwritten, and is itself the output. Other outputs are new arrays.
    Raises IndexError (what a failed check says) before any donated array has changed.
    """

    def __init__(
        self,
        code: Code,
        graph: Graph,
        explain: Callable[[Sequence[np.ndarray], int], Exception],
        plan: Plan | None = None,
        origin: str = "compiled",
    ) -> None:
        self.code = code
        self.graph = graph
        self.plan = plan
        self.origin = origin  # "compiled", "memory" or "disk"
        self._explain = explain
        self._n_outputs = len(graph.outputs)

    @property
    def donated(self) -> dict[int, int]:
        return self.code.donated

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        code = self.code
        outputs: list[Any] = [None] * self._n_outputs
        for o, i in code.kept:
            outputs[o] = inputs[i]
        for o, shape, dtype in code.fresh:
            outputs[o] = np.empty(shape, dtype)
        if code.executable is None:
            return outputs
        with code.lock:
            status = self._run(code, inputs, outputs) if code.binds else code.executable(inputs, outputs)
        if status:
            raise self._explain(inputs, status)
        return outputs

    def _run(self, code: Code, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> int:
        """Bind what changed since the last call, and run. State stays bound between calls."""
        executable: Any = code.executable
        if len(inputs) != code.n_inputs:
            raise ValueError(f"program takes {code.n_inputs} inputs (given {len(inputs)})")
        bound = code.bound
        for i in code.state:
            if inputs[i] is not bound[i]:
                bound[i] = None
                executable.bind_input(i, inputs[i])
                executable.bind_output(code.output_of[i], inputs[i])
                bound[i] = inputs[i]
        for i in code.loose:
            executable.bind_input(i, inputs[i])
        for o, _, _ in code.fresh:
            executable.bind_output(o, outputs[o])
        return executable.run()
