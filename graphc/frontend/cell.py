"""Cells: what tensors are handles on. A cell holds a node, its history, and how it follows a base."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.frontend.drawn import Drawn
from graphc.frontend.history import GradFn
from graphc.frontend.modes import MODE
from graphc.frontend.shown import Shown
from graphc.ir.node import Kind, Node
from graphc.ir.types import TensorType, from_numpy_dtype
from graphc.ops.constant import INPUT, InputAttrs

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor

Build = Callable[..., Node]
_names = itertools.count()


class View:
    """How a cell follows its base: `forward(base node) -> node`, `back(base node, node) -> base node`.

    `back` is None where several elements of the view are one of the base: nothing can be written there.
    """

    __slots__ = ("back", "cell", "forward", "handle", "label", "seen")

    def __init__(self, base: Tensor, label: str, forward: Build, back: Build | None) -> None:
        self.cell = base._cell
        self.handle = weakref.ref(base)
        self.label = label
        self.forward = forward
        self.back = back
        self.seen = base._cell.version


class Cell:
    """Storage: the node that is its value now, and the history of that value.

    tracks  the node depends on differentiable leaves although the value does not require grad
    trace   the trace during which the cell was made
    old     the input node of the last value computed, whose buffer the next value may take over
    past    what in-place changes have replaced since then, for the case that one fails: (step, node,
            how much had been recorded)
    vars    the nodes that stand for leaves on this cell, bound to `old` or to the present value
    handles the tensors on this cell, once there are several: each may outlive the others
    events  set in a `Deferred` cell only: what has to be built before there is a node
    """

    __slots__ = (
        "__weakref__", "events", "fn", "handles", "node", "old", "past", "trace", "tracks", "vars", "version",
        "view",
    )  # fmt: skip
    events: Any

    def __init__(self, node: Node, fn: GradFn | None = None, tracks: bool = False) -> None:
        self.node = node
        self.fn = fn
        self.tracks = tracks
        self.version = 0
        self.view: View | None = None
        self.old: Node | None = None
        self.past: list[tuple[int, Node, int]] | None = None
        self.vars: list[weakref.ref[Node]] | None = None
        self.handles: dict[int, weakref.ref[Tensor]] | None = None  # (a WeakValueDictionary is slow to make)
        self.trace = MODE.trace

    @property
    def type(self) -> TensorType:
        """The type of the value."""
        return self.node.type

    @property
    def has_history(self) -> bool:
        """Whether gradients flow through the value."""
        return self.fn is not None


class Uncomputed(RuntimeError):
    """The value of an event is wanted that is closed, but not done."""


class Deferred(Cell):
    """A cell whose value depends on events that are not built yet (`graphc.frontend.tracing.deferred`).

    It has no `node`, `fn`, `tracks` and `version`; looking for one of them builds the events, which
    makes it an ordinary Cell. So no code that uses cells needs to know of events.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:  # asked only for what is not there
        if name not in _DEFERRED:
            raise AttributeError(f"a cell has no {name!r}")
        self.events.build()
        if type(self) is Deferred:
            raise Uncomputed(
                "this result was never computed: an error interrupted the step that it is part of"
            )
        return getattr(self, name)

    # What can be said of a result before it is built.

    @property
    def type(self) -> TensorType:
        known = self.events.kind(self)
        return self.node.type if known is None else known[0]

    @property
    def has_history(self) -> bool:
        known = self.events.kind(self)
        return self.fn is not None if known is None else known[1]


_DEFERRED = ("node", "fn", "tracks", "version")


def root(cell: Cell) -> Cell:
    """The cell with the storage that a view shows; a cell without a base itself."""
    while cell.view is not None:
        cell = cell.view.cell
    return cell


def fresh_input(type_: TensorType, bound: Any = None, attrs: InputAttrs | None = None) -> Node:
    """A new input node, bound to an array, to another node, or (None) to nothing.

    It is unlike every other node, so it need not go through the table of nodes, and may have the attributes
    of another one of its type.
    """
    node = object.__new__(Node)
    node.op, node.inputs, node.type, node.bound, node.site = INPUT, (), type_, bound, None
    if attrs is None:
        attrs = object.__new__(InputAttrs)  # (its __init__ takes as long as all the rest)
        fields = attrs.__dict__
        fields["name"], fields["shape"], fields["dtype"] = f"%{next(_names)}", type_.shape, type_.dtype
    node.attrs = attrs
    return node


def leaf_node(array: np.ndarray) -> Node:
    """A new input node whose value is `array` (which must not be written to by anybody else)."""
    return fresh_input(TensorType(array.shape, from_numpy_dtype(array.dtype)), array)


def has_value(node: Node) -> bool:
    """Whether the value of a node is there for who reads it, without computing others first."""
    return type(node.bound) in (np.ndarray, Drawn, Shown) or node.kind is Kind.CONSTANT


def is_constant(node: Node) -> bool:
    """Whether a node is made of constants alone, and of no input.

    Such nodes are the same objects in whatever is built from equal constants, so they are never bound to a
    value: the numbering of one graph, and whose buffers it may take over, would depend on what others hold.
    """
    seen = {node}
    stack = [node]
    while stack:
        node = stack.pop()
        if node.op is INPUT or node.bound is not None:
            return False
        for operand in node.inputs:
            if operand not in seen:
                seen.add(operand)
                stack.append(operand)
    return True


class Steps:
    """`count` goes up when an optimizer steps: what one step changes is undone together."""

    count = 0


class Flags:
    """`count` goes up whenever a tensor begins or ceases to require grad."""

    count = 0


class Sharing:
    """`count` goes up whenever an array becomes the value of a second cell."""

    count = 0


def share(array: np.ndarray) -> np.ndarray:
    """`array`, marked as one that several cells read: nobody may take over its buffer."""
    Sharing.count += 1
    array.flags.writeable = False
    return array


def alias(node: Node) -> Node:
    """Another input node with the value of an input node: each cell has an input node of its own."""
    bound = node.bound
    if type(bound) is Drawn:
        return fresh_input(node.type, bound)
    return fresh_input(node.type, share(bound) if type(bound) is np.ndarray else node)
