"""Probability distributions with PyTorch's names: samples, densities, divergences, gradients through samples.

Samples come from graphc's generator (`graphc.manual_seed`), lazily and inside compiled functions; there, each
call draws anew.
"""

from graphc.distributions import constraints, kl, transforms
from graphc.distributions.bounded import ContinuousBernoulli, GeneralizedPareto, Kumaraswamy
from graphc.distributions.categorical import (
    Categorical,
    Multinomial,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from graphc.distributions.correlation import LKJCholesky
from graphc.distributions.directions import VonMises
from graphc.distributions.discrete import Bernoulli, Binomial, Geometric, NegativeBinomial, Poisson
from graphc.distributions.distribution import Distribution
from graphc.distributions.independent import Independent, MixtureSameFamily
from graphc.distributions.kl import kl_divergence, register_kl
from graphc.distributions.location import Cauchy, Gumbel, Laplace, Normal, StudentT, Uniform
from graphc.distributions.lowrank import LowRankMultivariateNormal
from graphc.distributions.multivariate import MultivariateNormal
from graphc.distributions.positive import (
    Beta,
    Chi2,
    Dirichlet,
    Exponential,
    FisherSnedecor,
    Gamma,
    HalfCauchy,
    HalfNormal,
    InverseGamma,
)
from graphc.distributions.transformed import (
    LogisticNormal,
    LogNormal,
    Pareto,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    TransformedDistribution,
    Weibull,
)
from graphc.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)

__all__ = [
    "AbsTransform", "AffineTransform", "Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Chi2",
    "ComposeTransform", "ContinuousBernoulli", "Dirichlet", "Distribution", "ExpTransform",
    "Exponential", "FisherSnedecor", "Gamma", "GeneralizedPareto", "Geometric", "Gumbel", "HalfCauchy",
    "HalfNormal", "Independent", "IndependentTransform", "InverseGamma", "Kumaraswamy", "LKJCholesky",
    "Laplace", "LogNormal", "LogisticNormal", "LowRankMultivariateNormal", "LowerCholeskyTransform",
    "MixtureSameFamily", "Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal",
    "OneHotCategorical", "OneHotCategoricalStraightThrough", "Pareto", "Poisson", "PowerTransform",
    "RelaxedBernoulli", "RelaxedOneHotCategorical", "ReshapeTransform", "SigmoidTransform",
    "SoftmaxTransform", "SoftplusTransform", "StickBreakingTransform", "StudentT", "TanhTransform",
    "Transform", "TransformedDistribution", "Uniform", "VonMises", "Weibull", "constraints",
    "identity_transform", "kl", "kl_divergence", "register_kl", "transforms",
]  # fmt: skip
