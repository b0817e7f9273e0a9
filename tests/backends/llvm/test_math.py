"""Accuracy of the vector math; the bounds are the figures in backends/llvm/math.py, rounded up."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from jit import NATIVE, TARGETS, Compiled

from graphc.backends.llvm.target import Target
from graphc.ir.types import DType, float32, float64, int64
from graphc.loop.ir import Buffer, Expr, For, Kernel, Store, Var, binary, index_const, load, unary

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


# bound in ulp of float32 (all 2^32 arguments), bound in 2^-52 relative of float64, reference for wider types
UNARY: dict[str, tuple[float, float, Callable[[np.ndarray], np.ndarray]]] = {
    "exp": (1.0, 2, np.exp),
    "expm1": (2.0, 2, np.expm1),
    "log": (1.0, 2, np.log),
    "log1p": (2.0, 2, np.log1p),
    "log2": (2.0, 2, np.log2),
    "tanh": (2.5, 3, np.tanh),
    "sigmoid": (2.5, 3, _sigmoid),
    "erf": (1.0, 3, lambda x: _erf(x).astype(x.dtype)),
    "sin": (2.0, 3, np.sin),
    "cos": (2.0, 3, np.cos),
    "tan": (3.5, 4, np.tan),
    "asin": (2.5, 4, np.arcsin),
    "acos": (2.0, 3, np.arccos),
    "atan": (2.5, 3, np.arctan),
    "sinh": (2.0, 3, np.sinh),
    "cosh": (2.0, 3, np.cosh),
    "asinh": (2.0, 3, np.arcsinh),
    "acosh": (2.0, 3, np.arccosh),
    "atanh": (2.5, 3, np.arctanh),
    "rsqrt": (1.5, 3, lambda x: 1 / np.sqrt(x)),
}
BINARY: dict[str, tuple[float, float, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "pow": (1.0, 2, np.power),
    "atan2": (3.0, 4, np.arctan2),
    "rem": (1.0, 1, np.remainder),
}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-40, 2.5]


def compiled(op: str, dtype: DType, arity: int, n: int, target: Target, lanes: int = 32) -> Compiled:
    """y[i] = op(x0[i], ...)"""
    params = [Buffer(f"x{k}", dtype, (n,)) for k in range(arity)] + [Buffer("y", dtype, (n,))]
    t, i = Var(int64, "t", 1), Var(int64, "i", n)
    args: list[Expr] = [load(p, (i,)) for p in params[:-1]]
    value = unary(op, args[0]) if arity == 1 else binary(op, args[0], args[1])
    loop = For(i, index_const(n), (Store(params[-1], (i,), value),), "vector", lanes)
    return Compiled(Kernel(op, tuple(params), t, 1, (loop,)), target)


def run(op: str, dtype: DType, *args: np.ndarray, target: Target = NATIVE, lanes: int = 32) -> np.ndarray:
    result = np.zeros_like(args[0])
    compiled(op, dtype, len(args), args[0].size, target, lanes)(*args, result)
    return result


def error(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest error in ulp of the result's own format; inf for a wrong special value."""
    rounded = wanted.astype(got.dtype)
    if (np.isnan(got) != np.isnan(rounded)).any():
        return math.inf
    finite = np.isfinite(got) & np.isfinite(rounded)
    edge = ~finite & ~np.isnan(rounded) & (got != rounded)
    largest = np.finfo(got.dtype).max
    if (np.minimum(np.abs(got[edge]), np.abs(rounded[edge])) < largest * (1 - 1e-6)).any():
        return math.inf  # overflow may come an ulp early or late, not more
    difference = np.abs(got[finite].astype(wanted.dtype) - wanted[finite])
    return float((difference / np.spacing(np.abs(rounded[finite]))).max(initial=0.0))


pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")


@pytest.mark.parametrize("op", UNARY)
def test_float32(op: str) -> None:
    """Every 4099th float32 number, of both signs, denormals and NaNs included."""
    bound, _, reference = UNARY[op]
    step = 65537 if op == "erf" else 4099
    x = np.arange(0, 2**32, step, dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        assert error(run(op, float32, x), reference(x.astype(np.float64))) <= bound


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.name}-{t.machine.masked}")
def test_special_values(op: str, target: Target) -> None:
    for dtype in (float32, float64):
        x = np.array([*SPECIAL, 88.0, 100.0, 200.0, 709.0, 1e9, 1e300], dtype.numpy)
        bound, bound64, reference = UNARY[op]
        with np.errstate(all="ignore"):
            wanted = reference(x.astype(np.float64 if dtype is float32 else np.longdouble))
            got = run(op, dtype, x, target=target, lanes=8)
        assert error(got, wanted) <= (bound if dtype is float32 else 2 * bound64)
        zero = wanted == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(wanted[zero]))


@pytest.mark.parametrize("op", UNARY)
def test_both_formats_in_one_kernel(op: str) -> None:
    """What the two formats share (tables, declarations) is in the module once."""
    n, t = 64, Var(int64, "t", 1)
    params = [Buffer(f"{name}{d.short}", d, (n,)) for d in (float32, float64) for name in "xy"]
    loops = []
    for x, y in (params[:2], params[2:]):
        i = Var(int64, "i", n)
        body = (Store(y, (i,), unary(op, load(x, (i,)))),)
        loops.append(For(i, index_const(n), body, "vector", 16))
    values = np.linspace(-3, 1e12, n)
    arrays = [a for d in (np.float32, np.float64) for a in (values.astype(d), np.zeros(n, d))]
    Compiled(Kernel(op, tuple(params), t, 1, tuple(loops)), NATIVE)(*arrays)
    for dtype, got in ((float32, arrays[1]), (float64, arrays[3])):
        np.testing.assert_array_equal(got, run(op, dtype, values.astype(dtype.numpy), lanes=16))


def _spread(rng: np.random.Generator, n: int) -> np.ndarray:
    scales = (1e-300, 1e-5, 0.3, 1.0, 3.0, 20.0, 300.0, 1e6, 1e200)
    return np.concatenate([rng.normal(0, s, n) for s in scales] + [np.array(SPECIAL)])


@pytest.mark.parametrize("op", UNARY)
def test_float64(op: str) -> None:
    _, bound, reference = UNARY[op]
    x = _spread(np.random.default_rng(3), 3000)
    wide = np.float64 if op == "erf" else np.longdouble
    with np.errstate(all="ignore"):
        got, wanted = run(op, float64, x, lanes=16), reference(x.astype(wide))
        tiny = np.abs(wanted) < np.finfo(np.float64).smallest_normal
        assert error(np.where(tiny, 0, got), np.where(tiny, 0, wanted)) <= 2 * bound


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_binary(op: str, dtype: DType) -> None:
    bound, bound64, reference = BINARY[op]
    rng = np.random.default_rng(5)
    a, b = (m.ravel() for m in np.meshgrid(SPECIAL, SPECIAL))
    x = np.concatenate(
        [a] + [rng.choice([-1, 1], 3000) * np.exp(rng.normal(0, s, 3000)) for s in (0.1, 1, 10, 30)]
    )
    y = np.concatenate([b] + [rng.normal(0, s, 3000) for s in (100, 30, 5, 2)])
    y[-1500:] = np.round(y[-1500:])
    x, y = x.astype(dtype.numpy), y.astype(dtype.numpy)
    with np.errstate(all="ignore"):
        wide = np.float64 if dtype is float32 else np.longdouble
        got, wanted = run(op, dtype, x, y, lanes=8), reference(x.astype(wide), y.astype(wide))
        narrow = reference(x, y)
    assert error(got, wanted) <= (bound if dtype is float32 else 2 * bound64)
    zero = (narrow == 0) & (got == 0)
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(narrow[zero]))


def _pi(bits: int) -> int:
    """pi * 2^bits by Machin's formula."""

    def arctan_of_inverse(n: int) -> int:
        term = total = (1 << bits + 32) // n
        k = 1
        while term:
            term //= -n * n
            k += 2
            total += term // k
        return total

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)) >> 32


def _reduced(x: float) -> float:
    """x modulo 2 pi, nearest to 0, by exact integer arithmetic."""
    bits = 1300
    turn = 2 * _pi(bits)
    numerator, denominator = x.as_integer_ratio()
    rest = (numerator << bits) // denominator % turn
    return float(Fraction(rest - turn if 2 * rest > turn else rest, 1 << bits))


@pytest.mark.parametrize("op", ["sin", "cos"])
def test_huge_arguments(op: str) -> None:
    """Powers of two and others up to the largest double."""
    x = np.concatenate([2.0 ** np.arange(-50, 1023, 3), 1.37 * 2.0 ** np.arange(20, 1023, 7)])
    wanted = np.array([getattr(math, op)(_reduced(v)) for v in x.tolist()])
    np.testing.assert_allclose(run(op, float64, x, lanes=8), wanted, rtol=3e-16, atol=3e-16)


def test_closest_to_a_zero() -> None:
    """The double that comes closest to a multiple of pi/2: 61 bits of it cancel."""
    x = np.array([6381956970095103 * 2.0**797])
    assert run("cos", float64, x, lanes=2)[0] == pytest.approx(-4.68716592425462761112e-19, rel=4e-16)


def test_lanes_do_not_change_bits() -> None:
    x = np.random.default_rng(1).normal(0, 3, 1001).astype(np.float32)
    for op in UNARY:
        results = [run(op, float32, x, target=t, lanes=k) for k in (1, 16) for t in TARGETS]
        for other in results[1:]:
            np.testing.assert_array_equal(results[0].view(np.uint32), other.view(np.uint32), err_msg=op)


@pytest.mark.exhaustive
@pytest.mark.slow  # so that -m "not slow" leaves it out too
@pytest.mark.parametrize("op", UNARY)
def test_every_float32(op: str) -> None:
    """All 2^32 arguments; minutes for each function."""
    bound, _, reference = UNARY[op]
    size = 1 << 22
    kernel = compiled(op, float32, 1, size, NATIVE)
    got = np.zeros(size, np.float32)
    with np.errstate(all="ignore"):
        for start in range(0, 2**32, size):
            x = np.arange(start, start + size, dtype=np.uint64).astype(np.uint32).view(np.float32)
            kernel(x, got)
            assert error(got, reference(x.astype(np.float64))) <= bound
