"""The data that leaves the compiler: a Plan of kernel calls over one arena.

This module only declares the types that the planner writes and a backend reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from graphc.ir.graph import Graph
from graphc.ir.types import TensorType
from graphc.loop.ir import Kernel

SlotSpace = Literal["input", "output", "arena", "constant"]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a kernel argument lives: input/output/constant number `index`, or the arena; plus bytes."""

    space: SlotSpace
    index: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """Run kernel number `kernel` with `args` (one per param).

    `barrier`: all threads must have finished the calls before this one.
    """

    kernel: int
    args: tuple[Slot, ...]
    barrier: bool = True


@dataclass(frozen=True)
class Plan:
    """A whole program: kernels, the order of calls, and where every value lives.

    donated[o] = i   output o is written over input i; the caller passes the same array for both
    gate             number of calls after which the status word is tested: if a Check failed by then,
                     the rest is skipped, and nothing visible outside has been written yet
    checks[code-1]   what to tell the user when Check `code` fails
    """

    kernels: tuple[Kernel, ...]
    calls: tuple[Call, ...]
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    constants: tuple[np.ndarray, ...] = ()
    donated: dict[int, int] = field(default_factory=dict)
    arena_bytes: int = 0
    arena_lower_bound: int = 0
    scratch_bytes: int = 0
    gate: int = 0
    checks: tuple[str, ...] = ()


class Executable(Protocol):
    """A compiled program."""

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> int:
        """Run. All arrays are C-contiguous, of the planned types; outputs are written in place.
        Returns the status word: 0, or the code of a failed check."""
        ...


class Backend(Protocol):
    """One folder under backends/: turns a plan (or a graph, if `wants_graph`) into an Executable."""

    name: str
    wants_graph: bool

    def compile(self, graph: Graph, plan: Plan | None) -> Executable: ...


@dataclass(frozen=True)
class Machine:
    """Target facts that lowering and scheduling need; a backend's target table fills it.

    tiles: register tiles (rows, vectors) the target has, best first; e.g. (6, 4) is 6 rows of 4 vectors.
    """

    name: str
    vector_bytes: int
    tiles: tuple[tuple[int, int], ...]
    masked: bool  # cheap masked loads and stores
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20

    def lanes(self, itemsize: int) -> int:
        """Elements of this size in one vector."""
        return self.vector_bytes // itemsize
