"""What has been put off (`deferred` says why and until when): calls, and backward passes through results."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from graphc.frontend.cell import Cell, Deferred, leaf_node, root, share
from graphc.frontend.history import GradFn, Promise
from graphc.frontend.modes import MODE
from graphc.frontend.sharing import as_they_were
from graphc.frontend.shown import Shown
from graphc.frontend.tensor import Tensor, register, wrap_cell
from graphc.frontend.tracing.replay import Replay
from graphc.ir.node import Node
from graphc.ir.types import TensorType


class Source(Protocol):
    """Where a noted call comes from, if it can be made again in Python."""

    def can_rerun(self) -> bool:
        """Whether the call would still be the same."""
        ...

    def rerun(self) -> list[Tensor]:
        """Make the call now, as it was made then: the results that are computed."""
        ...

    def taken(self, as_noted: bool) -> None:
        """The call has been part of a program, or has been built after all."""
        ...


class Item(Protocol):
    """What is noted. `key`: equal for what one program can do."""

    key: Any

    def build(self) -> None:
        """Do it now, as lazy nodes with history."""
        ...


class Call:
    """A noted call of a recorded function.

    leaves   its argument leaves; `wires` says which are results of noted calls: (leaf, call, result)
    places   of the values of the others in `Events.arrays`
    extras   values of keys and numbers
    cells    the results' cells; `handles` their tensors, held weakly
    used     a backward pass has gone through it
    source   makes the call again, if it is to be built; else, or if what is called has changed since, its
             recorded graph is built
    """

    __slots__ = (
        "cells", "extras", "handles", "key", "leaves", "number", "places", "replay", "source", "starts",
        "used", "wires",
    )  # fmt: skip

    def __init__(
        self,
        replay: Replay,
        leaves: Sequence[Any],
        number: int,
        wires: tuple[tuple[int, int, int], ...],
        places: tuple[int, ...],
        source: Source | None = None,
    ) -> None:
        self.replay, self.leaves, self.number, self.wires = replay, leaves, number, wires
        self.source = source
        self.starts = [generator.offset for generator, _ in replay.draws] if replay.draws else []
        self.extras = replay.extras(leaves)
        self.places = places
        self.cells: list[Deferred] = []
        self.handles: list[weakref.ref[Tensor]] = []
        self.used = False
        self.key: tuple = (replay, wires, places)

    def build(self) -> None:
        """Make the lazy nodes; the results' cells become what an ordinary call returns."""
        if self.source is None or not self.source.can_rerun():
            replay = self.replay
            nodes, fn = replay.build(self.leaves, [leaf_node(a) for a in self.extras])
            own = [fn] * len(nodes) if self.source is None else [GradFn(x, (fn,)) for x in replay.labels]
            for cell, node, last, follow in zip(self.cells, nodes, own, replay.differentiable, strict=True):
                fill(cell, node, last if follow else None, not follow)
        else:
            for cell, tensor in zip(self.cells, self._rerun(self.source), strict=True):
                made = tensor._cell
                fill(cell, made.node, made.fn, made.tracks)
                cell.view, cell.version = made.view, made.version
        for handle in self.handles:
            held = handle()
            if held is not None:
                register(held)

    def _rerun(self, source: Source) -> list[Tensor]:
        """Make the call again; its random draws are those of then."""
        generators = [generator for generator, _ in self.replay.draws]
        now = [generator.offset for generator in generators]
        for generator, offset in zip(generators, self.starts, strict=True):
            generator.offset = offset
        try:
            return source.rerun()
        finally:
            for generator, offset in zip(generators, now, strict=True):
                generator.offset = offset

    def shares_storage(self) -> bool:
        """Whether somebody holds a result that has to follow changes of another tensor."""
        if self.source is None:
            return False
        aliases = self.replay.aliases
        return any(
            alias and handle() is not None for alias, handle in zip(aliases, self.handles, strict=True)
        )


class Backward:
    """A noted `backward()` of result number `result` of call number `call`.

    `run(tensor)` does it.
    """

    __slots__ = ("cell", "key", "run")

    def __init__(self, cell: Cell, key: tuple[int, int], run: Callable[[Tensor], None]) -> None:
        self.cell, self.key, self.run = cell, key, run

    def build(self) -> None:
        """Run the backward pass on nodes."""
        self.run(wrap_cell(self.cell))


def fill(cell: Cell, node: Node, fn: Any, tracks: bool) -> None:
    """Make a result's deferred cell an ordinary one."""
    cell.node, cell.fn, cell.tracks, cell.version = node, fn, tracks, 0
    cell.__class__ = Cell
    del cell.events


def without_value(events: Events) -> Tensor:
    """A tensor whose cell is deferred."""
    cell = object.__new__(Deferred)
    cell.view = cell.handles = cell.trace = None
    cell.old = cell.past = cell.vars = None
    cell.events = events
    return wrap_cell(cell)


class Promised(Promise):
    """Gradients that events give to leaves: from lazy nodes, or from the arrays of a program that has run.

    Handing one out makes it an ordinary tensor, which the leaf keeps.
    """

    __slots__ = ("arrays", "events", "given", "places")

    def __init__(self, events: Events) -> None:
        self.events: Events | None = events
        self.arrays: Sequence[np.ndarray] = ()
        self.places: dict[int, int] = {}
        self.given = False  # somebody has one of the arrays

    def keep(self, arrays: Sequence[np.ndarray], places: dict[int, int]) -> None:
        """A program has run: `arrays[places[id(leaf)]]` is the gradient of a leaf."""
        self.events, self.arrays, self.places = None, arrays, places

    def array_of(self, leaf: Tensor) -> np.ndarray | None:
        """The value of the gradient of a leaf that holds this promise, to be read at once; None if it is not
        computed yet."""
        return None if self.events is not None else self.arrays[self.places[id(leaf)]]

    def give(self, leaf: Tensor) -> Tensor | None:
        """The gradient of a leaf that holds this promise."""
        if self.events is not None:
            self.events.build()
            return leaf.grad
        self.given = True
        gradient = wrap_cell(Cell(leaf_node(self.arrays[self.places[id(leaf)]])))
        leaf._grad = gradient
        return gradient


class Events:
    """What is noted and not built, of one thread."""

    __slots__ = (
        "arrays", "calls", "changes", "done", "fresh", "items", "leaves", "place", "promise", "read",
        "results", "saved", "shown",
    )  # fmt: skip

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.calls: list[Call] = []
        self.changes: dict[Cell, TensorType] = {}  # results of noted changes
        self.results: dict[Cell, tuple[int, int]] = {}  # cell -> (call, result)
        self.saved: list[tuple[Cell, Node, Any, bool, int]] = []  # deferred state, as it was
        self.leaves: dict[int, Tensor] = {}  # those that get gradients, with `promise` in their `_grad`
        self.promise = Promised(self)
        self.done = False
        self.fresh = 0  # calls on data
        self.arrays: list[np.ndarray] = []  # the data: each array once, so that calls on one share its nodes
        self.place: dict[int, int] = {}  # id of an array -> position
        self.read: list[tuple[Cell, np.ndarray]] = []  # the cells that the data were read from
        self.shown: list[tuple[Cell, Shown, np.ndarray]] = []  # state that others may write to, as it was

    @property
    def key(self) -> tuple:
        """Equal for sequences that one program can run (apart from what `Variant.holds` checks)."""
        return tuple([item.key for item in self.items])

    def put(self, array: np.ndarray) -> int:
        """The position of an array among the data."""
        at = self.place.setdefault(id(array), len(self.arrays))
        if at == len(self.arrays):
            self.arrays.append(array)
        return at

    def has(self, array: np.ndarray) -> bool:
        """Whether an array is among the data."""
        return id(array) in self.place

    def reads(self, cell: Cell) -> bool:
        """Whether the value of a cell from outside will be read when the calls are built or run."""
        return any(cell in call.replay.sources for call in self.calls)

    def guard(self, cell: Cell) -> None:
        """State in this cell is read as it is now, while others may write to its memory."""
        shown = cell.node.bound
        self.shown.append((cell, shown, shown.snapshot()))

    def holds(self) -> bool:
        """Whether all such memory is as it was when it was noted."""
        return not self.shown or all(shown.snapshot() is array for _, shown, array in self.shown)

    def kind(self, cell: Cell) -> tuple[TensorType, bool] | None:
        """Type of a noted call's result, and whether gradients flow through it; None for other cells."""
        place = self.results.get(cell)
        if place is None:
            known = self.changes.get(cell)
            return None if known is None else (known, False)
        replay = self.calls[place[0]].replay
        return replay.types[place[1]], replay.differentiable[place[1]]

    def close(self) -> None:
        """Take nothing more; state has its old value again."""
        self.done = True
        if MODE.events is self:
            MODE.events = None
        for cell, *old in self.saved:
            cell.node, cell.fn, cell.tracks, cell.version = old
            cell.__class__ = Cell
            del cell.events
        self.saved = []  # a node that is referred to from here would not be written over

    def build(self) -> None:
        """Do everything noted, in order: in one program if all of it is passes forward and backward, else as
        lazy nodes with history."""
        if not self.done:
            self.finish(compute if self.is_complete and MODE.trace is None else None)

    @property
    def is_complete(self) -> bool:
        """Whether every noted call has been gone through backward, and what that gives is as promised."""
        complete, promise = bool(self.leaves), self.promise
        for call in self.calls:
            complete = complete and call.used and not call.shares_storage()
        for leaf in self.leaves.values():
            complete = complete and leaf._grad is promise
        return complete and self.holds()

    def finish(self, compute: Callable[[Events], bool] | None) -> bool:
        """Close, and do everything noted by `compute`. Where that gives False, or fails, as lazy nodes with
        history."""
        self.close()
        done = False
        try:
            done = compute is not None and compute(self)
        finally:
            if not done:
                self.redo()
        return done

    def _forget(self) -> None:
        """Let go of what has been built. Events and their promise know each other: arguments of the calls
        would stay alive, and be results of programs, until the garbage collector comes."""
        self.items, self.calls, self.results, self.arrays, self.place = [], [], {}, [], {}
        self.read, self.shown, self.changes = [], [], {}

    def redo(self) -> None:
        """The same, for events that are closed already."""
        for call in self.calls:
            if call.source is not None:
                call.source.taken(False)
        for array in self.arrays:
            share(array)  # there are nodes beside those of the tensors that it is the value of
        present = [(leaf, leaf._grad) for leaf in self.leaves.values()]
        for leaf, _ in present:
            leaf._grad = None
        saved, MODE.grad, MODE.trace = (MODE.grad, MODE.trace), True, None
        written = [(cell, array) for cell, shown, array in self.shown if shown.snapshot() is not array]
        written += [(cell, array) for cell, array in self.read if type(root(cell).node.bound) is Shown]
        try:
            with as_they_were(written):
                for item in self.items:
                    item.build()
        finally:
            MODE.grad, MODE.trace = saved
            self._forget()
        for leaf, gradient in present:
            if gradient is not self.promise:
                leaf._grad = gradient  # dropped or replaced after the backward pass


_compute: Callable[[Events], bool] | None = None


def compute_by(function: Callable[[Events], bool]) -> None:
    """Set what runs complete events that are closed (`frontend.steps.joint`, which knows this module)."""
    global _compute
    _compute = function


def compute(events: Events) -> bool:
    """Do complete events, which are closed, in one program; False, and nothing has happened, if they have to
    be built."""
    return _compute is not None and _compute(events)
