"""One walk over the nodes, users before what they use, that gathers cotangents."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.autodiff.accumulate import accumulate
from graphc.autodiff.active import differentiable_from
from graphc.autodiff.loops import pull
from graphc.autodiff.rules import cotangents
from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node, Site, set_site_provider, site_of
from graphc.ops.constant import input_
from graphc.ops.scan import key_of, siblings
from graphc.ops.spread import zeros


def gradients(outputs: Sequence[Node], cotangents: Sequence[Node], wrt: Sequence[Node]) -> list[Node | None]:
    """The sum over outputs of cotangent * d output / d w, for each w in `wrt`.

    None where no differentiable path leads from w to an output. Gradients are graphs like any
    other, so gradients of gradients are taken the same way. New nodes get the site of the forward
    node they belong to. Raises ValueError when a cotangent's type is not its output's.
    """
    for y, ct in zip(outputs, cotangents, strict=True):
        if y.type != ct.type:
            raise ValueError(
                f"gradients: the cotangent of an output {y.type} is a {ct.type}; they must be alike"
            )
    order = toposort(outputs)
    active = differentiable_from(order, set(wrt))
    loops = siblings(order)
    pending: dict[Node, Node] = {}
    for y, ct in zip(outputs, cotangents, strict=True):
        if y in active:
            pending[y] = accumulate(pending.get(y), ct)
    kept = frozenset(wrt)
    site = _Site()
    previous = set_site_provider(site)
    try:
        for node in reversed(order):
            site.node = node
            if node.kind is Kind.SCAN:
                group = loops[key_of(node)]
                if node is group[0]:  # all users of all results of the loop have been seen
                    _propagate_loop(group, active, pending, kept)
            elif node in pending:
                ct = pending[node] if node in kept else pending.pop(node)
                _propagate(node, ct, active, pending)
    finally:
        set_site_provider(previous)
    return [pending.get(w) for w in wrt]


class _Site:
    """A site provider that answers with the site of the forward node at hand."""

    node: Node

    def __call__(self) -> Site | None:
        return site_of(self.node)


def _propagate(node: Node, ct: Node, active: set[Node], pending: dict[Node, Node]) -> None:
    """Add to the operands' cotangents what `node`'s cotangent sends them."""
    if active.isdisjoint(node.inputs) or node.kind is Kind.BARRIER:
        return
    for operand, part in cotangents(node, ct, active):
        pending[operand] = accumulate(pending.get(operand), part)


def _propagate_loop(
    group: Sequence[Node], active: set[Node], pending: dict[Node, Node], kept: frozenset[Node]
) -> None:
    """Add to the cotangents of a loop's inputs what those of its results send them."""
    found = [node for node in group if node in pending]
    cts = [pending[node] if node in kept else pending.pop(node) for node in found]
    inputs = group[0].inputs
    wanted = tuple([i for i, operand in enumerate(inputs) if operand in active])
    if not found or not wanted:
        return
    for i, part in zip(wanted, pull(found, cts, wanted, gradients), strict=True):
        if part is not None:
            pending[inputs[i]] = accumulate(pending.get(inputs[i]), part)


def vjp(outputs: Sequence[Node], cotangents: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    """As `gradients`, with zeros for what is not connected."""
    found = gradients(outputs, cotangents, wrt)
    return [zeros(w.type) if g is None else g for w, g in zip(wrt, found, strict=True)]


def jvp(outputs: Sequence[Node], inputs: Sequence[Node], tangents: Sequence[Node]) -> list[Node]:
    """The derivative of each output along `tangents` of `inputs` (zeros where not connected).

    The VJP is linear in the cotangent u, so its own VJP with respect to u is the JVP; no node of the
    result depends on u.
    """
    for x, t in zip(inputs, tangents, strict=True):
        if x.type != t.type:
            raise ValueError(f"jvp: the tangent of an input {x.type} is a {t.type}; they must be alike")
    us = [input_(f"jvp.u{i}", y.type) for i, y in enumerate(outputs)]
    pulled = gradients(outputs, us, inputs)
    pairs = [(g, t) for g, t in zip(pulled, tangents, strict=True) if g is not None]
    return vjp([g for g, _ in pairs], [t for _, t in pairs], us)
