"""Tracing: running a function once on tensors without values, and noting what it touches.

While a trace is active, tensors from outside are stood in for by input nodes when they are first
used (`touch`), in-place changes and new gradients of theirs are noted, and everything is put back
when the trace ends. What remains is a pure graph, and a list of where its inputs come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.frontend.cell import Cell, fresh_input, leaf_node
from graphc.frontend.errors import TracerError, describe, fail
from graphc.frontend.evaluation import lazy
from graphc.frontend.evaluation.lazy import Unbound
from graphc.frontend.history import Promise
from graphc.frontend.modes import MODE, settle
from graphc.frontend.pending import PendingTensors
from graphc.frontend.tensor import Tensor, from_node, wrap_cell
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float64, int64

if TYPE_CHECKING:
    from graphc.frontend.functions.random import Generator


@dataclass(eq=False)
class Captured:
    """State from outside: a cell, read through a handle on it."""

    tensor: Tensor
    node: Node
    written: bool = False


@dataclass(eq=False)
class SavedHandle:
    """What a handle was before the trace changed it."""

    tensor: Tensor
    requires: bool
    grad: Tensor | Promise | None
    var: tuple[Node, int] | None
    retains: bool
    read: bool = False  # the gradient has been looked at


@dataclass(eq=False)
class GradInput:
    """The gradient that a leaf had when the trace began, and what stands in for it."""

    tensor: Tensor
    stand_in: Tensor
    node: Node


class Members:
    """`edits` counts changes to the members of any module: parameters, buffers and children."""

    edits = 0


def members_changed() -> None:
    """A parameter, buffer, child, hook or setting of some module is registered, replaced or removed."""
    Members.edits += 1
    settle()


_MEMBERS = (
    "_parameters",
    "_buffers",
    "_modules",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_NO_SETTINGS = frozenset((*_MEMBERS, "training", "_recording"))  # (modes are checked at every call)


def members(module: Any) -> list[Any]:
    """The parameters, buffers, children and hooks of a module; of this library's modules also settings."""
    fields = module.__dict__
    tables = [fields[name] for name in _MEMBERS]
    found = [member for table in tables for member in table.values()]
    if module.is_library:
        found += [value for name, value in fields.items() if name not in _NO_SETTINGS]
    return found


PLAIN = (bool, int, float, str, type(None))


def settings(module: Any) -> dict[str, Any]:
    """Numbers, flags and strings that a user's module keeps as attributes."""
    if module.is_library:
        return {}  # they are among its members
    return {k: v for k, v in module.__dict__.items() if type(v) in PLAIN and k not in _NO_SETTINGS}


class Trace:
    """One run of a function on tensors without values."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mark = Unbound(f"traced function {name!r}")
        self.captured: dict[Cell, Captured] = {}
        self.cells: dict[Cell, tuple[Any, ...]] = {}  # as they were
        self.handles: dict[int, SavedHandle] = {}
        self.grads: dict[int, GradInput] = {}
        self.no_grads: list[Tensor] = []  # leaves whose gradient was read as None
        self.variables: dict[Node, Tensor] = {}
        self.keys: dict[Generator, tuple[Node, int]] = {}
        self.dynamics: list[tuple[Node, Callable[[], float]]] = []
        self.guards: list[tuple[Callable[[], Any], Any]] = []
        self.modules: dict[Any, tuple[bool, list[Any]]] = {}  # mode and members
        self.settings: list[tuple[Any, dict[str, Any]]] = []  # of users' modules, as they were when called
        self.consumed: set[int] = set()
        self.asked = False  # whether a value is known: something else would be done if it were
        self.scalars: dict[Node, int] = {}  # stand-ins for Python numbers, by argument leaf

    # ------------------------------------------------------------ state from outside

    def touch(self, tensor: Tensor) -> None:
        """Stand in for the value of an outside tensor by an input."""
        cell = tensor._cell
        known = self.captured.get(cell)
        unchanged = known is not None and cell.node is known.node
        fn = self.cells[cell][1] if unchanged else cell.fn
        if MODE.grad and fn is not None and not fn.freed and (unchanged or cell not in self.cells):
            raise fail(
                RuntimeError,
                f"compile/trace: {self.name!r} uses a tensor from outside that has history "
                f"({describe(tensor)}, "
                f"grad_fn={fn!r}); compute it inside the function, pass it as an argument, or "
                f"detach() it",
            )
        if cell in self.cells:
            return
        with paused():
            lazy.realise([tensor])
        self.save(cell)
        node = fresh_input(cell.node.type, self.mark)
        self.captured[cell] = Captured(tensor, node)
        cell.node, cell.fn = node, None

    def save(self, cell: Cell) -> None:
        """Remember a cell as it is now."""
        if cell not in self.cells:
            self.cells[cell] = (cell.node, cell.fn, cell.tracks, cell.old)

    def has_saved(self, cell: Cell) -> bool:
        return cell in self.cells

    def write(self, cell: Cell) -> None:
        """An in-place change is about to happen."""
        if cell.trace is self:
            return
        if cell not in self.cells:
            self.touch(wrap_cell(cell))
        captured = self.captured.get(cell)
        if captured is not None:
            captured.written = True

    def save_handle(self, tensor: Tensor) -> None:
        """A handle's own fields are about to change."""
        if tensor._cell.trace is not self and id(tensor) not in self.handles:
            self.handles[id(tensor)] = SavedHandle(
                tensor, tensor._requires, tensor._grad, tensor._var, tensor._retains
            )

    def note_variable(self, node: Node, tensor: Tensor) -> None:
        """`node` stands for the leaf `tensor` in differentiable expressions."""
        self.variables[node] = tensor

    def knows(self, node: Node) -> bool:
        """Whether `node` stands for a leaf in this trace."""
        return node in self.variables

    def read_grad(self, tensor: Tensor) -> None:
        """`.grad` of a leaf from outside is being read: stand in for it."""
        if tensor._cell.trace is self:
            return
        self.save_handle(tensor)
        known = self.handles[id(tensor)]
        if known.read or tensor._grad is not known.grad:
            return
        known.read = True
        with paused():
            grad = known.grad = tensor.grad  # (no promise any more)
        if grad is None:
            self.no_grads.append(tensor)
            return
        with paused():
            lazy.realise([grad])
        node = fresh_input(grad._cell.node.type, self.mark)
        self.grads[id(tensor)] = GradInput(tensor, from_node(node), node)
        tensor._grad = self.grads[id(tensor)].stand_in

    # --------------------------------------------------------------- other inputs

    def random_key(self, generator: Generator) -> tuple[Node, int]:
        """One key per generator; draws are told apart by their stream."""
        node, count = self.keys.get(generator, (None, 0))
        if node is None:
            node = fresh_input(TensorType((2,), int64), self.mark)
        self.keys[generator] = (node, count + 1)
        return node, count

    def scalar(self, getter: Callable[[], float]) -> Node:
        """A number read again at each call."""
        node = fresh_input(TensorType((), float64), self.mark)
        self.dynamics.append((node, getter))
        return node

    def note_module(self, module: Any) -> None:
        """A module is being called: the program is for its present mode."""
        if module not in self.modules:
            self.modules[module] = (module.training, members(module))
            found = settings(module)
            if found:
                self.settings.append((module, found))

    def needs_value(self, message: str) -> TracerError:
        """The error for what cannot be done without values."""
        return fail(TracerError, f"{message} (while tracing {self.name!r})")

    # ------------------------------------------------------------------------ end

    def restore(self) -> None:
        """Put every cell and handle from outside back as it was."""
        self.mark.active = False
        for cell, (node, fn, tracks, old) in self.cells.items():
            cell.node, cell.fn, cell.tracks, cell.old = node, fn, tracks, old
            cell.version += 1
            if cell.view is not None:
                cell.view.seen = -1
        self.cells.clear()  # cells made in the trace refer to it, and would keep the old values alive
        for saved in self.handles.values():
            t = saved.tensor
            t._requires, t._grad, t._var, t._retains = saved.requires, saved.grad, None, saved.retains


@contextmanager
def tracing(name: str, apart: bool = False) -> Iterator[Trace]:
    """Trace what runs inside; everything is put back at the end, also after an error.

    `apart`: it reads nothing that noted events change, which need not be built for it.
    """
    outer = MODE.trace
    if outer is not None:
        raise fail(RuntimeError, f"cannot trace {name!r} inside the trace of {outer.name!r}")
    if not apart:
        settle()
    trace = MODE.trace = Trace(name)
    events, MODE.events = MODE.events, None
    pending, MODE.pending = MODE.pending, PendingTensors()
    try:
        yield trace
    finally:
        MODE.trace = None
        MODE.events = events
        for tensor in MODE.pending:
            tensor._seq = 0
        MODE.pending = pending
        trace.restore()


@contextmanager
def paused() -> Iterator[None]:
    """Leave the active trace for a while: tensors made inside are ordinary, lasting ones."""
    saved, MODE.trace = MODE.trace, None
    try:
        yield
    finally:
        MODE.trace = saved


def dynamic(getter: Callable[[], float]) -> Tensor:
    """A number that may differ at each call of a compiled function, without recompilation.

    Counts as a Python number in dtype promotion. Outside traces it is read at once.
    """
    if MODE.trace is not None:
        node = MODE.trace.scalar(getter)
    else:
        node = leaf_node(np.asarray(getter(), np.float64))
    tensor = from_node(node)
    tensor._weak = True
    return tensor


def guard(getter: Callable[[], Any]) -> Any:
    """`getter()`; inside a trace, compiled code is only used while it gives an equal value."""
    found = getter()
    if MODE.trace is not None:
        MODE.trace.guards.append((getter, found))
    return found


def consume_grads(parameters: Iterable[Tensor]) -> None:
    """Say that the gradients of these leaves have been used up: a compiled step need not keep them."""
    if MODE.trace is not None:
        MODE.trace.consumed.update(id(p) for p in parameters)
