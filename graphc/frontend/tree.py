"""Nested Python data (lists, tuples, dicts, named tuples, `Branch`es) with tensors at the leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Branch:
    """Base of classes whose objects are data made of other data, as tuples are.

    `parts()` gives what an object is made of, `with_parts(parts)` an object like it of other parts, and
    `form()` a hashable value: what else tells two objects apart, on which compiled code may rely.
    """

    def parts(self) -> tuple[Any, ...]:
        """What this is made of."""
        raise NotImplementedError

    def with_parts(self, parts: list[Any]) -> Any:
        """An object like this of other parts."""
        raise NotImplementedError

    def form(self) -> Any:
        """What else tells this from others of its class; hashable."""
        return None


def is_nested(data: Any) -> bool:
    """Whether `data` is not itself a leaf."""
    return isinstance(data, (list, tuple, dict, Branch))


def leaves(data: Any) -> list[Any]:
    """The leaves of nested data, in order."""
    found: list[Any] = []
    stack = [data]
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple)):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(reversed(item.values()))
        elif isinstance(item, Branch):
            stack.extend(reversed(item.parts()))
        else:
            found.append(item)
    return found


def rebuild(data: Any, change: Callable[[Any], Any]) -> Any:
    """`data` with every leaf replaced by `change(leaf)`, in the order of `leaves`."""
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*[rebuild(d, change) for d in data])
    if isinstance(data, (list, tuple)):
        made = [rebuild(d, change) for d in data]
        return made if isinstance(data, list) else tuple(made)
    if isinstance(data, dict):
        return type(data)((k, rebuild(v, change)) for k, v in data.items())
    if isinstance(data, Branch):
        return data.with_parts([rebuild(d, change) for d in data.parts()])
    return change(data)


def structure(data: Any) -> Any:
    """A hashable form of the nesting, with None at the leaves."""
    if isinstance(data, (list, tuple)):
        return (type(data).__name__, *[structure(d) for d in data])
    if isinstance(data, dict):
        return ("dict", *[(k, structure(v)) for k, v in data.items()])
    if isinstance(data, Branch):
        return (type(data).__name__, data.form(), *[structure(d) for d in data.parts()])
    return None
