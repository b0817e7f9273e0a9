"""Calls repeated: what a function makes of operands of given types is made again without asking it.

A training loop calls the same functions on the same shapes at every step. Each call checks its arguments,
works out axes, shapes and dtypes, and so comes to a few nodes (`apply`). A function marked `@repeatable`
does so twice for operands of given types and plain arguments of given values; from then on a call is a look
into a table, the nodes, and a tensor on them.

What may be marked: functions that depend on nothing but these and the default dtype, and whose result is one
tensor that one `apply` or `apply_view` of their operands gives. Whether that is so is seen when a call is
recorded, on operands without values: whoever asks for a value, draws a random number, warns, changes an
operand, returns something else, or composes several operations is called every time.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from graphc.frontend import promotion
from graphc.frontend.cell import Build, Cell, View, fresh_input
from graphc.frontend.history import AccumulateGrad
from graphc.frontend.modes import MODE, enable_grad
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor, needs_grad, operand, result, wrap_cell
from graphc.ir.recipe import Recipe
from graphc.ir.types import DType

F = TypeVar("F", bound=Callable[..., Any])
MANY = 1024  # calls of one function, before all are forgotten

_default = promotion._default


class _Unlike(Exception):
    """An argument that cannot be compared with those of other calls."""


class _Call:
    """A call as recorded: its node, its history's label, and the operands in the order of that history.

    `forward` and `back` are those of the view that the result is, if it is one.
    """

    __slots__ = ("back", "forward", "label", "order", "recipe")

    def __init__(self, recipe: Recipe, label: str, order: list[int] | None, view: View | None) -> None:
        self.recipe, self.label, self.order = recipe, label, order
        self.forward: Build | None = None if view is None else view.forward
        self.back: Build | None = None if view is None else view.back

    def __call__(self, tensors: list[Tensor]) -> Tensor:
        tracked = needs_grad(*tensors)
        node = self.recipe([operand(t, tracked) for t in tensors])[0]
        order = self.order
        inputs = tensors if order is None else [tensors[i] for i in order]
        tensor = result(node, self.label, inputs, tracked)
        if self.forward is not None:
            tensor._cell.view = View(tensors[0], self.label, self.forward, self.back)
        return tensor


def repeatable(function: F) -> F:
    """A decorator for functions of tensors (see above)."""
    known: dict[tuple, _Call | None] = {}  # None: such calls are made every time
    seen: set[tuple] = set()

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if MODE.trace is not None:
            return function(*args, **kwargs)
        key: list[Any] = [_default[0]]
        tensors: list[Tensor] = []
        try:
            for arg in args:
                if isinstance(arg, Tensor):
                    if arg._weak:
                        return function(*args, **kwargs)
                    type_ = arg._cell.node.type
                    key += (type_.shape, type_.dtype)
                    tensors.append(arg)
                elif type(arg) is int:
                    key.append(arg)
                else:
                    _read(arg, key, tensors)
            if kwargs:
                key.append(dict)
                for name, arg in kwargs.items():
                    key.append(name)
                    _read(arg, key, tensors)
        except _Unlike:
            return function(*args, **kwargs)
        found = tuple(key)
        if found in known:
            again = known[found]
            return function(*args, **kwargs) if again is None else again(tensors)
        made = function(*args, **kwargs)  # which says what is wrong with the arguments, if anything is
        if found in seen:
            _keep(known, found, _record(function, args, kwargs))
        else:
            if len(seen) >= MANY:
                seen.clear()
            seen.add(found)
        return made

    return call  # type: ignore[return-value]


def _keep(known: dict[tuple, _Call | None], key: tuple, call: _Call | None) -> None:
    if len(known) >= MANY:
        known.clear()
    known[key] = call


def _read(arg: Any, key: list[Any], tensors: list[Tensor]) -> None:
    """Add an argument to the key, so that keys tell apart what == does not, and its tensors to the list."""
    kind = type(arg)
    if isinstance(arg, Tensor):
        if arg._weak:
            raise _Unlike
        type_ = arg._cell.node.type
        key += (type_.shape, type_.dtype)
        tensors.append(arg)
    elif kind is int or kind is str or arg is None or kind is DType or arg is Ellipsis:
        key.append(arg)
    elif kind is float:
        key += (float, arg.hex())
    elif kind is bool:
        key += (bool, arg)
    elif kind is tuple or kind is list or kind is Size:
        key += (kind, len(arg))
        for item in arg:
            _read(item, key, tensors)
    elif kind is slice:
        key.append(slice)
        for bound in (arg.start, arg.stop, arg.step):
            _read(bound, key, tensors)
    else:
        raise _Unlike


def _stand_in(arg: Any, made: list[Tensor]) -> Any:
    """An argument with other tensors in it, which have no value."""
    if isinstance(arg, Tensor):
        type_ = arg._cell.node.type
        tensor = wrap_cell(Cell(fresh_input(type_)))
        tensor._requires = type_.dtype.is_float
        made.append(tensor)
        return tensor
    if type(arg) is tuple or type(arg) is list:
        return type(arg)([_stand_in(item, made) for item in arg])
    return arg


def _record(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> _Call | None:
    """What a call makes; None if it has to be made every time."""
    given: list[Tensor] = []
    stand_ins = [_stand_in(arg, given) for arg in args]
    named = {name: _stand_in(arg, given) for name, arg in kwargs.items()}
    saved, MODE.recording = MODE.recording, True
    try:
        with enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            made = function(*stand_ins, **named)
    except Exception:  # the same call has just been made, so this is about the missing values
        return None
    finally:
        MODE.recording = saved
    if not isinstance(made, Tensor):
        return None
    if made._seq:
        MODE.pending.discard(made._seq)
        made._seq = 0
    if made._weak or any(made is t for t in given) or any(t._cell.version for t in given):
        return None
    return _call_of(made, given)


def _call_of(made: Tensor, given: list[Tensor]) -> _Call | None:
    """How a result follows from the operands; None if that is more than one operation."""
    cell = made._cell
    view = cell.view
    if view is not None and (len(given) != 1 or view.cell is not given[0]._cell):
        return None
    places = {id(t): i for i, t in enumerate(given)}
    order = [i for i, t in enumerate(given) if not t._requires]
    label = "" if view is None else view.label
    if cell.fn is not None:
        ends = [fn.variable for fn in cell.fn.parents if isinstance(fn, AccumulateGrad)]
        if len(ends) != len(cell.fn.parents):
            return None
        order = [places[id(t)] for t in ends] + order
        label = cell.fn.label
    elif cell.node.type.dtype.is_float and len(order) < len(given):
        return None  # it cuts history
    else:
        order = list(range(len(given)))
    if sorted(order) != list(range(len(given))):
        return None
    nodes = [t._cell.node if t._var is None else t._var[0] for t in given]
    try:
        recipe = Recipe(nodes, [cell.node])
    except ValueError:  # it reads something else
        return None
    return _Call(recipe, label, None if order == sorted(order) else order, view)
