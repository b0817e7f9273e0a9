"""Forward passes of plain code, noted when their backward pass begins.

Plain code runs at every step, and leaves lazy nodes. But when `backward()` of a loss among them is called,
the pending graph as a whole can be taken for a call of a recorded function (`tracing.deferred`): one that is
found again by the graph's structure and the leaves it ends at. So the backward pass and the optimizer's step,
most of the nodes of a training step, are built when a structure is met for the first time, and not at every
step; forward, backward and update run as one program, as if the loss had been compiled.

The nodes are let go of. If the call has to be built after all (since a gradient is looked at before the
step), they are built again from the record. That is a waste, so a structure whose calls mostly
have to be built is left alone.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from graphc.frontend.cell import Cell, Deferred, leaf_node
from graphc.frontend.evaluation import lazy
from graphc.frontend.evaluation.canonical import Gone, Pending, canonical
from graphc.frontend.evaluation.parts import FEW
from graphc.frontend.evaluation.places import at_places
from graphc.frontend.history import AccumulateGrad, CutGrad, GradFn, free, walk
from graphc.frontend.modes import MODE
from graphc.frontend.sharing import present
from graphc.frontend.shown import Shown
from graphc.frontend.tensor import Tensor, gradient_fn, operand, register, variable, wrap_cell
from graphc.frontend.tracing import deferred
from graphc.frontend.tracing.events import Source
from graphc.frontend.tracing.record import record_call
from graphc.frontend.tracing.variant import Variant
from graphc.frontend.writing import rebind, write
from graphc.ir.node import Node, make, no_sites, set_site, site_of
from graphc.ops.constant import CONSTANT, INPUT

PATIENCE = 4  # calls built, or passes not noted, in a row before a structure, or a model, is left alone
RETRY = 64  # one in so many passes of such a model is looked at all the same
UNSHARED = (
    4  # references to a cell that one tensor has and nothing follows: the tensor's, two here, the question's
)
LOOKED_AT = 256  # nodes behind known values, functions of a history
FEW_ASIDE = 4  # values with a history of their own that are computed before a pass
AGAIN = 4  # times that a structure is recorded again since numbers in it have changed
STRUCTURES = 16  # kept for one model, before they are forgotten and recorded again


@dataclass(eq=False)
class Pass:
    """A pending forward pass.

    results   tensors to be computed, the loss first; `labels` of their history, None for those without
    states    tensors whose pending values replace known ones
    leaves    parameters that get gradients
    data      arrays that it reads besides (see `find`)
    is_read   a value on the way was computed before, aside
    """

    results: list[Tensor]
    states: list[Tensor]
    labels: list[str | None]
    leaves: list[Tensor]
    data: list[np.ndarray] = field(default_factory=list)
    is_read: bool = False

    @property
    def targets(self) -> list[Node]:
        """What is computed."""
        return [t._cell.node for t in (*self.results, *self.states)]


class Known(Source):
    """What one structure has been recorded as; the source of its calls.

    lifted  which of the numbers and places that its key leaves open (`Pending.scalars`) are data
    again   how often it has been recorded before, with fewer of them
    """

    def __init__(
        self, variant: Variant | None, scalars: list[Any], lifted: frozenset[int], tensors: Sequence[Tensor]
    ) -> None:
        self.variant, self.scalars, self.lifted, self.tensors = variant, scalars, lifted, tensors
        self.replay = None if variant is None else variant.replay
        self.missed = 0
        self.again = 0

    def changed(self, pending: Pending) -> frozenset[int]:
        """Which of the numbers and places of a pass are others than those recorded, and no data yet. With one
        place all are: who takes other elements does so everywhere."""
        pairs = enumerate(zip(pending.scalars, self.scalars, strict=True))
        found = {i for i, (a, b) in pairs if a != b and i not in self.lifted}
        places = set(pending.places)
        return frozenset(found if found.isdisjoint(places) else found | places)

    def is_for(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the record can stand for a pass on these tensors."""
        same = len(tensors) == len(self.tensors) and all(map(_is, tensors, self.tensors))
        return same and self.replay is not None and self.missed < PATIENCE

    def can_rerun(self) -> bool:
        """The code that made the nodes is the user's: it has run."""
        return False

    def rerun(self) -> list[Tensor]:
        raise NotImplementedError

    def taken(self, as_noted: bool) -> None:
        self.missed = 0 if as_noted else self.missed + 1


def _is(a: object, b: object) -> bool:
    return a is b


@dataclass(eq=False)
class Foresight:
    """What is expected of a model's passes (`graphc.frontend.steps.foreseen`).

    is_read   values of the last pass were read before its backward pass
    waiting   the end of history of a loss whose gradients have been computed at such a read, while nobody
              has asked for them
    """

    used: ClassVar[bool] = False  # by any model
    is_read: bool = False
    waiting: weakref.ref[GradFn] | None = None

    def expect(self) -> None:
        """A pass was read before its backward pass: so will the next one be."""
        self.is_read = Foresight.used = True


class Passes:
    """The structures of one model's passes; its first leaf keeps them."""

    def __init__(self) -> None:
        self.known: dict[tuple, Known] = {}
        self.refused = 0
        self.foresight = Foresight()
        self.states: set[int] | None = None  # ids of tensors that passes change, if they change others too

    def tell_states(self, known: Sequence[Tensor], found: Sequence[Tensor]) -> None:
        """A pass has changed other tensors than the one before: those that are not in both are made anew in
        each pass, and are no state."""
        if len(known) == len(found):
            self.states = {id(a) for a, b in zip(known, found, strict=True) if a is b}

    def is_worthwhile(self) -> bool:
        """Whether to look at a pass: not if those before were of no use."""
        self.refused += 1
        return self.refused <= PATIENCE or self.refused % RETRY == 0


def passes_of(leaf: Tensor) -> Passes:
    found: Passes = leaf.__dict__.setdefault("_passes", Passes())
    return found


def note(found: Pass) -> bool:
    """Note a pending pass. False, and nothing has happened, where that is not possible or does not pay."""
    if not deferred.can_promise(MODE.events, found.leaves):
        return False
    if not passes_of(found.leaves[0]).is_worthwhile():
        return False
    known = find(found)
    if known is None:
        return False
    passes_of(found.leaves[0]).refused = 0
    tensors = [wrap_cell(Cell(leaf_node(array))) for array in found.data]
    assert known.replay is not None
    put_back(found.states)
    if found.is_read:  # those who hold such values keep the history: it is used up
        loss = found.results[0]._cell.fn
        assert loss is not None
        free(walk([loss]))
    taken = deferred.take_over(known.replay, tensors, found.results, known)
    assert taken, "whether a call can be noted is asked before"
    for tensor in (*found.results, *found.states):
        lazy.forget(tensor)
        view = tensor._cell.view
        if view is not None and type(view.cell) is Deferred:
            view.seen = 0  # the version of a result that has got its value
    for leaf in found.leaves:
        leaf._var, cell = None, leaf._cell  # the nodes have gone, unless somebody else refers to them
        if cell.vars is not None and not any(ref() is not None for ref in cell.vars):
            cell.vars = None
    return True


# ------------------------------------------------------------------- what is pending


def pending_pass(loss: Tensor, stays: bool = False) -> Pass | None:
    """All that is pending, if it can be noted together. If it `stays`, views need not be: they are made of
    what is."""
    events, cell = MODE.events, loss._cell
    if MODE.trace is not None or type(cell) is Deferred or cell.fn is None or cell.node.type.size != 1:
        return None
    fresh, calls = (0, 0) if events is None else (events.fresh, len(events.calls))
    if fresh >= deferred.LONGEST or calls >= deferred.MANY or cell.node.bound is not None or cell.view:
        return None
    functions = walk([cell.fn])
    leaves = leaves_of(functions)
    if not leaves:
        return None
    found = Pass([loss], [], [cell.fn.label], leaves)
    return found if _gather(found, cell, _ends(functions), stays) else None


def _ends(functions: Sequence[GradFn]) -> set[GradFn]:
    """Those of a history (as `walk` gives it) that a backward pass through all of it uses up."""
    found: set[GradFn] = set()
    for fn in reversed(functions):
        if fn.saves or not found.isdisjoint(fn.parents):
            found.add(fn)
    return found


def _gather(found: Pass, loss: Cell, used_up: set[GradFn], stays: bool) -> bool:
    """Add what else is pending; False if that cannot be noted together with the loss."""
    cells = {loss}
    aside: list[Cell] = []
    before = 1, 0  # results and states that were made before the last of these
    states = passes_of(found.leaves[0]).states
    for tensor in MODE.pending:
        cell = tensor._cell
        if cell in cells:
            continue
        cells.add(cell)
        if stays and cell.view is not None:
            continue
        if type(cell) is Deferred or not _is_apart(cell, found):
            return False
        if cell.node.bound is not None:  # computed along with another, and needs nothing
            continue
        if cell.old is not None:
            if not _replaces(cell):
                return False
            if states is None or id(tensor) in states or sys.getrefcount(cell) > UNSHARED:
                found.states.append(tensor)
            else:
                found.results.append(tensor)
                found.labels.append(None)
        elif cell.fn is None or _ends_used_up(cell.fn, used_up):
            found.results.append(tensor)
            found.labels.append(None if cell.fn is None else cell.fn.label)
        else:
            if stays or len(aside) == FEW_ASIDE:
                return False
            aside.append(cell)  # its history does not end with the loss's backward pass
            before = len(found.results), len(found.states)
    if not aside:
        return True
    if not _is_read_only(aside, loss):
        return False
    _compute_before(found, aside, *before)
    return True


_aside: weakref.WeakSet[Node] = weakref.WeakSet()  # known values with a history that is still to be used


def _is_read_only(cells: Sequence[Cell], loss: Cell) -> bool:
    """Whether the loss is made of these values, with a history that its backward pass does not go through:
    `fake` before `criterion(discriminator(fake.detach()), zeros)`."""
    inner = canonical([loss.node], parts=FEW).index
    return all(cell.node in inner and cell.view is None for cell in cells)


def _compute_before(found: Pass, cells: list[Cell], results: int, states: int) -> None:
    """Compute some cells, and of a pass the first `results` without history and the first `states`: these
    were made before, and are no part of it then."""
    kept = [i for i, label in enumerate(found.labels) if i >= results or label is not None]
    early = [
        t._cell for t, label in zip(found.results[:results], found.labels, strict=False) if label is None
    ]
    _aside.update([cell.node for cell in cells])
    lazy.compute([*cells, *early, *[t._cell for t in found.states[:states]]])
    found.results = [found.results[i] for i in kept]
    found.labels = [found.labels[i] for i in kept]
    del found.states[:states]


def _ends_used_up(fn: GradFn, used_up: set[GradFn]) -> bool:
    """Whether no backward pass through `fn` is possible any more, once those are used up: they, or what has
    been before, are part of its history (as the losses are of `total = total + loss`)."""
    seen = {fn}
    stack = [fn]
    while stack and len(seen) < LOOKED_AT:
        one = stack.pop()
        if one.freed or one in used_up:
            return True
        fresh = [parent for parent in one.parents if parent not in seen]
        seen.update(fresh)
        stack += fresh
    return False


def _is_apart(cell: Cell, found: Pass) -> bool:
    """Whether a cell follows no other, or only one that has a value or is a result too."""
    if cell.view is None:
        return True
    lazy.simplify_view(cell)
    view = cell.view
    if view is None:
        return True
    base = view.cell
    if type(base) is Deferred or base.view is not None:
        return False
    return type(base.node.bound) is np.ndarray or any(t._cell is base for t in found.results)


def leaves_of(functions: Sequence[GradFn]) -> list[Tensor] | None:
    """The leaves at the end of history; None if only Python can go through it, or it has been used up."""
    leaves = []
    for fn in functions:
        if fn.freed or fn.hooks or isinstance(fn, CutGrad):
            return None
        if isinstance(fn, AccumulateGrad):
            leaf, cell = fn.variable, fn.variable._cell
            if type(cell) is Deferred or cell.view is not None or not leaf._requires:
                return None
            value = (present(cell) if type(cell.node.bound) is Shown else cell.node).bound
            if type(value) is not np.ndarray or leaf._var != (fn.node, cell.version):
                return None
            leaves.append(leaf)
    return leaves


def _replaces(cell: Cell) -> bool:
    """Whether a cell's pending value is to replace a known one of its type."""
    old = cell.old
    return (
        old is not None and cell.fn is None and type(old.bound) is np.ndarray and old.type == cell.node.type
    )


def put_back(states: Sequence[Tensor]) -> Callable[[], None]:
    """Give states the values that a pass replaces: the call that is noted replaces them. What this returns
    takes it back."""
    saved = [(t._cell, t._cell.node, t._cell.tracks, t._cell.old, t._cell.past) for t in states]
    for cell, *_ in saved:
        assert cell.old is not None
        cell.node, cell.tracks, cell.old, cell.past = cell.old, False, None, None

    def restore() -> None:
        for cell, node, tracks, old, past in saved:
            cell.node, cell.tracks, cell.old, cell.past = node, tracks, old, past

    return restore


# ------------------------------------------------------------------------- recording


def find(found: Pass) -> Known | None:
    """What a pass has been recorded as, now or before; None if it cannot be, or is better left alone.

    Sets the `data` of the pass if it has been.
    """
    pending = _down_to_leaves(found)
    if pending is None:
        return None
    owned = {id(t._cell.old.bound): i for i, t in enumerate(found.states) if t._cell.old is not None}
    owner = [owned.get(id(array), -1) for array in pending.arrays]
    targets = tuple([pending.index[node] for node in found.targets])
    backend = MODE.backend or lazy.SETTINGS.backend
    key = (tuple(pending.key), targets, tuple(owner), tuple(found.labels), backend)
    table = passes_of(found.leaves[0]).known
    tensors = (*found.leaves, *found.states)
    recorded = table.get(key)
    changed = frozenset() if recorded is None else recorded.changed(pending)
    if recorded is None:
        if len(table) >= STRUCTURES:
            table.clear()
        variant = _traced(found, pending, targets, owner, frozenset())
        recorded = table[key] = Known(variant, pending.scalars, frozenset(), tensors)
    elif changed and recorded.again < AGAIN and recorded.is_for(tensors):
        again, lifted = recorded.again + 1, recorded.lifted | changed
        variant = _traced(found, pending, targets, owner, lifted)
        recorded = table[key] = Known(variant, pending.scalars, lifted, tensors)
        recorded.again, changed = again, frozenset()
    if changed or not recorded.is_for(tensors):
        passes_of(found.leaves[0]).tell_states(recorded.tensors, tensors)
        return None
    pending.cut()
    found.data = _data(pending, owner, recorded.lifted)
    return recorded


def _down_to_leaves(found: Pass) -> Pending | None:
    """The graph of a pass, through values on the way that were computed aside. None where others are known
    already (the graph ends there, but not its history), or gone."""
    nodes = [variable(leaf) for leaf in found.leaves]
    leaves, through = set(nodes), set[Node]()
    while True:
        try:
            pending = canonical(found.targets, nodes, barriers=True, parts=FEW, through=through)
        except Gone:
            return None
        known = [n for leaf in pending.leaves for n in leaf if n.op is not INPUT and n.bound is not None]
        if not known or not _follow(known, leaves):
            return pending
        aside = [node for node in known if node in _aside and _follow([node], leaves)]
        if not aside:
            passes_of(found.leaves[0]).foresight.expect()
            return None
        found.is_read = True
        through.update(aside)


def _data(pending: Pending, owner: Sequence[int], lifted: frozenset[int]) -> list[np.ndarray]:
    """The arrays that a pass reads and that no state owns, and the numbers and places that are data."""
    arrays = [array for array, state in zip(pending.arrays, owner, strict=True) if state < 0]
    return [*arrays, *[pending.scalar(i) for i in sorted(lifted)]]


def _follow(known: Sequence[Node], leaves: set[Node]) -> bool:
    """Whether values that are known already have been computed from leaves, so far as is looked."""
    seen = set(known)
    stack = list(known)
    while stack and len(seen) < LOOKED_AT:
        for operand_ in stack.pop().inputs:
            if operand_ in leaves:
                return True
            if operand_ not in seen:
                seen.add(operand_)
                stack.append(operand_)
    return bool(stack)


def _traced(
    found: Pass, pending: Pending, targets: Sequence[int], owner: Sequence[int], lifted: frozenset[int]
) -> Variant | None:
    """The pass as a recorded function of its data."""
    slots = dict(zip(pending.leaf_at, owner, strict=True))
    opened = {pending.scalar_at[i] for i in lifted}
    backend = MODE.backend  # (recording may compute what is pending, after which none is wanted)

    def again(*data: Tensor) -> list[Tensor]:
        given, values = iter(data), iter(data[len(data) - len(opened) :])
        new: list[Node] = []
        with no_sites():
            for at, node in enumerate(pending.order):
                if at < len(found.leaves):
                    fresh = operand(found.leaves[at], True)
                elif at in slots:
                    state = slots[at]
                    source = next(given) if state < 0 else found.states[state].detach()
                    fresh = operand(source, False)
                elif at in opened:
                    fresh = operand(next(values), False)
                    if node.op is not CONSTANT:
                        fresh = at_places(node, new[pending.index[node.inputs[0]]], fresh)
                        set_site(fresh, site_of(node))
                else:
                    fresh = make(node.op, [new[pending.index[n]] for n in node.inputs], node.attrs)
                    set_site(fresh, site_of(node))
                new.append(fresh)
        return _results(found, [new[at] for at in targets])

    arguments = [wrap_cell(Cell(leaf_node(array))) for array in _data(pending, owner, lifted)]
    restore = put_back(found.states)
    try:
        record = record_call(again, "forward pass", arguments, {}, apart=True)
    finally:
        restore()
    variant = Variant(record, backend) if record.stands_for_calls else None
    return variant if variant is not None and variant.replay is not None and variant.replay.can_wait else None


def _results(found: Pass, nodes: Sequence[Node]) -> list[Tensor]:
    """Tensors with history for the results; states are changed."""
    ends = tuple([fn for leaf in found.leaves if (fn := gradient_fn(leaf)) is not None])
    made = []
    for node, label in zip(nodes, found.labels, strict=False):
        tensor = wrap_cell(Cell(node, None if label is None else GradFn(label, ends), label is None))
        register(tensor)
        made.append(tensor)
    for state, node in zip(found.states, nodes[len(made) :], strict=True):
        write(state._cell)
        rebind(state._cell, node, None, True)
        register(state)
    return made
