"""Measure one engine on one workload in this process; print one line of JSON.

python -m tests.bench.one --engine graphc --workload lenet --threads 2 --cache DIR

`--machine` measures the machine instead: multiply-adds of one thread, bytes a second of `--threads` threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.engines import ENGINES, Step
from tests.bench.suites import WORKLOADS
from tests.bench.workload import Operator, Workload

STEPS = 10  # at least so many are timed; training losses are compared after as many


def memory_mb(field: str) -> float:
    """VmRSS (resident now) or VmHWM (at most so far) of this process in MB, where the system tells."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def confine(threads: int) -> None:
    """As many processors and threads as asked for. To be called before an engine's package is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GRAPHC_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])


def measure(engine: str, workload: str, threads: int, seconds: float, cache: Path) -> dict[str, Any]:
    """See the fields in `tests.bench.tables`."""
    chosen, work = ENGINES[engine], WORKLOADS[workload]
    os.environ["GRAPHC_CACHE"] = str(cache)
    for name, value in chosen.environment:
        os.environ[name] = value.format(threads=threads, cache=cache)
    baseline = memory_mb("VmRSS")
    begin = time.perf_counter()
    version = chosen.version()
    imported = time.perf_counter()
    step = chosen.build(workload, work, threads, cache)
    results = [step()]
    first = time.perf_counter() - imported
    times = _timed(step, seconds, results)
    return {
        "engine": engine,
        "workload": workload,
        "version": version,
        "import_s": imported - begin,
        "first_s": first,
        "ms": 1e3 * statistics.median(times),
        "best_ms": 1e3 * min(times),
        "memory_mb": memory_mb("VmHWM") - baseline,
        "output": [float(np.mean([np.abs(array).mean() for array in result])) for result in results],
        **limits(work, results[0]),
    }


def _timed(step: Step, seconds: float, results: list[list[np.ndarray]]) -> list[float]:
    """Seconds of each of many steps, after two that are not timed; adds results up to STEPS to the list."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < STEPS + 2 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        result = step()
        times.append(time.perf_counter() - start)
        if len(times) in (1, STEPS - 1):
            results.append(result)
    return times[2:]


def limits(work: Workload, result: list[np.ndarray]) -> dict[str, float]:
    """What a step must do at least: floating-point operations, bytes."""
    found = {"flops": work.flops} if work.flops else {}
    if isinstance(work, Operator):
        size = result[0].nbytes
        found["bytes"] = work.least_bytes(work.data(), size)
    return found


def machine(threads: int) -> dict[str, float]:
    """GFLOP/s of one thread in registers; GB/s of as many threads that each copy large arrays."""
    from tests.bench.peak import STREAM_BYTES, bandwidth, fma_peak

    peak = fma_peak()
    sizes = [STREAM_BYTES + 4096 * n for n in range(threads)]  # equal ones would be the same arrays
    with ThreadPoolExecutor(threads) as pool:
        rates = list(pool.map(lambda size: bandwidth("copy", 0.4, size), sizes))
    return {"gflops": peak, "gbytes": sum(rates)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--workload", choices=WORKLOADS, metavar="NAME")
    parser.add_argument("--machine", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=1.0, help="least time to measure")
    parser.add_argument("--cache", type=Path, help="folder for the compilers' caches")
    args = parser.parse_args()
    confine(args.threads)
    if args.machine:
        print(json.dumps(machine(args.threads)))
        return
    if args.engine is None or args.workload is None or args.cache is None:
        parser.error("--engine, --workload and --cache, or --machine")
    if not isinstance(WORKLOADS[args.workload], ENGINES[args.engine].kinds):
        parser.error(f"{args.engine} does not run {args.workload}")
    print(json.dumps(measure(args.engine, args.workload, args.threads, args.seconds, args.cache)))


if __name__ == "__main__":
    main()
