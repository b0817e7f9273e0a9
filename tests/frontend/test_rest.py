"""Less common functions against torch: histograms, covariances, whole numbers, windows, places, questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc as gc  # noqa: E402
from tests.nn.against_torch import close, same_function  # noqa: E402

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((3, 5)), RNG.standard_normal((2, 3, 4))
V = np.array([1.0, 2.0, 1.0, 3.0, -1.0, float("nan"), 7.0])
W = np.array([1.0, 0.5, 2.0, 1.0, 1.0])
I = RNG.integers(-40, 40, (4, 6))  # noqa: E741
J = RNG.integers(-9, 9, (6,))

DIFFERENTIABLE: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "cov": (lambda T, x: T.cov(x), [A]),
    "cov of a vector": (lambda T, x: T.cov(x[0], correction=0), [A]),
    "weighted cov": (
        lambda T, x: T.cov(x, fweights=T.tensor([1, 2, 1, 3, 1]), aweights=T.from_numpy(W)),
        [A],
    ),
    "corrcoef": (lambda T, x: T.corrcoef(x), [A]),
    "renorm": (lambda T, x: x.renorm(2, 1, 0.9), [B]),
    "renorm of order 1": (lambda T, x: T.renorm(x, 1, 0, 2.0), [B]),
    "put": (lambda T, x: x.put(T.tensor([1, 7]), T.tensor([9.0, 8.0], dtype=T.float64)), [A]),
    "put added": (lambda T, x, y: T.put(x, T.tensor([1, 1]), y[0, :2], accumulate=True), [A, B[0]]),
    "gradient": (lambda T, x: T.gradient(x), [A]),
    "gradient of order 2": (lambda T, x: T.gradient(x, spacing=0.5, dim=1, edge_order=2), [A]),
    "sum_to_size": (lambda T, x: x.sum_to_size(3, 1), [B]),
    "chain_matmul": (lambda T, x: T.chain_matmul(x, x.t(), x), [A]),
    "conj": (
        lambda T, x: T.conj(x) + T.real(x) + x.resolve_conj() + x.conj_physical() + x.resolve_neg(),
        [A],
    ),
    "to_dense": (lambda T, x: x.to_dense(), [A]),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.filterwarnings("ignore")
def test_like_torch(name: str) -> None:
    function, arrays = DIFFERENTIABLE[name]
    same_function(lambda T: lambda *xs: function(T, *xs), arrays, rtol=1e-9, atol=1e-9)


CONSTANT: dict[str, Callable[[Any], Any]] = {
    "histc": lambda T: T.histc(T.from_numpy(V[:5]), 4, 0, 3),
    "histc of its range": lambda T: T.from_numpy(V[:5]).histc(bins=3),
    "histc of one value": lambda T: T.histc(T.ones(3), 5),
    "histogram": lambda T: T.histogram(T.from_numpy(V[:5]), 4, range=(0.0, 3.0)),
    "histogram of its range": lambda T: T.histogram(T.from_numpy(W), 3, density=True),
    "histogram of edges": lambda T: T.histogram(T.ones(4), T.tensor([0.5, 1.0, 1.5, 2.0])),
    "weighted histogram": lambda T: T.histogram(T.from_numpy(W), 3, weight=T.from_numpy(V[:5])),
    "gcd": lambda T: T.gcd(T.from_numpy(I), T.from_numpy(J)),
    "gcd of large numbers": lambda T: T.gcd(
        T.tensor([7540113804746346429, -(2**62), 0]), T.tensor([4660046610375530309, 48, 0])
    ),
    "gcd of int32": lambda T: T.tensor([12, 18], dtype=T.int32).gcd(T.tensor(8, dtype=T.int32)),
    "lcm": lambda T: T.lcm(T.from_numpy(I), T.from_numpy(J)),
    "unravel_index": lambda T: T.unravel_index(T.tensor([3, 4, 11]), (2, 2, 3)),
    "unravel_index of a vector": lambda T: T.unravel_index(T.tensor([3, 4]), 6),
    "hann_window": lambda T: T.hann_window(7),
    "hann_window symmetric": lambda T: T.hann_window(8, periodic=False, dtype=T.float64),
    "hamming_window": lambda T: T.hamming_window(7, True, 0.6, 0.4),
    "blackman_window": lambda T: T.blackman_window(7),
    "bartlett_window": lambda T: T.bartlett_window(7),
    "bartlett_window even": lambda T: T.bartlett_window(8, periodic=False),
    "kaiser_window": lambda T: T.kaiser_window(7, True, 8.0),
    "vander": lambda T: T.vander(T.from_numpy(W)),
    "vander increasing": lambda T: T.vander(T.tensor([1, 2, 3]), 4, increasing=True),
    "window of one": lambda T: T.hann_window(1),
    "window of none": lambda T: T.hann_window(0),
    "range": lambda T: T.range(1, 4),
    "range by halves": lambda T: T.range(0, 1, 0.5),
    "resize_": lambda T: T.arange(6).resize_(2, 2),
    "resize_as_": lambda T: T.arange(6.0).resize_as_(T.ones(3, 2)),
    "put_": lambda T: T.arange(6.0).put_(T.tensor([1, -1]), T.tensor([9.0, 8.0])),
    "apply_": lambda T: T.arange(4.0).apply_(lambda v: v * v + 1),
    "map_": lambda T: T.arange(4.0).map_(T.ones(4), lambda a, b: a + b),
    "renorm_": lambda T: T.ones(2, 3).renorm_(2, 0, 1.0),
    "abs_": lambda T: T.abs_(T.tensor([-1.0, 2.0])),
    "zero_": lambda T: T.zero_(T.tensor([-1.0, 2.0])),
    "detach": lambda T: T.detach(T.ones(2, requires_grad=True)),
}


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.filterwarnings("ignore")
def test_values_like_torch(name: str) -> None:
    theirs, ours = CONSTANT[name](torch), CONSTANT[name](gc)
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    for a, b in pairs:
        close(name, a, b, rtol=1e-5, atol=1e-6)


def test_answers() -> None:
    for T in (torch, gc):
        x = T.ones(2, 3)
        assert (x.get_device(), T.get_device(x), x.storage_offset()) == (-1, -1, 0)
        assert not any([x.is_conj(), x.is_neg(), x.is_pinned(), x.is_inference()])
        assert not any([x.is_meta, x.is_mps, x.is_nested, x.is_sparse_csr, x.is_xla, x.is_xpu, x.is_mkldnn])
        assert x.share_memory_() is x
        assert T.result_type(T.ones(2, dtype=T.int64), 1.5) is T.float32
        assert T.result_type(T.ones(2, dtype=T.int32), T.ones(2, dtype=T.float64)) is T.float64
        assert x.data_ptr() == x.detach().data_ptr() == x.view(-1).data_ptr() == x.data.data_ptr()
        other = x.clone()
        other[0] = 3
        assert x.data_ptr() != other.data_ptr()
    assert not gc.ones(2).is_shared()


IN_PLACE = """
abs_ acos_ acosh_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_ asinh_ atan_ atanh_ ceil_ cos_
cosh_ deg2rad_
erf_ erfc_ exp2_ exp_ expm1_ fix_ floor_ frac_ i0_ log10_ log1p_ log2_ log_ logit_ nan_to_num_ neg_ negative_
rad2deg_
reciprocal_ round_ rsqrt_ sigmoid_ sin_ sinc_ sinh_ sqrt_ square_ tan_ tanh_ trunc_ zero_ detach_
""".split()
MORE_IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    "addmv_": lambda T, x: T.addmv_(x, T.ones(3, 2), T.ones(2)),
    "clamp_": lambda T, x: T.clamp_(x, 0.2, 0.5),
    "clip_": lambda T, x: T.clip_(x, 0.2, 0.5),
    "clamp_max_": lambda T, x: T.clamp_max_(x, 0.5),
    "clamp_min_": lambda T, x: T.clamp_min_(x, 0.5),
    "fill_": lambda T, x: T.fill_(x, 2.0),
    "index_put_": lambda T, x: T.index_put_(x, (T.tensor([1]),), T.tensor([3.0])),
    "ldexp_": lambda T, x: T.ldexp_(x, T.tensor([1, 2, 3])),
    "xlogy_": lambda T, x: T.xlogy_(x, T.ones(3) * 2),
    "resize_as_": lambda T, x: T.resize_as_(x, T.ones(3, 1)),
}


@pytest.mark.parametrize("name", [*IN_PLACE, *MORE_IN_PLACE])
def test_functions_that_change_their_argument(name: str) -> None:
    values = [1.25, 1.5, 3.0] if name in ("acosh_", "arccosh_") else [0.25, 0.5, 0.75]
    results = []
    for T in (torch, gc):
        x = T.tensor(values)
        change = MORE_IN_PLACE.get(name)
        assert (getattr(T, name)(x) if change is None else change(T, x)) is x
        results.append(x)
    close(name, results[1], results[0])


def test_whole_numbers_in_place() -> None:
    for T in (torch, gc):
        x = T.tensor([12, 18])
        assert T.gcd_(x, T.tensor([8, 12])) is x
        assert T.lcm_(x, T.tensor([6, 9])) is x
        assert x.tolist() == [12, 18]


MISTAKES: dict[str, Callable[[Any], Any]] = {
    "histc of integers": lambda T: T.histc(T.tensor([1, 2])),
    "histc without bins": lambda T: T.histc(T.ones(2), 0),
    "histc turned round": lambda T: T.histc(T.ones(2), 3, 2, 1),
    "cov of rank 3": lambda T: T.cov(T.ones(2, 2, 2)),
    "corrcoef of rank 3": lambda T: T.corrcoef(T.ones(2, 2, 2)),
    "renorm of a vector": lambda T: T.renorm(T.ones(3), 2, 0, 1.0),
    "cov of float counts": lambda T: T.cov(T.ones(2, 2), fweights=T.ones(2)),
    "cov of negative counts": lambda T: T.cov(T.ones(2, 2), fweights=T.tensor([-1, 2])),
    "gcd of floats": lambda T: T.gcd(T.ones(2), T.ones(2)),
    "vander of a matrix": lambda T: T.vander(T.ones(2, 2)),
    "put of other sizes": lambda T: T.ones(3).put_(T.tensor([0]), T.ones(2)),
    "gradient of one": lambda T: T.gradient(T.ones(1)),
    "window of a negative length": lambda T: T.hann_window(-1),
    "resize_ with grad": lambda T: T.ones(2, requires_grad=True).resize_(3),
    "sum_to_size": lambda T: T.ones(2, 3).sum_to_size(2, 2),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    for T in (torch, gc):
        with pytest.raises((RuntimeError, IndexError)):
            MISTAKES[name](T)


@pytest.mark.native
def test_gcd_is_one_loop() -> None:
    f = gc.compile(gc.gcd)
    np.testing.assert_array_equal(f(gc.from_numpy(I), gc.from_numpy(J)).numpy(), np.gcd(I, J))
