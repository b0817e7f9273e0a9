"""graphc beside its peers on the same machine, in the same run.

    python -m tests.bench                          # whole networks, against what is installed
    python -m tests.bench --workloads 'conv*,lenet' --engines graphc,torch,torch.compile,jax \\
        --python torch=PEERS/bin/python --python jax=PEERS/bin/python --markdown table.md --png times.png
    python -m tests.bench --render results.jsonl --png times.png      # what was measured before, again

Every measurement is a process of its own. Engines take turns within a round, so that what disturbs the
machine disturbs them alike; tables have medians over rounds. "Cold" is the first call of the first round,
with empty compile caches, "warm" that of later rounds. An engine whose package is missing in its interpreter
is left out, and a note says so.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from tests.bench import plot
from tests.bench.engines import ENGINES
from tests.bench.suites import SUITES, WORKLOADS
from tests.bench.tables import OWN, Results, markdown

ROOT = Path(__file__).parents[2]
TIMEOUT = 900.0


def select(patterns: str) -> list[str]:
    """Workloads by a comma-separated list of names, suites and globs. ValueError for one that finds none."""
    found: dict[str, None] = {}
    for pattern in patterns.split(","):
        names = list(SUITES.get(pattern, ())) or fnmatch.filter(WORKLOADS, pattern)
        if not names:
            raise ValueError(f"no workload is called {pattern!r}; suites: {', '.join(SUITES)}")
        found |= dict.fromkeys(names)
    return list(found)


def installed(python: str, package: str) -> bool:
    """Whether an interpreter runs and has a package."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def run(python: str, *arguments: str) -> dict[str, Any]:
    """What `tests.bench.one` prints. RuntimeError with its last line if it fails."""
    command = [python, "-m", "tests.bench.one", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took longer than {TIMEOUT:.0f} s") from None
    if done.returncode:
        raise RuntimeError(reason(done.stderr) or f"ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def reason(text: str) -> str:
    """The line of an error's output that says what was wrong."""
    lines = text.strip().splitlines()
    return next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "")


def measure(args: argparse.Namespace, out: TextIO | None = None) -> Results:
    """All rounds, with a line of progress for each measurement; records go to `out` as they are made."""
    pythons = dict(pair.split("=", 1) for pair in args.python)
    python_of = {e: pythons.get(e, pythons.get(ENGINES[e].package, sys.executable)) for e in args.engines}
    results = Results(args.threads, [e for e in args.engines if installed(python_of[e], ENGINES[e].package)])
    for engine in args.engines:
        if engine not in results.engines:
            results.notes.append(f"{engine} left out: not installed for {python_of[engine]}")
            say(results.notes[-1])
    plan = [
        (number, workload, engine)
        for workload in args.workloads
        for number in range(args.rounds)
        for engine in results.engines
        if isinstance(WORKLOADS[workload], ENGINES[engine].kinds)
    ]
    common = ["--threads", str(args.threads)]
    failed: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory() as caches:
        for count, (number, workload, engine) in enumerate(plan, 1):
            if (workload, engine) in failed:
                continue
            if engine == results.engines[0] and python_of.get(OWN):
                results.machine.append(run(python_of[OWN], "--machine", *common))
            cache = Path(caches, f"{engine}-{workload}")
            cache.mkdir(mode=0o700, exist_ok=True)
            name = ["--engine", engine, "--workload", workload]
            try:
                record = run(
                    python_of[engine], *name, *common, "--seconds", str(args.seconds), "--cache", str(cache)
                )
            except RuntimeError as error:
                failed.add((workload, engine))
                results.notes.append(f"{engine} does not run {workload}: {error}")
                say(results.notes[-1])
                continue
            record["round"] = number
            results.records.append(record)
            if out is not None:
                print(json.dumps({**record, "threads": args.threads}), file=out, flush=True)
            say(f"[{count}/{len(plan)}] round {number + 1}: {workload} on {engine}: {record['ms']:.4g} ms")
    return results


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def rendered(path: Path) -> Results:
    """The results of a file of records. (The machine's figures are not in it.)"""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    engines = [e for e in ENGINES if any(r["engine"] == e for r in records)]
    return Results(max((r["threads"] for r in records), default=1), engines, records)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", type=select, default="training,sequences,inference",
                        metavar="LIST", help="names, globs and suites: " + ", ".join(SUITES))  # fmt: skip
    parser.add_argument("--engines", type=_engines, default="graphc,torch,torch.tuned,jax,onnxruntime",
                        metavar="LIST", help="of " + ", ".join(ENGINES))  # fmt: skip
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH",
                        help="the interpreter of an engine or package")  # fmt: skip
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of one measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append every record to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE too")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the times (needs matplotlib)")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing: show records of FILE")
    return parser


def _engines(names: str) -> list[str]:
    found = names.split(",")
    for name in found:
        if name not in ENGINES:
            raise argparse.ArgumentTypeError(f"no engine is called {name!r}; there are {', '.join(ENGINES)}")
    return found


def main(arguments: list[str] | None = None) -> None:
    args = options().parse_args(arguments)
    if args.render is not None:
        results = rendered(args.render)
    elif args.json is not None:
        with args.json.open("a") as out:
            results = measure(args, out)
    else:
        results = measure(args)
    text = markdown(results)
    print(text)
    if args.markdown is not None:
        args.markdown.write_text(text)
    if args.png is not None:
        plot.draw(results, args.png)


if __name__ == "__main__":
    main()
