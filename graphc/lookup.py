"""Finding a compiled program: all that a start with warm caches runs, and all that it loads.

The compiler itself (`pipeline.py`: passes, lowering, planning) is loaded when a program is not found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graphc import backend as backends
from graphc import program_cache
from graphc.compiled import Program
from graphc.ir.graph import Graph
from graphc.passes import checks
from graphc.prepared import Prepared
from graphc.program import check_donations

OBSERVED = ("GRAPHC_DUMP", "GRAPHC_DEBUG", "GRAPHC_VALIDATE")  # see debug.py

Explain = Callable[[Sequence[Any], int], Exception]


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be compiled: as the arguments of `pipeline.compile`, checked."""

    graph: Graph
    donated: Mapping[int, int]
    target: Any
    fixed: AbstractSet[int]

    @cached_property
    def key(self) -> str:
        """The key of the program's code in caches."""
        return program_cache.program_key(self.graph, self.donated, self.target, self.fixed)

    @property
    def explain(self) -> Explain:
        """What a failed run of the program raises; what is kept follows the graph's own inputs."""
        graph = self.graph
        return lambda inputs, status: checks.failure(graph, inputs[: len(graph.inputs)], status)


def request(
    graph: Graph,
    donate: Mapping[int, int] | None = None,
    backend: str = "llvm",
    fixed: AbstractSet[int] = frozenset(),
) -> Request:
    """Check the arguments of `pipeline.compile`. Raises ValueError as that does."""
    donated = dict(donate or {})
    check_donations(graph, donated)
    return Request(graph, donated, backends.load(backend), fixed)


def find(wanted: Request) -> Program | Prepared | None:
    """The program, if its code is in memory or on disk and nobody wants to see it compiled."""
    if wanted.target.wants_graph or any(os.environ.get(name, "0") not in ("", "0") for name in OBSERVED):
        return None
    graph, target, key = wanted.graph, wanted.target, wanted.key
    found = program_cache.find(key, wanted.donated, target)
    if found is None:
        return None
    code, origin = found
    if code.n_inputs == len(graph.inputs):
        return Program(code, graph, wanted.explain, origin=origin)
    prepared = program_cache.find(program_cache.setup_key(key), {}, target)
    if prepared is None:
        return None
    setup, main = (
        Program(part, program_cache.signature(*part.types), wanted.explain, origin=origin)
        for part in (prepared[0], code)
    )
    return Prepared(graph, setup, main)
