"""`python -m tests.bench.latency`: the time from a fresh tiny graph to its value.

Every graph is new to the process and to the cache on disk, so the time holds recording, the passes, lowering,
LLVM, loading and the call. The cache is a folder of its own, which goes afterwards. Results in milliseconds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable

Formula = Callable[["graphc.Tensor", "graphc.Tensor"], "graphc.Tensor"]  # noqa: F821 (imported in main)

FORMULAS: dict[str, Formula] = {
    "add": lambda x, y: x + y,
    "affine and relu": lambda x, y: (x * 2 + y).relu(),
    "gelu": lambda x, y: (x * 0.5 * (1 + (x * 0.7071).erf())) - y,
    "sum of a dim": lambda x, y: (x * y).sum(1),
    "softmax": lambda x, y: (x + y).softmax(1),
    "matrix product": lambda x, y: x @ y.t(),
    "maximum of a dim": lambda x, y: (x - y).amax(0),
    "gradient of a loss": lambda x, y: _gradient(x, y),
}
SIZES = range(3, 15)


def _gradient(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:  # type: ignore[name-defined]  # noqa: F821
    leaf = x.detach().requires_grad_()
    ((leaf - y) ** 2).mean().backward()
    return leaf.grad


Times = list[tuple[float, float]]


def measure() -> dict[str, Times]:
    """(elapsed, processor) milliseconds of each formula, for each size; not the first of the process."""
    import graphc

    graphc.ones(2).add(1).sum().item()  # loads the compiler and the backend
    found: dict[str, Times] = {}
    for name, formula in FORMULAS.items():
        for size in SIZES:
            x, y = graphc.randn(size, size + 1), graphc.randn(size, size + 1)
            graphc.sync()
            start, used = time.perf_counter(), time.process_time()
            formula(x, y).numpy()
            ends = time.perf_counter() - start, time.process_time() - used
            found.setdefault(name, []).append((ends[0] * 1e3, ends[1] * 1e3))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRAPHC_CACHE"] = folder
        found = measure()
    found["all"] = [t for times in found.values() for t in times]
    for name, times in found.items():
        elapsed, used = zip(*times, strict=True)
        print(
            f"{name:20} {len(times):3} graphs: median {statistics.median(elapsed):6.2f} ms elapsed, "
            f"{statistics.median(used):6.2f} ms of processor time; worst {max(elapsed):6.2f}"
        )


if __name__ == "__main__":
    main()
