"""The compiler, loaded when the first program is needed.

`import graphc` must be quick, and the passes, the lowering and the planner are a third of the code
(and finding backends loads a good part of the standard library): this is the one place that puts off
importing them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from graphc.frontend.errors import fail
from graphc.ir.graph import Graph


def compile_graph(
    graph: Graph, donate: Mapping[int, int], backend: str, fixed: AbstractSet[int] = frozenset()
) -> Any:
    """`graphc.pipeline.compile(graph, donate, backend, fixed=fixed)`."""
    return importlib.import_module("graphc.pipeline").compile(graph, donate, backend, fixed=fixed)


def check_backend(name: str) -> None:
    """ValueError unless a backend is registered as `name`."""
    try:
        importlib.import_module("graphc.backend").load(name)
    except ValueError as error:
        raise fail(ValueError, str(error)) from None
