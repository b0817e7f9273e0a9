"""The table of operations that are both functions (`graphc.add(x, y)`) and methods (`x.add(y)`).

Each family's module defines plain functions whose first argument is the tensor, and enters
them here with `@method`; `install` puts them on Tensor, with in-place twins (`add_`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from graphc.frontend.evaluation.rounds import may_end
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, inplace

F = TypeVar("F", bound=Callable[..., Any])

METHODS: dict[str, Callable[..., Any]] = {}
FUNCTIONS: dict[str, Callable[..., Any]] = {}


def method(
    *names: str,
    inplace: bool = False,
    function: bool = True,
    only_function: bool = False,
    repeats: bool = False,
) -> Callable[[F], F]:
    """Enter a function under `names` (default: its own, less a trailing underscore).

    inplace        also as the method `name_`, which stores the result in the tensor
    function       also as `graphc.name`
    only_function  not as a method
    repeats        calls on tensors of the same types are the same (`graphc.frontend.repeated`)
    """

    entered_as = names

    def enter(f: F) -> F:
        names = entered_as or (f.__name__.removesuffix("_"),)
        f.__name__ = f.__qualname__ = names[0]  # (Python's errors name it: `sum`, where we write `sum_`)
        entered = _with_numpy_names(f)
        if repeats:
            entered = repeatable(entered)
        for name in names:
            if not only_function:
                METHODS[name] = entered
            if function or only_function:
                FUNCTIONS[name] = entered
            if inplace:
                METHODS[name + "_"] = make_inplace(entered, name + "_")
        return f

    return enter


_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def _with_numpy_names(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, which takes NumPy's names for `dim` and `keepdim` as well, as PyTorch's operations do."""
    code = f.__code__
    taken = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    known = {theirs: ours for theirs, ours in _NUMPY_NAMES.items() if ours in taken and theirs not in taken}
    if not known:
        return f

    @functools.wraps(f)
    def named(*args: Any, **kwargs: Any) -> Any:
        if kwargs and not known.keys().isdisjoint(kwargs):
            given = {known.get(name, name): value for name, value in kwargs.items()}
            if len(given) == len(kwargs):  # (else both are given, which `f` refuses)
                kwargs = given
        return f(*args, **kwargs)

    return named


def make_inplace(f: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The in-place twin of an operation."""

    def changed(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        may_end(self)
        return inplace(self, f(self, *args, **kwargs), name)

    changed.__name__ = changed.__qualname__ = name
    changed.__doc__ = f"In-place form of `{name[:-1]}`: changes and returns this tensor."
    return changed


def install() -> None:
    """Put every entered method on Tensor."""
    for name, f in METHODS.items():
        setattr(Tensor, name, f)


def attach(**attributes: Any) -> None:
    """Put properties, special methods and what is no function of `graphc` on Tensor."""
    for name, attribute in attributes.items():
        if isinstance(attribute, FunctionType) and not name.startswith("__"):
            attribute.__name__ = attribute.__qualname__ = name
        setattr(Tensor, name, attribute)
