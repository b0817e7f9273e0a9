"""From kernels to object code, each distinct kernel once: in memory, then on disk, then by LLVM.

A kernel's key is the hash of its canonical loop-IR text, the target, the versions, and the source of the
emitter, so a warm start finds its objects without writing a line of LLVM IR. The symbol of a kernel is
derived from its key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import llvmlite.binding as llvm

from graphc.backends.llvm import tile, walker
from graphc.backends.llvm.emit import emit_kernel
from graphc.backends.llvm.parallel import build_all
from graphc.backends.llvm.passes import optimise
from graphc.backends.llvm.target import Target, target_machine
from graphc.cache import digest, get_store
from graphc.loop.ir import For, If, Kernel, Stmt, Tile
from graphc.loop.printer import kernel_key

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


@cache
def _versions() -> str:
    try:
        return version("graphc")
    except PackageNotFoundError:
        return "source"


def _key(text: str, target: Target) -> str:
    return digest(text, target.key, _versions(), emitter_digest())


def kernel_source(kernel: Kernel, target: Target) -> Source:
    """What to compile for a kernel. Kernels that differ only in their name share one object."""
    key = _key(kernel_key(kernel), target)
    symbol = f"graphc_kernel_{key[:40]}"
    return Source(symbol, key, lambda: emit_kernel(replace(kernel, name=symbol), target))


@cache
def tile_source(spec: tile.TileSpec, target: Target) -> Source:
    """What to compile for a register tile."""
    return Source(spec.symbol, _key(f"tile {spec}", target), lambda: tile.emit_tile(spec, target))


def tiles_of(kernel: Kernel) -> list[tile.TileSpec]:
    """The tile functions a kernel calls."""
    found: dict[tile.TileSpec, None] = {}
    stack: list[Stmt] = list(kernel.body)
    while stack:
        stmt = stack.pop()
        if isinstance(stmt, For | If):
            stack.extend(stmt.body)
        elif isinstance(stmt, Tile):
            dtype = stmt.c.dtype.short
            found[tile.TileSpec(stmt.rows, stmt.lanes, dtype, stmt.accumulate)] = None
    return list(found)


_memory: dict[str, bytes] = {}
_lock = threading.Lock()


def compile_sources(sources: Iterable[Source], target: Target) -> dict[str, bytes]:
    """Object code by symbol."""
    by_key = {source.key: source for source in sources}
    with _lock:
        missing = [source for key, source in by_key.items() if not _find(key)]
        codes = build_all([source.emit for source in missing], target, build_object)
        for source, code in zip(missing, codes, strict=True):
            _memory[source.key] = code
            get_store().put(_KIND, source.key, code)
        return {source.symbol: _memory[key] for key, source in by_key.items()}


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


def _optimised(text: str, target: Target) -> llvm.ModuleRef:
    module = llvm.parse_assembly(text)
    machine = target_machine(target)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    optimise(module, machine)
    return module


def llvm_text(text: str, target: Target) -> str:
    """LLVM IR after optimisation."""
    return str(_optimised(text, target))


def assembly_text(text: str, target: Target) -> str:
    """Assembly of a module given as LLVM IR."""
    return target_machine(target).emit_assembly(_optimised(text, target))


def compile_kernels(kernels: Sequence[Kernel], target: Target) -> tuple[list[str], dict[str, bytes]]:
    """The kernels' symbols, and the objects of the kernels and of the tiles they call, by symbol."""
    sources = [kernel_source(kernel, target) for kernel in kernels]
    tiles = {spec: None for kernel in kernels for spec in tiles_of(kernel)}
    needed = [tile_source(spec, target) for spec in tiles]
    objects = compile_sources([*needed, *sources], target)
    return [source.symbol for source in sources], objects


def compile_runtime(target: Target) -> dict[str, bytes]:
    """The walker's object, under each of the symbols it defines."""
    source = Source(walker.RUN, _key("walker", target), lambda: walker.emit_walker(target))
    return compile_sources([source], target)
