"""An optimizer's step on gradients that are computed already, as a recorded program.

Where a gradient, or the loss, is looked at between the backward pass and the step (to print it, to clip
gradients, to sum losses up), the step is a program of its own. It is traced once, like a compiled call of
`optimizer.step`; so such a step costs no recording of every parameter's update.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.cell import Cell, Steps
from graphc.frontend.errors import TracerError
from graphc.frontend.evaluation import lazy
from graphc.frontend.modes import MODE
from graphc.frontend.steps.state_program import StateProgram
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing.events import Promised
from graphc.frontend.tracing.record import record_call
from graphc.frontend.tracing.variant import Variant

MANY = 4  # programs for one optimizer, before the oldest is forgotten


class _Steps:
    """The programs of one optimizer's steps, for one backend."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.programs: list[StateProgram] = []
        self.refused = False  # a step needs values while it is traced


def step(optimizer: Any) -> bool:
    """Do `optimizer.step()` in one program. False, and nothing has happened, unless all gradients are known.

    What else is pending is computed before, while the state that it reads is there.
    """
    events = MODE.events
    if MODE.trace is not None or (events is not None and not events.done):
        return False
    found = _gradients(optimizer)
    if not found:
        return False
    steps: _Steps = optimizer.__dict__.setdefault("_known_steps", _Steps(lazy.SETTINGS.backend))
    if steps.backend != lazy.SETTINGS.backend:
        steps = optimizer.__dict__["_known_steps"] = _Steps(lazy.SETTINGS.backend)
    if steps.refused:
        return False
    lazy.sync()
    if any(_run(program, found) for program in steps.programs):
        return True
    try:
        program = StateProgram(Variant(record_call(lambda: _step(optimizer), _name(optimizer), (), {})))
    except TracerError:
        steps.refused = True
        return False
    lazy.STATS.compilations += 1
    steps.programs.append(program)
    del steps.programs[:-MANY]
    return _run(program, found)


def _name(optimizer: Any) -> str:
    return f"{type(optimizer).__name__}.step"


def _step(optimizer: Any) -> None:
    optimizer.step()
    assert MODE.trace is not None
    MODE.trace.consumed.clear()  # gradients can be read after the step


def _run(program: StateProgram, gradients: dict[int, np.ndarray]) -> bool:
    if not _is_of(program, gradients) or not program.holds(take_over=True):
        return False
    given = program.apart([gradients[id(leaf)] for leaf in program.variant.inputs.grads])
    if program.run([], [*given, *program.numbers()]) is None:
        return False
    Steps.count += 1
    return True


def _is_of(program: StateProgram, gradients: dict[int, np.ndarray]) -> bool:
    """Whether a program takes just these gradients."""
    inputs = program.variant.inputs
    return not inputs.keys and {id(leaf) for leaf in inputs.grads} == gradients.keys()


def _gradients(optimizer: Any) -> dict[int, np.ndarray]:
    """The arrays of all gradients, by id of the leaf; empty if one of them is not known."""
    found = {}
    for group in optimizer.param_groups:
        for leaf in group["params"]:
            gradient = leaf._grad
            if gradient is None:
                continue
            array = _known(leaf, gradient)
            if array is None:
                return {}
            found[id(leaf)] = array
    return found


def _known(leaf: Tensor, gradient: Any) -> np.ndarray | None:
    if type(gradient) is Promised:
        return gradient.array_of(leaf)
    cell = gradient._cell
    if type(cell) is not Cell or cell.view is not None or cell.fn is not None:
        return None
    bound = cell.node.bound
    return bound if type(bound) is np.ndarray else None
