"""The Wishart distribution against torch, and its samples against its moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import distributions as D

torch = pytest.importorskip("torch")

COVARIANCE = np.array([[[2.0, 0.5, 0.1], [0.5, 1.0, -0.3], [0.1, -0.3, 1.5]], np.eye(3) * 0.7])


def make(T: Any, given: str, df: Any = (3.5, 6.0)) -> Any:
    covariance = T.tensor(COVARIANCE, requires_grad=True)
    matrix = {
        "covariance_matrix": lambda: covariance,
        "precision_matrix": lambda: T.linalg.inv(covariance),
        "scale_tril": lambda: T.linalg.cholesky(covariance),
    }[given]()
    return T.distributions.Wishart(
        T.tensor(df, dtype=T.float64), **{given: matrix}, validate_args=False
    ), covariance


@pytest.mark.parametrize("given", ["covariance_matrix", "precision_matrix", "scale_tril"])
def test_numbers_and_gradients(given: str) -> None:
    a = np.random.default_rng(0).standard_normal((5, 2, 3, 3))
    values = a @ a.transpose(0, 1, 3, 2) + np.eye(3)
    results = []
    for T in (graphc, torch):
        d, covariance = make(T, given)
        log_prob = d.log_prob(T.tensor(values))
        (gradient,) = T.autograd.grad(log_prob.sum() + d.entropy().sum(), [covariance])
        found = (log_prob, d.entropy(), d.mean, d.mode, d.variance, d.covariance_matrix, d.precision_matrix)
        results.append([v.detach().numpy() for v in (*found, gradient + gradient.mT)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


def test_divergence() -> None:
    """(Of one pair at a time in torch: of a batch it gives something else.)"""
    q = D.Wishart(
        graphc.tensor(4.0, dtype=graphc.float64), scale_tril=graphc.eye(3, dtype=graphc.float64) * 1.5
    )
    found = D.kl_divergence(make(graphc, "covariance_matrix")[0], q)
    other = torch.distributions.Wishart(torch.tensor(4.0).double(), scale_tril=torch.eye(3).double() * 1.5)
    for i, df in enumerate((3.5, 6.0)):
        p = torch.distributions.Wishart(torch.tensor(df).double(), torch.tensor(COVARIANCE[i]))
        expected = torch.distributions.kl_divergence(p, other).item()
        assert found[i].item() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="different event shapes"):
        D.kl_divergence(make(graphc, "scale_tril")[0], D.Wishart(4.0, scale_tril=graphc.eye(2)))


def test_samples_have_the_moments() -> None:
    graphc.manual_seed(1)
    d, covariance = make(graphc, "covariance_matrix")
    drawn = d.rsample((20000,))
    assert tuple(drawn.shape) == (20000, 2, 3, 3)
    drawn.mean().backward()
    assert np.isfinite(covariance.grad.numpy()).all()
    values = drawn.detach().numpy()
    mean, variance = d.mean.detach().numpy(), d.variance.detach().numpy()
    np.testing.assert_allclose(values.mean(0), mean, atol=6 * np.sqrt(variance.max() / 20000))
    np.testing.assert_allclose(values.var(0), variance, rtol=0.15, atol=0.1)
    assert np.isfinite(d.log_prob(drawn).detach().numpy()).all()


def test_refusals() -> None:
    eye = graphc.eye(3)
    with pytest.raises(ValueError, match="greater than ndim - 1"):
        D.Wishart(2.0, covariance_matrix=eye)
    with pytest.raises(ValueError, match="Exactly one"):
        D.Wishart(5.0, covariance_matrix=eye, scale_tril=eye)
    with pytest.raises(ValueError, match="two-dimensional"):
        D.Wishart(5.0, covariance_matrix=graphc.ones(3))
    with pytest.raises(ValueError, match="constraint"):
        D.Wishart(5.0, covariance_matrix=graphc.tensor(-np.eye(3)), validate_args=True)
