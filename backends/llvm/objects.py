"""Object code, each distinct module once: in memory, then on disk, then by LLVM.

A module's key is the hash of a text that decides it, the target, and the source of the emitter, so a warm
start finds its objects without writing a line of LLVM IR, and without loading what writes it (`kernels.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm

from graphc.backends.llvm import walker
from graphc.backends.llvm.parallel import Crew, build_all
from graphc.backends.llvm.passes import optimise
from graphc.backends.llvm.target import Target, target_machine
from graphc.cache import digest, get_store

_KIND = "object"


@dataclass(frozen=True)
class Source:
    """One module to compile: the symbol it defines, its cache key, and how to write its text if need be."""

    symbol: str
    key: str
    emit: Callable[[], str]


@cache
def emitter_digest() -> str:
    """A hash of this backend's source files: a changed emitter never meets an old object."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return digest(*(part for file in files for part in (file.name, file.read_bytes())))


def source_key(text: str, target: Target) -> str:
    """The key of what `text` names, compiled for a target by this version of the emitter."""
    return digest(text, target.key, emitter_digest())


REMEMBERED = 4096  # objects kept in memory
COLD = 5  # modules that no cache knows before helper processes are worth their start
_memory: dict[str, bytes] = {}
_lock = threading.Lock()


def compile_sources(sources: Iterable[Source], target: Target) -> dict[str, bytes]:
    """Object code by symbol."""
    by_key = {source.key: source for source in sources}
    with _lock:
        missing = [source for key, source in by_key.items() if not _find(key)]
        _remember(missing, build_all([source.emit for source in missing], target, build_object))
        found = {source.symbol: _memory[key] for key, source in by_key.items()}
        for key in list(_memory)[: max(0, len(_memory) - REMEMBERED)]:
            del _memory[key]  # the oldest
        return found


@contextmanager
def ahead(target: Target, expected: int) -> Iterator[Callable[[Source], None]]:
    """Within this, helper processes compile the sources handed to what it yields: about `expected`.

    Afterwards they are known to `compile_sources`. Without helpers, they are left to that. Where not even the
    walker is known, nothing is: helpers start with it at once, and are ready when the first kernel comes.
    """
    sources: dict[str, Source] = {}

    def submit(source: Source) -> None:
        with _lock:
            known = not crew.helpers or source.key in sources or _find(source.key)
        if not known:
            sources[source.key] = source
            crew.add(source.emit())

    walker_source = runtime_source(target)
    with _lock:
        after = COLD if _find(walker_source.key) else 1
    with Crew(target, build_object, expected, after) as crew:
        submit(walker_source)
        yield submit
        codes = crew.finish()
    with _lock:
        _remember(sources.values(), codes)


def _remember(sources: Iterable[Source], codes: Sequence[bytes]) -> None:
    for source, code in zip(sources, codes, strict=True):
        _memory[source.key] = code
        get_store().put(_KIND, source.key, code)


def _find(key: str) -> bool:
    """Whether the object is in memory now, from disk if need be."""
    if key not in _memory:
        code = get_store().get(_KIND, key)
        if code is None:
            return False
        _memory[key] = code
    return True


def build_object(text: str, target: Target) -> bytes:
    """Compile LLVM IR text to position-independent object code."""
    return target_machine(target).emit_object(_optimised(text, target))


def parse(text: str, target: Target) -> llvm.ModuleRef:
    """A module for a target."""
    module = llvm.parse_assembly(text)
    module.triple = target.triple
    module.data_layout = str(target_machine(target).target_data)
    return module


def _optimised(text: str, target: Target) -> llvm.ModuleRef:
    module = parse(text, target)
    optimise(module, target_machine(target))
    return module


def llvm_text(text: str, target: Target) -> str:
    """LLVM IR after optimisation."""
    return str(_optimised(text, target))


def assembly_text(text: str, target: Target) -> str:
    """Assembly of a module given as LLVM IR."""
    return target_machine(target).emit_assembly(_optimised(text, target))


def runtime_source(target: Target) -> Source:
    """What to compile for the walker."""
    return Source(walker.RUN, source_key("walker", target), lambda: walker.emit_walker(target))


def compile_runtime(target: Target) -> dict[str, bytes]:
    """The walker's object, under each of the symbols it defines."""
    return compile_sources([runtime_source(target)], target)
