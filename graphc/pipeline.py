"""The compiler from front to back: one list of passes, one function.

Graph --PASSES--> Graph --checks--> Graph + flags --partition--> groups --lower--> kernel calls
      --plan--> Plan --backend--> Executable
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphc import backend as backends
from graphc.compiled import Code, Program
from graphc.ir.graph import Graph
from graphc.passes import checks


@dataclass(frozen=True)
class Pass:
    """A graph pass: a valid graph in, an equal valid graph out; the same object if nothing changed."""

    name: str
    run: Callable[[Graph], Graph]


PASSES: tuple[Pass, ...] = ()


def compile(graph: Graph, donate: Mapping[int, int] | None = None, backend: str = "llvm") -> Program:
    """Compile a graph.

    donate   output position -> input position whose array the output overwrites
    backend  a name from the entry-point group ``graphc.backends``

    Raises ValueError for an unknown backend or an impossible donation.
    """
    donated = dict(donate or {})
    target: Any = backends.load(backend)
    explain = partial(checks.failure, graph)
    if target.wants_graph:
        return Program(Code(target.compile(graph, None), graph, donated), graph, explain)
    raise ValueError(f"backend {backend!r} needs lowering, which is not connected yet")


def optimise(graph: Graph) -> Graph:
    """Run the list of passes."""
    for step in PASSES:
        graph = step.run(graph)
    return graph
