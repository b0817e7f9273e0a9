"""The compiler, loaded when the first program is needed.

`import graphc` must be quick, and the passes, the lowering and the planner are a third of the code: this is
the one place that puts off importing them. What finds programs in caches is loaded first, and alone if it
finds them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from graphc.collecting import no_collections
from graphc.frontend.errors import fail
from graphc.ir.graph import Graph


@no_collections
def compile_graph(
    graph: Graph, donate: Mapping[int, int], backend: str, fixed: AbstractSet[int] = frozenset()
) -> Any:
    """`graphc.pipeline.compile(graph, donate, backend, fixed=fixed)`."""
    lookup = importlib.import_module("graphc.lookup")
    wanted = lookup.request(graph, donate, backend, fixed)
    found = lookup.find(wanted)
    return importlib.import_module("graphc.pipeline").build(wanted) if found is None else found


def check_backend(name: str, options: Mapping[str, bool]) -> str:
    """The name of a backend with options. ValueError unless there is one, TypeError for an option that is no
    bool."""
    backends = importlib.import_module("graphc.backend")
    try:
        named: str = backends.with_options(name, options)
        backends.load(named)
    except (ValueError, TypeError) as error:
        raise fail(type(error), str(error)) from None
    return named
