"""Hooks: ordered tables of callables, and the handles that take an entry out again."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

_ids = itertools.count()


class HookTable(OrderedDict[int, Any]):
    """An ordered dict id -> hook. A class of its own so that handles can refer to it weakly."""

    def changed(self) -> None:
        """Called before an entry comes and after one goes; what depends on the table overrides it."""


class RemovableHandle:
    """What the `register_*hook` methods return; `remove()` (or leaving a `with` block) unregisters."""

    def __init__(self, hooks_dict: OrderedDict[int, Any], *, extra_dict: Any = None) -> None:
        self.id = next(_ids)
        self._tables = [weakref.ref(hooks_dict)]
        extras = extra_dict if isinstance(extra_dict, list) else [extra_dict]
        self._tables += [weakref.ref(table) for table in extras if table is not None]

    def remove(self) -> None:
        """Unregister; does nothing the second time, or when what had the hook is gone."""
        for ref in self._tables:
            table = ref()
            if table is not None and table.pop(self.id, None) is not None and isinstance(table, HookTable):
                table.changed()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def add(
    table: HookTable, hook: Callable[..., Any], prepend: bool = False, flags: tuple[HookTable, ...] = ()
) -> RemovableHandle:
    """Enter `hook` in `table`, and its id in each of the tables `flags` as True."""
    handle = RemovableHandle(table, extra_dict=list(flags))
    table.changed()
    table[handle.id] = hook
    for flag in flags:
        flag[handle.id] = True
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle
