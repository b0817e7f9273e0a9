"""Parts of tensors, joins, searches, statistics and scatters, against NumPy; parity/ has torch's samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

RNG = np.random.default_rng(0)
A = RNG.standard_normal((4, 5))
B = RNG.standard_normal((4, 5))
V = RNG.standard_normal(7)
EDGES = np.sort(RNG.standard_normal(6))
HOLES = np.where(RNG.random((4, 6)) < 0.3, np.nan, RNG.standard_normal((4, 6)))
INTS = RNG.integers(0, 4, (3, 7))
PLACES = RNG.integers(0, 4, (3, 5))


def t(array: Any) -> graphc.Tensor:
    return graphc.from_numpy(np.array(array))


def replaced(array: np.ndarray, where: Any, source: np.ndarray) -> np.ndarray:
    out = array.copy()
    out[where] = source
    return out


def scattered(ufunc: Any) -> np.ndarray:
    out = A.copy()
    for (i, j), k in np.ndenumerate(PLACES):
        out[k, j] = ufunc(out[k, j], B[i, j])
    return out


def runs(array: np.ndarray) -> list[float]:
    return [k for k, _ in itertools.groupby(array.tolist())]


CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "angle": (lambda: graphc.angle(t(A)), np.angle(A)),
    "atleast_3d": (lambda: graphc.atleast_3d(t(A)), np.atleast_3d(A)),
    "block_diag": (
        lambda: graphc.block_diag(t(A), t(V)),
        np.block([[A, np.zeros((4, 7))], [np.zeros((1, 5)), V[None]]]),
    ),
    "bucketize": (lambda: graphc.bucketize(t(A), t(EDGES)), np.searchsorted(EDGES, A)),
    "searchsorted": (
        lambda: graphc.searchsorted(t(EDGES), t(EDGES), right=True),
        np.searchsorted(EDGES, EDGES, "right"),
    ),
    "cartesian_prod": (
        lambda: graphc.cartesian_prod(t(V[:2]), t(V[2:5])),
        np.array(list(itertools.product(V[:2], V[2:5]))),
    ),
    "combinations": (
        lambda: graphc.combinations(t(V), 3),
        np.array(list(itertools.combinations(V, 3))),
    ),
    "cdist": (
        lambda: graphc.cdist(t(A), t(B), p=3.0),
        (np.abs(A[:, None] - B[None]) ** 3).sum(-1) ** (1 / 3),
    ),
    "pdist": (
        lambda: graphc.pdist(t(A)),
        [np.sqrt(((A[i] - A[j]) ** 2).sum()) for i, j in itertools.combinations(range(4), 2)],
    ),
    "dist": (lambda: graphc.dist(t(A), t(B), 1), np.abs(A - B).sum()),
    "column_stack": (lambda: graphc.column_stack([t(V[:4]), t(A)]), np.column_stack([V[:4], A])),
    "dstack": (lambda: graphc.dstack([t(A), t(B)]), np.dstack([A, B])),
    "copysign": (lambda: graphc.copysign(t(A), t(B)), np.copysign(A, B)),
    "trapezoid": (lambda: graphc.trapezoid(t(A), t(EDGES[:5])), np.trapezoid(A, EDGES[:5])),
    "trapz": (lambda: graphc.trapz(t(A), dx=0.5, dim=0), np.trapezoid(A, dx=0.5, axis=0)),
    "cumulative_trapezoid": (
        lambda: graphc.cumulative_trapezoid(t(V)),
        np.cumsum((V[1:] + V[:-1]) / 2),
    ),
    "diagflat": (lambda: graphc.diagflat(t(A), 1), np.diagflat(A, 1)),
    "diagonal_scatter": (
        lambda: graphc.diagonal_scatter(t(A), t(V[:4]), 1),
        replaced(A, (np.arange(4), np.arange(1, 5)), V[:4]),
    ),
    "select_scatter": (lambda: graphc.select_scatter(t(A), t(V[:4]), 1, 2), replaced(A, np.s_[:, 2], V[:4])),
    "slice_scatter": (
        lambda: graphc.slice_scatter(t(A), t(B[:2]), 0, 1, 4, 2),
        replaced(A, np.s_[1:4:2], B[:2]),
    ),
    "float_power": (lambda: graphc.float_power(t(INTS), 2), INTS.astype(np.float64) ** 2),
    "heaviside": (lambda: graphc.heaviside(t(A), t(B)), np.heaviside(A, B)),
    "inner": (lambda: graphc.inner(t(A), t(B)), np.inner(A, B)),
    "vdot": (lambda: graphc.vdot(t(V), t(V)), np.vdot(V, V)),
    "kron": (lambda: graphc.kron(t(A), t(B)), np.kron(A, B)),
    "cross": (lambda: graphc.cross(t(A[:3]), t(B[:3])), np.cross(A[:3], B[:3], axis=0)),
    "isin": (lambda: graphc.isin(t(INTS), t([1, 3])), np.isin(INTS, [1, 3])),
    "isneginf": (lambda: graphc.isneginf(t([1.0, -np.inf, np.inf])), np.array([False, True, False])),
    "isposinf": (lambda: graphc.isposinf(t([1.0, -np.inf, np.inf])), np.array([False, False, True])),
    "isreal": (lambda: graphc.isreal(t(INTS)), np.isreal(INTS)),
    "ldexp": (lambda: graphc.ldexp(t(V[:3]), t([1, -2, 3])), np.ldexp(V[:3], [1, -2, 3])),
    "logaddexp2": (lambda: graphc.logaddexp2(t(A), t(B)), np.logaddexp2(A, B)),
    "nanmean": (lambda: graphc.nanmean(t(HOLES), 1), np.nanmean(HOLES, 1)),
    "nanmedian": (
        lambda: graphc.nanmedian(t(HOLES), 1).values,
        np.nanquantile(HOLES, 0.5, axis=1, method="lower"),
    ),
    "nanquantile": (
        lambda: graphc.nanquantile(t(HOLES), t([0.2, 0.7]), 1),
        np.nanquantile(HOLES, [0.2, 0.7], axis=1),
    ),
    "quantile": (lambda: graphc.quantile(t(A), 0.3, 0), np.quantile(A, 0.3, axis=0)),
    "median": (lambda: graphc.median(t(V)), np.median(V)),
    "mode": (lambda: graphc.mode(t(INTS), 1).values, [np.bincount(row).argmax() for row in INTS]),
    "rsub": (lambda: graphc.rsub(t(A), t(B)), B - A),
    "scatter_reduce": (
        lambda: graphc.scatter_reduce(t(A), 0, t(PLACES), t(B[:3]), "amax"),
        scattered(np.maximum),
    ),
    "index_reduce": (
        lambda: graphc.index_reduce(t(A), 0, t([1, 1]), t(B[:2]), "mean"),
        replaced(A, 1, (A[1] + B[0] + B[1]) / 3),
    ),
    "split_with_sizes": (lambda: graphc.split_with_sizes(t(A), [2, 3], 1)[1], A[:, 2:]),
    "hsplit": (lambda: graphc.hsplit(t(A), [1, 3])[1], A[:, 1:3]),
    "vsplit": (lambda: graphc.vsplit(t(A), 2)[1], A[2:]),
    "dsplit": (lambda: graphc.dsplit(t(A[..., None]), 1)[0], A[..., None]),
    "unfold": (lambda: t(V).unfold(0, 3, 2), np.lib.stride_tricks.sliding_window_view(V, 3)[::2]),
    "tril_indices": (lambda: graphc.tril_indices(4, 3, 1), np.array(np.tril_indices(4, 1, 3))),
    "triu_indices": (lambda: graphc.triu_indices(4, 3, -1), np.array(np.triu_indices(4, -1, 3))),
    "unique_consecutive": (lambda: graphc.unique_consecutive(t(INTS[0])), np.array(runs(INTS[0]))),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_value(name: str) -> None:
    ours, expected = CASES[name]
    np.testing.assert_allclose(ours().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_diagonal_is_a_view() -> None:
    x = graphc.zeros(3, 4)
    x.diagonal(1).fill_(7.0)
    x.diagonal(-1).copy_(graphc.tensor([1.0, 2.0]))
    np.testing.assert_array_equal(x.numpy(), np.diag([7.0] * 3, 1)[:3] + np.diag([1.0, 2.0, 0], -1)[:3])


def test_views_in_place_share_storage() -> None:
    x = graphc.arange(6).reshape(2, 3)
    y = x.view(6)
    x.t_()
    y[1] = 50
    assert x.tolist() == [[0, 3], [50, 4], [2, 5]]
    assert x.unsqueeze_(0).shape == (1, 3, 2)
    assert x.squeeze_().transpose_(0, 1).shape == (2, 3)


def test_comparisons_in_place_keep_the_dtype() -> None:
    x = graphc.tensor([1.0, 3.0])
    x.gt_(2)
    assert x.dtype is graphc.float32
    assert x.tolist() == [0.0, 1.0]


def test_filled_tensors_keep_their_history() -> None:
    x = graphc.ones(3, requires_grad=True)
    y = (x * 2).zero_()
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: graphc.hsplit(t(A), 2), RuntimeError, "not divisible"),
        (lambda: graphc.cdist(t(A), t(V[None])), RuntimeError, "same number of columns"),
        (lambda: graphc.scatter_reduce(t(A), 0, t(PLACES), t(B), "max"), RuntimeError, "reduce argument"),
        (lambda: graphc.quantile(t(A), 2.0), RuntimeError, r"range \[0, 1\]"),
        (lambda: graphc.zeros(2, layout=graphc.layout("sparse_coo")), RuntimeError, "strided"),
        (lambda: t(V).unfold(0, 9, 1), RuntimeError, "maximum size"),
        (lambda: graphc.norm(t(A), "nuc"), RuntimeError, "singular values"),
        (lambda: graphc.eq(1, t(V)), TypeError, "must be Tensor"),
        (lambda: graphc.pow(2, 3), TypeError, "must be a Tensor"),
        (lambda: graphc.amax(t(np.zeros((2, 0))), 1), IndexError, "non-zero size"),
        (lambda: graphc.movedim(t(A), (0, -2), (0, 1)), RuntimeError, "repeated dim"),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_layouts_and_formats_are_named() -> None:
    x = graphc.zeros(2, 3, layout=graphc.strided, pin_memory=True, memory_format=graphc.channels_last)
    assert x.layout is graphc.strided
    for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d"):
        value = getattr(graphc, name)
        assert isinstance(value, graphc.memory_format)
        assert repr(value) == f"graphc.{name}"
        assert x.contiguous(memory_format=value).shape == (2, 3)


def test_small_queries() -> None:
    x = graphc.zeros(2, 3)
    assert x.ndimension() == 2
    assert x.get_device() == -1
    assert x.is_cpu
    assert x.pin_memory() is x
    assert graphc.is_signed(x)
    assert not graphc.is_signed(x.byte())
    assert graphc.is_same_size(x, graphc.ones(2, 3))
    assert graphc.is_nonzero(graphc.tensor([2.0]))
    assert graphc.adjoint(x).shape == graphc.moveaxis(x, 0, 1).shape == (3, 2)
    with pytest.raises(RuntimeError, match="ambiguous"):
        graphc.is_nonzero(x)


def test_functions_that_pytorch_has_on_its_top_level_too() -> None:
    for name in ("conv2d", "max_pool2d", "layer_norm", "selu", "prelu", "threshold", "pixel_shuffle"):
        assert getattr(graphc, name) is getattr(graphc.nn.functional, name)
