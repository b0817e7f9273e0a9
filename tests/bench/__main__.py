"""graphc beside PyTorch on the same machine, in the same run.

    python -m tests.bench                                   # everything, this interpreter for all engines
    python -m tests.bench --workloads lenet,mlp --engines graphc,torch --python torch=/path/to/python

Every measurement is a process of its own. Engines take turns within a round, so that what disturbs the
machine disturbs them alike; the table has medians over rounds. "cold" is the first call of the first
round, with empty compile caches; "warm" the later rounds'.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.bench.one import ENGINES
from tests.bench.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
Results = dict[tuple[str, str], list[dict[str, float]]]


def run(
    python: str, engine: str, workload: str, threads: int, seconds: float, cache: Path
) -> dict[str, float] | None:
    """One measurement, or None (with the reason on stderr) if the engine cannot do it."""
    command = [python, "-m", "tests.bench.one", "--engine", engine, "--workload", workload,
               "--threads", str(threads), "--seconds", str(seconds), "--cache", str(cache)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{engine} {workload}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace) -> Results:
    pythons = dict(pair.split("=", 1) for pair in args.python)
    results: Results = defaultdict(list)
    with tempfile.TemporaryDirectory() as caches:
        for workload in args.workloads.split(","):
            for _ in range(args.rounds):
                for engine in args.engines.split(","):
                    cache = Path(caches, f"{engine}-{workload}")
                    cache.mkdir(mode=0o700, exist_ok=True)
                    python = pythons.get(engine.split(".")[0], sys.executable)
                    record = run(python, engine, workload, args.threads, args.seconds, cache)
                    if record is not None:
                        results[workload, engine].append(record)
    return results


def median(records: list[dict[str, float]], field: str) -> float:
    values = [r[field] for r in records if field in r]
    return statistics.median(values) if values else float("nan")


def table(results: Results, engines: list[str], threads: int) -> str:
    """A markdown table: milliseconds by engine, graphc's ratio to the best other, first calls, limits."""
    own = engines[0]
    heads = [f"{threads}-thread workload", *(f"{e}, ms" for e in engines), f"best other / {own}",
             f"{own} first call cold / warm, s", "of the limit"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for workload in dict.fromkeys(w for w, _ in results):
        ms = {e: median(results[workload, e], "ms") for e in engines}
        others = [v for e, v in ms.items() if not e.startswith("graphc") and v == v]
        ratio = f"{min(others) / ms[own]:.2f}" if others else "-"
        firsts = [r["first_s"] for r in results[workload, own]]
        first = f"{firsts[0]:.2f} / {statistics.median(firsts[1:] or firsts):.2f}" if firsts else "-"
        peak = median(results[workload, own], "of_peak") / threads
        width = median(results[workload, own], "of_bandwidth") if threads == 1 else float("nan")
        limit = (
            f"{peak:.0%} of FMA peak"
            if peak == peak
            else f"{width:.0%} of bandwidth"
            if width == width
            else "-"
        )
        cells = [workload, *(f"{ms[e]:.3g}" for e in engines), ratio, first, limit]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--engines", default="graphc,torch", help=f"first is ours; of {', '.join(ENGINES)}")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of one measurement")
    args = parser.parse_args()
    print(table(measure(args), args.engines.split(","), args.threads))


if __name__ == "__main__":
    main()
