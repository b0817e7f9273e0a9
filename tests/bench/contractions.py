"""How near the machine's limits contractions run, shape by shape, beside PyTorch where it is installed.

    python -m tests.bench.contractions                       # every shape, one thread
    python -m tests.bench.contractions --shapes skinny,odd   # names that begin so

Kernels alone are timed (a compiled program bound to its arrays, not the call from Python), in the
processor's time, so that other programs disturb it little; engines take turns, and the least time of all
rounds counts. "of peak" compares with multiply-adds in registers, "GB/s" counts operands and result once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graphc import ops, pipeline
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, float32, float64
from tests.bench.peak import fma_peak


@dataclass(frozen=True)
class Shape:
    """[batch,] m x k times k x n; `left`, `right`: that operand is stored the other way round."""

    m: int
    n: int
    k: int
    left: bool = False
    right: bool = False
    batch: int = 0
    double: bool = False

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k * max(self.batch, 1)

    def operands(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """How the operands are stored."""
        lead = (self.batch,) if self.batch else ()
        a = (self.k, self.m) if self.left else (self.m, self.k)
        b = (self.n, self.k) if self.right else (self.k, self.n)
        return (*lead, *a), (*lead, *b)

    def graph(self) -> Graph:
        dtype, first = float64 if self.double else float32, int(bool(self.batch))
        x, y = (ops.input_(n, TensorType(s, dtype)) for n, s in zip("xy", self.operands(), strict=True))
        contracted = ((first + (not self.left),), (first + self.right,))
        lead = ((0,), (0,)) if first else ((), ())
        return Graph((x, y), (ops.dot_general(x, y, contracted, lead),))


def _shapes() -> dict[str, Shape]:
    found = {f"square{n}": Shape(n, n, n) for n in (4, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512, 1024, 2048)}
    found |= {f"odd{n}": Shape(n, n, n) for n in (100, 129, 200, 333, 500, 1000)}
    for n in (333, 1024):
        for left, right in ((False, True), (True, False), (True, True)):
            found[f"stored{n}_{'nt'[left]}{'nt'[right]}"] = Shape(n, n, n, left, right)
    for m in (1, 2, 3, 5, 8, 16, 32, 64):
        for right in (False, True):
            found[f"rows{m}_1024_n{'nt'[right]}"] = Shape(m, 1024, 1024, right=right)
    for m in (1, 4, 8, 16):
        for right in (False, True):
            found[f"skinny{m}_4096_n{'nt'[right]}"] = Shape(m, 4096, 4096, right=right)
    found |= {f"columns{n}_1024": Shape(1024, n, 1024) for n in (1, 2, 5, 10, 16, 32)}
    found["gradient_mlp"] = Shape(512, 784, 128, left=True)
    for m, n, k in ((64, 64, 4096), (32, 48, 8192), (256, 512, 2048), (10, 100, 16384), (512, 512, 4096)):
        found[f"gradient{m}x{n}_{k}"] = Shape(m, n, k, left=True)
    found |= {f"batch{n}": Shape(n, n, n, batch=256) for n in (3, 4, 8, 16, 32)}
    found["attention_scores"] = Shape(128, 128, 64, right=True, batch=32)
    found["attention_values"] = Shape(128, 64, 128, batch=32)
    found["attention_gradient"] = Shape(64, 64, 128, left=True, batch=32)
    found |= {"outer": Shape(512, 512, 1), "outer8": Shape(512, 512, 8), "dot": Shape(1, 1, 4096)}
    found |= {"tall": Shape(16384, 16, 16), "tall10": Shape(4096, 10, 64), "wide": Shape(16, 16384, 16)}
    found |= {f"double{n}": Shape(n, n, n, double=True) for n in (16, 64, 100, 256, 512)}
    found["double8_1024"] = Shape(8, 1024, 1024, right=True, double=True)
    return found


SHAPES = _shapes()


def graphc_run(shape: Shape, arrays: list[np.ndarray]) -> tuple[Callable[[], Any], np.ndarray]:
    """(a call of the kernels, the array that they write)."""
    graph = shape.graph()
    executable = pipeline.compile(graph).code.executable
    (result,) = graph.outputs
    out = np.empty(result.shape, result.dtype.numpy)
    executable.bind(arrays, [out])
    return executable.run, out


def torch_run(shape: Shape, arrays: list[np.ndarray]) -> Callable[[], Any] | None:
    """The same as PyTorch's eager call; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    x, y = (torch.from_numpy(a) for a in arrays)
    x = x.transpose(-1, -2) if shape.left else x
    y = y.transpose(-1, -2) if shape.right else y
    return lambda: torch.matmul(x, y)


def measure(shape: Shape, seconds: float) -> tuple[float, float | None]:
    """Least seconds of a run: graphc's and PyTorch's. Raises AssertionError if their results differ."""
    rng = np.random.default_rng(0)
    dtype = np.float64 if shape.double else np.float32
    arrays = [rng.standard_normal(s).astype(dtype) for s in shape.operands()]
    run, out = graphc_run(shape, arrays)
    other = torch_run(shape, arrays)
    run()
    if other is not None:
        np.testing.assert_allclose(out, other().numpy(), rtol=0, atol=1e-4 * np.abs(out).max())
    best = fastest([r for r in (run, other) if r is not None], seconds)
    return best[0], best[1] if other is not None else None


def fastest(runs: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """Least CPU seconds of each of `runs`, which take turns: five rounds or as many as `seconds` allow, of
    about 4 ms each."""
    calls = [max(1, int(0.004 / max(spent(r, 2), 1e-7))) for r in runs]
    best, begin, rounds = [float("inf")] * len(runs), time.thread_time(), 0
    while rounds < 5 or time.thread_time() - begin < seconds:
        rounds += 1
        best = [min(b, spent(r, c)) for b, r, c in zip(best, runs, calls, strict=True)]
    return best


def spent(run: Callable[[], Any], calls: int) -> float:
    """CPU seconds of a call of `run`."""
    start = time.thread_time()
    for _ in range(calls):
        run()
    return (time.thread_time() - start) / calls


def table(names: Iterable[str], seconds: float) -> str:
    """Markdown, a line for every shape."""
    lines = ["| shape | graphc, us | GFLOP/s | of peak | GB/s | torch / graphc |", "|---|" + "---:|" * 5]
    for name in names:
        shape = SHAPES[name]
        peak = fma_peak("f64" if shape.double else "f32", 0.05)
        own, other = measure(shape, seconds)
        moved = sum(np.prod(s) for s in (*shape.operands(), (max(shape.batch, 1), shape.m, shape.n)))
        rate = float(moved) * (8 if shape.double else 4) / own / 1e9
        speed = shape.flops / own / 1e9
        ratio = "" if other is None else f"{other / own:.2f}"
        lines.append(
            f"| {name} | {1e6 * own:.1f} | {speed:.1f} | {speed / peak:.2f} | {rate:.1f} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="", help="beginnings of names, with commas between")
    parser.add_argument("--seconds", type=float, default=0.1, help="least processor time of a shape")
    args = parser.parse_args()
    graphc.set_num_threads(1)
    starts = tuple(args.shapes.split(","))
    print(table([name for name in SHAPES if name.startswith(starts)], args.seconds))


if __name__ == "__main__":
    main()
