"""A compiled program as Python calls it: arrays in, arrays out, one native call between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.arrays import Reused, aligned_empty
from graphc.ir.graph import Graph
from graphc.program import Executable, Plan

SMALL = 64 << 10  # inputs of up to this many bytes are not let go of after a call

Explain = Callable[[Sequence[np.ndarray], int], Exception]


class Code:
    """What programs of equal structure share: the executable, and which arrays it is bound to.

    `executable` is None for a program that computes nothing (every output keeps its input).
    """

    def __init__(self, executable: Executable | None, graph: Graph, donated: Mapping[int, int]) -> None:
        self.executable: Any = executable
        self.types = tuple([n.type for n in graph.inputs]), tuple([n.type for n in graph.outputs])
        self.lock = threading.Lock()
        self.donated = dict(donated)
        self.n_inputs, self.n_outputs = len(graph.inputs), len(graph.outputs)
        state = sorted((i, o) for o, i in self.donated.items())
        self.state = tuple(state)  # (input, output) pairs in one memory; other outputs are `made`
        self.loose = tuple(sorted(set(range(self.n_inputs)) - set(self.donated.values())))
        outputs = [(o, node.shape, node.dtype.numpy) for o, node in enumerate(graph.outputs)]
        self.fresh = tuple([output for output in outputs if output[0] not in self.donated])
        self.made = tuple([output[0] for output in self.fresh])
        large = {i for i, node in enumerate(graph.inputs) if node.type.nbytes > SMALL}
        self.transient = tuple([i for i in self.loose if i in large])
        self.can_bind = hasattr(executable, "call")

    def forget_arrays(self) -> None:
        """Let go of the arrays of the last call.

        Not while a call is being made, which binds others: the garbage collector, which may come in the midst
        of one, deletes programs that share the code, and must not wait for it.
        """
        if self.can_bind and self.lock.acquire(blocking=False):
            try:
                self.executable.release()
            finally:
                self.lock.release()


class Program:
    """A compiled graph. Calling it runs it.

    `outputs = program(inputs)`: inputs are C-contiguous arrays of the graph's input types, in order.
    A donated input is overwritten, and is itself the output. Other outputs are new arrays.
    Raises IndexError (what a failed check says) before any donated array has changed, ValueError or
    TypeError for arrays that do not fit.

    origin  "compiled", "memory" or "disk": where the code came from
    plan    the plan, if it was made by this compilation
    """

    def __init__(
        self, code: Code, graph: Graph, explain: Explain, plan: Plan | None = None, origin: str = "compiled"
    ) -> None:
        self.code = code
        self.graph = graph
        self.plan = plan
        self.origin = origin
        self._explain = explain
        self._transient: Sequence[int] = code.transient
        self._loose: tuple[Sequence[int], Sequence[int]] = range(code.n_inputs), code.made
        self._steady: object = None
        self._keeps_state = not code.state  # whether `keep` was told of all inputs that are overwritten
        self._given: list[Any] = []  # the outputs in their memory, if the next call's are the same
        self._pools: tuple[tuple[int, Reused], ...] | None = None  # a program is seldom called just once
        self._ready: Mapping[int, np.ndarray] | None = (
            None  # the arrays for outputs that the last call brought
        )
        self._rest: tuple[tuple[int, Reused], ...] = ()  # the other outputs

    @property
    def donated(self) -> dict[int, int]:
        """Output position -> position of the input whose memory it takes."""
        return self.code.donated

    def keep(self, inputs: Sequence[int]) -> None:
        """Say that these inputs are state: mostly the same arrays from call to call, alive anyway."""
        kept = set(inputs)
        self._transient = [i for i in self._transient if i not in kept]
        loose = [i for i in self._loose[0] if i not in kept]
        self._loose = loose, self.code.made
        self._keeps_state = not any(i in loose for i, _ in self.code.state)

    def __call__(
        self,
        inputs: Sequence[np.ndarray],
        ready: Mapping[int, np.ndarray] | None = None,
        changed: bool = True,
        steady: object = None,
    ) -> list[np.ndarray]:
        """Run. `ready` has arrays for some of the outputs that are not donated, which stay bound. (Nothing
        is kept from call to call, so it does not matter whether inputs have `changed`: see `Prepared`.)

        `steady`: an object that is the same (and not None) as long as the inputs that `keep` was told of are
        the same arrays.
        """
        code = self.code
        if len(inputs) != code.n_inputs:
            raise ValueError(f"program takes {code.n_inputs} inputs (given {len(inputs)})")
        if steady is None or steady is not self._steady:
            outputs: list[Any] = [None] * code.n_outputs
            for i, o in code.state:
                outputs[o] = inputs[i]
            steady = self._steady = steady if self._keeps_state else None
            self._given = [] if steady is None else outputs.copy()
        else:
            outputs = self._given.copy()
        status = 0
        with code.lock:  # only one thread at a time is inside, and looks for memory that nobody holds
            self._ready = None
            self._supply(outputs, ready)
            if code.can_bind:
                status = code.executable.call(inputs, outputs, self._loose, self._transient, steady)
            elif code.executable is not None:
                status = code.executable(inputs, outputs)
        if status:
            raise self._explain(inputs, status)
        return outputs

    def _supply(self, outputs: list[Any], ready: Mapping[int, np.ndarray] | None) -> None:
        """Enter arrays for the outputs that take no input's memory."""
        if self._pools is None:
            self._pools = tuple([(o, Reused(shape, dtype)) for o, shape, dtype in self.code.fresh])
            for o, shape, dtype in self.code.fresh:
                outputs[o] = ready[o] if ready and o in ready else aligned_empty(shape, dtype)
        else:
            for o, pool in self._pools:
                outputs[o] = ready[o] if ready and o in ready else pool.take()

    def again(
        self, given: Sequence[np.ndarray], steady: object, ready: Mapping[int, np.ndarray] | None = None
    ) -> list[Any] | None:
        """A call with the state of the last one, if `steady` is its object: `given` are the inputs that
        `keep` was not told of, in order. Returns the outputs, with None for state, which it updates in place.
        If `ready` is the mapping that the last call had, unchanged, its arrays are still bound.

        None, and nothing has changed, where a whole call has to be made: somebody else has run the code
        since, or a check fails (which that call reports).
        """
        code = self.code
        if steady is None or steady is not self._steady or self._pools is None or not code.can_bind:
            return None
        outputs: list[Any] = [None] * code.n_outputs
        made = []
        with code.lock:
            fresh, loose = self._pools, self._loose
            bound = ready is not None and ready is self._ready
            if bound:
                fresh, loose = self._rest, (loose[0], [o for o, _ in self._rest])
            self._ready = None
            for o, pool in fresh:
                outputs[o] = array = ready[o] if ready and o in ready else pool.take()
                made.append(array)
            status = code.executable.again(given, made, loose, self._transient, steady)
            if status != 0:
                return None
            if ready is not None:
                if not bound:
                    self._rest = tuple([(o, pool) for o, pool in fresh if o not in ready])
                for o, array in ready.items():
                    outputs[o] = array
                self._ready = ready
        return outputs

    def __del__(self) -> None:
        code = getattr(self, "code", None)
        if code is not None:
            code.forget_arrays()
