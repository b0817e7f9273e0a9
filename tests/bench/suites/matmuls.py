"""Products of matrices, forward alone."""

from __future__ import annotations

from tests.bench.workload import Operator, Workload, floats


def _matmul(m: int, n: int, k: int) -> Operator:
    return Operator(lambda T: lambda a, b: a @ b, floats((m, k), (k, n)), flops=2.0 * m * n * k)


WORKLOADS: dict[str, Workload] = {
    **{f"matmul_{n}": _matmul(n, n, n) for n in (128, 256, 512, 1024, 2048)},
    "matmul_skinny_8_4096_4096": _matmul(8, 4096, 4096),
}
