"""Helpers that programs with distributions of their own import, by the path of PyTorch's file."""

from __future__ import annotations

from graphc.distributions.distribution import Derived as lazy_property
from graphc.distributions.distribution import broadcast_all
from graphc.distributions.distribution import clamp_chance as clamp_probs
from graphc.frontend.tensor import Tensor

__all__ = ["broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits"]


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities of log odds (`is_binary`), or of unnormalised logarithms along the last dim."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """The log odds of probabilities (`is_binary`), or their logarithms; kept finite."""
    kept = clamp_probs(probs)
    return kept.log() - (-kept).log1p() if is_binary else kept.log()
