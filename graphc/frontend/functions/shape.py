"""Shape operations. Those that are views in PyTorch share storage here too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions.checks import need_known
from graphc.frontend.functions.methods import attach, method
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import broadcast_shapes, expand, normal_axis, shape_args
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor, apply, apply_view, check_writable, register, wrap_cell
from graphc.ir.node import Node
from graphc.ir.types import Shape, int64

# ------------------------------------------------------------------- queries


@method(function=False)
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or the extent of `dim`."""
    return self.shape if dim is None else self.shape[normal_axis(dim, self.ndim)]


@method("dim", "ndimension", function=False)
def dim(self: Tensor) -> int:
    """The number of dims."""
    return self.ndim


@method("numel", "nelement")
def numel(input: Tensor) -> int:
    """The number of elements."""
    return input._cell.type.size


@method(function=False)
def stride(self: Tensor, dim: int | None = None) -> Any:
    """Strides of a contiguous tensor of this shape (graphc decides the real layout)."""
    strides, step = [], 1
    for extent in reversed(self.shape):
        strides.append(step)
        step *= max(extent, 1)
    found = tuple(reversed(strides))
    return found if dim is None else found[dim]


# ------------------------------------------------------------------- reshape


def resolve_shape(shape: Shape, count: int) -> Shape:
    """Replace one -1 by what makes the shape hold `count` elements."""
    unknown = shape.count(-1)
    if unknown > 1:
        raise fail(RuntimeError, "only one dimension can be inferred")
    for extent in shape:
        if extent < -1:
            raise fail(RuntimeError, f"invalid shape dimension {extent}")
    known = math.prod(e for e in shape if e != -1)
    if unknown:
        if known == 0:
            raise fail(
                RuntimeError,
                f"cannot reshape tensor of {count} elements into shape {list(shape)} because the unspecified "
                "dimension size -1 can be any value and is ambiguous",
            )
        if count % known == 0:
            return tuple(count // known if e == -1 else e for e in shape)
    elif known == count:
        return shape
    raise fail(RuntimeError, f"shape '{list(shape)}' is invalid for input of size {count}")


def interleaved_node(n: Node, axis: int, times: int) -> Node:
    """Each slice along `axis` `times` times in a row."""
    before, after = n.shape[: axis + 1], n.shape[axis + 1 :]
    kept = tuple([i + (i > axis) for i in range(n.type.rank)])
    wide = ops.broadcast(n, (*before, times, *after), kept)
    return reshape_node(wide, (*n.shape[:axis], n.shape[axis] * times, *after))


def reshape_node(n: Node, shape: Shape) -> Node:
    return n if n.type.shape == shape else ops.reshape(n, shape)


def _reshape(input: Tensor, shape: Shape, label: str) -> Tensor:
    own = input._cell.node.type.shape

    def forward(n: Node) -> Node:
        return n if own == shape else ops.reshape(n, shape)

    def back(base: Node, n: Node) -> Node:
        return n if own == shape else ops.reshape(n, own)

    return apply_view(label, forward, back, input)


@method(repeats=True)
def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """The same elements in another shape; one extent may be -1."""
    wanted = shape_args(args) if args or shape is None else shape_args((shape,))
    return _reshape(input, resolve_shape(wanted, numel(input)), "ViewBackward0")


@method(function=False, repeats=True)
def view(self: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape, sharing storage; one extent may be -1."""
    return _reshape(self, resolve_shape(shape_args(shape), numel(self)), "ViewBackward0")


@method(function=False)
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """Reshape to the shape of `other`."""
    return reshape(self, other.shape)


@method()
def adjoint(input: Tensor) -> Tensor:
    """The last two dims exchanged (there are no complex numbers to conjugate)."""
    return transpose(input, -2, -1)


@method()
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two shapes are equal."""
    return input.shape == other.shape


@method(function=False)
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """View with the shape of `other`."""
    return reshape(self, other.shape)


@method(repeats=True)
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dims start_dim..end_dim as one."""
    rank = input.ndim
    start, end = normal_axis(start_dim, rank), normal_axis(end_dim, rank)
    if start > end:
        raise fail(RuntimeError, "flatten() has invalid args: start_dim cannot come after end_dim")
    shape = input._cell.node.type.shape
    merged = (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])
    return _reshape(input, merged, "ViewBackward0")


@method()
def ravel(input: Tensor) -> Tensor:
    """All elements in one dim."""
    return _reshape(input, (numel(input),), "ViewBackward0")


@method(repeats=True)
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dim as several; one of `sizes` may be -1."""
    axis = normal_axis(dim, input.ndim)
    shape = input._cell.node.type.shape
    inner = resolve_shape(tuple(sizes), shape[axis])
    return _reshape(input, (*shape[:axis], *inner, *shape[axis + 1 :]), "ViewBackward0")


@method(inplace=False, repeats=True)
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without dims of size 1 (all of them, or those named)."""
    shape = input._cell.node.type.shape
    if dim is None:
        named = set(range(len(shape)))
    else:
        named = {normal_axis(d, len(shape)) for d in ((dim,) if isinstance(dim, int) else dim)}
    kept = tuple(e for i, e in enumerate(shape) if not (i in named and e == 1))
    return _reshape(input, kept, "SqueezeBackward0")


@method(inplace=False, repeats=True)
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dim of size 1 at `dim`."""
    shape = input._cell.node.type.shape
    axis = normal_axis(dim, len(shape) + 1)
    return _reshape(input, (*shape[:axis], 1, *shape[axis:]), "UnsqueezeBackward0")


# ----------------------------------------------------------------- transposes


def _permute(input: Tensor, order: tuple[int, ...], label: str) -> Tensor:
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    return apply_view(
        label, lambda n: ops.transpose(n, order), lambda base, n: ops.transpose(n, inverse), input
    )


@method(repeats=True)
def permute(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """Dims in another order."""
    given = shape_args(args or (dims,))
    if len(given) != input.ndim:
        raise fail(
            RuntimeError,
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of "
            "the desired "
            f"ordering of dimensions i.e. input.dim() = {input.ndim} is not equal to len(dims) = "
            f"{len(given)}",
        )
    order = tuple(normal_axis(d, input.ndim) for d in given)
    if len(set(order)) != len(order):
        raise fail(RuntimeError, "permute(): duplicate dims are not allowed.")
    return _permute(input, order, "PermuteBackward0")


@method("transpose", "swapaxes", "swapdims", repeats=True)
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dims exchanged."""
    a, b = normal_axis(dim0, input.ndim), normal_axis(dim1, input.ndim)
    order = list(range(input.ndim))
    if order:
        order[a], order[b] = b, a
    return _permute(input, tuple(order), "TransposeBackward0")


@method(repeats=True)
def t(input: Tensor) -> Tensor:
    """The transposed matrix; tensors of less than two dims as they are."""
    if input.ndim > 2:
        raise fail(RuntimeError, f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return _permute(input, tuple(reversed(range(input.ndim))), "TBackward0")


@method("movedim", "moveaxis", repeats=True)
def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dims moved to other places; the rest keep their order."""
    rank = input.ndim
    src = [normal_axis(d, rank) for d in ((source,) if isinstance(source, int) else source)]
    dst = [normal_axis(d, rank) for d in ((destination,) if isinstance(destination, int) else destination)]
    if len(src) != len(dst):
        raise fail(RuntimeError, f"movedim: Invalid source or destination dims: {source} and {destination}")
    for name, dims in (("source", src), ("destination", dst)):
        if len(set(dims)) != len(dims):
            raise fail(RuntimeError, f"movedim: repeated dim in `{name}` ({dims})")
    order = [-1] * rank
    for s, d in zip(src, dst, strict=True):
        order[d] = s
    rest = iter(i for i in range(rank) if i not in src)
    return _permute(input, tuple(o if o >= 0 else next(rest) for o in order), "PermuteBackward0")


def _reversed_dims(self: Tensor) -> Tensor:
    """All dims in reverse order."""
    return _permute(self, tuple(reversed(range(self.ndim))), "PermuteBackward0")


def _matrix_transpose(self: Tensor) -> Tensor:
    """The last two dims exchanged."""
    return transpose(self, -2, -1)


attach(
    T=property(_reversed_dims),
    H=property(_reversed_dims),
    mT=property(_matrix_transpose),
    mH=property(_matrix_transpose),
)


def _in_place(view: Callable[..., Tensor], name: str) -> None:
    """Enter `name_`: this tensor becomes the view of itself that `view` gives."""

    def changed(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(self)
        cell = self._cell
        if MODE.trace is not None and cell.trace is not MODE.trace:
            raise fail(
                RuntimeError,
                f"{name}_() of a tensor from outside the traced function would change its shape for "
                f"everybody; use {name}()",
            )
        found = view(wrap_cell(cell), *args, **kwargs)
        self._cell = found._cell
        register(self)
        return self

    changed.__name__ = changed.__qualname__ = f"{name}_"
    changed.__doc__ = f"In-place form of `{name}`: this tensor becomes that view of itself."
    method(f"{name}_", function=False)(changed)


for _name, _view in {
    "transpose": transpose,
    "swapaxes": transpose,
    "swapdims": transpose,
    "t": t,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
}.items():
    _in_place(_view, _name)  # type: ignore[arg-type]


# ------------------------------------------------------------------ broadcasts


@method("expand", function=False, repeats=True)
def expand_(self: Tensor, *sizes: Any) -> Tensor:
    """Dims of size 1 repeated to `sizes`; -1 leaves a dim as it is."""
    wanted = shape_args(sizes)
    own = self._cell.node.type.shape
    offset = len(wanted) - len(own)
    if offset < 0:
        raise fail(
            RuntimeError,
            f"expand({list(own)}, size={list(wanted)}): the number of sizes provided ({len(wanted)}) must "
            f"be greater "
            f"or equal to the number of dimensions in the tensor ({len(own)})",
        )
    shape = []
    for i, extent in enumerate(wanted):
        here = own[i - offset] if i >= offset else 1
        if extent == -1 and i < offset:
            raise fail(
                RuntimeError,
                f"The expanded size of the tensor (-1) isn't allowed in a leading, non-existing dimension "
                f"{i}",
            )
        extent = here if extent == -1 else extent
        if here not in (1, extent):
            raise fail(
                RuntimeError,
                f"The expanded size of the tensor ({extent}) must match the existing size ({here}) at "
                f"non-singleton "
                f"dimension {i}.  Target sizes: {list(wanted)}.  Tensor sizes: {list(own)}",
            )
        shape.append(extent)
    target = tuple(shape)

    def back(base: Node, n: Node) -> Node:
        return reshape_node(n, own) if n.type.size else base

    apart = math.prod(target) <= math.prod(own)
    return apply_view("ExpandBackward0", lambda n: expand(n, target), back if apart else None, self)


@method(function=False)
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of `other`."""
    return expand_(self, other.shape)


@method()
def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """Expanded to `shape`."""
    return expand_(input, tuple(shape))


@method(only_function=True)
def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All tensors expanded to their common shape."""
    shape = broadcast_shapes(*[t._cell.node.type.shape for t in tensors])
    return tuple(expand_(t, shape) for t in tensors)


@method("broadcast_shapes", only_function=True)
def _broadcast_shapes(*shapes: Any) -> Size:
    """The common shape of shapes under broadcasting."""
    return Size(broadcast_shapes(*[(s,) if isinstance(s, int) else tuple(s) for s in shapes]))


@method("repeat", function=False, repeats=True)
def repeat(self: Tensor, *repeats: Any) -> Tensor:
    """The tensor laid out `repeats` times along each dim (new dims in front)."""
    times = shape_args(repeats)
    own = self._cell.node.type.shape
    if len(times) < len(own):
        raise fail(
            RuntimeError,
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor",
        )
    padded = (1,) * (len(times) - len(own)) + own

    def build(n: Node) -> Node:
        inner, full = [], []
        for count, extent in zip(times, padded, strict=True):
            inner += [1, extent]
            full += [count, extent]
        out = tuple(c * e for c, e in zip(times, padded, strict=True))
        return reshape_node(expand(reshape_node(n, tuple(inner)), tuple(full)), out)

    return apply("RepeatBackward0", build, self)


@method()
def tile(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """Like `repeat`, but missing counts are 1."""
    times = shape_args(args or (dims,))
    return repeat(input, (1,) * (input.ndim - len(times)) + times)


@method()
def repeat_interleave(
    input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element (each slice along `dim`) repeated in place; a tensor of counts is read."""
    if dim is None:
        input, dim = ravel(input), 0
    if isinstance(repeats, Tensor):
        need_known("repeat_interleave()", "the number of copies", repeats, "give the repeats as an int")
    if isinstance(repeats, Tensor) and repeats._cell.node.type.size == 1:
        repeats = repeats.item()
    if isinstance(repeats, Tensor):
        counts = repeats.tolist()
        if len(counts) != input.shape[dim]:
            raise fail(RuntimeError, "repeats must have the same size as input along dim")
        picks = [i for i, count in enumerate(counts) for _ in range(count)]
        return input.index_select(dim, repeats.new_tensor(picks, dtype=int64))
    axis = normal_axis(dim, input.ndim)

    def build(n: Node) -> Node:
        return interleaved_node(n, axis, repeats)

    return apply("RepeatBackward0", build, input)


# ------------------------------------------------------------- join and split


@method(function=False)
def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """This tensor: graphc chooses the layout in memory."""
    return self


@method(function=False)
def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """Always true."""
    return True
