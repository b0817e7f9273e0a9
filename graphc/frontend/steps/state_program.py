"""Programs that change state between other operations: what has to hold before one may run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import getrefcount

import numpy as np

from graphc.frontend.cell import Cell
from graphc.frontend.evaluation import lazy
from graphc.frontend.tracing.variant import Stale, Variant

OWN = 3  # references to a leaf's node that do not mean it is used: the leaf's, a variable's, the question's


class StateProgram:
    """The program of a recorded function without arguments of its own: who runs it has the arrays of all
    that is not state."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self._state: list[np.ndarray] | None = None  # what `own` tells the ids of
        self._own: frozenset[int] = frozenset()
        self._numbers: list[float] = []
        self._scalars: list[np.ndarray] = []

    def holds(self, take_over: bool = False) -> bool:
        """Whether what was assumed still is so, and the state is the program's alone to change.

        `take_over`: nothing pending reads the state. History may stand on it, of passes that have been made:
        it will lose the values, as it does where an update made of nodes takes over their buffers.
        """
        return self.variant.holds() and self._owns(take_over)

    def _owns(self, take_over: bool) -> bool:
        variant = self.variant
        if variant.known():
            return True
        if not take_over and _is_used_later(variant.written):
            return False
        try:
            variant.own(take_over)
        except Stale:
            return False
        return True

    def apart(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The arrays, with copies of what is state too (as a detached parameter is), since the program writes
        over that."""
        state = self.variant.arrays
        if state is not self._state:
            self._state, self._own = state, frozenset(map(id, state))
        own = self._own
        return (
            arrays if own.isdisjoint(map(id, arrays)) else [a.copy() if id(a) in own else a for a in arrays]
        )

    def numbers(self) -> list[np.ndarray]:
        """Hyperparameters as arrays: the same ones as long as the numbers stay the same."""
        numbers = [getter() for getter in self.variant.inputs.dynamics]
        if numbers != self._numbers:
            self._scalars = [np.array(number, np.float64) for number in numbers]
            self._numbers = numbers
        return self._scalars

    def run(
        self,
        before: Sequence[np.ndarray],
        after: Sequence[np.ndarray],
        ready: Mapping[int, np.ndarray] | None = None,
    ) -> list[np.ndarray] | None:
        """The outputs, from the inputs before and after the state. None, and nothing has changed, if a check
        fails."""
        variant = self.variant
        state = variant.arrays
        values: list[np.ndarray] | None = variant.program.again([*before, *after], state, ready)
        if values is None:
            try:
                values = variant.program([*before, *state, *after], ready, steady=state)
            except IndexError:
                return None
        lazy.STATS.native_calls += 1
        if variant.taken:
            variant.overwritten()
        for cell in variant.written:
            cell.version += 1
        return values


def _is_used_later(written: Sequence[Cell]) -> bool:
    """Whether history elsewhere still refers to a value that the program will write over."""
    for cell in written:
        for ref in cell.vars or ():
            node = ref()
            if node is not None and node.bound is cell.node.bound and getrefcount(node) > OWN:
                return True
    return False
