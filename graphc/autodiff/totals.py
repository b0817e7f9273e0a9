"""Cotangents of a loop's constants: sums over all steps, done after the loop where that is one operation.

A step's contribution is taken apart along linear operations (sums, views, products with invariants) into
*leaves*:

    dot_general of two values that differ by step    both are stacked; one contraction over all steps
    a product of two such values, both repeated      the same, as an outer product
    conv_weight_grad of such values                  the same; steps join the samples
    scatter_add into zeros                           indices and updates are stacked; one scatter
    reduce_sum of what is no larger than other       its operand is stacked; one sum over all steps
      values that are stacked or carried
    anything else                                    added up in a carry of the reverse loop
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from graphc.ir.graph import depending, rebuild, toposort
from graphc.ir.node import Node, make
from graphc.ops.arithmetic import mul
from graphc.ops.batching import later, stacked
from graphc.ops.contract import DotAttrs, dot_general
from graphc.ops.index import scatter_add
from graphc.ops.scan import Loop
from graphc.ops.spread import broadcast, like, reduce_sum, scalar_value
from graphc.ops.view import reshape, slice_axis, transpose

_LINEAR = frozenset({"add", "sub", "neg", "reshape", "transpose", "broadcast", "slice", "flip", "concat"})
_BILINEAR = frozenset({"mul", "dot_general"})
_SUMS = frozenset({"add", "sub", "neg"})
_PRODUCTS = frozenset({"dot_general", "conv_weight_grad"})


class Totals:
    """How the sum over all steps of each node of `parts` (by constant) is computed.

    varying  the nodes of the body of `loop` and its pullback that differ from step to step
    stacked  body nodes whose values in all steps are needed after the loop
    summed   body nodes that the loop adds up itself
    """

    def __init__(self, parts: Mapping[Node, Node], varying: AbstractSet[Node], loop: Loop) -> None:
        self.parts, self.varying, self.length = parts, set(varying), loop.length
        self.inner: set[Node] = set()
        self.same: dict[Node, Node] = {}  # what has another form that is easier to sum
        leaves = self._take_apart()
        self.stacked: dict[Node, None] = {}
        for leaf in leaves:
            if leaf.op.name in _PRODUCTS:
                self.stacked.update(dict.fromkeys(x for x in leaf.inputs if x in varying))
            elif _adds_to_zeros(leaf):
                self.stacked.update(dict.fromkeys(x for x in leaf.inputs[1:] if x in varying))
        most = max([node.type.nbytes for node in (*self.stacked, *loop.carries)], default=0)
        summed = [leaf.inputs[0] for leaf in leaves if leaf.op.name == "reduce_sum"]
        self.pieces = _pieces(self.stacked)
        self.stacked.update(
            dict.fromkeys(x for x in summed if x.type.nbytes <= most and x not in self.pieces)
        )
        self.outside = [leaf for leaf in leaves if self._is_outside(leaf)]
        self.summed = self._merged({leaf for leaf in leaves if leaf not in set(self.outside)})

    def _take_apart(self) -> list[Node]:
        """The leaves, in a deterministic order; notes the linear operations above them."""
        found: dict[Node, None] = {}
        stack = [part for part in self.parts.values() if part in self.varying][::-1]
        while stack:
            node = stack.pop()
            if node in self.inner or node in self.same or node in found:
                continue
            product = _outer_product(node)
            if product is not None and all(x in self.varying for x in node.inputs):
                self.same[node] = product
                self.varying = depending(toposort([product]), self.varying)
                stack.append(product)
            elif self._is_linear(node):
                self.inner.add(node)
                stack.extend(x for x in reversed(node.inputs) if x in self.varying)
            else:
                found[node] = None
        return list(found)

    def _merged(self, summed: set[Node]) -> list[Node]:
        """What the loop adds up, sums of such things as one."""
        for node in toposort(self.parts.values()):
            if node in self.inner and node.op.name in _SUMS and summed.issuperset(node.inputs):
                summed.add(node)
        found: dict[Node, None] = {}
        inner: set[Node] = set()
        stack = list(self.parts.values())[::-1]
        while stack:
            node = stack.pop()
            if node in summed:
                found[node] = None
            elif node in self.same:
                stack.append(self.same[node])
            elif node in self.inner and node not in inner:
                inner.add(node)
                stack.extend(reversed(node.inputs))
        self.inner = inner
        return list(found)

    def _is_linear(self, node: Node) -> bool:
        """Whether the sum of the node follows from the sums of its varying operands."""
        if node.op.name == "pad":
            return node.attrs.value == 0
        if node.op.name in _BILINEAR:
            return sum(x in self.varying for x in node.inputs) == 1
        return node.op.name in _LINEAR or (node.op.name == "div" and node.inputs[1] not in self.varying)

    def _is_outside(self, leaf: Node) -> bool:
        """Whether a leaf is summed after the loop."""
        if leaf.op.name in _PRODUCTS or _adds_to_zeros(leaf):
            return True
        summed = leaf.inputs[0] if leaf.op.name == "reduce_sum" else leaf
        return summed in self.stacked or summed in self.pieces

    def finish(self, stacks: Mapping[Node, Node], sums: Mapping[Node, Node]) -> dict[Node, Node]:
        """The total of each part. `stacks` gives what all steps had, `sums` what the loop has added up."""
        totals = dict(sums)
        totals.update((leaf, self._sum(leaf, stacks)) for leaf in self.outside)
        for node in toposort((*self.same.values(), *self.parts.values())):
            if node in self.same:
                totals[node] = totals[self.same[node]]
            elif node in self.inner:
                factor = node.op.name in _BILINEAR or node.op.name == "div"
                ins = [totals[x] if x in totals else x if factor else self._repeated(x) for x in node.inputs]
                totals[node] = rebuild(node, tuple(ins))
        return {c: totals[part] if part in totals else self._repeated(part) for c, part in self.parts.items()}

    def _repeated(self, node: Node) -> Node:
        """The sum of what is the same in all steps."""
        return mul(node, like(node, self.length))

    def _sum(self, leaf: Node, stacks: Mapping[Node, Node]) -> Node:
        if leaf.op.name in _PRODUCTS:
            return self._product(leaf, stacks)
        if leaf.op.name == "scatter_add":
            return self._scatter(leaf, stacks)
        if leaf.op.name == "reduce_sum":
            return reduce_sum(self._stack(leaf.inputs[0], stacks), (0, *later(leaf.attrs.axes)))
        return reduce_sum(self._stack(leaf, stacks), (0,))

    def _stack(self, node: Node, stacks: Mapping[Node, Node]) -> Node:
        """The stack of a node that is stacked, by itself or as a piece of another."""
        if node in stacks:
            return stacks[node]
        whole, axis, start = self.pieces[node]
        return slice_axis(stacks[whole], axis + 1, start, start + node.type.shape[axis])

    def _product(self, leaf: Node, stacks: Mapping[Node, Node]) -> Node:
        """One contraction over all steps."""
        a, b = [stacks[x] if x in stacks else stacked(x, self.length) for x in leaf.inputs]
        if leaf.op.name == "conv_weight_grad":
            samples = self.length * a.type.shape[1]
            merged = [reshape(x, (samples, *x.type.shape[2:])) for x in (a, b)]
            return make(leaf.op, merged, leaf.attrs)
        attrs: DotAttrs = leaf.attrs
        (ca, cb), (ba, bb) = attrs.contract, attrs.batch
        return dot_general(a, b, ((0, *later(ca)), (0, *later(cb))), (later(ba), later(bb)))

    def _scatter(self, leaf: Node, stacks: Mapping[Node, Node]) -> Node:
        """All steps' updates in one scatter, whose indices have the steps as a leading dim."""
        base, indices, updates = leaf.inputs
        axis = leaf.attrs.axis
        at, values = [stacks[x] if x in stacks else stacked(x, self.length) for x in (indices, updates)]
        perm = (*range(1, axis + 1), 0, *range(axis + 1, values.type.rank))
        return scatter_add(base, at, transpose(values, perm), axis)


def _pieces(stacked: Iterable[Node]) -> dict[Node, tuple[Node, int, int]]:
    """Values that are parts of stacked ones: of which, along which axis, from where."""
    found: dict[Node, tuple[Node, int, int]] = {}
    for whole in stacked:
        if whole.op.name == "concat":
            start, axis = 0, whole.attrs.axis
            for x in whole.inputs:
                found.setdefault(x, (whole, axis, start))
                start += x.type.shape[axis]
    return found


def _outer_product(node: Node) -> Node | None:
    """A product of two values that are both repeated along dims of the other, as a dot_general."""
    if node.op.name != "mul" or any(x.op.name != "broadcast" for x in node.inputs):
        return None
    left, right = [x.attrs.dims for x in node.inputs]
    both = [d for d in left if d in right]
    free = [*[d for d in left if d not in both], *[d for d in right if d not in both]]
    if len(both) in (len(left), len(right)):
        return None
    batch = tuple([tuple([dims.index(d) for d in both]) for dims in (left, right)])
    dims = [*both, *free]
    product = dot_general(node.inputs[0].inputs[0], node.inputs[1].inputs[0], ((), ()), (batch[0], batch[1]))
    ordered = transpose(product, tuple([dims.index(d) for d in sorted(dims)]))
    return broadcast(ordered, node.type.shape, tuple(sorted(dims)))


def _adds_to_zeros(node: Node) -> bool:
    return node.op.name == "scatter_add" and scalar_value(node.inputs[0]) == 0
