"""Padding: constants, reflections, repeated edges, and wrapping round. All are views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.nodes import expand
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.nn.functional.common import need_tensors

Piece = Callable[[Node, int, int, bool], Node]


def _reflected(n: Node, axis: int, count: int, before: bool) -> Node:
    extent = n.shape[axis]
    start = 1 if before else extent - 1 - count
    return ops.flip(ops.slice_axis(n, axis, start, start + count), (axis,))


def _repeated(n: Node, axis: int, count: int, before: bool) -> Node:
    place = 0 if before else n.shape[axis] - 1
    edge = ops.slice_axis(n, axis, place, place + 1)
    shape = (*n.shape[:axis], count, *n.shape[axis + 1 :])
    flat = ops.reshape(edge, (*n.shape[:axis], *n.shape[axis + 1 :]))
    return ops.broadcast(flat, shape, tuple([i for i in range(len(shape)) if i != axis]))


def _wrapped(n: Node, axis: int, count: int, before: bool) -> Node:
    start = n.shape[axis] - count if before else 0
    return ops.slice_axis(n, axis, start, start + count)


_PIECES: dict[str, Piece] = {"reflect": _reflected, "replicate": _repeated, "circular": _wrapped}


def _extend(n: Node, axis: int, low: int, high: int, piece: Piece) -> Node:
    parts = [piece(n, axis, low, True)] if low > 0 else []
    parts.append(n)
    if high > 0:
        parts.append(piece(n, axis, high, False))
    return parts[0] if len(parts) == 1 else ops.concat(parts, axis)


def _crop(n: Node, axis: int, low: int, high: int) -> Node:
    """Take off what is padded by a negative amount."""
    if low >= 0 and high >= 0:
        return n
    return ops.slice_axis(n, axis, max(-low, 0), n.shape[axis] - max(-high, 0))


def _beyond(n: Node, axis: int, low: int, high: int) -> Node:
    """Replication where one side crops all of the dim: only copies of one border remain."""
    edge = 0 if low > 0 else n.shape[axis] - 1
    border = ops.slice_axis(n, axis, edge, edge + 1)
    shape = (*n.shape[:axis], n.shape[axis] + low + high, *n.shape[axis + 1 :])
    return expand(border, shape)


def _check(input: Tensor, pad: Sequence[int], mode: str) -> None:
    if len(pad) % 2:
        raise fail(RuntimeError, f"Padding length must be divisible by 2, got {list(pad)}")
    dims = len(pad) // 2
    if dims > input.ndim:
        raise fail(
            RuntimeError,
            "Padding length should be less than or equal to two times the input dimension but got "
            "padding length "
            f"{len(pad)} and input of dimension {input.ndim}",
        )
    if mode not in ("constant", *_PIECES):
        raise fail(NotImplementedError, f"Unrecognised padding mode {mode}")
    for i in range(dims):
        extent, low, high = input.shape[-1 - i], pad[2 * i], pad[2 * i + 1]
        if extent + low + high < 0:
            raise fail(
                RuntimeError,
                f"pad: the input's dim {input.ndim - 1 - i} of size {extent} with padding ({low}, "
                f"{high}) would "
                "have a negative size",
            )
        if mode == "reflect" and max(low, high) >= extent:
            raise fail(
                RuntimeError,
                "Padding size should be less than the corresponding input dimension, but got: padding "
                f"({low}, {high}) at dimension {input.ndim - 1 - i} of input {list(input.shape)}",
            )
        if mode == "circular" and max(low, high) > extent:
            raise fail(
                RuntimeError,
                f"Padding value causes wrapping around more than once: ({low}, {high}) of {extent}",
            )
    if mode != "constant" and input.ndim - dims not in (1, 2):
        raise fail(
            NotImplementedError,
            "Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now, got "
            f"{list(pad)} for "
            f"input {list(input.shape)}",
        )


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the trailing dims by (low, high) pairs, the last dim's first; negative amounts crop.

    mode: "constant" (with `value`, 0 by default), "reflect", "replicate" or "circular". RuntimeError for
    amounts that do not fit.
    """
    need_tensors("pad", input)
    amounts = [int(p) for p in pad]
    _check(input, amounts, mode)
    if value and mode != "constant":
        raise fail(ValueError, f"Padding mode {mode!r} doesn't take in value argument")
    pairs = [(input.ndim - 1 - i, amounts[2 * i], amounts[2 * i + 1]) for i in range(len(amounts) // 2)]

    def build(n: Node) -> Node:
        low, high = [0] * n.type.rank, [0] * n.type.rank
        for axis, before, after in reversed(pairs):
            if mode == "constant" or n.shape[axis] + min(before, after, 0) > 0:
                n = _crop(n, axis, before, after)
            else:  # what is left over is made of the border
                n = _beyond(n, axis, before, after)
                continue
            if mode == "constant":
                low[axis], high[axis] = max(before, 0), max(after, 0)
            else:
                n = _extend(n, axis, before, after, _PIECES[mode])
        if not any(low) and not any(high):
            return n
        fill = value or 0
        return ops.pad(n, tuple(low), tuple(high), bool(fill) if n.dtype.kind == "b" else fill)

    return apply("ConstantPadNdBackward0" if mode == "constant" else "PadBackward0", build, input)
