"""AdaptiveLogSoftmaxWithLoss: a softmax over many classes whose rare ones share small networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.elementwise import where
from graphc.frontend.functions.joining import cat
from graphc.frontend.tensor import Tensor, apply, is_concrete
from graphc.ir.types import DType
from graphc.nn import functional as F
from graphc.nn.container import ModuleList, Sequential
from graphc.nn.functional.linear import check_labels
from graphc.nn.linear import Linear
from graphc.nn.module import Module


class _ASMoutput(NamedTuple):
    """The log-probability of each target, and the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """log_softmax over `n_classes`, sorted by frequency and cut at `cutoffs` into a short list and clusters.

    The head scores the short list and the clusters; cluster i has a bottleneck of
    in_features / div_value ** (i + 1). Called with input [N, in_features] and target [N] (or without N)
    it gives (log-probabilities [N] of the targets, loss). Every cluster is computed for every row: which rows
    need it is data, and shapes are static.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise fail(ValueError, "cutoffs should be a sequence of length larger than 0")
        whole = all(int(c) == c for c in cutoffs)
        if not whole or any(a >= b for a, b in itertools.pairwise([0, *cutoffs, n_classes])):
            raise fail(
                ValueError,
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing order, "
                f"where each value is between 1 and n_classes-1 ({n_classes - 1}), got {cutoffs}",
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*map(int, cutoffs), n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **kind)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(itertools.pairwise(self.cutoffs)):
            narrow = int(in_features // div_value ** (i + 1))
            self.tail.append(
                Sequential(
                    Linear(in_features, narrow, bias=False, **kind),
                    Linear(narrow, high - low, bias=False, **kind),
                )
            )

    def reset_parameters(self) -> None:
        """Those of the Linear layers."""
        self.head.reset_parameters()
        for projection in self.tail:
            for layer in projection:  # type: ignore[attr-defined]
                layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        """RuntimeError for shapes that do not fit and for targets out of range."""
        self._check(input_, target_)
        batched = target_.ndim > 0
        input = input_ if batched else input_.unsqueeze(0)
        target = target_ if batched else target_.unsqueeze(0)
        target = apply(
            "CheckBackward0", lambda n: check_labels(self._get_name(), n, self.n_classes, "target"), target
        )
        head = F.log_softmax(self.head(input), dim=1)
        chosen, inside = target, []
        for i, (low, high) in enumerate(itertools.pairwise(self.cutoffs)):
            mine = (target >= low).logical_and(target < high)
            chosen = where(mine, self.shortlist_size + i, chosen)
            local = F.log_softmax(self.tail[i](input), dim=1)
            found = local.gather(1, (target - low).clamp(0, high - low - 1).unsqueeze(1)).squeeze(1)
            inside.append(where(mine, found, 0.0))
        output = head.gather(1, chosen.unsqueeze(1)).squeeze(1)
        for part in inside:
            output = output + part
        loss = (-output).mean()
        return _ASMoutput(output if batched else output.squeeze(0), loss)

    def _check(self, input: Tensor, target: Tensor) -> None:
        if target.ndim > 1:
            raise fail(
                RuntimeError,
                f"0D or 1D target tensor expected, multi-target not supported (got {describe(target)})",
            )
        if input.ndim != target.ndim + 1:
            raise fail(
                RuntimeError,
                f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, "
                f"but found inputs with size {list(input.shape)}",
            )
        if target.ndim and input.shape[0] != target.shape[0]:
            raise fail(
                RuntimeError,
                "Input and target should have the same size in the batch dimension "
                f"({describe(input, target)}).",
            )
        if is_concrete(target) and target.numel():
            low, high = value(target).min(), value(target).max()
            if low < 0 or high >= self.n_classes:
                raise fail(
                    RuntimeError,
                    f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                    f"[{low}, {high}] were found.",
                )

    def log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities [N, n_classes] of all classes for input [N, in_features]."""
        head = F.log_softmax(self.head(input), dim=1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            whole = head[:, self.shortlist_size + i].unsqueeze(1)
            parts.append(F.log_softmax(cluster(input), dim=1) + whole)
        return cat(parts, dim=1)

    def predict(self, input: Tensor) -> Tensor:
        """The likeliest class [N] for input [N, in_features]."""
        return self.log_prob(input).argmax(dim=1)
