"""What the README shows and names is so."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphc import distributions
from graphc.ops import REGISTRY

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"\d+\.\d+")
# A linear layer and a softmax, whose forward pass is line 9.
SMALL = """import graphc
from graphc import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)
    def forward(self, x):
        return graphc.softmax(self.fc(x), dim=1)
"""


def python(*args: str, folder: Path | None = None) -> str:
    run = subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=folder, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def shown(heading: str) -> list[str]:
    """The blocks of code and output of a section."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)


def test_the_first_program_prints_what_is_shown() -> None:
    program, printed = shown("Twenty lines")
    found = python("-c", program)
    assert NUMBER.sub("#", found) == NUMBER.sub("#", printed)
    for value, expected in zip(NUMBER.findall(found), NUMBER.findall(printed), strict=True):
        assert abs(float(value) - float(expected)) < 0.003  # (the last digit is the target's)


def test_dumps_are_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    _, cleanup, loops = shown("See what the compiler did")
    for stage, text in (("cleanup", cleanup), ("loops", loops)):
        command = ("-m", "graphc", "dump", "small.py:Net", "--input", "2x8", "--stage", stage)
        found = python(*command, folder=tmp_path).replace(f"{tmp_path}/", "")
        assert text in found + "\n"


def test_counts_are_right() -> None:
    (primitives,) = re.findall(r"(\d+) primitives", README)
    assert int(primitives) == len(REGISTRY)
    (count,) = re.findall(r"graphc.distributions`\*\* \((\d+) of them", README)
    kinds = {v for v in vars(distributions).values() if inspect.isclass(v)}
    assert int(count) == len([k for k in kinds if issubclass(k, distributions.Distribution)]) - 1


def resolved(name: str) -> Any:
    """What a dotted name stands for, importing modules on the way."""
    first, *rest = name.split(".")
    found = importlib.import_module(first)
    for i, part in enumerate(rest, 1):
        if not hasattr(found, part):
            importlib.import_module(".".join([first, *rest[:i]]))
        found = getattr(found, part)
    return found


def test_names_exist() -> None:
    names = set(re.findall(r"\bgraphc(?:\.[A-Za-z]\w*)+", README))
    assert len(names) > 10
    for name in sorted(names):
        resolved(name)


def test_files_exist() -> None:
    paths = set(re.findall(r"\b(?:graphc|backends|tests|examples)/[\w./-]*\w", README))
    paths |= {f"examples/{name}" for name in re.findall(r"`(\w+\.py)`", README)}
    assert len(paths) > 10
    assert [p for p in sorted(paths) if not (ROOT / p).exists()] == []
    modules = set(re.findall(r"python -m (tests[\w.]*)", README))
    assert [m for m in sorted(modules) if importlib.util.find_spec(m) is None] == []


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"GRAPHC_[A-Z]+", README))))
def test_variables_are_read(variable: str) -> None:
    sources = [*ROOT.glob("graphc/**/*.py"), *ROOT.glob("backends/**/*.py")]
    assert any(f'"{variable}"' in path.read_text() for path in sources)
