"""LKJCholesky: factors of random correlation matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.constraints import parameters
from graphc.distributions.distribution import Distribution, batch_of, broadcast_all, normal
from graphc.distributions.positive import Beta
from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import arange
from graphc.frontend.functions.diagonal import diag_embed
from graphc.frontend.functions.numbers import finfo
from graphc.frontend.functions.special import mvlgamma
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor


class LKJCholesky(Distribution):
    """Lower Cholesky factors of correlation matrices of size `dim`; concentration 1 is uniform over these.

    Samples come from the onion method of "Generating random correlation matrices based on vines and extended
    onion method" (Lewandowski, Kurowicka and Joe, 2009). ValueError if `dim` is below 2.
    """

    arg_constraints = parameters(concentration=constraints.positive)
    support = constraints.corr_cholesky
    has_rsample = False

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None) -> None:
        if dim < 2:
            raise fail(
                ValueError, f"Expected dim to be an integer greater than or equal to 2. Found dim={dim}."
            )
        self.dim = dim
        (self.concentration,) = broadcast_all(concentration)
        super().__init__(
            batch_of([concentration], self.concentration), (dim, dim), validate_args=validate_args
        )

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Factors, row by row: a direction, and how far the row is from its own axis."""
        with no_grad():
            like = self.concentration
            before = arange(self.dim, dtype=like.dtype) - 1  # elements on the left of the diagonal, less one
            before = before.clamp(min=0)
            rest = (like + 0.5 * (self.dim - 2)).unsqueeze(-1) - 0.5 * before
            share = Beta((before + 0.5).expand(rest.shape), rest, validate_args=False).sample(sample_shape)
            noise = normal(self._extended_shape(sample_shape), like).tril(-1)
            length = noise.square().sum(-1, keepdim=True).sqrt()
            tiny = finfo(like.dtype).tiny
            rows = noise / length.clamp(min=tiny) * share.unsqueeze(-1).sqrt()  # (the first row is zero)
            return rows + diag_embed((1 - rows.square().sum(-1)).clamp(min=tiny).sqrt())

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        steps = self.dim - 1
        left = self.dim - arange(2, self.dim + 1, dtype=self.concentration.dtype)
        powers = 2 * (self.concentration - 1).unsqueeze(-1) + left
        found = (powers * value.diagonal(0, -2, -1)[..., 1:].log()).sum(-1)
        alpha = self.concentration + 0.5 * steps
        norm = 0.5 * steps * math.log(math.pi) + mvlgamma(alpha - 0.5, steps) - steps * alpha.lgamma()
        return found - norm
