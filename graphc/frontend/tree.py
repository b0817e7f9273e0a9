"""Nested Python data (lists, tuples, dicts, named tuples) with tensors at the leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
    return change(data)


def structure(data: Any) -> Any:
    """A hashable form of the nesting, with None at the leaves."""
    if isinstance(data, (list, tuple)):
        return (type(data).__name__, *[structure(d) for d in data])
    if isinstance(data, dict):
        return ("dict", *[(k, structure(v)) for k, v in data.items()])
    return None
