"""Special functions against torch: values near and far, gradients, both float dtypes, native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc as gc  # noqa: E402
from tests.nn.against_torch import same_function  # noqa: E402

WIDE = np.concatenate([np.linspace(-5.3, 30, 101), [1e-6, 1e-3, 1.0, 2.0, 100.0, 1e4]])
POSITIVE = np.concatenate([np.linspace(0.05, 30, 101), [1e-3, 100.0, 1e4]])
NEAR = np.linspace(-4.3, 4.2, 101)
CHANCES = np.concatenate([np.linspace(0.001, 0.999, 101), [1e-30, 1e-10, 1e-5]])

# name -> arguments where the function and its derivative are compared
CASES = {
    "gammaln": WIDE, "digamma": WIDE, "psi": POSITIVE, "erfinv": 2 * CHANCES[:101] - 1, "ndtr": NEAR,
    "ndtri": CHANCES, "log_ndtr": WIDE, "erfcx": NEAR, "entr": POSITIVE, "i0": NEAR, "i0e": WIDE, "i1": NEAR,
    "i1e": WIDE, "expit": NEAR, "logit": CHANCES, "exp2": NEAR, "expm1": NEAR, "erf": NEAR, "erfc": NEAR,
    "log1p": POSITIVE, "sinc": NEAR,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, dtype: Any) -> None:
    x = CASES[name].astype(dtype)
    limit = {"rtol": 3e-5, "atol": 3e-6} if dtype is np.float32 else {"rtol": 1e-9, "atol": 1e-9}
    if name == "gammaln" or name in ("digamma", "psi"):
        limit["rtol"] = max(limit["rtol"], 1e-7)  # (torch's trigamma has eight digits)
    same_function(lambda T: lambda t: getattr(T.special, name)(t), [x], **limit)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_polygamma(n: int) -> None:
    same_function(lambda T: lambda t: T.polygamma(n, t), [POSITIVE], rtol=1e-7, atol=1e-9)
    same_function(lambda T: lambda t: t.polygamma(n), [np.linspace(-4.7, 4.2, 57)], rtol=1e-7, atol=1e-9)


def test_of_two_arguments() -> None:
    x = np.linspace(1.1, 8, 23)
    q = np.linspace(0.1, 9, 23)
    same_function(lambda T: lambda t: T.special.zeta(T.from_numpy(x), t), [q], rtol=1e-12)
    same_function(lambda T: lambda t, u: T.special.xlog1py(t, u), [NEAR[:50].copy(), POSITIVE[:50].copy()])
    same_function(lambda T: lambda t: T.special.xlogy(t, 2.0), [NEAR])
    same_function(lambda T: lambda t: T.special.multigammaln(t, 3), [POSITIVE + 1], rtol=1e-8)
    same_function(lambda T: lambda t: T.special.logsumexp(t, 0), [NEAR])
    same_function(lambda T: lambda t: T.special.softmax(t, 0) + T.special.log_softmax(t, 0), [NEAR])
    same_function(lambda T: lambda t: T.special.round(t, decimals=1), [NEAR])


EDGES = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, float("inf"), -float("inf"), float("nan")]


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("exp2", "sinc")])
def test_edges(name: str) -> None:
    theirs = getattr(torch.special, name)(torch.tensor(EDGES, dtype=torch.float64)).numpy()
    ours = getattr(gc.special, name)(gc.tensor(EDGES, dtype=gc.float64)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_methods_and_integers() -> None:
    x = gc.tensor([1, 2, 5])
    assert x.lgamma().dtype is gc.float32
    np.testing.assert_allclose(x.lgamma().numpy(), torch.tensor([1, 2, 5]).lgamma().numpy(), atol=1e-6)
    y = gc.tensor([0.5, 0.25])
    assert y.erfinv_() is y
    np.testing.assert_allclose(y.numpy(), torch.tensor([0.5, 0.25]).erfinv().numpy(), rtol=1e-6)
    np.testing.assert_allclose(
        gc.mvlgamma(gc.tensor([3.0]), 2).numpy(), torch.tensor([3.0]).mvlgamma(2).numpy(), rtol=1e-6
    )
    np.testing.assert_allclose(gc.i0(gc.tensor([3.0])).numpy(), torch.tensor([3.0]).i0().numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_second_derivatives(name: str) -> None:
    x = gc.tensor([0.3, 1.7, 12.5], dtype=gc.float64, requires_grad=True)
    assert gc.autograd.gradgradcheck(getattr(gc, name), (x,))


@pytest.mark.native
@pytest.mark.parametrize("name", ["lgamma", "digamma", "erfinv"])
def test_native(name: str) -> None:
    x = CHANCES[:101].astype(np.float32)
    t = torch.tensor(x, requires_grad=True)
    getattr(torch, name)(t).sum().backward()
    step = gc.compile(gc.value_and_grad(lambda v: getattr(gc, name)(v).sum()))
    value, gradient = step(gc.from_numpy(x))
    np.testing.assert_allclose(
        value.numpy(), getattr(torch, name)(t).sum().detach().numpy(), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(gradient.numpy(), t.grad.numpy(), rtol=1e-4)


def test_errors() -> None:
    with pytest.raises(RuntimeError, match="negative n"):
        gc.polygamma(-1, gc.ones(2))
    with pytest.raises(RuntimeError, match="p has to be greater"):
        gc.mvlgamma(gc.ones(2), 0)
    with pytest.raises(TypeError, match="must be Tensor, not float"):
        gc.lgamma(1.0)
    with pytest.raises(AttributeError, match="not built"):
        _ = gc.special.airy_ai
