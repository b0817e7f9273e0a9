"""Measure one engine on one workload in this process; print one line of JSON.

python -m tests.bench.one --engine graphc --workload lenet --threads 2
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from pathlib import Path

ENGINES = {
    "graphc": ("graphc", True),
    "graphc.lazy": ("graphc", False),
    "torch": ("torch", False),
    "torch.compile": ("torch", True),
}


def peak_rss_mb() -> float:
    """Peak resident memory of this process, where the system tells."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(engine: str, workload: str, seconds: float, cache: str) -> dict[str, float]:
    module, compiled = ENGINES[engine]
    os.environ["GRAPHC_CACHE"] = cache
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    T = importlib.import_module(module)
    from tests.bench.workloads import WORKLOADS

    work = WORKLOADS[workload]
    begin = time.perf_counter()
    step = work.build(T, compiled)
    step()
    first = time.perf_counter() - begin
    for _ in range(2):
        step()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 10 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    record = {"ms": 1e3 * statistics.median(times), "first_s": first, "rss_mb": peak_rss_mb()}
    if module == "graphc":
        record |= limits(work.flops, work.bytes, record["ms"])
    return record


def limits(flops: float, bytes: float, ms: float) -> dict[str, float]:
    """The reached fraction of this machine's limit, measured now in this process (per thread)."""
    from tests.bench.peak import bandwidth, fma_peak

    if flops:
        return {"of_peak": flops / (ms * 1e6) / fma_peak()}
    if bytes:
        return {"of_bandwidth": bytes / (ms * 1e6) / bandwidth("copy")}
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", required=True, choices=ENGINES)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cache", required=True, help="folder for the compilers' caches")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GRAPHC_THREADS"):
        os.environ[name] = str(args.threads)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-args.threads :])
    print(json.dumps(measure(args.engine, args.workload, args.seconds, args.cache)))


if __name__ == "__main__":
    main()
