"""Loading backends by name: the only place where the compiler reaches up to one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from graphc.program import Backend

GROUP = "graphc.backends"


@cache
def _registered() -> dict[str, Any]:
    """Entry points by name. Reading those of all installed packages takes longer than a warm start."""
    metadata = importlib.import_module("importlib.metadata")
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def names() -> list[str]:
    """The names of the installed backends."""
    return sorted(_registered())


@cache
def load(name: str, target: str | None = None) -> Backend:
    """The backend `name`: a package beside the compiler's own (``graphc.backends.llvm``), or one that another
    distribution registers in the entry-point group ``graphc.backends``.

    `target` names the machine to make code for, for backends that have several.
    Raises ValueError for an unknown name and RuntimeError when the backend cannot start here.
    """
    try:
        factory = _own(name) or _foreign(name)
    except ImportError as error:
        raise RuntimeError(f"backend {name!r} cannot be loaded: {error}") from error
    return factory() if target is None else factory(target)


def _own(name: str) -> Callable[..., Backend] | None:
    """The class of a backend that comes with the compiler; None if there is none of this name."""
    module = f"{GROUP}.{name}"
    try:
        return importlib.import_module(module).Backend if name.isidentifier() else None
    except ModuleNotFoundError as error:
        if error.name in (GROUP, module):
            return None
        raise


def _foreign(name: str) -> Callable[..., Backend]:
    point = _registered().get(name)
    if point is None:
        known = ", ".join(names()) or "none; is graphc installed?"
        raise ValueError(f"unknown backend {name!r} (known backends: {known})")
    return point.load()
