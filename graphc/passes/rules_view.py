"""Canonical forms of views, and reductions, products and views of (almost) nothing."""

from __future__ import annotations

from graphc import ops
from graphc.ir.node import Kind, Node, make
from graphc.ir.types import Shape
from graphc.ops.contract import DotAttrs
from graphc.ops.spread import Axes, ReduceAttrs, kept_axes
from graphc.ops.view import inverse
from graphc.ops.window import Geometry
from graphc.passes.rules import RuleTable, on

RULES: RuleTable = {}


def _squeezed(shape: Shape) -> Shape:
    return tuple([n for n in shape if n != 1])


# --------------------------------------------------------------- reshape, transpose


@on(RULES, "reshape")
def reshape_of_reshape(node: Node) -> Node | None:
    x = node.inputs[0]
    return ops.reshape(x.inputs[0], node.shape) if x.op is node.op else None


@on(RULES, "reshape")
def reshape_of_broadcast(node: Node) -> Node | None:
    """A broadcast that gains or loses size-1 dims is another broadcast."""
    x = node.inputs[0]
    if x.op.name != "broadcast" or _squeezed(x.shape) != _squeezed(node.shape):
        return None
    dims = [d for d in x.attrs.dims if x.shape[d] != 1]
    place = _matching_dims(x.shape, node.shape)
    source = ops.reshape(x.inputs[0], _squeezed(x.inputs[0].shape))
    return ops.broadcast(source, node.shape, tuple([place[d] for d in dims]))


def _matching_dims(source: Shape, target: Shape) -> dict[int, int]:
    """Which dim of `target` each dim of `source` is; the shapes differ in size-1 dims only."""
    ours = [d for d, n in enumerate(source) if n != 1]
    theirs = [d for d, n in enumerate(target) if n != 1]
    return dict(zip(ours, theirs, strict=True))


@on(RULES, "transpose")
def transpose_of_transpose(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.op is not node.op:
        return None
    inner = x.attrs.perm
    return ops.transpose(x.inputs[0], tuple([inner[p] for p in node.attrs.perm]))


@on(RULES, "transpose")
def transpose_of_ones(node: Node) -> Node | None:
    """Moving only size-1 dims keeps the row-major order."""
    x = node.inputs[0]
    moved = [p for p in node.attrs.perm if x.shape[p] != 1]
    return ops.reshape(x, node.shape) if moved == sorted(moved) else None


@on(RULES, "transpose")
def transpose_of_broadcast(node: Node) -> Node | None:
    """A broadcast whose own dims stay in order takes the permutation into its dims."""
    x = node.inputs[0]
    if x.op.name != "broadcast":
        return None
    place = {p: d for d, p in enumerate(node.attrs.perm)}
    dims = tuple([place[d] for d in x.attrs.dims])
    return ops.broadcast(x.inputs[0], node.shape, dims) if list(dims) == sorted(dims) else None


# ---------------------------------------------------------------------- broadcast


@on(RULES, "broadcast")
def broadcast_of_broadcast(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.op is not node.op:
        return None
    dims = tuple([node.attrs.dims[d] for d in x.attrs.dims])
    return ops.broadcast(x.inputs[0], node.shape, dims)


@on(RULES, "broadcast")
def broadcast_of_ones(node: Node) -> Node | None:
    """The operand of a broadcast has no size-1 dims; one that repeats nothing is a reshape."""
    x = node.inputs[0]
    if x.type.size == node.type.size and x.type.size:
        return ops.reshape(x, node.shape)
    if 1 not in x.shape:
        return None
    dims = [d for d, n in zip(node.attrs.dims, x.shape, strict=True) if n != 1]
    return ops.broadcast(ops.reshape(x, _squeezed(x.shape)), node.shape, tuple(dims))


# --------------------------------------------------- slice, pad, flip, concat


@on(RULES, "slice")
def slice_of_slice(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.op is not node.op:
        return None
    a, b = x.attrs, node.attrs
    start = tuple([s + k * t for s, k, t in zip(a.start, a.step, b.start, strict=True)])
    step = tuple([k * t for k, t in zip(a.step, b.step, strict=True)])
    last = [s + (n - 1) * k for s, n, k in zip(start, node.shape, step, strict=True)]
    if not node.type.size:
        return None
    return ops.slice_(x.inputs[0], start, tuple([n + 1 for n in last]), step)


@on(RULES, "slice")
def slice_inside_pad(node: Node) -> Node | None:
    """Cutting within what was padded: the padding is not seen."""
    x = node.inputs[0]
    if x.op.name != "pad":
        return None
    source, attrs = x.inputs[0], node.attrs
    start = tuple([s - low for s, low in zip(attrs.start, x.attrs.low, strict=True)])
    stop = tuple([s - low for s, low in zip(attrs.stop, x.attrs.low, strict=True)])
    if min(start, default=0) < 0 or any(s > n for s, n in zip(stop, source.shape, strict=True)):
        return None
    return ops.slice_(source, start, stop, attrs.step)


@on(RULES, "slice")
def slice_of_concat(node: Node) -> Node | None:
    """A slice that stays within one part is a slice of that part."""
    x, attrs = node.inputs[0], node.attrs
    if x.op.name != "concat":
        return None
    axis, first = x.attrs.axis, 0
    for part in x.inputs:
        size = part.shape[axis]
        if first <= attrs.start[axis] and attrs.stop[axis] <= first + size:
            start, stop = list(attrs.start), list(attrs.stop)
            start[axis] -= first
            stop[axis] -= first
            return ops.slice_(part, tuple(start), tuple(stop), attrs.step)
        first += size
    return None


@on(RULES, "pad")
def pad_of_pad(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.op is not node.op or x.attrs.key[-1] != node.attrs.key[-1]:
        return None
    low = tuple([a + b for a, b in zip(x.attrs.low, node.attrs.low, strict=True)])
    high = tuple([a + b for a, b in zip(x.attrs.high, node.attrs.high, strict=True)])
    return ops.pad(x.inputs[0], low, high, node.attrs.value)


@on(RULES, "flip")
def flip_of_flip(node: Node) -> Node | None:
    x = node.inputs[0]
    axes = set(node.attrs.axes)
    if x.op is node.op:
        return ops.flip(x.inputs[0], axes ^ set(x.attrs.axes))
    real = [a for a in axes if node.shape[a] != 1]
    return ops.flip(x, real) if len(real) < len(axes) else None


@on(RULES, "concat")
def flat_concat(node: Node) -> Node | None:
    """No empty parts, no concat along the same axis inside."""
    axis = node.attrs.axis
    parts: list[Node] = []
    for part in node.inputs:
        nested = part.op is node.op and part.attrs.axis == axis
        parts += part.inputs if nested else [part] if part.shape[axis] else []
    return ops.concat(parts, axis) if parts and tuple(parts) != node.inputs else None


# ------------------------------------------------------------------------ windows


def _tiles(geometry: Geometry) -> bool:
    """Whether windows lie side by side: neither gaps nor overlaps nor padding."""
    taps = zip(geometry.size, geometry.stride, geometry.dilation, strict=True)
    side_by_side = all(k == s and (d == 1 or k == 1) for k, s, d in taps)
    return side_by_side and not any(geometry.low) and not any(geometry.high)


def _interleaved(lead: int, rank: int) -> Axes:
    """[lead, windows, taps] as [lead, window 0, tap 0, window 1, tap 1, ...]."""
    pairs = [(lead + d, lead + rank + d) for d in range(rank)]
    return (*range(lead), *[axis for pair in pairs for axis in pair])


@on(RULES, "window")
def window_of_tiles(node: Node) -> Node | None:
    """Windows side by side (2x2 pooling) only split dims in two."""
    x, g = node.inputs[0], node.attrs
    if not _tiles(g):
        return None
    lead = x.type.rank - g.rank
    counts = node.shape[lead : lead + g.rank]
    whole = tuple([n * k for n, k in zip(counts, g.size, strict=True)])
    cut = ops.slice_(x, (0,) * x.type.rank, (*x.shape[:lead], *whole), (1,) * x.type.rank)
    split = [n for pair in zip(counts, g.size, strict=True) for n in pair]
    return ops.transpose(ops.reshape(cut, (*x.shape[:lead], *split)), inverse(_interleaved(lead, g.rank)))


@on(RULES, "fold")
def fold_of_tiles(node: Node) -> Node | None:
    """The transpose of `window_of_tiles`: nothing is added up (so that a lone -0.0 keeps its sign)."""
    y, g = node.inputs[0], node.attrs
    if not _tiles(g):
        return None
    lead = node.type.rank - g.rank
    counts = y.shape[lead : lead + g.rank]
    whole = tuple([n * k for n, k in zip(counts, g.size, strict=True)])
    joined = ops.reshape(ops.transpose(y, _interleaved(lead, g.rank)), (*y.shape[:lead], *whole))
    rest = tuple([n - w for n, w in zip(node.shape[lead:], whole, strict=True)])
    return ops.pad(joined, (0,) * node.type.rank, ((0,) * lead) + rest)


# --------------------------------------------------------------------- reductions

_REDUCE = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_and", "reduce_or")
_IDEMPOTENT = ("reduce_max", "reduce_min", "reduce_and", "reduce_or")


def _reduce(node: Node, x: Node, axes: Axes) -> Node:
    """The reduction of `node` over other axes of another operand."""
    return make(node.op, (x,), ReduceAttrs(axes)) if axes else x


@on(RULES, *_REDUCE)
def reduce_ones(node: Node) -> Node | None:
    """Reducing a size-1 dim only drops it."""
    x, axes = node.inputs[0], node.attrs.axes
    if all(x.shape[a] != 1 for a in axes):
        return None
    dropped = {a for a in axes if x.shape[a] == 1}
    kept = [d for d in range(x.type.rank) if d not in dropped]
    rest = tuple([kept.index(a) for a in axes if a not in dropped])
    return _reduce(node, ops.reshape(x, tuple([x.shape[d] for d in kept])), rest)


@on(RULES, *_IDEMPOTENT)
def reduce_of_reduce(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.op is not node.op:
        return None
    outer = [kept_axes(x)[a] for a in node.attrs.axes]
    return _reduce(node, x.inputs[0], tuple(sorted((*x.attrs.axes, *outer))))


@on(RULES, *_IDEMPOTENT)
def reduce_of_repeated(node: Node) -> Node | None:
    """The largest of equal elements is any of them."""
    x = node.inputs[0]
    if x.op.name != "broadcast" or not x.type.size:
        return None
    repeated = set(x.attrs.new_axes) & set(node.attrs.axes)
    if not repeated:
        return None
    kept = [d for d in range(x.type.rank) if d not in repeated]
    dims = tuple([kept.index(d) for d in x.attrs.dims])
    smaller = ops.broadcast(x.inputs[0], tuple([x.shape[d] for d in kept]), dims)
    return _reduce(node, smaller, tuple([kept.index(a) for a in node.attrs.axes if a not in repeated]))


# -------------------------------------------------------------------- dot_general


@on(RULES, "dot_general")
def dot_of_transpose(node: Node) -> Node | None:
    """Read a transposed operand as it lies, if its free dims stay in order."""
    attrs, operands = node.attrs, list(node.inputs)
    contract, batch = list(attrs.contract), list(attrs.batch)
    for side in (0, 1):
        x = operands[side]
        if x.op.name != "transpose":
            continue
        perm = x.attrs.perm
        free = [perm[d] for d in attrs.free(side, x.type.rank)]
        if free == sorted(free):
            operands[side] = x.inputs[0]
            contract[side] = tuple([perm[d] for d in contract[side]])
            batch[side] = tuple([perm[d] for d in batch[side]])
    if tuple(operands) == node.inputs:
        return None
    return ops.dot_general(operands[0], operands[1], (contract[0], contract[1]), (batch[0], batch[1]))


@on(RULES, "transpose")
def transpose_of_dot(node: Node) -> Node | None:
    """Exchanging a product's rows and columns exchanges its operands."""
    x = node.inputs[0]
    if x.op.name != "dot_general":
        return None
    attrs: DotAttrs = x.attrs
    a, b = x.inputs
    nb, rows = len(attrs.batch[0]), len(attrs.free(0, a.type.rank))
    swapped = (*range(nb), *range(nb + rows, x.type.rank), *range(nb, nb + rows))
    if node.attrs.perm != swapped:
        return None
    return ops.dot_general(b, a, attrs.contract[::-1], attrs.batch[::-1])


# ------------------------------------------------------------------ empty operands


def nothing(node: Node) -> Node | None:
    """Values without elements, and what is computed from none: kernels never meet an empty loop."""
    if node.kind in (Kind.INPUT, Kind.CONSTANT):
        return None
    if not node.type.size:
        empty = ops.zeros(node.type)
        return None if node is empty else empty
    if all(n.type.size for n in node.inputs):
        return None
    if node.kind in (Kind.CONTRACT, Kind.CONV):
        return ops.zeros(node.type)
    if node.op.name in _REDUCE:
        return ops.like(node, 1 if node.op.name in ("reduce_prod", "reduce_and") else 0)
    if node.op.name == "pad":
        return ops.like(node, node.attrs.value)
    if node.kind is Kind.REDUCE:
        return ops.zeros(node.type)
    if node.kind is Kind.SCATTER:
        return node.inputs[0]
    return None
