"""Walking the tree of modules: named members, and the path by which a module is called.

Walks use explicit stacks, so a deeply nested model cannot hit Python's recursion limit.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from graphc.frontend.tracing.trace import members_changed

if TYPE_CHECKING:
    from graphc.nn.module import Module
    from graphc.nn.parameter import Parameter


class Calling(threading.local):
    """The module whose forward is running in this thread; `again`: a noted call is being made after all."""

    module: Module | None = None
    again: bool = False


CALLING = Calling()

# Counts every change of any module tree; cached paths are valid while it stands still.
_edits = 0
_paths: weakref.WeakKeyDictionary[Module, tuple[int, dict[int, str]]] = weakref.WeakKeyDictionary()


def edited() -> None:
    """A module was added to, replaced in or removed from some tree."""
    global _edits
    _edits += 1
    members_changed()


def path_below(root: Module, module: Module) -> str | None:
    """The attribute path of `module` inside `root` ("" for root itself); None if it is not there."""
    if module is root:
        return ""
    known = _paths.get(root)
    if known is None or known[0] != _edits:
        names = {id(m.__dict__.get("__wrapped__", m)): name for name, m in walk(root)}  # (if it is compiled)
        known = (_edits, names)
        _paths[root] = known
    return known[1].get(id(module))


def walk(
    root: Module, prefix: str = "", seen: set[Module] | None = None, once: bool = True
) -> Iterator[tuple[str, Module]]:
    """(path, module) of root and everything below, depth first, in order of registration."""
    seen = set() if seen is None else seen
    stack: list[tuple[str, Module]] = [(prefix, root)]
    while stack:
        path, module = stack.pop()
        if once:
            if module in seen:
                continue
            seen.add(module)
        yield path, module
        below = path + "." if path else ""
        children = [(below + name, child) for name, child in module._modules.items() if child is not None]
        stack.extend(reversed(children))


class Traversal:
    """The methods of `Module` that list what it holds."""

    _modules: dict[str, Any]

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(path, module) for this module and all below it, each module once unless told otherwise."""
        return walk(self, prefix, memo, remove_duplicate)  # type: ignore[arg-type]

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all modules below it."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the immediate children, each module once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The immediate children."""
        for _, module in self.named_children():
            yield module

    def _named_members(
        self,
        members_of: Callable[[Module], Iterable[tuple[str, Any]]],
        prefix: str = "",
        recurse: bool = True,
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Any]]:
        """(path, member) over the tree, each member (by identity) once."""
        seen: set[int] = set()
        here: Iterable[tuple[str, Module]] = [(prefix, self)]  # type: ignore[list-item]
        for path, module in self.named_modules(None, prefix, remove_duplicate) if recurse else here:
            for name, value in members_of(module):
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield (path + "." if path else "") + name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), in order of registration."""
        return self._named_members(lambda m: m._parameters.items(), prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of this module and (with `recurse`) of all below it."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """(path, buffer), in order of registration."""
        return self._named_members(lambda m: m._buffers.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Any]:
        """The buffers of this module and (with `recurse`) of all below it."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; AttributeError if there is none."""
        module: Any = self
        for atom in target.split(".") if target else []:
            if not hasattr(module, atom):
                raise AttributeError(f"{module._get_name()} has no attribute `{atom}`")
            module = getattr(module, atom)
            if not isinstance(module, Traversal):
                raise AttributeError(f"`{atom}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put `module` at a dotted path whose parent exists (with `strict`, whose last name exists too)."""
        if not target:
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Traversal):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        parent_path, _, name = target.rpartition(".")
        parent = self.get_submodule(parent_path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Traversal):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path; AttributeError if there is none."""
        return self._member(target, "_parameters", "an nn.Parameter")

    def get_buffer(self, target: str) -> Any:
        """The buffer at a dotted path; AttributeError if there is none."""
        return self._member(target, "_buffers", "a buffer")

    def _member(self, target: str, table: str, what: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        if name not in getattr(module, table):
            raise AttributeError(f"`{name}` is not {what}")
        return getattr(module, name)
