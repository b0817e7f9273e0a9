"""Distributions against torch: densities, moments, entropies, quantiles, divergences, text and samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc as gc  # noqa: E402

A, B = [[0.5, 3.0], [1.2, 2.0]], [[2.0, 0.5], [0.7, 1.5]]
P, L = [0.3, 0.7], [[0.3, 0.7, 1.0], [1.0, -2.0, 3.0]]
ROWS = [[0.3, 0.7, 1.0], [1.0, 2.0, 3.0]]

# name -> the distribution, made with a namespace, its tensors and its distributions
CASES: dict[str, Callable[[Any, Any], Any]] = {
    "Normal": lambda t, D: D.Normal(t(A), t(B)),
    "Normal of numbers": lambda t, D: D.Normal(0.5, 2.0),
    "Laplace": lambda t, D: D.Laplace(t(A), t(B)),
    "Cauchy": lambda t, D: D.Cauchy(t(A), t(B)),
    "Gumbel": lambda t, D: D.Gumbel(t(A), t(B)),
    "Uniform": lambda t, D: D.Uniform(t([0.5, -1.0]), t([1.0, 2.0])),
    "StudentT": lambda t, D: D.StudentT(t([0.5, 3.0]), t(0.3), t(1.5)),
    "Exponential": lambda t, D: D.Exponential(t([0.5, 3.0])),
    "Gamma": lambda t, D: D.Gamma(t(A), t(B)),
    "Chi2": lambda t, D: D.Chi2(t([0.5, 3.0])),
    "InverseGamma": lambda t, D: D.InverseGamma(t([2.5, 3.0]), t([2.0, 0.5])),
    "FisherSnedecor": lambda t, D: D.FisherSnedecor(t([2.5, 3.0]), t([5.0, 6.0])),
    "HalfNormal": lambda t, D: D.HalfNormal(t([2.5, 3.0])),
    "HalfCauchy": lambda t, D: D.HalfCauchy(t([2.5, 3.0])),
    "Beta": lambda t, D: D.Beta(t(A), t(B)),
    "Dirichlet": lambda t, D: D.Dirichlet(t([[2.5, 3.0, 1.0], [0.5, 1.0, 1.5]])),
    "Bernoulli": lambda t, D: D.Bernoulli(t(P)),
    "Bernoulli of logits": lambda t, D: D.Bernoulli(logits=t([0.3, -0.7])),
    "Geometric": lambda t, D: D.Geometric(t(P)),
    "Binomial": lambda t, D: D.Binomial(5, t(P)),
    "NegativeBinomial": lambda t, D: D.NegativeBinomial(5, t(P)),
    "Poisson": lambda t, D: D.Poisson(t([0.3, 7.0])),
    "Categorical": lambda t, D: D.Categorical(t(ROWS)),
    "Categorical of logits": lambda t, D: D.Categorical(logits=t(L)),
    "OneHotCategorical": lambda t, D: D.OneHotCategorical(t(ROWS)),
    "OneHotCategoricalStraightThrough": lambda t, D: D.OneHotCategoricalStraightThrough(t(ROWS)),
    "Multinomial": lambda t, D: D.Multinomial(6, t(ROWS)),
    "Independent": lambda t, D: D.Independent(D.Normal(t(A), t(B)), 1),
    "MixtureSameFamily": lambda t, D: D.MixtureSameFamily(
        D.Categorical(t([0.4, 0.6])), D.Normal(t([0.5, -1.0]), t([1.0, 2.0]))
    ),
    "LogNormal": lambda t, D: D.LogNormal(t([0.5, -1.0]), t([1.0, 0.2])),
    "Pareto": lambda t, D: D.Pareto(t([0.5, 1.0]), t([3.0, 4.2])),
    "Weibull": lambda t, D: D.Weibull(t([0.5, 1.0]), t([3.0, 4.2])),
    "LogisticNormal": lambda t, D: D.LogisticNormal(t([[0.5, 1.0]]), t([[1.0, 0.5]])),
    "RelaxedBernoulli": lambda t, D: D.RelaxedBernoulli(t(0.7), t(P)),
    "RelaxedOneHotCategorical": lambda t, D: D.RelaxedOneHotCategorical(t(0.7), t(ROWS)),
    "tanh": lambda t, D: D.TransformedDistribution(
        D.Normal(t(P), t([1.0, 0.3])), [D.AffineTransform(1.0, -2.0), D.TanhTransform()]
    ),
    "logistic": lambda t, D: D.TransformedDistribution(
        D.Uniform(t([0.0, 0.0]), t([1.0, 1.0])),
        [D.SigmoidTransform().inv, D.AffineTransform(t([1.0, 2.0]), t(3.0))],
    ),
    "reshaped": lambda t, D: D.TransformedDistribution(
        D.Independent(D.Normal(t(A), t(B)), 1), [D.ReshapeTransform((2,), (2, 1)), D.ExpTransform()]
    ),
    "softplus of rows": lambda t, D: D.TransformedDistribution(
        D.Normal(t(A), t(B)), [D.IndependentTransform(D.SoftplusTransform(), 1)]
    ),
    "power": lambda t, D: D.TransformedDistribution(D.Gamma(t(A), t(B)), [D.PowerTransform(t(2.0))]),
    "MultivariateNormal": lambda t, D: D.MultivariateNormal(t([1.0, 2.0]), t([[2.0, 0.5], [0.5, 1.0]])),
    "MultivariateNormal by precision": lambda t, D: D.MultivariateNormal(
        t(A), precision_matrix=t([[2.0, 0.5], [0.5, 1.0]])
    ),
    "MultivariateNormal by factor": lambda t, D: D.MultivariateNormal(
        t([0.0, 0.0]), scale_tril=t([[2.0, 0.0], [0.5, 1.0]])
    ),
    "Kumaraswamy": lambda t, D: D.Kumaraswamy(t([0.5, 3.0]), t([2.0, 1.5])),
    "ContinuousBernoulli": lambda t, D: D.ContinuousBernoulli(t([0.3, 0.7, 0.4995])),
    "ContinuousBernoulli of logits": lambda t, D: D.ContinuousBernoulli(logits=t([0.3, -2.0, 0.001])),
    "GeneralizedPareto": lambda t, D: D.GeneralizedPareto(
        *(t(v).float() for v in ([0.5, 0.0, -1.0], [1.0, 2.0, 0.5], [0.2, 0.0, -0.5]))  # (torch: no float64)
    ),
    "VonMises": lambda t, D: D.VonMises(
        t([0.5, -3.0, 1.0]).float(), t([2.0, 0.5, 3.0]).float()  # (its Bessel functions: six digits)
    ),
    "LKJCholesky": lambda t, D: D.LKJCholesky(3, t([0.7, 2.0])),
    "LowRankMultivariateNormal": lambda t, D: D.LowRankMultivariateNormal(
        t([1.0, 2.0, -1.0]), t([[1.0], [0.5], [-2.0]]), t([0.5, 1.0, 2.0])
    ),
    "LowRankMultivariateNormal of a batch": lambda t, D: D.LowRankMultivariateNormal(
        t(ROWS), t([[1.0, 0.0], [0.5, 1.0], [-2.0, 0.3]]), t([0.5, 1.0, 2.0])
    ),
}  # fmt: skip
LIMITS = {"rtol": 1e-7, "atol": 1e-9}


def theirs(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64)


def ours(value: Any) -> Any:
    return gc.tensor(value, dtype=gc.float64)


def make(name: str) -> tuple[Any, Any]:
    return CASES[name](theirs, torch.distributions), CASES[name](ours, gc.distributions)


def same(a: Callable[[], Any], b: Callable[[], Any], what: str) -> None:
    """The same numbers; where torch has nothing, there is nothing here (or more)."""
    try:
        wanted = a()
    except (NotImplementedError, AttributeError):
        return
    found = b()
    assert tuple(found.shape) == tuple(wanted.shape), what
    limits = {"rtol": 1e-5, "atol": 1e-6} if wanted.dtype is torch.float32 else LIMITS
    np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), err_msg=what, **limits)


NO_CDF = ("Gamma", "Chi2", "InverseGamma", "power")  # needs the incomplete gamma function


@pytest.mark.parametrize("name", CASES)
def test_densities_and_moments(name: str) -> None:
    their, our = make(name)
    assert tuple(our.batch_shape) == tuple(their.batch_shape)
    assert tuple(our.event_shape) == tuple(their.event_shape)
    assert (our.has_rsample, our.has_enumerate_support) == (their.has_rsample, their.has_enumerate_support)
    for part in ("mean", "mode", "variance", "stddev"):
        same(lambda: getattr(their, part), lambda: getattr(our, part), part)  # noqa: B023
    for part in ("entropy", "perplexity", "enumerate_support"):
        same(lambda: getattr(their, part)(), lambda: getattr(our, part)(), part)  # noqa: B023
    torch.manual_seed(0)
    samples = their.sample((7,))
    given = gc.from_numpy(samples.numpy())
    same(lambda: their.log_prob(samples), lambda: our.log_prob(given), "log_prob")
    if name not in NO_CDF:
        same(lambda: their.cdf(samples), lambda: our.cdf(given), "cdf")
        levels = np.linspace(0.05, 0.95, 5).reshape((5,) + (1,) * len(their.batch_shape))
        same(lambda: their.icdf(theirs(levels)), lambda: our.icdf(ours(levels)), "icdf")
    shape = (3, *their.batch_shape)
    wide, expanded = their.expand(shape), our.expand(shape)
    assert tuple(expanded.batch_shape) == shape
    same(lambda: wide.log_prob(samples[0]), lambda: expanded.log_prob(given[0]), "expanded")
    assert tuple(expanded.sample((2,)).shape) == tuple(wide.sample((2,)).shape)


COUNT = 20_000


@pytest.mark.parametrize("name", CASES)
def test_samples(name: str) -> None:
    """Distribution functions of samples: their distance is that of two samples of one distribution."""
    their, our = make(name)
    torch.manual_seed(0)
    gc.manual_seed(0)
    a, b = their.sample((COUNT,)).numpy(), our.sample((COUNT,)).numpy()
    assert a.shape == b.shape
    gc.manual_seed(0)
    assert np.array_equal(b, our.sample((COUNT,)).numpy())
    a, b = a.reshape(COUNT, -1), b.reshape(COUNT, -1)
    for i in range(a.shape[1]):
        edges = np.quantile(a[:, i], [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
        apart = [abs((a[:, i] <= e + 1e-9).mean() - (b[:, i] <= e + 1e-9).mean()) for e in edges]
        assert max(apart) < 0.02, (name, i, apart)  # (the mean distance is 0.005)


PAIRS = [
    (p, q)
    for p in CASES
    for q in CASES
    if (p == q or p in ("Uniform", "Bernoulli", "Normal", "Gamma", "Exponential"))
    and q not in ("Normal of numbers",)
]


def test_divergences() -> None:
    compared = 0
    for p, q in PAIRS:
        (a, b), (c, d) = make(p), make(q)
        try:
            wanted = torch.distributions.kl_divergence(a, c)
            found = gc.distributions.kl_divergence(b, d)
        except (NotImplementedError, RuntimeError):
            continue
        wide = np.broadcast_to(wanted.numpy(), found.shape)  # (torch's infinite ones have the shape of p)
        np.testing.assert_allclose(found.numpy(), wide, err_msg=f"{p}, {q}", **LIMITS)
        compared += 1
    assert compared >= 50


def test_divergences_of_different_parameters() -> None:
    for name in ("Normal", "Laplace", "Cauchy", "Gumbel", "Gamma", "Beta"):
        wanted = torch.distributions.kl_divergence(
            getattr(torch.distributions, name)(theirs(A), theirs(B)),
            getattr(torch.distributions, name)(theirs(B), theirs(A)),
        )
        found = gc.distributions.kl_divergence(
            getattr(gc.distributions, name)(ours(A), ours(B)),
            getattr(gc.distributions, name)(ours(B), ours(A)),
        )
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), err_msg=name, **LIMITS)


class _Own(gc.distributions.Normal):
    """A distribution of the user's."""


def test_registered_divergence() -> None:
    p, q = _Own(0.0, 1.0), gc.distributions.Poisson(1.0)
    with pytest.raises(NotImplementedError, match="p type _Own and q type Poisson"):
        gc.distributions.kl_divergence(p, q)

    @gc.distributions.register_kl(_Own, gc.distributions.Poisson)
    def _rule(p: Any, q: Any) -> Any:
        return p.scale + q.rate

    assert gc.distributions.kl_divergence(p, q).item() == 2.0
    assert gc.distributions.kl_divergence(p, gc.distributions.Normal(0.0, 1.0)).item() == 0.0  # its parent's
    with pytest.raises(TypeError, match="subclass of Distribution"):
        gc.distributions.register_kl(int, gc.distributions.Normal)


REPR = ["Normal", "Normal of numbers", "Bernoulli", "Bernoulli of logits", "Categorical", "Gamma",
        "Independent", "Exponential", "Poisson", "Dirichlet", "MultivariateNormal", "StudentT",
        "Binomial"]  # fmt: skip


@pytest.mark.parametrize("name", REPR)
def test_text(name: str) -> None:
    their, our = make(name)
    assert repr(our) == repr(their).replace("torch.", "graphc.").replace("float64", "graphc.float64").replace(
        "graphc.graphc", "graphc"
    ).replace("torch", "graphc")


def test_generalized_pareto_beside_its_relatives() -> None:
    """Concentration 0 is exponential; the logarithms of tails say the same as cdf."""
    D = gc.distributions
    x = ours([0.1, 1.0, 3.0])
    flat = D.GeneralizedPareto(ours(0.0), ours(2.0), ours(0.0))
    np.testing.assert_allclose(flat.log_prob(x), D.Exponential(ours(0.5)).log_prob(x), rtol=1e-12)
    p = D.GeneralizedPareto(ours(0.0), ours(2.0), ours(0.3))
    np.testing.assert_allclose(p.log_survival_function(x).exp(), 1 - p.cdf(x), rtol=1e-12)
    np.testing.assert_allclose(p.log_cdf(x).exp(), p.cdf(x), rtol=1e-12)
    with pytest.raises(ValueError, match="within the support"):
        D.GeneralizedPareto(0.0, 1.0, -0.5).log_prob(gc.tensor(2.5))


def test_factors_of_correlations() -> None:
    factors = gc.distributions.LKJCholesky(4, 0.5).sample((50,))
    assert gc.distributions.constraints.corr_cholesky.check(factors).all()
    assert not gc.distributions.constraints.corr_cholesky.check(2 * factors).any()
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        gc.distributions.LKJCholesky(1)


def test_low_rank_parameters() -> None:
    their, our = make("LowRankMultivariateNormal of a batch")
    for part in ("covariance_matrix", "precision_matrix", "scale_tril"):
        same(lambda: getattr(their, part), lambda: getattr(our, part), part)  # noqa: B023
    with pytest.raises(ValueError, match="batch of vectors"):
        gc.distributions.LowRankMultivariateNormal(gc.zeros(3), gc.ones(3, 1), gc.ones(2))
