"""How near memory's speed the kernels between the contractions run, beside PyTorch where it is installed.

    python -m tests.bench.kernels                          # every case at both sizes, one thread
    python -m tests.bench.kernels --cases gelu,softmax --size large

A step is the function and its gradients (`kernel_cases.py`). Time is the processor's, not the clock's, so
that other programs disturb it little; engines take turns, and the least time of all rounds counts.
"of copy" compares with copying a large array in the same rounds (`peak.py`), both counted in bytes read plus
written.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tests.bench.kernel_cases import CASES, Case
from tests.bench.peak import bandwidth


@dataclass(frozen=True)
class Row:
    """Measured: seconds a step of each engine, bytes that it must move at least, bytes a second of a copy."""

    name: str
    size: str
    seconds: dict[str, float]
    bytes: float
    copy: float


def make_step(T: ModuleType, case: Case, arrays: list[np.ndarray], compiled: bool) -> Callable[[], Any]:
    """A function that computes the result and the gradients of a case once.

    The result's gradient is an argument: if it were a constant, a compiler could compute the gradients of a
    linear function once and for all.
    """
    inputs = [T.from_numpy(a.copy()) for a in arrays]
    function = case.op(T)
    with T.no_grad():
        shape = tuple(function(*inputs).shape)
    leaves = [inputs[i].requires_grad_() for i in case.grad]
    upstream = T.from_numpy(np.random.default_rng(1).standard_normal(shape, dtype=np.float32))

    def run(upstream: Any, *given: Any) -> Any:
        result = function(*given)
        if not leaves:
            return result
        return result.detach(), *T.autograd.grad(result, [given[i] for i in case.grad], upstream)

    run = T.compile(run) if compiled else run
    return lambda: run(upstream, *inputs)


def measure(names: list[str], sizes: list[str], engines: list[ModuleType], seconds: float) -> list[Row]:
    """A row for every case and size."""
    rows = []
    for name in names:
        for size in sizes:
            case = CASES[name]
            arrays = case.arrays(size)
            steps = {T.__name__: make_step(T, case, arrays, T.__name__ == "graphc") for T in engines}
            result = next(step() for step in steps.values())
            first = result[0] if case.grad else result
            least = case.least_bytes(arrays, np.asarray(first.numpy()))
            del result, first
            best, copy = _interleaved(steps, seconds)
            rows.append(Row(name, size, best, least, copy))
    return rows


def _interleaved(steps: dict[str, Callable[[], Any]], seconds: float) -> tuple[dict[str, float], float]:
    """(least seconds of each step, best bytes a second of a copy); all take turns."""
    calls = {}
    for name, step in steps.items():
        step()
        calls[name] = max(1, int(0.005 / max(_spent(step, 1), 1e-7)))
    best, copy, begin = dict.fromkeys(steps, float("inf")), 0.0, time.process_time()
    rounds = 0
    while rounds < 3 or time.process_time() - begin < seconds:
        rounds += 1
        copy = max(copy, 1e9 * bandwidth("copy", 0.0))
        for name, step in steps.items():
            best[name] = min(best[name], _spent(step, calls[name]))
    return best, copy


def _spent(step: Callable[[], Any], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        step()
    return (time.process_time() - start) / calls


def table(rows: list[Row]) -> str:
    """Markdown, a line for every row."""
    engines = list(dict.fromkeys(e for row in rows for e in row.seconds))
    heads = ["kernel, forward + backward", *(f"{e}, ms" for e in engines), "least MB", "GB/s", "of copy"]
    heads += [f"{e} / graphc" for e in engines if e != "graphc"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in rows:
        own = row.seconds["graphc"]
        rate = row.bytes / own
        cells = [f"{row.name} ({row.size})", *(f"{1e3 * row.seconds[e]:.4g}" for e in engines)]
        cells += [f"{row.bytes / 1e6:.3g}", f"{rate / 1e9:.1f}", f"{rate / row.copy:.2f}"]
        cells += [f"{row.seconds[e] / own:.2f}" for e in engines if e != "graphc"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _engines() -> list[ModuleType]:
    import graphc

    graphc.set_num_threads(1)
    try:
        import torch
    except ImportError:
        return [graphc]
    torch.set_num_threads(1)
    return [graphc, torch]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--size", default="large,cache")
    parser.add_argument("--seconds", type=float, default=1.0, help="least processor time of a case")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    print(table(measure(args.cases.split(","), args.size.split(","), _engines(), args.seconds)))


if __name__ == "__main__":
    main()
