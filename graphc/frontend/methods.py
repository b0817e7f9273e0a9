"""The table of operations that are both functions (`graphc.add(x, y)`) and methods (`x.add(y)`).

Each family's module defines plain functions whose first argument is the tensor, and enters
them here with `@method`; `install` puts them on Tensor, with in-place twins (`add_`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from graphc.frontend.tensor import Tensor, inplace

F = TypeVar("F", bound=Callable[..., Any])

METHODS: dict[str, Callable[..., Any]] = {}
FUNCTIONS: dict[str, Callable[..., Any]] = {}


def method(
    *names: str, inplace: bool = False, function: bool = True, only_function: bool = False
) -> Callable[[F], F]:
    """Enter a function under `names` (default: its own, less a trailing underscore).

    inplace        also as the method `name_`, which stores the result in the tensor
    function       also as `graphc.name`
    only_function  not as a method
    """

    def enter(f: F) -> F:
        for name in names or (f.__name__.removesuffix("_"),):
            if not only_function:
                METHODS[name] = f
            if function or only_function:
                FUNCTIONS[name] = f
            if inplace:
                METHODS[name + "_"] = make_inplace(f, name + "_")
        return f

    return enter


def make_inplace(f: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The in-place twin of an operation."""

    def changed(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return inplace(self, f(self, *args, **kwargs), name)

    changed.__name__ = changed.__qualname__ = name
    changed.__doc__ = f"In-place form of `{name[:-1]}`: changes and returns this tensor."
    return changed


def install() -> None:
    """Put every entered method on Tensor."""
    for name, f in METHODS.items():
        setattr(Tensor, name, f)


def attach(**attributes: Any) -> None:
    """Put properties and special methods on Tensor."""
    for name, attribute in attributes.items():
        setattr(Tensor, name, attribute)
