"""Modules at the paths of PyTorch's files, for programs that import from there.

`from graphc.distributions.normal import Normal` works although no file of this name is needed here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def module_at(path: str, names: Mapping[str, Any], says: str) -> ModuleType:
    """Make the module `path` with these names, `says` being its docstring. If there is one already, it gets
    those of the names that it lacks. Its package must have been imported."""
    made = sys.modules.get(path)
    if made is None:
        made = sys.modules[path] = ModuleType(path, says)
        package, _, name = path.rpartition(".")
        setattr(sys.modules[package], name, made)
    for key, value in names.items():
        if not hasattr(made, key):
            setattr(made, key, value)
    return made
