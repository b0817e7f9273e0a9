"""The hooks of modules and optimizers: tables whose entries compiled programs depend on."""

from __future__ import annotations

from typing import Any

from graphc.frontend import hooks
from graphc.frontend.hooks import RemovableHandle, add
from graphc.frontend.tracing.trace import members_changed

__all__ = ["HookTable", "RemovableHandle", "add", "find"]


class HookTable(hooks.HookTable):
    """A table whose changes are changes of the module: what was recorded of it is looked at again."""

    def changed(self) -> None:
        """Tell what was compiled with these hooks."""
        members_changed()


def find(table: HookTable, kind: type, **attributes: Any) -> int | None:
    """The id of the first hook that is of a class and has these attributes; None if there is none."""
    for key, hook in table.items():
        if isinstance(hook, kind) and all(getattr(hook, name) == value for name, value in attributes.items()):
            return key
    return None
