"""Loading backends by name: the only place where the compiler reaches up to one."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from graphc.program import Backend

GROUP = "graphc.backends"  # a package and an entry-point group
_NAMED = re.compile(r"([^()]*)(?:\((.*)\))?")
_OPTION = re.compile(r"(\w+)=(True|False)")


@cache
def _registered() -> dict[str, Any]:
    """Entry points by name. Reading those of all installed packages takes longer than a warm start."""
    metadata = importlib.import_module("importlib.metadata")
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def names() -> list[str]:
    """The names of the installed backends."""
    return sorted(_registered())


def with_options(name: str, options: Mapping[str, bool]) -> str:
    """The name of a backend with options that are not as by default: ``llvm(winograd=False)``.

    Such a name goes wherever a backend's name goes, keys of caches included. TypeError for a value that is
    no bool.
    """
    for option, value in options.items():
        if type(value) is not bool:
            raise TypeError(f"option {option} of a backend must be a bool, got {value!r}")
    plain, before = _split(name)
    listed = ", ".join(f"{option}={value}" for option, value in sorted({**before, **options}.items()))
    return f"{plain}({listed})" if listed else plain


def _split(spec: str) -> tuple[str, dict[str, bool]]:
    """A backend's own name, and the options that are named with it."""
    match = _NAMED.fullmatch(spec)
    name, listed = match.groups() if match else (spec, None)
    return name, {option: value == "True" for option, value in _OPTION.findall(listed or "")}


def package() -> ModuleType:
    """The package of the compiler's own backends, which `graphc.backends` is."""
    return importlib.import_module(GROUP)


@cache
def load(spec: str, target: str | None = None) -> Backend:
    """The backend of a name: a package beside the compiler's own (``graphc.backends.llvm``), or one that
    another distribution registers in the entry-point group ``graphc.backends``; with options if the name has
    them (`with_options`).

    `target` names the machine to make code for, for backends that have several.
    Raises ValueError for an unknown name or option and RuntimeError when the backend cannot start here.
    """
    name, options = _split(spec)
    try:
        factory = _own(name) or _foreign(name)
    except ImportError as error:
        raise RuntimeError(f"backend {name!r} cannot be loaded: {error}") from error
    unknown = sorted(set(options) - getattr(factory, "options", frozenset()))
    if unknown:
        raise ValueError(f"backend {name!r} has no option {unknown[0]!r}")
    return factory(**options) if target is None else factory(target, **options)


def _own(name: str) -> Callable[..., Backend] | None:
    """The class of a backend that comes with the compiler; None if there is none of this name."""
    module = f"{GROUP}.{name}"
    try:
        found = importlib.import_module(module) if name.isidentifier() else None
    except ModuleNotFoundError as error:
        if error.name in (GROUP, module):
            return None
        raise
    return getattr(found, "Backend", None)


def _foreign(name: str) -> Callable[..., Backend]:
    point = _registered().get(name)
    if point is None:
        known = ", ".join(names()) or "none; is graphc installed?"
        raise ValueError(f"unknown backend {name!r} (known backends: {known})")
    return point.load()
