"""Calls and backward passes that are put off, so that a training step can run as one program.

A call of a compiled function whose result is still to be differentiated, and `backward()` on such a
result, are at first only noted (`Call`, `Backward`) in the open `Events` of the thread. When an
optimizer steps next, calls, backward passes and update run as one program, traced once for such a
sequence (`graphc.frontend.steps.joint`). In every other case the events are *built*: done in order, as lazy
nodes with history, which is what happens where nothing is put off. Plain code, which runs at every step,
is noted when it calls `backward()` (`graphc.frontend.steps.adopted`).

What makes the difference unobservable:

1. Nobody sees what an event would have changed. The cells of results, and of state that calls write, are
   `Deferred`: they have no node, and looking for it builds the events. Gradients to come are `Promise`s
   in `leaf._grad`, and `leaf.grad` builds what has been promised.
2. Nothing that events read changes before they are built or run. Whatever changes a cell, a leaf's
   flags or hooks, runs a program that overwrites state or begins a trace in this thread calls `settle`
   before. Random keys and numbers are read when the call is noted, and generators advance then.
3. Events are built or run once, all of them, in order; either way the window closes first, so that
   deferred state has its old node again while that happens.
4. A call or backward pass is only noted if building it later means the same as building it now: checked
   arguments without history, leaves without hooks and without gradients from elsewhere.
5. Memory that the user has arrays on (`graphc.frontend.sharing`) may change without notice. A snapshot says
   what a call has read; if it does not hold any more, the events are built, on the snapshot.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.frontend import tree
from graphc.frontend.cell import Cell, Deferred
from graphc.frontend.evaluation import lazy
from graphc.frontend.modes import MODE, settle
from graphc.frontend.sharing import is_seen
from graphc.frontend.shown import Showings, Shown
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing.events import Backward, Call, Events, Promised, Source, compute, without_value
from graphc.frontend.tracing.replay import Replay

LONGEST = 16  # calls on data; whoever notes more without a step gets lazy nodes, and keeps no more batches
MANY = 2000  # calls in all


def _open() -> Events:
    events = MODE.events
    if events is None or events.done:
        events = MODE.events = Events()
    return events


def call(replay: Replay, leaves: Sequence[Any], result: Any) -> Any:
    """Call a recorded function: noted if possible, else built at once."""
    found = note(replay, leaves, result, None)
    if found is NOT_NOTED:
        settle()
        return replay.call(leaves, result)
    return found


NOT_NOTED = object()


def note(replay: Replay, leaves: Sequence[Any], result: Any, source: Source | None) -> Any:
    """Note a call: `result` with deferred tensors in it, or NOT_NOTED, when nothing has happened."""
    if not replay.can_wait:
        return NOT_NOTED
    events = _open()
    found = _note_call(events, replay, leaves, source)
    if found is None:
        return NOT_NOTED
    tensors = iter(_results(events, found))
    if replay.single:
        return next(tensors)
    outputs = iter(replay.outputs)

    def make(_: Any) -> Any:
        output = next(outputs)
        if output.kind == "value":
            return next(tensors)
        return leaves[output.keep] if output.kind == "argument" else output.keep

    return tree.rebuild(result, make)


def _note_call(
    events: Events, replay: Replay, leaves: Sequence[Any], source: Source | None = None
) -> Call | None:
    wires: tuple[tuple[int, int, int], ...] = ()
    data: list[np.ndarray] = []
    read: list[tuple[Cell, np.ndarray]] = []
    for i in replay.inputs.arguments:
        leaf = leaves[i]
        cell = leaf._cell
        if type(cell) is Deferred:
            place = events.results.get(cell)
            if place is None:
                return None
            wires += ((i, *place),)
            continue
        bound = cell.node.bound
        if cell.fn is not None or leaf._requires:
            return None
        if cell.view is not None or type(bound) is not np.ndarray:
            bound = _value(leaf)
            if bound is None or events.done:
                return None
        data.append(bound)
        read.append((cell, bound))
    if not wires:
        events.fresh += 1
        if events.fresh > LONGEST:
            return None
    if len(events.calls) >= MANY:
        return None
    if replay.checked != Showings.count:
        _guard_sources(events, replay)
    events.read += read
    places = tuple([events.put(array) for array in data])
    found = Call(replay, leaves, len(events.calls), wires, places, source)
    for tensor in replay.writes:
        cell = tensor._cell
        if type(cell) is not Deferred:
            _defer(events, cell)
    events.calls.append(found)
    events.items.append(found)
    return found


def _guard_sources(events: Events, replay: Replay) -> None:
    """Note what memory that others may write to holds now, if a function reads such from outside."""
    private = True
    for cell in replay.sources:
        if type(cell) is not Deferred and type(cell.node.bound) is Shown and is_seen(cell):
            events.guard(cell)
            private = False
    if private:
        replay.checked = Showings.count


def _value(leaf: Tensor) -> np.ndarray | None:
    """The value of an argument; None if a check in its own graph fails, which its reader is to be told."""
    try:
        return lazy.value(leaf)
    except IndexError:
        return None


def _defer(events: Events, cell: Cell) -> None:
    """Take away the value of state that a call changes."""
    events.saved.append((cell, cell.node, cell.fn, cell.tracks, cell.version))
    del cell.node, cell.fn, cell.tracks, cell.version
    cell.events = events
    cell.__class__ = Deferred


def _results(events: Events, found: Call) -> list[Tensor]:
    """Tensors for the results of a noted call."""
    tensors = []
    for _ in found.replay.types:
        tensors.append(without_value(events))
        _await(events, found, tensors[-1])
    return tensors


def _await(events: Events, found: Call, tensor: Tensor) -> None:
    """Make a tensor's cell, which has no value, that of the next result of a noted call."""
    cell = tensor._cell
    cell.events = events
    cell.old = cell.past = cell.vars = None
    cell.__class__ = Deferred
    events.results[cell] = (found.number, len(found.cells))
    found.cells.append(cell)  # type: ignore[arg-type]
    found.handles.append(weakref.ref(tensor))


def take_over(replay: Replay, leaves: Sequence[Any], tensors: Sequence[Tensor], source: Source) -> bool:
    """Note a call whose results are to be the values of tensors that are there, and pending; False if it
    cannot be noted."""
    events = _open()
    found = _note_call(events, replay, leaves, source)
    if found is None:
        return False
    for tensor in tensors:
        cell = tensor._cell
        del cell.node, cell.fn, cell.tracks, cell.version
        _await(events, found, tensor)
    return True


def backward(tensor: Tensor, run: Callable[[Tensor], None]) -> bool:
    """Note `backward()` of a noted result; False if it has to be done now. `run` does it."""
    cell = tensor._cell
    events = MODE.events
    place = None if events is None else events.results.get(cell)
    if events is None or place is None or events.done:
        return False
    call_, result = events.calls[place[0]], place[1]
    if not call_.replay.differentiable[result] or call_.replay.types[result].size != 1:
        return False
    calls = [call_] if not call_.wires else _behind(events, call_)
    leaves = calls[0].replay.grad_leaves
    if len(calls) > 1:
        leaves = list({id(leaf): leaf for c in calls for leaf in c.replay.grad_leaves}.values())
    if any(c.used for c in calls) or not can_promise(events, leaves):
        return False
    _note_backward(events, Backward(cell, place, run), calls, leaves)
    return True


def _note_backward(events: Events, found: Backward, calls: Sequence[Call], leaves: Sequence[Tensor]) -> None:
    for leaf in leaves:
        leaf._grad = events.promise  # type: ignore[assignment]
        events.leaves[id(leaf)] = leaf
    for call_ in calls:
        call_.used = True
    events.items.append(found)


def compute_apart(
    replay: Replay, leaves: Sequence[Tensor], source: Source, run: Callable[[Tensor], None]
) -> tuple[Promised, list[np.ndarray]] | None:
    """Compute a call, and the backward pass through its first result, at once and in one program.

    Gives gradients and results, which nobody but the caller is told of; state that the call writes is
    changed. None, and nothing has happened, if that cannot be. The caller puts `_grad` of leaves, which must
    be None, back.
    """
    events = Events()
    found = _note_call(events, replay, leaves, source)
    if found is None:
        return None
    results = _results(events, found)
    first = results[0]._cell
    _note_backward(events, Backward(first, events.results[first], run), [found], replay.grad_leaves)
    complete = events.is_complete
    events.close()
    if not complete or not compute(events):
        return None
    return events.promise, [t._cell.node.bound for t in results]


def _behind(events: Events, last: Call) -> list[Call]:
    """The calls that a result depends on through noted results."""
    found = {last.number: last}
    stack = [last]
    while stack:
        for _, number, _ in stack.pop().wires:
            if number not in found:
                found[number] = events.calls[number]
                stack.append(events.calls[number])
    return list(found.values())


def can_promise(events: Events | None, leaves: Sequence[Tensor]) -> bool:
    """Whether the leaves have no hooks, and just the gradients that these events have given them."""
    if [leaf._hooks for leaf in leaves].count(None) != len(leaves):
        return False
    if events is None or not events.leaves:
        return [leaf._grad for leaf in leaves].count(None) == len(leaves)
    return all(leaf._grad is (events.promise if id(leaf) in events.leaves else None) for leaf in leaves)
