"""The data that leaves the compiler: a Plan of kernel calls over one arena.

This module only declares the types that the planner writes and a backend reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from graphc.ir.graph import Graph
from graphc.ir.types import TensorType
from graphc.loop.ir import Kernel

LINE = 64  # bytes of a cache line, on every target
PAGE = 4096  # bytes: no hardware fetches ahead past the end of a page

SlotSpace = Literal["input", "output", "arena", "constant"]


Steps = tuple[tuple[int, int], ...]  # (number of a loop, bytes further on each of its trips)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a kernel argument lives: input/output/constant number `index`, or the arena; plus bytes.

    In loops, trip t of loop n is at `offset` + t * bytes for each (n, bytes) in `steps`.
    """

    space: SlotSpace
    index: int
    offset: int = 0
    steps: Steps = ()


At = TypeVar("At", covariant=True)


@dataclass(frozen=True, slots=True)
class Turn(Generic[At]):
    """Places that take turns: `first`, if given, on trip 0 of loop number `loop`; on the other trips those
    of `rest`, one after another and over again."""

    loop: int
    first: At | Turn[At] | None
    rest: tuple[At | Turn[At], ...]

    def on(self, trip: int) -> At | Turn[At]:
        """The place on a trip of the loop."""
        if self.first is None:
            return self.rest[trip % len(self.rest)]
        return self.first if trip == 0 else self.rest[(trip - 1) % len(self.rest)]


Place = Slot | Turn[Slot]


@dataclass(frozen=True, slots=True)
class Call:
    """Run kernel number `kernel` with `args` (one per param).

    `barrier`: all threads must have finished the calls before this one (in a loop, on every trip).
    """

    kernel: int
    args: tuple[Place, ...]
    barrier: bool = True


@dataclass(frozen=True, slots=True)
class Loop:
    """Calls number `start` to `stop` - 1 run `trips` times over. Loops nest or are apart."""

    start: int
    stop: int
    trips: int


@dataclass(frozen=True)
class Plan:
    """A whole program: kernels, the order of calls, and where every value lives.

    donated[o] = i   output o is written over input i; the caller passes the same array for both
    gate             number of calls after which the status word is tested: if a Check failed by then,
                     the rest is skipped, and nothing visible outside has been written yet; not in a loop
    loops            outer loops before those inside them; their numbers are positions here
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
    loops: tuple[Loop, ...] = ()


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
    winograd: an option, not a fact: whether convolutions may run by Winograd's algorithm.
    layout: an option too: whether convolutions may keep their channels last.
    """

    name: str
    vector_bytes: int
    tiles: tuple[tuple[int, int], ...]
    masked: bool  # cheap masked loads and stores
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20
    l3_bytes: int = 16 << 20
    winograd: bool = True
    layout: bool = True

    def lanes(self, itemsize: int) -> int:
        """Elements of this size in one vector."""
        return self.vector_bytes // itemsize


def check_donations(graph: Graph, donated: Mapping[int, int]) -> None:
    """Raise ValueError unless each donated input has its output's type and is donated once."""
    for output, input_ in donated.items():
        old, new = graph.inputs[input_].type, graph.outputs[output].type
        if old != new:
            raise ValueError(f"output {output} is {new}: it cannot take the memory of input {input_}, {old}")
    if len(set(donated.values())) != len(donated):
        raise ValueError(f"an input can be donated to one output only (given {dict(donated)})")
