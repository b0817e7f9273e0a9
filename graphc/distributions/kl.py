"""kl_divergence: closed forms by pairs of distributions, found by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from graphc.distributions import bounded, wishart
from graphc.distributions.bounded import ContinuousBernoulli
from graphc.distributions.categorical import Categorical, OneHotCategorical
from graphc.distributions.discrete import Bernoulli, Binomial, Geometric, Poisson
from graphc.distributions.distribution import Distribution, sum_right
from graphc.distributions.independent import Independent
from graphc.distributions.location import Cauchy, Gumbel, Laplace, Normal, Uniform
from graphc.distributions.lowrank import LowRankMultivariateNormal
from graphc.distributions.multivariate import MultivariateNormal, divergence
from graphc.distributions.positive import Beta, Dirichlet, Exponential, Gamma, HalfNormal
from graphc.distributions.transformed import LogNormal, TransformedDistribution
from graphc.distributions.wishart import Wishart
from graphc.frontend.errors import fail
from graphc.frontend.functions.elementwise import where
from graphc.frontend.tensor import Tensor
from graphc.nn.functional.activation import softplus

Rule = Callable[[Any, Any], Tensor]
F = TypeVar("F", bound=Rule)
_RULES: dict[tuple[type, type], Rule] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[F], F]:
    """Enter a function of (p, q) as the divergence of a pair of classes, and of their subclasses.

    TypeError unless both are classes of distributions.
    """
    for given in (type_p, type_q):
        if not (isinstance(given, type) and issubclass(given, Distribution)):
            raise fail(TypeError, f"Expected a subclass of Distribution but got {given!r}")

    def enter(rule: F) -> F:
        _RULES[type_p, type_q] = rule
        return rule

    return enter


def _rule(type_p: type, type_q: type) -> Rule | None:
    """The rule whose classes are nearest: those of p first, then those of q."""
    for p in type_p.__mro__:
        for q in type_q.__mro__:
            if (p, q) in _RULES:
                return _RULES[p, q]
    return None


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of q from p: the mean under p of log p(x) - log q(x).

    Of the batch's shape. NotImplementedError for a pair without a closed form.
    """
    rule = _rule(type(p), type(q))
    if rule is None:
        raise fail(
            NotImplementedError,
            f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}",
        )
    return rule(p, q)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    yes = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    no = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    impossible = ((q.probs == 0) & (p.probs > 0)) | ((q.probs == 1) & (p.probs < 1))
    return where(impossible, math.inf, yes + no)


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> Tensor:
    found = p.total_count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p())
    return where(p.total_count > q.total_count, math.inf, found)


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = where((q.probs == 0).expand(terms.shape), math.inf, terms)
    return where((p.probs == 0).expand(terms.shape), 0.0, terms).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    apart = ((p.loc - q.loc) / q.scale).pow(2)
    return 0.5 * (ratio + apart - 1 - ratio.log())


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio = p.scale / q.scale
    apart = (p.loc - q.loc).abs()
    return -ratio.log() + apart / q.scale + ratio * (-apart / p.scale).exp() - 1


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    top = ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log()
    return top - (4 * p.scale * q.scale).log()


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    euler = 0.57721566490153286061
    ratio = p.scale / q.scale
    start, end = q.loc / q.scale, p.loc / q.scale
    shift = start - end
    growth = (shift + (1 + ratio).lgamma()).exp()
    return -ratio.log() - shift + ratio * euler + growth - (1 + euler)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    found = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low).logical_or(q.high < p.high), math.inf, found)


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio - 1 - ratio.log())


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    first = b * (p.rate / q.rate).log() + b.lgamma() - a.lgamma()
    return first + (a - b) * a.digamma() + (q.rate - p.rate) * (a / p.rate)


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Exponential, q: Gamma) -> Tensor:
    ratio = q.rate / p.rate
    b = q.concentration
    return -b * ratio.log() + ratio + b.lgamma() + b * 0.57721566490153286061 - (1 + 0.57721566490153286061)


@register_kl(Gamma, Exponential)
def _gamma_exponential(p: Gamma, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.concentration / p.rate


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> Tensor:
    return _dirichlet(p._dirichlet, q._dirichlet)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    norm = total.lgamma() - b.sum(-1).lgamma() + (b.lgamma() - a.lgamma()).sum(-1)
    return norm + ((a - b) * (a.digamma() - total.digamma().unsqueeze(-1))).sum(-1)


register_kl(Wishart, Wishart)(wishart.divergence)
for _p in (MultivariateNormal, LowRankMultivariateNormal):
    for _q in (MultivariateNormal, LowRankMultivariateNormal):
        register_kl(_p, _q)(divergence)
register_kl(ContinuousBernoulli, ContinuousBernoulli)(bounded.divergence)


@register_kl(LogNormal, LogNormal)
def _log_normal(p: LogNormal, q: LogNormal) -> Tensor:
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    """That of the bases, if both are transformed by the same objects."""
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise fail(NotImplementedError, "kl_divergence of distributions with different transforms")
    more = len(p.event_shape) - len(p.base_dist.event_shape)
    return sum_right(kl_divergence(p.base_dist, q.base_dist), more)


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise fail(
            NotImplementedError, "kl_divergence of Independent with different reinterpreted_batch_ndims"
        )
    return sum_right(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


# ------------------------------------------------------------- between families with known moments


@register_kl(Uniform, Normal)
@register_kl(Laplace, Normal)
@register_kl(Gamma, Normal)
@register_kl(Exponential, Normal)
@register_kl(Gumbel, Normal)
@register_kl(Beta, Normal)
def _to_normal(p: Distribution, q: Normal) -> Tensor:
    """-entropy(p) minus the mean of log q, which needs two moments of p."""
    apart = p.variance + (p.mean - q.loc).pow(2)
    return -p.entropy() + 0.5 * math.log(2 * math.pi) + q.scale.log() + 0.5 * apart / q.scale.pow(2)


@register_kl(Uniform, Exponential)
@register_kl(Beta, Exponential)
def _to_exponential(p: Distribution, q: Exponential) -> Tensor:
    """-entropy(p) minus the mean of log q; infinite where p may be negative."""
    found = -p.entropy() + q.rate * p.mean - q.rate.log()
    return where(p.low < 0, math.inf, found) if isinstance(p, Uniform) else found


def _never(p: Distribution, q: Distribution) -> Tensor:
    """Infinity: p has outcomes that q excludes."""
    return (p.mean + q.mean).new_full(tuple((p.mean + q.mean).shape), math.inf)


for _whole in (Normal, Laplace, Cauchy, Gumbel):
    for _part in (Exponential, Gamma, Beta, Uniform):
        register_kl(_whole, _part)(_never)
for _half in (Exponential, Gamma, HalfNormal):
    for _part in (Beta, Uniform):
        register_kl(_half, _part)(_never)
for _short in (Bernoulli, Binomial):
    register_kl(Poisson, _short)(_never)


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    """The mean of abs(x - loc) under p is that of a folded normal distribution."""
    apart = p.loc - q.loc
    z = apart / p.scale
    folded = p.scale * math.sqrt(2 / math.pi) * (-0.5 * z * z).exp() + apart * (z * math.sqrt(0.5)).erf()
    return -p.entropy() + (2 * q.scale).log() + folded / q.scale
