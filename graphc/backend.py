"""Loading backends by name: the only place where the compiler reaches up to one."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from graphc.program import Backend

GROUP = "graphc.backends"


@cache
def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """The names of the installed backends."""
    return sorted(_registered())


@cache
def load(name: str, target: str | None = None) -> Backend:
    """The backend registered as `name` in the entry-point group ``graphc.backends``.

    `target` names the machine to make code for, for backends that have several.
    Raises ValueError for an unknown name and RuntimeError when the backend cannot start here.
    """
    point = _registered().get(name)
    if point is None:
        known = ", ".join(names()) or "none; is graphc installed?"
        raise ValueError(f"unknown backend {name!r} (known backends: {known})")
    try:
        factory = point.load()
    except ImportError as error:
        raise RuntimeError(f"backend {name!r} cannot be loaded: {error}") from error
    return factory() if target is None else factory(target)
