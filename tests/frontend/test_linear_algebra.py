"""`graphc.linalg` against torch: values, gradients to the second order, errors, native code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc as gc  # noqa: E402
from tests.nn.against_torch import same_function  # noqa: E402

RNG = np.random.default_rng(0)
A = RNG.standard_normal((2, 5, 5))
A[0, 0, 0] = 0.0  # needs a pivot
S = A @ np.swapaxes(A, -1, -2) + np.eye(5)
B = RNG.standard_normal((2, 5, 3))
V = RNG.standard_normal((2, 5))
L = np.tril(A) + 3 * np.eye(5)

CASES: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "cholesky": (lambda T, s: T.linalg.cholesky(s), [S]),
    "cholesky upper": (lambda T, s: T.linalg.cholesky(s, upper=True), [S]),
    "Tensor.cholesky": (lambda T, s: s.cholesky(), [S]),
    "cholesky_solve": (lambda T, b, a: T.cholesky_solve(b, a.tril()), [B, L]),
    "cholesky_solve upper": (lambda T, b, a: b.cholesky_solve(a.tril().mT, upper=True), [B, L]),
    "cholesky_inverse": (lambda T, a: T.cholesky_inverse(a.tril()), [L]),
    "cholesky_inverse upper": (lambda T, a: a.tril().mT.cholesky_inverse(upper=True), [L]),
    "solve_triangular": (lambda T, a, b: T.linalg.solve_triangular(a, b, upper=False), [L, B]),
    "upper": (lambda T, a, b: T.linalg.solve_triangular(a.mT, b, upper=True), [L, B]),
    "from the right": (lambda T, a, b: T.linalg.solve_triangular(a, b.mT, upper=False, left=False), [L, B]),
    "unit": (lambda T, a, b: T.linalg.solve_triangular(a, b, upper=False, unitriangular=True), [L, B]),
    "solve": (lambda T, a, b: T.linalg.solve(a, b), [A, B]),
    "solve of vectors": (lambda T, a, b: T.linalg.solve(a, b), [A, V]),
    "solve from the right": (lambda T, a, b: T.linalg.solve(a, b.mT, left=False), [A, B]),
    "inv": (lambda T, a: T.linalg.inv(a), [A]),
    "inverse": (lambda T, a: a.inverse(), [A]),
    "det": (lambda T, a: T.linalg.det(a), [A]),
    "slogdet": (lambda T, a: tuple(T.linalg.slogdet(a)), [A]),
    "logdet": (lambda T, a: T.logdet(a), [S]),
    "matrix_power": (lambda T, a: T.linalg.matrix_power(a, 5), [A]),
    "matrix_power 0": (lambda T, a: T.linalg.matrix_power(a, 0), [A]),
    "matrix_power of the inverse": (lambda T, a: a.matrix_power(-2), [S]),
    "multi_dot": (lambda T, v, a, b: T.linalg.multi_dot([v[0], a[0], b[0]]), [V, A, B]),
    "matmul": (lambda T, a, b: T.linalg.matmul(a, b), [A, B]),
    "vecdot": (lambda T, a, b: T.linalg.vecdot(a, b, dim=1), [B, B + 1]),
    "cross": (lambda T, a, b: T.linalg.cross(a, b), [B, B + 1]),
    "diagonal": (lambda T, a: T.linalg.diagonal(a, offset=1), [A]),
    "vector_norm": (lambda T, a: T.linalg.vector_norm(a, 3, dim=(0, 2)), [A]),
    "matrix_norm": (lambda T, a: T.linalg.matrix_norm(a), [A]),
    "matrix_norm 1": (lambda T, a: T.linalg.matrix_norm(a, 1, keepdim=True), [A]),
    "matrix_norm -inf": (lambda T, a: T.linalg.matrix_norm(a, -float("inf"), dim=(2, 0)), [A]),
    "norm": (lambda T, a: T.linalg.norm(a), [A]),
    "norm of a matrix": (lambda T, a: T.linalg.norm(a[0], float("inf")), [A]),
    "norm of vectors": (lambda T, a: T.linalg.norm(a, 1, dim=-1), [A]),
}


@pytest.mark.parametrize("name", CASES)
def test_like_torch(name: str) -> None:
    function, arrays = CASES[name]
    same_function(lambda T: lambda *xs: function(T, *xs), arrays, rtol=1e-8, atol=1e-9)


def test_singular_matrices() -> None:
    assert gc.linalg.det(gc.ones(3, 3)).item() == 0
    assert gc.linalg.det(gc.zeros(2, 2)).item() == 0
    found = gc.linalg.slogdet(gc.ones(2, 2))
    assert isinstance(found, gc.return_types.slogdet)
    assert (found.sign.item(), found.logabsdet.item()) == (0.0, -float("inf"))
    assert not gc.isfinite(gc.linalg.inv(gc.ones(2, 2))).all()
    assert gc.isnan(gc.linalg.cholesky(gc.tensor([[1.0, 2.0], [2.0, 1.0]]))).any()


def test_second_derivatives() -> None:
    a = gc.tensor(S[0], requires_grad=True)
    assert gc.autograd.gradgradcheck(lambda x: gc.linalg.cholesky(x @ x.mT), (a,))
    assert gc.autograd.gradgradcheck(gc.linalg.inv, (a,))


@pytest.mark.native
def test_native() -> None:
    a = RNG.standard_normal((20, 20)).astype(np.float32)
    step = gc.compile(gc.value_and_grad(lambda m: gc.linalg.slogdet(m).logabsdet + gc.linalg.inv(m).sum()))
    value, gradient = step(gc.from_numpy(a))
    t = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    (torch.linalg.slogdet(t).logabsdet + torch.linalg.inv(t).sum()).backward()
    limit = 0.02 * float(t.grad.abs().max())
    np.testing.assert_allclose(gradient.numpy(), t.grad.numpy(), rtol=0.02, atol=limit)
    assert value.numel() == 1


@pytest.mark.native
@pytest.mark.parametrize("n", [5, 16, 33])
def test_native_factors(n: int) -> None:
    """The logarithm of a density, as Gaussian processes have it, of matrices of all sizes."""
    a = RNG.standard_normal((n, n))
    gradients = []
    for T in (gc, torch):
        matrix = T.tensor(a @ a.T + np.eye(n), requires_grad=True)
        factor = T.linalg.cholesky(matrix)
        (factor.diagonal().log().sum() + (factor**2 * T.arange(float(n))).sum()).backward()
        gradients.append(matrix.grad.numpy())
    np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-9 * np.abs(gradients[1]).max())


MISTAKES = {
    "no square": (lambda T: T.linalg.inv(T.ones(2, 3)), "square matrices"),
    "integers": (lambda T: T.linalg.cholesky(T.ones(2, 2, dtype=T.int64)), "floating point"),
    "rows": (lambda T: T.linalg.solve_triangular(T.eye(2), T.ones(3, 1), upper=True), "Incompatible shapes"),
    "one factor": (lambda T: T.linalg.multi_dot([T.eye(2)]), "at least 2 tensors"),
    "dims": (lambda T: T.linalg.norm(T.ones(2, 2, 2), 3), "1D or 2D"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    build, text = MISTAKES[name]
    with pytest.raises(RuntimeError):
        build(torch)
    with pytest.raises(RuntimeError, match=text):
        build(gc)


def test_what_is_not_built_says_so() -> None:
    with pytest.raises(RuntimeError, match="singular values"):
        gc.linalg.matrix_norm(gc.eye(2), "nuc")
    with pytest.raises(AttributeError, match="singular values"):
        _ = gc.linalg.svd
