"""Special functions by the names of `torch.special`."""

from __future__ import annotations

from typing import Any

from graphc.frontend.functions.methods import FUNCTIONS
from graphc.frontend.functions.special import (
    digamma,
    entr,
    erfcx,
    erfinv,
    i0,
    i0e,
    i1,
    i1e,
    log_ndtr,
    ndtr,
    ndtri,
    polygamma,
    xlog1py,
    zeta,
)
from graphc.frontend.functions.special import lgamma as gammaln
from graphc.frontend.functions.special import mvlgamma as multigammaln

psi = digamma
_ELSEWHERE = "erf erfc exp2 expit expm1 log1p log_softmax logit logsumexp round sinc softmax xlogy".split()
globals().update({name: FUNCTIONS[name] for name in _ELSEWHERE})

__all__ = [
    "digamma", "entr", "erfcx", "erfinv", "gammaln", "i0", "i0e", "i1", "i1e", "log_ndtr", "multigammaln",
    "ndtr", "ndtri", "polygamma", "psi", "xlog1py", "zeta",
]  # fmt: skip
__all__ += _ELSEWHERE


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'graphc.special' has no attribute {name!r} (not built)")
