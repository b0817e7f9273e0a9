"""Sums without what need not be added up: centred values, factors that are the same for all terms, and zeros
around a single value (`onehot.py`).

The gradient of a normalisation sums, over what it normalises, values that contain multiples of
``x - mean(x)``. Those add up to nothing (but their rounding errors). Without them the sum does not depend on
the other sums of the gradient any more: all are taken in one sweep, where it took another one over the same
memory. What stays of them is ``mean(x) - mean(x)``, which is no number where the sum would be none.

A factor that is the same all along what is summed is multiplied once, by the sum. What is left is often a sum
that is needed anyway: the gradients of a batch norm's input and of its weight both need that of
``gradient * (x - mean(x))``. Equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod

from graphc import ops
from graphc.ir.graph import Graph, rebuild, rewrite
from graphc.ir.node import Node
from graphc.ops.spread import Axes, scalar_value
from graphc.passes.onehot import Hot, hot

MOST = 16  # terms of a sum that are looked at
ROUNDING = 1e-6  # how far 1 / (1 / n) may be from n in float32


def run(graph: Graph) -> Graph:
    """Rewrite every such sum; the same graph if there is none."""

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        new = rebuild(node, inputs)
        return _rewritten(new) or new if new.op.name == "reduce_sum" else new

    return rewrite(graph, rule)


def _rewritten(total: Node) -> Node | None:
    """The sum without its centred terms and common factors; None if it has none."""
    x, axes = total.inputs[0], total.attrs.axes
    if not x.dtype.is_float or not x.type.size:
        return None
    terms = _terms(x, axes)
    single = len(terms) == 1 and terms[0].has_common(axes)
    if not single and not any(term.centre(axes) or term.hot(axes) for term in terms):
        return None
    result: Node | None = None
    for term in sorted(terms, key=lambda term: term.centre(axes) is not None):
        value = term.sum(total)
        if result is None:
            result = ops.neg(value) if term.negative else value
        else:
            result = ops.sub(result, value) if term.negative else ops.add(result, value)
    return result


class _Term:
    """A term of a sum: a product of `factors`, from left to right, or its negative."""

    def __init__(self, negative: bool, value: Node) -> None:
        self.negative = negative
        self.factors: list[Node] = []
        stack = [value]
        while stack:
            n = stack.pop()
            if n.op.name == "mul":
                stack += n.inputs[::-1]
            elif n.op.name == "neg":
                self.negative = not self.negative
                stack.append(n.inputs[0])
            else:
                self.factors.append(n)

    def varying(self, axes: Axes) -> list[Node]:
        return [f for f in self.factors if not _is_uniform(f, axes)]

    def has_common(self, axes: Axes) -> bool:
        """Whether a factor that is no constant is the same all along `axes`, and others are not."""
        common = [f for f in self.factors if _is_uniform(f, axes) and scalar_value(f) is None]
        return bool(common) and bool(self.varying(axes))

    def centre(self, axes: Axes) -> Node | None:
        """The mean, if this is one centred value times what is the same all along `axes`: it adds up to
        nothing."""
        varying = self.varying(axes)
        return _centre(varying[0], axes) if len(varying) == 1 else None

    def hot(self, axes: Axes) -> Hot | None:
        """The factor that is zero but for one place along `axes`, if all others are the same there."""
        varying = self.varying(axes)
        return hot(varying[0], axes[0]) if len(varying) == len(axes) == 1 else None

    def sum(self, total: Node) -> Node:
        """The sum of the factors' product over the axes of `total`."""
        x, axes = total.inputs[0], total.attrs.axes
        kept = [d for d in range(x.type.rank) if d not in axes]
        varying, centre = self.varying(axes), self.centre(axes)
        one = self.hot(axes)
        if centre is not None:
            result = ops.sub(centre, centre)
        elif one is not None:
            result = one.sum()
        elif varying:
            result = ops.reduce_sum(reduce(ops.mul, varying), axes)
        else:
            result = ops.like(total, prod([x.shape[a] for a in axes]))
        for f in self.factors:
            number = scalar_value(f)
            if number is not None:
                result = ops.mul(result, ops.like(total, number))
            elif _is_uniform(f, axes):
                dims = tuple([kept.index(d) for d in f.attrs.dims])
                result = ops.mul(result, ops.broadcast(f.inputs[0], total.shape, dims))
        return result


def _terms(x: Node, axes: Axes) -> Sequence[_Term]:
    """What is added up to `x`; `x` alone if that is a lot."""
    found: list[_Term] = []
    stack = [(False, x)]
    while stack:
        negative, n = stack.pop()
        if n.op.name == "neg":
            stack.append((not negative, n.inputs[0]))
        elif n.op.name in ("add", "sub") and _centre(n, axes) is None:
            a, b = n.inputs
            stack += [(negative != (n.op.name == "sub"), b), (negative, a)]
        else:
            found.append(_Term(negative, n))
        if len(found) + len(stack) > MOST:
            return [_Term(False, x)]
    return found


def _is_uniform(node: Node, axes: Axes) -> bool:
    """Whether a value is known to be the same all along `axes`."""
    if node.op.name == "broadcast":
        return set(axes) <= set(node.attrs.new_axes)
    return scalar_value(node) is not None


def _centre(node: Node, axes: Axes) -> Node | None:
    """The mean over `axes` that `node` is some value less of; None if it is something else."""
    if node.op.name != "sub" or node.inputs[1].op.name != "broadcast":
        return None
    x, spread = node.inputs
    mean = total = spread.inputs[0]
    count = 1.0
    if mean.op.name in ("mul", "div"):
        number = scalar_value(mean.inputs[1])
        if not number:
            return None
        count = float(number) if mean.op.name == "div" else 1.0 / float(number)
        total = mean.inputs[0]
    if total.op.name != "reduce_sum" or total.inputs[0] is not x or total.attrs.axes != axes:
        return None
    summed = prod([x.shape[a] for a in axes])
    kept = tuple([d for d in range(x.type.rank) if d not in axes])
    return mean if spread.attrs.dims == kept and abs(count - summed) <= ROUNDING * summed else None
