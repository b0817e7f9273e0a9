"""From kernels to object code: what to compile for a kernel, and for the tiles it calls.

A kernel's key comes from its canonical loop-IR text; its symbol is derived from the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from weakref import WeakKeyDictionary

from graphc.backends.llvm import objects, tile
from graphc.backends.llvm.emit import emit_kernel
from graphc.backends.llvm.objects import Source, compile_sources, source_key
from graphc.backends.llvm.target import Target
from graphc.cache import digest
from graphc.loop.ir import For, If, Kernel, Stmt, Tile
from graphc.loop.printer import kernel_key

_texts: WeakKeyDictionary[Kernel, str] = WeakKeyDictionary()  # digests of the kernels' texts


def kernel_source(kernel: Kernel, target: Target) -> Source:
    """What to compile for a kernel. Kernels that differ only in their name share one object."""
    text = _texts.get(kernel)
    if text is None:
        text = _texts[kernel] = digest(kernel_key(kernel))
    key = source_key(text, target)
    symbol = f"graphc_kernel_{key[:40]}"
    return Source(symbol, key, lambda: emit_kernel(replace(kernel, name=symbol), target))


@cache
def tile_source(spec: tile.TileSpec, target: Target) -> Source:
    """What to compile for a register tile."""
    return Source(spec.symbol, source_key(f"tile {spec}", target), lambda: tile.emit_tile(spec, target))


def tiles_of(kernel: Kernel) -> list[tile.TileSpec]:
    """The tile functions a kernel calls."""
    found: dict[tile.TileSpec, None] = {}
    stack: list[Stmt] = list(kernel.body)
    while stack:
        stmt = stack.pop()
        if isinstance(stmt, For | If):
            stack.extend(stmt.body)
        elif isinstance(stmt, Tile):
            found[tile.spec_of(stmt)] = None
    return list(found)


def compile_kernels(kernels: Sequence[Kernel], target: Target) -> tuple[list[str], dict[str, bytes]]:
    """The kernels' symbols, and the objects of the kernels and of the tiles they call, by symbol."""
    sources = [kernel_source(kernel, target) for kernel in kernels]
    tiles = {spec: None for kernel in kernels for spec in tiles_of(kernel)}
    needed = [tile_source(spec, target) for spec in tiles]
    return [source.symbol for source in sources], compile_sources([*needed, *sources], target)


@contextmanager
def ahead(target: Target, expected: int) -> Iterator[Callable[[Kernel], None]]:
    """Within this, helper processes compile the kernels handed to what it yields (and the walker)."""
    seen: set[Kernel] = set()

    def submit(kernel: Kernel) -> None:
        if kernel not in seen:
            seen.add(kernel)
            for spec in tiles_of(kernel):
                send(tile_source(spec, target))
            send(kernel_source(kernel, target))

    with objects.ahead(target, expected) as send:
        yield submit
