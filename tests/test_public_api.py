"""Every public name is documented, and named by some test beside this one."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MODULES = [
    "graphc",
    "graphc.accelerator",
    "graphc.amp",
    "graphc.autograd",
    "graphc.autograd.functional",
    "graphc.backends.cuda",
    "graphc.backends.cudnn",
    "graphc.backends.mps",
    "graphc.cuda",
    "graphc.cuda.amp",
    "graphc.distributions",
    "graphc.func",
    "graphc.linalg",
    "graphc.nn",
    "graphc.nn.functional",
    "graphc.nn.init",
    "graphc.nn.modules",
    "graphc.nn.parallel",
    "graphc.nn.utils",
    "graphc.nn.utils.parametrizations",
    "graphc.nn.utils.parametrize",
    "graphc.nn.utils.prune",
    "graphc.nn.utils.rnn",
    "graphc.nn.utils.stateless",
    "graphc.optim",
    "graphc.optim.lr_scheduler",
    "graphc.optim.swa_utils",
    "graphc.random",
    "graphc.return_types",
    "graphc.special",
    "graphc.testing",
    "graphc.train",
    "graphc.train.metrics",
    "graphc.utils.checkpoint",
    "graphc.utils.data",
    "graphc.utils.tensorboard",
    "graphc.vision.datasets",
    "graphc.vision.transforms",
]
# Names that no test spells out, with the reason.
EXEMPT = {
    "_LRScheduler": "the older name of LRScheduler",
    "LRScheduler": "the base class of schedulers: test_schedules.py runs its subclasses",
    "Sampler": "the base class of samplers: test_data.py runs its subclasses",
}


def public(module: types.ModuleType) -> dict[str, object]:
    """The names a user may import: `__all__`, or else what is neither private nor from another library."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    found = {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in found.items()
        if not isinstance(value, types.ModuleType)
        and str(getattr(value, "__module__", "graphc")).startswith("graphc")
    }


def words(source: str) -> set[str]:
    """Identifiers of a program and the words of its strings (tables of cases name functions in strings)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.update(node.name.split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update("".join(c if c.isidentifier() or c.isdigit() else " " for c in node.value).split())
    return found


NAMES = [(m, name) for m in MODULES for name in sorted(public(importlib.import_module(m)))]


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_documented(module: str) -> None:
    values = public(importlib.import_module(module))
    assert values
    bare = [
        name
        for name, value in values.items()
        if callable(value) and not (vars(value).get("__doc__") if isinstance(value, type) else value.__doc__)
    ]
    assert not bare, f"{module}: no docstring on {', '.join(bare)}"


def is_documented(kind: type, name: str) -> bool:
    """Whether a method or property has a docstring, here or in the class that has it first."""
    return any(getattr(inspect.getattr_static(base, name, None), "__doc__", None) for base in kind.__mro__)


@pytest.mark.parametrize("module", MODULES)
def test_public_methods_are_documented(module: str) -> None:
    kinds = [v for v in public(importlib.import_module(module)).values() if isinstance(v, type)]
    for kind in kinds:
        own = [name for name in dir(kind) if not name.startswith("_")]
        members = {name: inspect.getattr_static(kind, name) for name in own}
        code = (types.FunctionType, property, staticmethod, classmethod)
        bare = [n for n, member in members.items() if isinstance(member, code) and not is_documented(kind, n)]
        assert not bare, f"{kind.__qualname__}: no docstring on {', '.join(bare)}"


def test_public_names_are_tested() -> None:
    named: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        if path != Path(__file__):
            named |= words(path.read_text())
    missing = [f"{module}.{name}" for module, name in NAMES if name not in named and name not in EXEMPT]
    assert not missing, f"no test names {', '.join(missing)}"
    stale = set(EXEMPT) & named
    assert not stale, f"{', '.join(stale)} need no exemption any more"


def test_lists_of_names_are_complete() -> None:
    """What `__all__` promises exists, and is named once."""
    for name in MODULES:
        module = importlib.import_module(name)
        listed = getattr(module, "__all__", [])
        assert len(set(listed)) == len(listed), f"{name}.__all__ names something twice"
        assert all(hasattr(module, n) for n in listed)
