"""Noted calls, their backward passes and the optimizer's step as one program.

The sequence is traced once, from the graphs that its calls were recorded with, as `compile` traces
a whole training step written in one function; so parameters and optimizer state are updated in place,
and hyperparameters are inputs. Gradients are outputs, kept as promises until somebody looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from graphc.frontend.cell import Cell, Steps, Uncomputed, fresh_input
from graphc.frontend.errors import TracerError
from graphc.frontend.evaluation import lazy
from graphc.frontend.history import GradFn
from graphc.frontend.modes import MODE, enable_grad
from graphc.frontend.steps.state_program import StateProgram
from graphc.frontend.tensor import Tensor, from_array, operand, wrap_cell
from graphc.frontend.tracing.changes import Change
from graphc.frontend.tracing.events import Backward, Call, Events, Promised, compute_by, fill
from graphc.frontend.tracing.record import record_call
from graphc.frontend.tracing.variant import Variant

MANY = 4  # programs for one sequence of events, before the oldest is forgotten
UNHELD = 3  # references to a promise that no leaf holds: ours, a variable's, and the question's


class Joint:
    """The program of one sequence of events, which ends with a step of one optimizer if there is one."""

    def __init__(self, events: Events, optimizer: Any | None, backend: str | None) -> None:
        arguments = [from_array(array) for array in _arrays(events)]

        def step(*tensors: Tensor) -> list[Tensor]:
            count = len(events.arrays)
            return _replay(events, tensors[:count], iter(tensors[count:]), optimizer)

        name = "forward and backward" if optimizer is None else f"{type(optimizer).__name__}.step"
        record = record_call(step, name, arguments, {})
        self.variant = variant = Variant(record, backend, trains=True)
        self.program = StateProgram(variant)
        lazy.STATS.compilations += 1
        # They hold promises when the program runs; that they had no gradients before is checked then.
        variant.without_grad = [t for t in variant.without_grad if id(t) not in events.leaves]
        found = {id(grad.leaf): at for grad, at in variant.grads}
        self.steps = optimizer is not None
        self.outputs = [found[key] for key in events.leaves]
        self.places = {key: i for i, key in enumerate(events.leaves)}
        self.arrays: list[np.ndarray] = []  # the last gradients
        self.ready: dict[int, np.ndarray] = {}  # the same by their place among the outputs
        self.plain = not variant.inputs.grads  # nothing but state goes in beside data and numbers
        self.promise: Promised | None = None

    def run(self, events: Events) -> bool:
        """Run for events that are closed. False, with nothing done, if the program does not fit."""
        if not self.program.holds(take_over=self.steps):  # before a step all that is pending is computed
            return False
        ready = self._ready()
        state_gradients = [] if self.plain else self.variant.held()[len(self.variant.arrays) :]
        after = [*state_gradients, *self.program.numbers()]
        values = self.program.run(self.program.apart(_arrays(events)), after, ready)
        if values is None:  # a check failed: the events built will say so again
            return False
        if self.steps:
            Steps.count += 1
        if not MODE.pending:
            MODE.backend = None
        _finish(events, values)
        if ready is None:
            self.arrays = [values[at] for at in self.outputs]
            self.ready = dict(zip(self.outputs, self.arrays, strict=True))
        self.promise = events.promise
        self.promise.keep(self.arrays, self.places)
        return True

    def _ready(self) -> dict[int, np.ndarray] | None:
        """The arrays of the last gradients, if nobody has got hold of one, or still can."""
        promise = self.promise
        if promise is None or promise.given or getrefcount(promise) != UNHELD:
            return None
        return self.ready


def _arrays(events: Events) -> list[np.ndarray]:
    """What the program takes for arguments, keys and numbers of the calls."""
    arrays = events.arrays
    for call in events.calls:
        if call.extras:
            arrays = [*arrays, *call.extras]
    return arrays


def _replay(
    events: Events, data: Sequence[Tensor], extras: Iterator[Tensor], optimizer: Any | None
) -> list[Tensor]:
    """The events, and the step if there is one, on stand-ins for `_arrays`; what calls give, then changes."""
    made: list[list[Tensor]] = []
    changed: list[Tensor] = []
    with enable_grad():
        for item in events.items:
            if isinstance(item, Call):
                made.append(_call(item, data, extras, made))
            elif isinstance(item, Change):
                changed += item.run()
            elif isinstance(item, Backward):
                number, result = item.key
                item.run(made[number][result])
    if optimizer is not None:
        optimizer.step()
        assert MODE.trace is not None
        MODE.trace.consumed.clear()  # gradients can be read after the step
    return [*[tensor for results in made for tensor in results], *changed]


def _call(
    call: Call, data: Sequence[Tensor], extras: Iterator[Tensor], made: Sequence[Sequence[Tensor]]
) -> list[Tensor]:
    replay = call.replay
    leaves = list(call.leaves)
    wired = {i: made[number][result] for i, number, result in call.wires}
    places = iter(call.places)
    for i in replay.inputs.arguments:
        leaves[i] = wired[i] if i in wired else data[next(places)]
    nodes, fn = replay.build(leaves, [operand(next(extras), False) for _ in call.extras])
    return [
        wrap_cell(Cell(node, fn if follow else None, not follow))
        for node, follow in zip(nodes, replay.differentiable, strict=True)
    ]


def _finish(events: Events, values: Sequence[np.ndarray]) -> None:
    """Give the results of the calls their values; their history has been used up."""
    at = 0
    for call in events.calls:
        replay = call.replay
        used = None
        for i, (cell, like) in enumerate(zip(call.cells, replay.likes, strict=True)):
            if replay.differentiable[i] and (used is None or call.source is not None):
                used = GradFn(replay.labels[i] if call.source is not None else "CompiledFunctionBackward", ())
                used.freed = True
            node = fresh_input(like.type, values[at], like.attrs)
            fill(cell, node, used if replay.differentiable[i] else None, False)
            at += 1
        if call.source is not None:
            call.source.taken(True)
    for result, type_ in events.changes.items():
        fill(result, fresh_input(type_, values[at]), None, False)
        at += 1


# ------------------------------------------------------------------------ stepping


def step(optimizer: Any) -> bool:
    """Do the noted events and `optimizer.step()` in one program.

    If that is not possible, the events are done, and False says that the step is still to be.
    """
    events = MODE.events
    if events is None or events.done:
        return False
    if not events.is_complete:
        events.build()
        return False

    def run(events: Events) -> bool:
        lazy.sync()  # what else is pending, while the state that it reads is there
        return _run(events, optimizer)

    return events.finish(run)


def compute(events: Events) -> bool:
    """Do complete events, which are closed, in one program; False, and nothing has happened, if they have to
    be built."""
    return _run(events, None)


compute_by(compute)


def _run(events: Events, optimizer: Any | None) -> bool:
    known = events.calls[0].replay.joints
    key = (events.key, optimizer, lazy.SETTINGS.backend)
    joints = known.get(key)
    if joints is None:
        joints = known[key] = []
    for joint in joints:
        if joint is None:
            return False
        if joint.run(events):
            return True
    backends = {call.replay.backend for call in events.calls} - {None}
    if len(backends) > 1:  # functions that were compiled for several
        joints.append(None)
        return False
    for leaf in events.leaves.values():
        leaf._grad = None
    try:
        joint = Joint(events, optimizer, next(iter(backends), None))
    except (TracerError, Uncomputed):  # the latter of an optimizer's state that the events give
        joints.append(None)
        return False
    finally:
        for leaf in events.leaves.values():
            leaf._grad = events.promise  # type: ignore[assignment]
    joints.append(joint)
    del joints[:-MANY]
    return joint.run(events)
