"""The house rules that a machine can check: import direction, packaging, file sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("graphc/**/*.py"), *ROOT.glob("backends/**/*.py")])

# Lower layers first; a module may import from its own layer and from lower ones only.
LAYERS = [
    ("graphc.ir.types", "graphc.ir.node", "graphc.ir.graph", "graphc.ir.partition", "graphc.loop.ir"),
    (
        "graphc.loop.index",
        "graphc.loop.lowered",
        "graphc.program",
        "graphc.cache",
        "graphc.threads",
        "graphc.arrays",
        "graphc.collecting",
        "graphc.paths",
    ),
    ("graphc.ops",),
    ("graphc.ir", "graphc.loop", "graphc.autodiff", "graphc.analysis", "graphc.passes"),
    (
        "graphc.plan",
        "graphc.aliases",
        "graphc.plan_kernels",
        "graphc.lifetimes",
        "graphc.loop_body",
        "graphc.repeat",
        "graphc.schedule",
        "graphc.storage",
        "graphc.compiled",
        "graphc.prepared",
        "graphc.program_cache",
        "graphc.lookup",
        "graphc.report",
        "graphc.backend",
        "graphc.debug",
        "graphc.pipeline",
        "graphc.backends",
    ),
    (
        "graphc.frontend",
        "graphc.autograd",
        "graphc.functional",
        "graphc.jacobians",
        "graphc.settings",
        "graphc.vectorized",
        "graphc.accelerator",
        "graphc.amp",
        "graphc.cuda",
        "graphc.special",
        "graphc.return_types",
        "graphc.types",
        "graphc.random",
        "graphc.testing",
        "graphc.compiler",
        "graphc.linalg",
    ),
    (
        "graphc.serialization",
        "graphc.distributions",
        "graphc.func",
        "graphc.nn",
        "graphc.optim",
        "graphc.utils",
        "graphc.vision",
        "graphc.train",
    ),
    ("graphc",),
    ("graphc.command", "graphc.__main__"),
]

# Within a layer: packages whose modules must not be imported by those that lie in certain others.
CLOSED = {
    "graphc.frontend.evaluation": ("graphc.frontend",),
    "graphc.frontend.tracing": ("graphc.frontend", "graphc.frontend.evaluation"),
    "graphc.frontend.steps": ("graphc.frontend", "graphc.frontend.evaluation", "graphc.frontend.tracing"),
    "graphc.frontend.functions": (
        "graphc.frontend",
        "graphc.frontend.evaluation",
        "graphc.frontend.tracing",
        "graphc.frontend.steps",
    ),
    "graphc.loop.lower.convolution": ("graphc.loop.lower.contraction", "graphc.loop.lower.reductions"),
    "graphc.loop.lower.attention": ("graphc.loop.lower.contraction", "graphc.loop.lower.convolution"),
}

# Third-party packages that may be imported late (inside functions), because they are heavy.
LATE = frozenset(
    "llvmlite networkx safetensors platformdirs matplotlib sklearn tqdm torch PIL pandas".split()
)


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "backends":
        parts.insert(0, "graphc")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


MODULES = {module_name(p) for p in SOURCES}


def layer(module: str) -> int:
    """The layer whose listed name is the longest prefix of the module's name."""
    best, found = -1, -1
    for number, names in enumerate(LAYERS):
        for name in names:
            matches = module == name or (name != "graphc" and module.startswith(name + "."))
            if matches and len(name) > best:
                best, found = len(name), number
    assert found >= 0, f"{module} belongs to no layer of tests/test_project.py"
    return found


def imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, node) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports hide the direction"
            for a in node.names:
                full = f"{node.module}.{a.name}"
                found.append((full if full in MODULES else node.module, node))
    return found


def type_checking_lines(tree: ast.AST) -> set[int]:
    """Lines inside `if TYPE_CHECKING:` blocks, which never run."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    me = module_name(path)
    tree = ast.parse(path.read_text())
    typing_only = type_checking_lines(tree)
    for name, node in imports(tree):
        if not name.startswith("graphc") or node.lineno in typing_only:
            continue
        assert layer(name) <= layer(me), f"{me}:{node.lineno} imports {name}, which is above it"
        if me.startswith("graphc.backends"):
            allowed = ("graphc.arrays", "graphc.cache", "graphc.ir", "graphc.loop", "graphc.ops",
                       "graphc.program", "graphc.threads", "graphc.backends")  # fmt: skip
            assert name.startswith(allowed) or name == "graphc", f"{me} may not see {name}"
        else:
            assert not name.startswith("graphc.backends"), f"{me} imports a backend"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_rooms_of_a_layer_keep_their_order(path: Path) -> None:
    me = module_name(path)
    package = me.rpartition(".")[0]  # (of the package's own file, which may gather what lies in it: another)
    tree = ast.parse(path.read_text())
    typing_only = type_checking_lines(tree)
    above = tuple([room for room, below in CLOSED.items() if package in below and me != room])
    for name, node in imports(tree):
        if node.lineno not in typing_only:
            assert not name.startswith(above), f"{me}:{node.lineno} imports {name} of the room above"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_function_level_imports(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for name, node in imports(function):
                assert name.split(".")[0] in LATE, f"{module_name(path)}:{node.lineno} imports {name} late"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 600, f"{path} has grown past 600 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{module_name(path)}.{node.name} is {length} lines long"


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {module_name(p) for p in SOURCES if p.name == "__init__.py"}
    assert listed == present


def test_top_level_is_fixed() -> None:
    allowed = {"graphc", "backends", "tests", "examples", "pyproject.toml", "README.md"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    tops = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert {t for t in tops if not t.startswith(".")} == allowed


def test_import_is_light() -> None:
    """`import graphc` needs neither LLVM nor networkx."""
    code = (
        "import sys, graphc; print([m for m in ('llvmlite', 'networkx', 'safetensors') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
