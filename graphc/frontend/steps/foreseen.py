"""Backward passes that are foreseen: of plain code that reads a loss before it calls `backward()`.

    loss = criterion(model(x), y)
    total += loss.item()        # forward
    loss.backward()             # forward once more, if the first one has kept nothing
    optimizer.step()

Where the last pass of a model was read before its backward pass, the next one will be too. So the read
computes all that is pending, and the gradients, by the program of the recorded pass (`adopted`), and
`backward()` finds them there. Nothing else is done ahead: values keep their history, and gradients that
nobody asks for are dropped. After such a miss nothing is foreseen until a pass of the model is read before
its backward pass again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.frontend.cell import Cell, leaf_node
from graphc.frontend.evaluation import lazy
from graphc.frontend.history import AccumulateGrad, GradFn, free, walk
from graphc.frontend.modes import MODE, no_grad
from graphc.frontend.steps import adopted
from graphc.frontend.steps.adopted import Foresight, Known, Pass, leaves_of, passes_of
from graphc.frontend.tensor import Tensor, inplace, wrap_cell
from graphc.frontend.tracing import deferred
from graphc.frontend.tracing.events import Promised

MOST = 2048  # pending tensors that are looked through for a loss


@dataclass(eq=False)
class _Foreseen:
    """Gradients of a loss that nobody has asked for: `promise` has those of `leaves`.

    `results` are the cells of what was computed with them.
    """

    promise: Promised
    leaves: list[Tensor]
    results: list[weakref.ref[Cell]]
    foresight: Foresight


_foreseen: weakref.WeakKeyDictionary[GradFn, _Foreseen] = weakref.WeakKeyDictionary()


_differentiate: Callable[[Tensor], None] | None = None


def differentiate_by(function: Callable[[Tensor], None]) -> None:
    """Set what makes a backward pass of nodes (`graphc.autograd.engine`, which knows this module)."""
    global _differentiate
    _differentiate = function


def look_ahead() -> None:
    """A value is about to be read: compute gradients with it, if a backward pass through the newest loss is
    expected to follow."""
    events = MODE.events
    if not Foresight.used or not MODE.grad or MODE.trace is not None or (events and events.items):
        return
    loss = _newest_loss()
    foresight = None if loss is None or loss._cell.fn is None else _foresight(walk([loss._cell.fn]))
    if loss is None or foresight is None or not foresight.is_read:
        return
    if foresight.waiting is not None:
        if foresight.waiting() is None:  # those of the last pass were not wanted
            foresight.is_read, foresight.waiting = False, None
        return
    found = adopted.pending_pass(loss, stays=True)
    known = None if found is None else adopted.find(found)
    if found is not None and known is not None:
        _compute(found, known, foresight)


def _newest_loss() -> Tensor | None:
    """The pending scalar with a live history that was made last."""
    if len(MODE.pending) > MOST:
        return None
    for tensor in reversed(list(MODE.pending)):
        cell = tensor._cell
        if type(cell) is Cell and cell.fn is not None and not cell.fn.freed and cell.node.type.size == 1:
            return tensor
    return None


def _foresight(functions: Sequence[GradFn]) -> Foresight | None:
    """What is expected of the model whose passes end at the leaves of a history."""
    leaf = next((fn.variable for fn in functions if isinstance(fn, AccumulateGrad)), None)
    return None if leaf is None else passes_of(leaf).foresight


def _compute(found: Pass, known: Known, foresight: Foresight) -> None:
    """Run the program of a pass and its backward pass, if it fits."""
    replay = known.replay
    assert replay is not None
    assert _differentiate is not None
    present = [leaf._grad for leaf in found.leaves]
    for leaf in found.leaves:
        leaf._grad = None
    restore = adopted.put_back(found.states)
    computed = None
    try:
        data = [wrap_cell(Cell(leaf_node(array))) for array in found.data]
        computed = deferred.compute_apart(replay, data, known, _differentiate)
    finally:
        for leaf, gradient in zip(found.leaves, present, strict=True):
            leaf._grad = gradient
        if computed is None:
            restore()
    if computed is None:
        return
    promise, arrays = computed
    cells = [t._cell for t in found.results]
    loss = cells[0].fn
    assert loss is not None
    foresight.waiting = weakref.ref(loss)
    _foreseen[loss] = _Foreseen(promise, found.leaves, [weakref.ref(cell) for cell in cells], foresight)
    for cell, array in zip(cells, arrays, strict=True):
        lazy.store(cell, array)
    for tensor in (*found.results, *found.states):
        lazy.forget(tensor)


# ------------------------------------------------------------------------- backward


def backward(loss: Tensor) -> bool:
    """`loss.backward()`, if its gradients were computed when a value of its pass was read. Else False, and
    nothing has happened."""
    cell = loss._cell
    if type(cell) is not Cell or cell.fn is None or cell.fn.freed or MODE.trace is not None:
        return False
    found = _foreseen.pop(cell.fn, None)
    if found is None:
        if cell.node.bound is not None:
            _expect(walk([cell.fn]))
        return False
    found.foresight.waiting = None
    functions = walk([cell.fn])
    leaves = leaves_of(functions)
    if leaves is None or set(map(id, leaves)) != set(map(id, found.leaves)):
        return False
    if any(leaf._hooks for leaf in leaves):
        return False
    _finish(found, functions)
    return True


def _finish(found: _Foreseen, functions: Sequence[GradFn]) -> None:
    """Put gradients where the backward pass through `functions` does, which are used up."""
    added = [cell for leaf in found.leaves if (cell := _add(leaf, found.promise)) is not None]
    if added:  # the next pass would take them for state that it changes
        lazy.compute(added)
    free(functions)
    for held in found.results:
        result = held()
        if result is not None:
            lazy.let_go(result)


def add(found: Pass) -> bool:
    """The backward pass of a pending pass whose leaves have gradients of other passes: computed at once, and
    its gradients are added. False, and nothing has happened, where that is not possible."""
    events, leaves = MODE.events, found.leaves
    if (events is not None and events.items) or any(leaf._hooks for leaf in leaves):
        return False
    if all(leaf._grad is None for leaf in leaves):
        return False
    passes = adopted.passes_of(leaves[0])
    known = adopted.find(found) if passes.is_worthwhile() else None
    if known is None:
        return False
    passes.refused = 0
    loss = found.results[0]._cell.fn
    assert loss is not None
    functions = walk([loss])
    _compute(found, known, passes.foresight)
    made = _foreseen.pop(loss, None)
    if made is None:
        return False
    passes.foresight.waiting = None
    _finish(made, functions)
    return True


def _expect(functions: Sequence[GradFn]) -> None:
    """Foresee the next pass of a model."""
    foresight = _foresight(functions)
    if foresight is not None:
        foresight.expect()


def _add(leaf: Tensor, promise: Promised) -> Cell | None:
    """Put the gradient that a promise has where a backward pass does. The cell of the sum, if one is to be
    computed."""
    old = leaf.grad
    leaf._grad = promise  # type: ignore[assignment]
    if old is None:
        return None
    gradient = leaf.grad
    leaf._grad = old
    with no_grad():
        inplace(old, old + gradient)
    return old._cell


lazy.look_ahead_by(look_ahead)
