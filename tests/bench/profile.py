"""Where the time of a compiled step goes: every kernel of its plan, on one thread.

    python -m tests.bench.profile lenet --threads 1

The inputs are arrays of ones, so data-dependent cost (denormals, branches) is not seen.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from math import prod
from pathlib import Path

import numpy as np

from graphc.arrays import aligned_empty


def call_ms(backend, plan) -> list[float]:
    """Milliseconds of each call of a plan, on inputs of ones."""
    run = backend.compile(None, plan)
    arrays = [np.ones(t.shape, t.dtype.numpy) for t in plan.inputs]
    for i, array in enumerate(arrays):
        run.bind_input(i, array)
    for o, t in enumerate(plan.outputs):
        donated = plan.donated.get(o)
        run.bind_output(o, aligned_empty(t.shape, t.dtype.numpy) if donated is None else arrays[donated])
    return [us / 1e3 for _, us in run.profile()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--top", type=int, default=25)
    args = parser.parse_args()
    os.environ["GRAPHC_THREADS"] = str(args.threads)
    from graphc import backend as backends
    from graphc import lookup, pipeline
    from tests.bench.engines import ENGINES
    from tests.bench.suites import WORKLOADS

    programs = []
    request = lookup.request

    def spy(graph, donate=None, *args, **options):
        programs.append((graph, donate))
        return request(graph, donate, *args, **options)

    lookup.request = spy
    work = WORKLOADS[args.workload]
    step = ENGINES["graphc"].build(args.workload, work, args.threads, Path())
    step()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    whole = 1e3 * float(np.median(times))

    graph, donate = max(programs, key=lambda p: len(p[0].nodes))
    planned = pipeline.inspect(graph, donate).planned
    assert planned is not None
    plan = planned.plan
    backend = backends.load("llvm")
    counts: Counter[int] = Counter()
    for number, call in enumerate(plan.calls):
        counts[call.kernel] += prod([n.trips for n in plan.loops if n.start <= number < n.stop])
    spent: Counter[int] = Counter()
    for call, ms in zip(plan.calls, call_ms(backend, plan), strict=True):
        spent[call.kernel] += ms
    rows = [(spent[k], n, plan.kernels[k]) for k, n in counts.items()]
    rows.sort(key=lambda row: -row[0])
    total = sum(row[0] for row in rows)
    print(
        f"{args.workload}: step {whole:.3f} ms; "
        f"{counts.total()} calls of {len(plan.kernels)} kernels, {total:.3f} ms"
    )
    print(f"{'ms':>8} {'share':>6} {'calls':>5} {'tasks':>5} {'GFLOP/s':>8} {'GB/s':>7}  kernel")
    for ms, n, kernel in rows[: args.top]:
        rate, width = n * kernel.flops / ms / 1e6, n * kernel.bytes / ms / 1e6
        print(
            f"{ms:8.3f} {ms / total:6.1%} {n:5} {kernel.tasks:5} {rate:8.1f} {width:7.1f}  {describe(kernel)}"
        )


def describe(kernel) -> str:
    shapes = ", ".join(f"{p.dtype.short}{list(p.shape)}" for p in kernel.params)
    return f"{kernel.name}({shapes})"[:150]


if __name__ == "__main__":
    main()
