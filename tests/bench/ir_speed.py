"""How fast the IR is: building, passes that change nothing, hashing, text.

`python -m tests.bench.ir_speed [nodes]`
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from graphc import ops
from graphc.ir.graph import Graph, rebuild, rewrite
from graphc.ir.hashing import structural_hash
from graphc.ir.node import no_sites
from graphc.ir.parser import parse_graph
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, float32
from graphc.ir.verify import verify
from graphc.passes import fold, simplify


def build(nodes: int, salt: int) -> Graph:
    """Layers of a product, a bias, an activation and a residual sum: about `nodes` new nodes."""
    kind = TensorType((32, 64), float32)
    x = ops.input_(f"x{salt}", kind)
    inputs, count, layer = [x], 1, 0
    while count < nodes:
        w = ops.input_(f"w{salt}.{layer}", TensorType((64, 64), float32))
        b = ops.input_(f"b{salt}.{layer}", TensorType((64,), float32))
        y = ops.add(ops.dot_general(x, w, ((1,), (0,))), ops.broadcast(b, kind.shape, (1,)))
        x = ops.add(x, ops.select(ops.le(y, ops.like(y, 0.0)), ops.like(y, 0.0), ops.tanh(y)))
        inputs += [w, b]
        count += 9
        layer += 1
    return Graph(tuple(inputs), (x,))


def best(work: Callable[[int], object], repeats: int = 5) -> float:
    """The least milliseconds of several runs; `work` gets the number of the run."""
    times = []
    for i in range(repeats):
        start = time.perf_counter()
        work(i)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def measure(nodes: int) -> dict[str, float]:
    """Milliseconds of each operation on a graph of about `nodes` nodes."""
    with no_sites():
        kept = [build(nodes, salt) for salt in range(-1, 0)]
        graph = kept[0]
        text = print_graph(graph)
        fresh = lambda: Graph(graph.inputs, graph.outputs)  # noqa: E731

        def noop_passes(_: int) -> None:
            g = graph
            for _ in range(20):
                new = rewrite(g, rebuild)
                assert new is g
                g = new

        return {
            "build": best(lambda i: kept.append(build(nodes, i))),
            "20 passes that change nothing": best(noop_passes),
            "simplify, nothing to do": best(lambda i: simplify.run(graph)),
            "fold, nothing to do": best(lambda i: fold.run(graph)),
            "topological order": best(lambda i: fresh().nodes),
            "reachability": best(lambda i: fresh().ancestors),
            "structural hash": best(lambda i: structural_hash(fresh())),
            "verify": best(lambda i: verify(fresh(), ops.REGISTRY)),
            "print": best(lambda i: print_graph(graph)),
            "parse": best(lambda i: parse_graph(text, ops.REGISTRY)),
        }


def main() -> None:
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"graph of {len(build(nodes, -1).nodes)} nodes")
    for name, milliseconds in measure(nodes).items():
        print(f"  {name:32} {milliseconds:8.2f} ms")


if __name__ == "__main__":
    main()
