"""Hooks: ordered tables of callables, and the handles that take an entry out again."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from graphc.frontend.tracing.trace import members_changed

_ids = itertools.count()


class RemovableHandle:
    """What the `register_*hook` methods return; `remove()` (or leaving a `with` block) unregisters."""

    def __init__(self, hooks_dict: OrderedDict, *, extra_dict: Any = None) -> None:
        self.id = next(_ids)
        self._tables = [weakref.ref(hooks_dict)]
        extras = extra_dict if isinstance(extra_dict, list) else [extra_dict]
        self._tables += [weakref.ref(table) for table in extras if table is not None]

    def remove(self) -> None:
        """Unregister; does nothing the second time, or when the module is gone."""
        for ref in self._tables:
            table = ref()
            if table is not None:
                table.pop(self.id, None)
        members_changed()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class HookTable(OrderedDict):
    """An ordered dict id -> hook. A class of its own so that handles can refer to it weakly."""


def add(table: OrderedDict, hook: Callable, prepend: bool = False, flags: tuple = ()) -> RemovableHandle:
    """Enter `hook` in `table`, and its id in each of the tables `flags` as True."""
    handle = RemovableHandle(table, extra_dict=list(flags))
    members_changed()
    table[handle.id] = hook
    for flag in flags:
        flag[handle.id] = True
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle


def find(table: OrderedDict, kind: type, **attributes: Any) -> int | None:
    """The id of the first hook that is of a class and has these attributes; None if there is none."""
    for key, hook in table.items():
        if isinstance(hook, kind) and all(getattr(hook, name) == value for name, value in attributes.items()):
            return key
    return None
