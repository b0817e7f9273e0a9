"""Every name of the contract exists, is documented, and is named by some test."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import graphc

from .test_public_api import words

TESTS = Path(__file__).parent


def sections() -> dict[str, list[str]]:
    """The names file: section -> dotted names."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in (TESTS / "contract_names.txt").read_text().splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            current += line.split()
    return found


SECTIONS = sections()


def resolve(name: str) -> Any:
    """The object called graphc.`name`. AttributeError or ModuleNotFoundError if there is none."""
    found: Any = graphc
    path = "graphc"
    for part in name.split("."):
        path += f".{part}"
        if not hasattr(found, part) and part.islower():
            found = importlib.import_module(path)
        else:
            found = getattr(found, part)
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_names_exist_and_are_documented(section: str) -> None:
    missing, bare = [], []
    for name in SECTIONS[section]:
        try:
            value = resolve(name)
        except (AttributeError, ModuleNotFoundError):
            missing.append(name)
            continue
        described = value.fget if isinstance(value, property) else value
        special = name.rpartition(".")[2].startswith("__")
        if (callable(value) or isinstance(value, property)) and not described.__doc__ and not special:
            bare.append(name)
    assert not missing, f"missing: {' '.join(missing)}"
    assert not bare, f"undocumented: {' '.join(bare)}"


def test_names_are_tested() -> None:
    named: set[str] = set()
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__):
            named |= words(path.read_text())
    untested = [
        name
        for names in SECTIONS.values()
        for name in names
        if not name.rpartition(".")[2].startswith("__") and name.rpartition(".")[2] not in named
    ]
    assert not untested, f"no test names {' '.join(untested)}"
