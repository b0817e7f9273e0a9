"""Products of matrices, forward alone, and linear layers with their gradients. (`tests.bench.contractions`
sweeps over many shapes, kernels alone.)"""

from __future__ import annotations

from tests.bench.workload import Operator, Workload, floats


def _matmul(m: int, n: int, k: int) -> Operator:
    return Operator(lambda T: lambda a, b: a @ b, floats((m, k), (k, n)), flops=2.0 * m * n * k)


def _linear(m: int, n: int, k: int) -> Operator:
    """x @ w.T, and the gradients of both."""
    return Operator(
        lambda T: lambda x, w: x @ w.t(), floats((m, k), (n, k)), gradients=(0, 1), flops=6.0 * m * n * k
    )


WORKLOADS: dict[str, Workload] = {
    **{f"matmul_{n}": _matmul(n, n, n) for n in (128, 256, 512, 1024, 2048)},
    "matmul_skinny_8_4096_4096": _matmul(8, 4096, 4096),
    "linear_1024_1024_1024": _linear(1024, 1024, 1024),
    "linear_128_512_784": _linear(128, 512, 784),
}
