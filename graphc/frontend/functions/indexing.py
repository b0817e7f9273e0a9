"""x[...] and x[...] = v: ints, slices, None, Ellipsis, index tensors and boolean masks.

The basic part of an index (ints, slices, None) is one view. Index tensors then gather from it,
or replace elements in it; where an index value occurs twice in an assignment, the last wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.errors import fail, title
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.assigning import write_known
from graphc.frontend.functions.checks import need_known
from graphc.frontend.functions.elementwise import need
from graphc.frontend.functions.methods import METHODS, attach
from graphc.frontend.functions.shape import reshape_node
from graphc.frontend.functions.update import set_box
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import broadcast_shapes, cast, expand
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply, apply_view, from_array, inplace, is_concrete
from graphc.ir.node import Node
from graphc.ir.types import Shape, bool_, int64, uint8


@dataclass
class Index:
    """A parsed index: a box of the input, its shape after ints and Nones, and index tensors by dim."""

    start: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    boxed: list[int] = field(default_factory=list)  # extents of the box, dim by dim
    shape: list[int] = field(default_factory=list)  # of the view
    tensors: dict[int, Tensor] = field(default_factory=dict)  # by dim of the view


def _as_index(item: Any) -> Any:
    """Lists and arrays as tensors; 0-d integer tensors whose value is known as ints."""
    if isinstance(item, (list, tuple, range)):
        found = np.asarray(item if len(item) else np.zeros(0, np.int64))
        if found.dtype.kind not in "iub":
            raise fail(IndexError, "tensors used as indices must be long, int, byte or bool tensors")
        return from_array(found.astype(np.bool_ if found.dtype.kind == "b" else np.int64))
    if isinstance(item, np.ndarray):
        return from_array(np.ascontiguousarray(item).reshape(item.shape).copy())
    if isinstance(item, (np.integer, np.bool_)):
        return item.item()
    if isinstance(item, Tensor):
        if item.dtype.is_float:
            raise fail(
                IndexError,
                f"tensors used as indices must be long, int, byte or bool tensors, got {item.dtype.name}",
            )
        if item.ndim == 0 and is_concrete(item):
            return value(item).item()
    return item


def _dims(item: Any) -> int:
    """How many input dims an item consumes."""
    if item is None or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor) and item.dtype in (bool_, uint8):
        return item.ndim
    return 1


def _expand_ellipsis(index: Any, rank: int) -> list[Any]:
    items = [
        _as_index(i) if i is not None else None for i in (index if isinstance(index, tuple) else (index,))
    ]
    used = sum(_dims(i) for i in items if i is not Ellipsis)
    if used > rank:
        raise fail(IndexError, f"too many indices for tensor of dimension {rank}")
    dots = [k for k, i in enumerate(items) if i is Ellipsis]
    if len(dots) > 1:
        raise fail(IndexError, "an index can only have a single ellipsis ('...')")
    at = dots[0] if dots else len(items)
    return [*items[:at], *[slice(None)] * (rank - used), *items[at + 1 :]]


def parse(index: Any, shape: Shape) -> Index:
    """The meaning of `index` on a tensor of `shape`. IndexError, TypeError or ValueError if it has none."""
    found = Index()
    for item in _expand_ellipsis(index, len(shape)):
        at = len(found.start)
        if item is None:
            found.shape.append(1)
        elif isinstance(item, bool):
            found.tensors[len(found.shape)] = from_array(np.zeros(1 if item else 0, np.int64))
            found.shape.append(1)
        elif isinstance(item, slice):
            _slice(found, item, shape[at])
        elif isinstance(item, Tensor):
            _tensor(found, item, shape)
        else:
            _int(found, item, at, shape[at])
    return found


def _box(found: Index, start: int, stop: int, step: int, extent: int) -> None:
    found.start.append(start)
    found.stop.append(stop)
    found.step.append(step)
    found.boxed.append(extent)


def _slice(found: Index, item: slice, extent: int) -> None:
    bounds = [b.__index__() if b is not None else None for b in (item.start, item.stop, item.step)]
    if bounds[2] is not None and bounds[2] <= 0:
        raise fail(ValueError, "step must be greater than zero")
    start, stop, step = slice(*bounds).indices(extent)
    stop = max(start, stop)
    count = -(-(stop - start) // step)
    _box(found, start, stop, step, count)
    found.shape.append(count)


def _int(found: Index, item: Any, dim: int, extent: int) -> None:
    try:
        i = item.__index__()
    except AttributeError:
        raise fail(
            TypeError if isinstance(item, str) else IndexError,
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid "
            f"indices (got {type(item).__name__})",
        ) from None
    if not -extent <= i < extent:
        raise fail(IndexError, f"index {i} is out of bounds for dimension {dim} with size {extent}")
    _box(found, i % extent, i % extent + 1, 1, 1)


def _tensor(found: Index, item: Tensor, shape: Shape) -> None:
    if item.ndim == 0 and item.dtype in (bool_, uint8):  # as True or False: a dim of its own
        found.tensors[len(found.shape)] = _mask_positions(item, shape, len(found.start))[0]
        found.shape.append(1)
        return
    parts = _mask_positions(item, shape, len(found.start)) if item.dtype in (bool_, uint8) else [item]
    for part in parts:
        extent = shape[len(found.start)]
        found.tensors[len(found.shape)] = part
        _box(found, 0, extent, 1, extent)
        found.shape.append(extent)


def _mask_positions(mask: Tensor, shape: Shape, at: int) -> list[Tensor]:
    """The positions where a mask holds: needs its value."""
    for k, extent in enumerate(mask.shape):
        if shape[at + k] != extent:
            raise fail(
                IndexError,
                f"The shape of the mask {list(mask.shape)} at index {k} does not match the shape of the "
                f"indexed tensor "
                f"{list(shape)} at index {at + k}",
            )
    instead = "use graphc.where(mask, x, other), or multiply by the mask"
    need_known("x[mask]", "how many elements a boolean mask selects", mask, instead)
    if mask.ndim == 0:
        return [from_array(np.zeros(1 if bool(value(mask)) else 0, np.int64))]
    return [from_array(p) for p in np.nonzero(value(mask))]


# ------------------------------------------------------------------------- views


def view(x: Tensor, index: Index) -> Tensor:
    """The basic part of an index, as a view."""
    own = x._cell.node.type.shape
    start, stop, step = tuple(index.start), tuple(index.stop), tuple(index.step)
    boxed, shape = tuple(index.boxed), tuple(index.shape)
    if boxed == own and shape == own:
        return apply_view("AliasBackward0", lambda n: n, lambda base, n: n, x)
    whole = boxed == own

    def forward(n: Node) -> Node:
        return reshape_node(n if whole else ops.slice_(n, start, stop, step), shape)

    def back(base: Node, n: Node) -> Node:
        n = reshape_node(n, boxed)
        return n if whole else set_box(base, n, start, stop, step)

    label = (
        "SliceBackward0"
        if len(shape) == len(own)
        else "SelectBackward0"
        if len(shape) < len(own)
        else "UnsqueezeBackward0"
    )
    return apply_view(label, forward, back, x)


# ----------------------------------------------------------------- index tensors


def checked(index: Tensor, extent: int, dim: int, name: str = "index", wrap: bool = True) -> Tensor:
    """An integer tensor with values in range(extent): tested now if they are known, else when they run."""
    low = -extent if wrap else 0
    if is_concrete(index):
        array = value(index)
        if array.size == 0:
            return index if index.dtype is int64 else index.long()
        lowest, highest = int(array.min()), int(array.max())
        if lowest < low or highest >= extent:
            bad = lowest if lowest < low else highest
            raise fail(IndexError, f"{name} {bad} is out of bounds for dimension {dim} with size {extent}")
        if MODE.trace is None or index._cell.trace is MODE.trace:
            if lowest >= 0:
                return index if index.dtype is int64 else index.long()
            return from_array(np.where(array < 0, array + extent, array).astype(np.int64))
    message = f"{name} is out of bounds for dimension {dim} with size {extent}"

    def build(n: Node) -> Node:
        n = ops.check_index(cast(n, int64), low, extent, message)
        if not wrap:
            return n
        zero, size = ops.full(n.shape, 0, int64), ops.full(n.shape, extent, int64)
        return ops.select(ops.lt(n, zero), ops.add(n, size), n)

    return apply("", build, index)


@dataclass
class Gathered:
    """Index tensors brought to one shape, and one linear index over the dims they index."""

    dims: tuple[int, ...]  # of the view
    extents: tuple[int, ...]
    linear: Tensor
    shape: Shape  # of the index tensors
    adjacent: bool


def combine(x: Tensor, tensors: dict[int, Tensor]) -> Gathered:
    """All index tensors of an index as one."""
    dims = tuple(sorted(tensors))
    own = x._cell.node.type.shape
    extents = tuple(own[d] for d in dims)
    found = [checked(tensors[d], own[d], d) for d in dims]
    try:
        shape = broadcast_shapes(*[t._cell.node.type.shape for t in found])
    except RuntimeError:
        shapes = ", ".join(str(list(t.shape)) for t in found)
        raise fail(
            IndexError,
            f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}",
        ) from None

    def build(*nodes: Node) -> Node:
        total = expand(nodes[0], shape)
        for n, extent in zip(nodes[1:], extents[1:], strict=True):
            total = ops.add(ops.mul(total, ops.full(shape, extent, int64)), expand(n, shape))
        return total

    linear = found[0] if len(found) == 1 else _combined(found, extents, shape, build)
    return Gathered(dims, extents, linear, shape, dims[-1] - dims[0] + 1 == len(dims))


def _combined(found: list[Tensor], extents: tuple[int, ...], shape: Shape, build: Any) -> Tensor:
    """The linear index; by NumPy if all index tensors are known (assignments need its value)."""
    if MODE.trace is None and all(is_concrete(t) for t in found):
        total = np.broadcast_to(value(found[0]), shape).astype(np.int64)
        for t, extent in zip(found[1:], extents[1:], strict=True):
            total = total * extent + value(t)
        return from_array(total)
    return apply("", build, *found)


def _front(n: Node, dims: tuple[int, ...]) -> Node:
    """Indexed dims first and as one."""
    rest = tuple(d for d in range(n.type.rank) if d not in dims)
    moved = ops.transpose(n, (*dims, *rest)) if (*dims, *rest) != tuple(range(n.type.rank)) else n
    count = math.prod(n.shape[d] for d in dims)
    return reshape_node(moved, (count, *[n.shape[d] for d in rest]))


def _unfront(n: Node, dims: tuple[int, ...], shape: Shape) -> Node:
    """The inverse of `_front`, back to `shape`."""
    rest = tuple(d for d in range(len(shape)) if d not in dims)
    order = (*dims, *rest)
    n = reshape_node(n, tuple(shape[d] for d in order))
    inverse = tuple(order.index(d) for d in range(len(shape)))
    return n if inverse == tuple(range(len(shape))) else ops.transpose(n, inverse)


def _result_order(g: Gathered, rank: int) -> tuple[int, ...] | None:
    """How to bring [index dims, other dims] into place: index dims stand where the first was, if adjacent."""
    if not g.adjacent or g.dims[0] == 0:
        return None
    k, before = len(g.shape), g.dims[0]
    rest = rank - len(g.dims)
    return (*range(k, k + before), *range(k), *range(k + before, k + rest))


def gather_node(n: Node, linear: Node, g: Gathered) -> Node:
    """The elements an index names."""
    if len(g.dims) == 1:
        return ops.take(n, linear, g.dims[0])
    taken = ops.take(_front(n, g.dims), linear, 0)
    order = _result_order(g, n.type.rank)
    return taken if order is None else ops.transpose(taken, order)


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index]."""
    parsed = parse(index, x._cell.node.type.shape)
    base = view(x, parsed)
    if not parsed.tensors:
        return base
    g = combine(base, parsed.tensors)
    return apply("IndexBackward0", lambda n, i: gather_node(n, i, g), base, g.linear)


# -------------------------------------------------------------------- assignment


def last_writer(linear: Tensor, count: int) -> Tensor:
    """For each of `count` places, the position in `linear` of the last index that names it, or -1."""
    total = linear._cell.node.type.size
    if MODE.trace is None and is_concrete(linear):
        found = np.full(count, -1, np.int64)
        found[value(linear).ravel()] = np.arange(total)
        return from_array(found)

    def build(n: Node) -> Node:
        if not total:
            return ops.full((count,), -1, int64)
        shape = (count, total)
        named = ops.eq(ops.broadcast(ops.reshape(n, (total,)), shape, (1,)), ops.iota(shape, 0))
        return ops.reduce_max(ops.select(named, ops.iota(shape, 1), ops.full(shape, -1, int64)), (1,))

    return apply("", build, linear)


def _replace(base: Node, values: Node, writer: Node, g: Gathered) -> Node:
    """`base` with the elements an index names replaced by `values` (in the order of `gather_node`)."""
    order = _result_order(g, base.type.rank)
    if order is not None:
        values = ops.transpose(values, tuple(order.index(d) for d in range(len(order))))
    flat = _front(base, g.dims)
    total, rest = math.prod(g.shape), flat.shape[1:]
    if total == 0:
        return base
    values = reshape_node(values, (total, *rest))
    zero = ops.full(writer.shape, 0, int64)
    taken = ops.take(values, ops.maximum(writer, zero), 0)
    written = ops.broadcast(ops.ge(writer, zero), flat.shape, (0,))
    return _unfront(ops.select(written, taken, flat), g.dims, base.shape)


def index_put(x: Tensor, index: dict[int, Tensor], source: Tensor, accumulate: bool = False) -> Tensor:
    """`x` with the elements that index tensors name replaced by (or increased by) `source`."""
    g = combine(x, index)
    own = x._cell.node.type
    rest = tuple(e for d, e in enumerate(own.shape) if d not in g.dims)
    shape = (*g.shape, *rest)
    order = _result_order(g, len(own.shape))
    if order is not None:
        shape = tuple(shape[d] for d in order)
    source = _fit(source, shape)

    if accumulate:

        def add(n: Node, i: Node, v: Node) -> Node:
            v = expand(cast(v, own.dtype), shape)
            if order is not None:
                v = ops.transpose(v, tuple(order.index(d) for d in range(len(order))))
            total = math.prod(g.shape)
            v = reshape_node(v, (total, *rest))
            front = _front(n, g.dims)
            if own.dtype is bool_:  # the sum of bools is whether any is true
                front, v = cast(front, int64), cast(v, int64)
            added = ops.scatter_add(front, ops.reshape(i, (total,)), v, 0)
            if own.dtype is bool_:
                added = ops.ne(added, ops.zeros(added.type))
            return _unfront(added, g.dims, own.shape)

        return apply("IndexPutBackward0", add, x, g.linear, source)
    writer = last_writer(g.linear, math.prod(g.extents))
    return apply(
        "IndexPutBackward0",
        lambda n, v, w: _replace(n, expand(cast(v, own.dtype), shape), w, g),
        x,
        source,
        writer,
    )


def _fit(source: Tensor, shape: Shape) -> Tensor:
    """`source` without leading dims of size 1 that `shape` lacks. RuntimeError if it does not broadcast."""
    theirs = source._cell.node.type.shape
    while len(theirs) > len(shape) and theirs[0] == 1:
        theirs = theirs[1:]
    fits = len(theirs) <= len(shape) and all(
        a in (1, b) for a, b in zip(theirs[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise fail(
            RuntimeError,
            f"shape mismatch: value tensor of shape {list(source.shape)} cannot be broadcast to indexing "
            f"result of "
            f"shape {list(shape)}",
        )
    return source.reshape(theirs) if theirs != source._cell.node.type.shape else source


def need_own_dtype(x: Tensor, source: Any) -> None:
    """RuntimeError unless what index tensors write has the dtype of `x`; numbers have any."""
    if isinstance(source, Tensor) and source.dtype is not x.dtype:
        raise fail(
            RuntimeError,
            "Index put requires the source and destination dtypes match, got "
            f"{title(x.dtype)} for the destination and {title(source.dtype)} for the source; "
            f"convert it with source.to(graphc.{x.dtype.name})",
        )


def _single_mask(x: Tensor, index: Any) -> Tensor | None:
    """The mask, if the index is nothing but one boolean mask."""
    if isinstance(index, tuple) and len(index) == 1:
        index = index[0]
    if isinstance(index, (np.ndarray, list)):
        index = _as_index(index)
    is_mask = isinstance(index, Tensor) and index.dtype is bool_
    return index if is_mask and tuple(x.shape[: index.ndim]) == tuple(index.shape) else None


def _set_masked(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """x[mask] = source without knowing the mask's value."""
    shape, k = x._cell.node.type.shape, mask.ndim
    rest = shape[k:]
    theirs = source._cell.node.type.shape
    per_element = len(theirs) == len(rest) + 1 and theirs[0] != 1

    def build(n: Node, m: Node, v: Node) -> Node:
        wide = ops.broadcast(m, shape, tuple(range(k)))
        if not per_element:
            return ops.select(wide, expand(cast(v, n.dtype), shape), n)
        if v.shape[0] == 0:
            return n
        count = math.prod(mask.shape)
        order = ops.cumsum(ops.reshape(cast(m, int64), (count,)), 0)
        place = ops.sub(order, ops.full((count,), 1, int64))
        last = ops.full((count,), v.shape[0] - 1, int64)
        place = ops.minimum(ops.maximum(place, ops.full((count,), 0, int64)), last)
        taken = reshape_node(ops.take(expand(cast(v, n.dtype), (v.shape[0], *rest)), place, 0), shape)
        return ops.select(wide, taken, n)

    return apply("IndexPutBackward0", build, x, mask, source)


def setitem(x: Tensor, index: Any, source: Any) -> None:
    """x[index] = source."""
    given = need(source, "__setitem__")
    if _set_known(x, index, given):
        return
    if not isinstance(given, Tensor):
        given = from_array(np.asarray(given, x.dtype.numpy)) if MODE.trace is None else _number(given, x)
    mask = _single_mask(x, index)
    if mask is not None:
        theirs = tuple(given.shape)
        if theirs:
            need_own_dtype(x, given)
        if len(theirs) == x.ndim - mask.ndim + 1 and theirs[0] != 1 and MODE.trace is None:
            count = int(np.count_nonzero(value(mask)))
            if theirs[0] != count:
                raise fail(
                    RuntimeError,
                    f"shape mismatch: value tensor of shape {list(theirs)} cannot be broadcast to indexing "
                    f"result of "
                    f"shape {[count, *x.shape[mask.ndim :]]}",
                )
        one = not mask.ndim and theirs[:1] == (1,)  # for the dim that such a mask adds
        inplace(x, _set_masked(x, mask, _fit(given, tuple(x.shape) if one else theirs)), "__setitem__")
        return
    parsed = parse(index, x._cell.node.type.shape)
    target = view(x, parsed)
    if not parsed.tensors:
        METHODS["copy_"](target, _fit(given, target._cell.node.type.shape))
        return
    need_own_dtype(x, given)
    inplace(target, index_put(target, parsed.tensors, given), "__setitem__")


def _set_known(x: Tensor, index: Any, given: Any) -> bool:
    """x[index] = given at once, if that is possible and the index is made of ints and slices."""
    if not all([type(i) in _BASIC for i in index] if type(index) is tuple else (type(index) in _BASIC,)):
        return False
    parsed = parse(index, x._cell.type.shape)
    box = tuple(map(slice, parsed.start, parsed.stop, parsed.step))
    return write_known(x, box, given, tuple(parsed.shape))


_BASIC = frozenset((int, slice, type(Ellipsis), type(None), np.int64))


def _number(given: Any, x: Tensor) -> Tensor:
    return apply("", lambda n: ops.full((), given, n.dtype), x).detach()


attach(__getitem__=repeatable(getitem), __setitem__=setitem)
