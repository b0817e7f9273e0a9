"""What compiling a kernel costs, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from graphc.backends.llvm.kernels import kernel_source, tile_source, tiles_of
from graphc.backends.llvm.objects import Source, parse
from graphc.backends.llvm.passes import optimise
from graphc.backends.llvm.target import Target, target_machine
from graphc.loop.ir import Kernel


@dataclass(frozen=True)
class Cost:
    """Seconds to write a module's text, to parse it, for the passes, and for the machine code; its sizes."""

    emit: float
    parse: float
    passes: float
    code: float
    lines: int
    bytes: int


def kernel_costs(kernels: Iterable[Kernel], target: Target) -> list[Cost]:
    """Compile each kernel, whatever caches hold."""
    return [_measure(kernel_source(kernel, target), target) for kernel in kernels]


def tile_costs(kernels: Iterable[Kernel], target: Target) -> list[tuple[str, Cost]]:
    """Compile each tile function that the kernels call: (symbol, cost)."""
    sources = [tile_source(spec, target) for spec in {s: None for k in kernels for s in tiles_of(k)}]
    return [(source.symbol, _measure(source, target)) for source in sources]


def _measure(source: Source, target: Target) -> Cost:
    machine = target_machine(target)
    times = [time.perf_counter()]
    text = source.emit()
    times.append(time.perf_counter())
    module = parse(text, target)
    times.append(time.perf_counter())
    optimise(module, machine)
    times.append(time.perf_counter())
    code = machine.emit_object(module)
    times.append(time.perf_counter())
    emitting, parsing, passes, coding = [b - a for a, b in pairwise(times)]
    return Cost(emitting, parsing, passes, coding, text.count("\n"), len(code))
