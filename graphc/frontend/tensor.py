"""Tensor: a handle on a mutable cell, and the one place where operations become nodes.

    Tensor --> Cell --> Node (immutable; `node.bound` is its value once computed)

Handles that share storage share a Cell. An in-place method gives the cell another node;
a view's cell knows its base and both maps, so writes reach the base and are seen by other
views. A leaf that requires grad stands in expressions as an input node of its own
(`variable`), so that two leaves are never confused by the sharing of equal nodes.

How to write a composite operation (this is all that `graphc.nn.functional` does):

    def softmax(x: Tensor, dim: int) -> Tensor:
        axis = normal_axis(dim, x.ndim)
        def build(n: Node) -> Node:                      # nodes in, node out: graphc.ops builders
            top = spread(ops.reduce_max(n, (axis,)), n.shape, axis)   # graphc.frontend.nodes helpers
            e = ops.exp(ops.sub(n, ops.stop_gradient(top)))
            return ops.div(e, spread(ops.reduce_sum(e, (axis,)), n.shape, axis))
        return apply("SoftmaxBackward0", build, x)

`apply(name, build, *tensors)` hands the operands' nodes to `build`, in order, records history
and gives the result. Plain compositions of Tensor methods work as well, and cost a little more
Python. Convolutions, windows and random bits are nodes like any others (`ops.conv`,
`ops.window`, `graphc.frontend.functions.random.next_key`). `inplace(x, y)` gives `x` the value and
history of `y`.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import ops
from graphc.frontend.cell import Build, Cell, Flags, View, alias, fresh_input, has_value, leaf_node
from graphc.frontend.errors import describe, fail, title
from graphc.frontend.history import AccumulateGrad, GradFn, LeafHooks, Promise, add_hook
from graphc.frontend.modes import MODE, no_grad, not_while_recording, settle
from graphc.frontend.pending import numbers, used_again
from graphc.frontend.promotion import can_cast
from graphc.frontend.remembered import build_node
from graphc.frontend.sharing import is_seen, moved, part, present
from graphc.frontend.shown import Shown
from graphc.frontend.size import Size
from graphc.frontend.writing import check_apart, rebind, remember, write
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.constant import INPUT

NOT_A_LEAF = (
    "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed: backward() will not fill "
    "it. Call .retain_grad() on the Tensor before backward() if you want it"
)


class Tensor:
    """A multi-dimensional array that records operations and computes them when it is read.

    Made by `graphc.tensor`, `graphc.zeros`, ..., and by operations on tensors. The methods are
    those of PyTorch's Tensor; they are defined, by family, in the modules of `graphc.frontend`.
    """

    _cell: Cell
    _requires = False  # a leaf that requires grad
    _grad: Tensor | Promise | None = None
    _var: tuple[Node, int] | None = None  # the node of this leaf in expressions, and the cell's version
    _acc: weakref.ref[AccumulateGrad] | None = None
    _hooks: LeafHooks | None = None
    _retains = False
    _seq = 0  # key in MODE.pending, 0 if not there
    _weak = False  # counts as a Python number in dtype promotion

    __array_priority__ = 1000  # numpy operands give way to our reflected operators

    if TYPE_CHECKING:  # what `graphc.frontend.functions.methods.install` and `operators` add

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    # ------------------------------------------------------------ attributes

    @property
    def shape(self) -> Size:
        """The extents, as a Size (a tuple)."""
        return Size(self._cell.type.shape)

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return self._cell.type.dtype

    @property
    def ndim(self) -> int:
        """The number of dims."""
        return len(self._cell.type.shape)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor."""
        return self._requires or _present(self).has_history

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Make a leaf require grad, or stop requiring it. RuntimeError for a non-leaf or a non-float."""
        if self._cell.fn is not None:
            if requires_grad:
                return self
            raise fail(
                RuntimeError,
                "you can only change requires_grad flags of leaf variables. If you want to use a computed "
                "variable in a subgraph that doesn't require differentiation use var_no_grad = var.detach().",
            )
        if requires_grad and not self.dtype.is_float:
            raise fail(RuntimeError, "only Tensors of floating point dtype can require gradients")
        if MODE.trace is not None:
            MODE.trace.save_handle(self)
        settle()
        self._requires = bool(requires_grad)
        Flags.count += 1
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor: `.grad` is for leaves."""
        return not _present(self).has_history

    @property
    def grad_fn(self) -> GradFn | None:
        """The operation that made this tensor; None for leaves."""
        return _present(self).fn

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient of a leaf; None before any backward(). UserWarning for what is no leaf."""
        if MODE.trace is not None:
            MODE.trace.read_grad(self)
        grad = self._grad
        if grad is None and not self._retains and not self.is_leaf:
            warnings.warn(NOT_A_LEAF, UserWarning, stacklevel=2)
        return grad.give(self) if isinstance(grad, Promise) else grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise fail(
                    TypeError, f"assigned grad expected to be a Tensor or None but got {type(value).__name__}"
                )
            if value.shape != self.shape or value.dtype is not self.dtype:
                raise fail(
                    RuntimeError,
                    f"assigned grad has data of a different size or type: {describe(value)} for "
                    f"{describe(self)}",
                )
        if MODE.trace is not None:
            MODE.trace.save_handle(self)
        self._grad = value

    @property
    def data(self) -> Tensor:
        """The same storage without history."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        cell = self._cell
        if value._cell is cell:
            return
        if self._cell.fn is not None:
            raise fail(
                RuntimeError, "cannot set .data of a tensor with history; assign to the variable instead"
            )
        node = operand(value, False)
        write(cell)
        part(self)
        rebind(cell, node, None, value._cell.tracks or value._cell.fn is not None)
        register(self)

    def detach(self) -> Tensor:
        """A tensor on the same storage that does not require grad."""
        cell = self._cell
        if cell.fn is None:
            out = wrap_cell(cell)
            share_cell(self, out)
            if cell.node.bound is None:
                register(out)
            return out
        return apply_view("AliasBackward0", _stop, _replace, self, tracked=False)

    def detach_(self) -> Tensor:
        """Forget this tensor's history."""
        settle()
        self._requires = False
        Flags.count += 1
        cell = self._cell
        if cell.fn is not None:
            write(cell)
            cell.node, cell.fn, cell.tracks = _stop(cell.node), None, False
        return self

    def retain_grad(self) -> None:
        """Ask that backward() fills `.grad` of this non-leaf."""
        if not self.requires_grad:
            raise fail(RuntimeError, "can't retain_grad on Tensor that has requires_grad=False")
        fn = self._cell.fn
        if fn is not None and not self._retains:
            self._retains = True
            add_hook(fn, self._cell.node, _Retain(self))

    retains_grad = property(lambda self: self._retains, doc="Whether `retain_grad` has been called on this.")


class _Retain:
    """The hook behind `retain_grad`."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = weakref.ref(tensor)

    def __call__(self, grad: Tensor) -> None:
        tensor = self.tensor()
        if tensor is not None:
            old = tensor._grad
            tensor._grad = grad if old is None else old + grad


def _stop(node: Node) -> Node:
    return ops.stop_gradient(node) if node.type.dtype.is_float else node


def _replace(base: Node, node: Node) -> Node:
    return node


# ---------------------------------------------------------------- making tensors


def wrap_cell(cell: Cell) -> Tensor:
    tensor = object.__new__(Tensor)
    tensor._cell = cell
    return tensor


def from_array(array: np.ndarray, requires_grad: bool = False) -> Tensor:
    """A leaf tensor that takes over `array`."""
    tensor = wrap_cell(Cell(leaf_node(np.ascontiguousarray(array).reshape(array.shape))))
    if requires_grad:
        tensor.requires_grad_()
    return tensor


def from_node(node: Node, tracks: bool = False) -> Tensor:
    """A tensor without history whose value is `node`."""
    tensor = wrap_cell(Cell(node, None, tracks))
    if node.bound is None:
        register(tensor)
    return tensor


def share_cell(one: Tensor, other: Tensor) -> None:
    """Note that a cell has several handles: whichever stays, the cell's value is to be computed."""
    cell = one._cell
    handles = {id(one): weakref.ref(one), id(other): weakref.ref(other)}
    if cell.handles:
        handles |= {key: held for key, held in cell.handles.items() if held() is not None}
    cell.handles = handles


def register(tensor: Tensor) -> None:
    """Note that the value of a live tensor, and of those on the same cell, is not computed yet."""
    cell = tensor._cell
    if cell.node.bound is None:
        for other in (tensor, *[held() for held in (cell.handles or {}).values()]):
            if other is not None:
                _note(other)


def _note(tensor: Tensor) -> None:
    if tensor._seq == 0:
        tensor._seq = seq = next(numbers)
        MODE.pending.add(seq, tensor)


# ---------------------------------------------------------------- operations


def needs_grad(*tensors: Tensor) -> bool:
    """Whether an operation on these records history now."""
    if MODE.grad:
        for t in tensors:
            cell = t._cell
            if cell.view is not None:
                refresh(cell)  # its base may have got a history meanwhile
            if t._requires or cell.fn is not None:
                return True
    return False


def operand(tensor: Tensor, tracked: bool) -> Node:
    """The node that stands for `tensor` in an expression; `tracked`: the result records history."""
    cell = tensor._cell
    if cell.view is not None:
        refresh(cell)
    trace = MODE.trace
    if trace is not None and cell.trace is not trace:
        trace.touch(tensor)
    if tracked and tensor._requires:
        return variable(tensor)
    node = cell.node
    if type(node.bound) is Shown:
        node = present(cell)
    return _stop(node) if tracked and cell.tracks and cell.fn is None else node


def variable(tensor: Tensor) -> Node:
    """The input node of a leaf that requires grad: its own, and bound to what the cell holds now."""
    cell, var, trace = tensor._cell, tensor._var, MODE.trace
    if cell.old is not None and cell.node.bound is None and trace is None:
        used_again()
    known = present(cell) if type(cell.node.bound) is Shown else cell.node
    value = known.bound
    if var is not None and var[1] == cell.version and (trace is None or trace.knows(var[0])):
        node = var[0]
        if type(node.bound) is Node and type(value) is np.ndarray:
            node.bound = value  # computed meanwhile
        return node
    if trace is not None:  # a node from outside would bring the present value in as a constant
        trace.save_handle(tensor)
    node = fresh_input(known.type, value if type(value) is np.ndarray else known)
    tensor._var = (node, cell.version)
    if cell.vars is None:
        cell.vars = []
    cell.vars.append(weakref.ref(node))
    if trace is not None:
        trace.note_variable(node, tensor)
    return node


def gradient_fn(tensor: Tensor) -> GradFn | None:
    """Where the gradient of `tensor` goes."""
    if not tensor._requires:
        return tensor._cell.fn
    node = variable(tensor)
    acc = None if tensor._acc is None else tensor._acc()
    if acc is None or acc.node is not node:
        acc = AccumulateGrad(tensor, node)
        tensor._acc = weakref.ref(acc)
    return acc


def result(node: Node, label: str, inputs: Sequence[Tensor], tracked: bool) -> Tensor:
    """A tensor for `node`, computed from `inputs`."""
    if tracked and node.type.dtype.is_float:
        parents = [fn for t in inputs if (fn := gradient_fn(t)) is not None]
        cell = Cell(node, GradFn(label, tuple(parents)))
    else:
        tracks = any(t._cell.tracks or t._cell.fn is not None for t in inputs)
        if node.op is INPUT:
            node = alias(node)
        cell = Cell(node, None, tracks)
    tensor = object.__new__(Tensor)
    tensor._cell = cell
    if node.bound is None:
        tensor._seq = seq = next(numbers)
        MODE.pending.add(seq, tensor)
    return tensor


def apply(label: str, build: Build, *inputs: Tensor) -> Tensor:
    """The tensor `build(*operand nodes)`, with history named `label` (e.g. "MulBackward0")."""
    tracked = needs_grad(*inputs)
    return result(build_node(build, [operand(t, tracked) for t in inputs]), label, inputs, tracked)


def apply_view(
    label: str, forward: Build, back: Build | None, base: Tensor, tracked: bool | None = None
) -> Tensor:
    """Like `apply`, for one operand whose storage the result shares.

    `forward(base) -> view` and `back(base, view) -> base with the view's elements replaced`; no `back` if
    several elements of the view are one of the base.
    """
    if tracked is None:
        tracked = needs_grad(base)
    tensor = result(build_node(forward, (operand(base, tracked),)), label, (base,), tracked)
    tensor._cell.view = View(base, label, forward, back)
    return tensor


# ---------------------------------------------------------------- views and in-place


def _present(tensor: Tensor) -> Cell:
    """The cell of a tensor, which has the history of its base if it is a view."""
    cell = tensor._cell
    if cell.view is not None:
        refresh(cell)
    return cell


def refresh(cell: Cell) -> None:
    """Bring a view up to date with its base."""
    chain = []
    trace = MODE.trace
    while cell.view is not None:
        chain.append(cell)
        cell = cell.view.cell
    for cell in reversed(chain):
        view = cell.view
        assert view is not None
        outside = trace is not None and cell.trace is not trace and not trace.has_saved(cell)
        shown = type(view.cell.node.bound) is Shown and is_seen(view.cell)
        if view.seen == view.cell.version and not outside and not shown:
            continue
        if trace is not None:
            trace.save(cell)
        handle = view.handle()
        base = wrap_cell(view.cell) if handle is None else handle
        tracked = MODE.grad and (base._requires or base._cell.fn is not None) and cell_follows(cell)
        if shown and trace is None and not tracked:
            cell.node = moved(view.forward, view.cell)
        elif cell_follows(cell):
            cell.node = view.forward(operand(base, tracked))
        else:
            with no_grad():  # a trace refuses outside values that it would have to follow
                cell.node = view.forward(operand(base, False))
        fn = gradient_fn(base) if tracked else None
        cell.fn = None if fn is None else GradFn(view.label, (fn,))
        cell.tracks = fn is None and (base._cell.tracks or base._cell.fn is not None)
        cell.version += 1
        view.seen = view.cell.version


def cell_follows(cell: Cell) -> bool:
    """Whether a view also takes over its base's history (a detached one does not)."""
    return cell.view is None or cell.view.forward is not _stop


def check_writable(tensor: Tensor) -> None:
    """RuntimeError if an in-place change of `tensor` would lose gradients."""
    if MODE.grad:
        if tensor._requires:
            raise fail(
                RuntimeError,
                "a leaf Variable that requires grad is being used in an in-place operation. "
                f"(given {describe(tensor)})",
            )
        view = tensor._cell.view
        while view is not None:
            base = view.handle()
            if base is not None and base._requires and cell_follows(tensor._cell):
                raise fail(
                    RuntimeError,
                    "a view of a leaf Variable that requires grad is being used in an in-place operation. "
                    f"(given {describe(tensor)})",
                )
            view = view.cell.view
    elif tensor._cell.fn is not None:
        raise fail(
            RuntimeError,
            "in-place change under no_grad of a tensor that has history; detach() it first, or change a "
            "clone",
        )


def inplace(tensor: Tensor, new: Tensor, operation: str = "in-place operation") -> Tensor:
    """Give `tensor` the value and history of `new`; the end of every in-place method.

    RuntimeError when `tensor` is a leaf that requires grad (outside no_grad), when the shapes
    differ, or when the dtype cannot hold the result.
    """
    check_writable(tensor)
    own, other = tensor._cell.node.type, new._cell.node.type
    if own.shape != other.shape:
        raise fail(
            RuntimeError,
            f"output with shape {list(own.shape)} doesn't match the broadcast shape {list(other.shape)}",
        )
    if own.dtype is not other.dtype:
        if not can_cast(other.dtype, own.dtype):
            raise fail(
                RuntimeError,
                f"result type {title(other.dtype)} can't be cast to the desired output type "
                f"{title(own.dtype)}",
            )
        new = apply("ToCopyBackward0", lambda n: ops.cast(n, own.dtype), new)
    cell, source = tensor._cell, new._cell
    if source.view is not None:
        refresh(source)
    tracked = needs_grad(new)
    node = operand(new, tracked)
    if cell.view is not None:
        check_apart(cell.view)
        refresh(cell)
    write(cell)
    rebind(cell, node, gradient_fn(new) if tracked else None, source.tracks or source.fn is not None)
    register(tensor)
    if cell.view is not None:
        _write_through(cell)
    return tensor


def _write_through(cell: Cell) -> None:
    """Carry a change of a view to its base, and on to that one's base."""
    while (view := cell.view) is not None:
        base, handle = view.cell, view.handle()
        if handle is not None and base.fn is not None and cell.fn is None and not MODE.grad:
            raise fail(RuntimeError, "in-place change under no_grad of a view of a tensor that has history")
        write(base)
        trace = MODE.trace
        if trace is not None and base.trace is not trace:
            trace.touch(wrap_cell(base) if handle is None else handle)
        remember(base)
        assert view.back is not None
        base.node = view.back(present(base) if type(base.node.bound) is Shown else base.node, cell.node)
        if cell.fn is not None or base.fn is not None:
            base.fn = GradFn("CopySlices", tuple(f for f in (base.fn, cell.fn) if f is not None))
        base.tracks = base.tracks or cell.tracks
        base.version += 1
        view.seen = base.version
        if handle is None and base.handles:
            handle = next((h for held in base.handles.values() if (h := held()) is not None), None)
        if handle is not None:
            register(handle)
        cell = base


def is_concrete(tensor: Tensor) -> bool:
    """Whether the value is known now, without computing anything."""
    not_while_recording()
    cell, trace = tensor._cell, MODE.trace
    if trace is not None and cell.trace is not trace:
        trace.asked = True
        return False  # state: another value at each call
    if cell.view is not None:
        refresh(cell)
    known = has_value(cell.node)
    if trace is not None and not known:
        trace.asked = True
    return known
