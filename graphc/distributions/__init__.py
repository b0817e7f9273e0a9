"""Probability distributions with PyTorch's names: samples, densities, divergences, gradients through samples.

Samples come from graphc's generator (`graphc.manual_seed`), lazily and inside compiled functions; there, each
call draws anew.
"""

from graphc.distributions import constraints, kl, transforms, utils
from graphc.distributions.bounded import ContinuousBernoulli, GeneralizedPareto, Kumaraswamy
from graphc.distributions.categorical import (
    Categorical,
    Multinomial,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from graphc.distributions.constraint_registry import biject_to, transform_to
from graphc.distributions.correlation import LKJCholesky
from graphc.distributions.directions import VonMises
from graphc.distributions.discrete import Bernoulli, Binomial, Geometric, NegativeBinomial, Poisson
from graphc.distributions.distribution import Distribution
from graphc.distributions.independent import Independent, MixtureSameFamily
from graphc.distributions.joined_transforms import (
    CatTransform,
    CumulativeDistributionTransform,
    StackTransform,
)
from graphc.distributions.kl import kl_divergence, register_kl
from graphc.distributions.location import Cauchy, Gumbel, Laplace, Normal, StudentT, Uniform
from graphc.distributions.lowrank import LowRankMultivariateNormal
from graphc.distributions.matrix_transforms import CorrCholeskyTransform, PositiveDefiniteTransform
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
from graphc.distributions.wishart import Wishart
from graphc.paths import module_at

__all__ = [
    "AbsTransform", "AffineTransform", "Bernoulli", "Beta", "Binomial", "CatTransform", "Categorical",
    "Cauchy", "Chi2", "ComposeTransform", "ContinuousBernoulli", "CorrCholeskyTransform",
    "CumulativeDistributionTransform", "Dirichlet", "Distribution", "ExpTransform", "Exponential",
    "FisherSnedecor", "Gamma", "GeneralizedPareto", "Geometric", "Gumbel", "HalfCauchy", "HalfNormal",
    "Independent", "IndependentTransform", "InverseGamma", "Kumaraswamy", "LKJCholesky", "Laplace",
    "LogNormal", "LogisticNormal", "LowRankMultivariateNormal", "LowerCholeskyTransform",
    "MixtureSameFamily", "Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal",
    "OneHotCategorical", "OneHotCategoricalStraightThrough", "Pareto", "Poisson",
    "PositiveDefiniteTransform", "PowerTransform", "RelaxedBernoulli", "RelaxedOneHotCategorical",
    "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StackTransform",
    "StickBreakingTransform", "StudentT", "TanhTransform", "Transform", "TransformedDistribution",
    "Uniform", "VonMises", "Weibull", "Wishart", "biject_to", "constraints", "identity_transform", "kl",
    "kl_divergence", "register_kl", "transform_to", "transforms", "utils",
]  # fmt: skip

_FILES: dict[str, list[type]] = {
    "bernoulli": [Bernoulli], "beta": [Beta], "binomial": [Binomial], "cauchy": [Cauchy], "chi2": [Chi2],
    "continuous_bernoulli": [ContinuousBernoulli], "dirichlet": [Dirichlet], "exponential": [Exponential],
    "fishersnedecor": [FisherSnedecor], "gamma": [Gamma], "generalized_pareto": [GeneralizedPareto],
    "geometric": [Geometric], "gumbel": [Gumbel], "half_cauchy": [HalfCauchy], "half_normal": [HalfNormal],
    "inverse_gamma": [InverseGamma], "kumaraswamy": [Kumaraswamy], "laplace": [Laplace],
    "lkj_cholesky": [LKJCholesky], "log_normal": [LogNormal], "logistic_normal": [LogisticNormal],
    "lowrank_multivariate_normal": [LowRankMultivariateNormal], "mixture_same_family": [MixtureSameFamily],
    "multinomial": [Multinomial], "multivariate_normal": [MultivariateNormal],
    "negative_binomial": [NegativeBinomial], "normal": [Normal],
    "one_hot_categorical": [OneHotCategorical, OneHotCategoricalStraightThrough], "pareto": [Pareto],
    "poisson": [Poisson], "relaxed_bernoulli": [RelaxedBernoulli],
    "relaxed_categorical": [RelaxedOneHotCategorical], "studentT": [StudentT],
    "transformed_distribution": [TransformedDistribution], "uniform": [Uniform], "von_mises": [VonMises],
    "weibull": [Weibull], "wishart": [Wishart],
    "transforms": [
        CatTransform, CorrCholeskyTransform, CumulativeDistributionTransform, PositiveDefiniteTransform,
        StackTransform,
    ],
}  # fmt: skip
for _name, _classes in _FILES.items():
    module_at(f"{__name__}.{_name}", {c.__name__: c for c in _classes}, "By the path of PyTorch's file.")
