"""Finding compiled programs again: in memory by structure, and on disk for the next process.

The key covers everything that decides the code: structure of the graph, donation, backend, its target
and code generator, and the compiler's own source files. A hit skips passes, lowering and emission.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Any

from graphc.cache import digest, get_store
from graphc.compiled import Code
from graphc.ir.graph import Graph
from graphc.ir.hashing import structural_hash
from graphc.ir.types import TensorType
from graphc.ops.constant import input_

KIND = "program"
CAPACITY = 512  # programs kept in memory; the least recently used goes first

_memory: OrderedDict[str, Code] = OrderedDict()
_lock = threading.Lock()


@cache
def compiler_digest() -> str:
    """Changes whenever a source file of the compiler does (by size and time)."""
    root = Path(__file__).parent
    folders = [root / name for name in ("ir", "ops", "autodiff", "loop", "passes", "analysis")]
    files = sorted([*root.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))])
    return digest(*[f"{file.name}:{s.st_size}:{s.st_mtime_ns}" for file in files for s in (file.stat(),)])


def program_key(
    graph: Graph, donated: Mapping[int, int], backend: Any, fixed: AbstractSet[int] = frozenset()
) -> str:
    """The key of a program's code."""
    target = getattr(backend, "target_key", "")
    donation = ",".join([f"{o}:{i}" for o, i in sorted(donated.items())])
    steady = ",".join(map(str, sorted(fixed)))
    return structural_hash(graph, backend.name, target, donation, steady, compiler_digest())


def setup_key(key: str) -> str:
    """The key of the code that computes what a program keeps."""
    return digest(key, "setup")


def find(key: str, donated: Mapping[int, int], backend: Any) -> tuple[Code, str] | None:
    """Code for the key and where it was: "memory" or "disk"."""
    with _lock:
        code = _memory.get(key)
        if code is not None:
            _memory.move_to_end(key)
            return code, "memory"
    if not hasattr(backend, "load"):
        return None
    data = get_store().get(KIND, key)
    if data is None:
        return None
    try:
        executable = backend.load(data)
    except ValueError:
        return None  # written for another target or version: as good as absent
    code = Code(executable, signature(executable.image.inputs, executable.image.outputs), donated)
    remember(key, code)
    return code, "disk"


def signature(inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Graph:
    """A graph of nothing but inputs and outputs of these types."""
    given = [input_(f"input{i}", kind) for i, kind in enumerate(inputs)]
    results = [input_(f"output{i}", kind) for i, kind in enumerate(outputs)]
    return Graph(tuple(given), tuple(results))


def remember(key: str, code: Code) -> None:
    """Keep code in memory."""
    with _lock:
        _memory[key] = code
        _memory.move_to_end(key)
        while len(_memory) > CAPACITY:
            _memory.popitem(last=False)


def save(key: str, code: Code, backend: Any) -> None:
    """Keep code on disk, if the backend can write it."""
    if code.executable is not None and hasattr(backend, "serialize"):
        get_store().put(KIND, key, backend.serialize(code.executable))


def clear() -> None:
    """Forget all programs in memory."""
    with _lock:
        _memory.clear()
