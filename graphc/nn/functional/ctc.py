"""Connectionist temporal classification: the sum over all alignments of a target to a longer sequence.

A target t1 t2 ... stands for the states blank t1 blank t2 ... blank. `reach[s]` is the logarithm of the
probability of all ways to be in state s after the steps so far: from s, from s - 1, or from s - 2 where that
leaves out only a blank between two different labels. One scan over the steps computes it for a whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.frontend.cell import fresh_input
from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.creation import tensor
from graphc.frontend.nodes import cast
from graphc.frontend.tensor import Tensor, apply, is_concrete, operand
from graphc.ir.node import Node
from graphc.ir.types import TensorType, bool_, int32, int64
from graphc.nn.functional.common import need_float, need_tensors, reduced

Lengths = Tensor | Sequence[int]
_NEVER = -1e30  # the logarithm of the probability of what cannot happen; finite, so that no NaN arises


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability that log_probs [T, N, C] (or [T, C]) spell the targets.

    targets are labels [N, S], or all of them one after the other [sum of target_lengths]; lengths [N] say how
    much of each sequence counts. The mean is over losses divided by their target's length. A target that does
    not fit its input costs infinity, or 0 with `zero_infinity`. As in PyTorch the gradient is that of
    logits before a log_softmax.
    """
    need_float("ctc_loss", log_probs)
    need_tensors("ctc_loss", targets)
    fits = log_probs.ndim in (2, 3) and targets.ndim in (1, 2) and targets.dtype in (int64, int32)
    if not fits or log_probs.numel() == 0:
        raise fail(
            RuntimeError,
            "ctc_loss: expected log_probs [T, N, C] or [T, C] and integer targets [N, S] or [sum of "
            f"target_lengths], got {describe(log_probs, targets)}",
        )
    batched = log_probs.ndim == 3
    steps, batch, classes = log_probs.shape if batched else (log_probs.shape[0], 1, log_probs.shape[1])
    if not 0 <= blank < classes:
        raise fail(RuntimeError, f"ctc_loss: blank must be in label range 0..{classes - 1}, got {blank}")
    inputs = _lengths("input_lengths", input_lengths, batch, steps)
    room = targets.shape[-1]
    wanted = _lengths("target_lengths", target_lengths, batch, room)
    apart = targets.ndim == 2 or not batched  # one row a sequence
    if apart and targets.numel() != batch * room:
        raise fail(RuntimeError, f"ctc_loss: expected targets of {batch} sequences, got {describe(targets)}")
    longest = room if apart else _longest(wanted, room)

    def build(lp: Node) -> Node:
        lp = ops.reshape(lp, (steps, batch, classes))
        n_in, n_out = operand(inputs, False), operand(wanted, False)
        labels = _labels(operand(targets, False), n_out, (batch, longest), apart, blank, classes)
        loss = _losses(lp, labels, n_in, n_out, blank, zero_infinity)
        if reduction == "mean":
            loss = ops.div(loss, cast(ops.maximum(n_out, ops.like(n_out, 1)), loss.dtype))
        loss = reduced(loss, reduction)
        return loss if batched or reduction != "none" else ops.reshape(loss, ())

    return apply("CtcLossBackward0", build, log_probs)


# --------------------------------------------------------------------- lengths and labels


def _lengths(name: str, given: Lengths, batch: int, most: int) -> Tensor:
    """Lengths as an int64 tensor [batch]; RuntimeError for values outside 0..most.

    Where values are not known yet, the program checks them: IndexError.
    """
    lengths = given if isinstance(given, Tensor) else tensor(list(given), dtype=int64)
    if lengths.dtype not in (int64, int32) or lengths.numel() != batch:
        raise fail(RuntimeError, f"ctc_loss: {name} must be {batch} integers, got {describe(lengths)}")
    lengths = lengths.reshape(batch).to(int64)
    rule = f"ctc_loss: expected {name} to have values of at least 0 and at most {most}"
    if not is_concrete(lengths):
        return apply("CheckBackward0", lambda n: ops.check_index(n, 0, most + 1, rule), lengths)
    for length in value(lengths):
        if not 0 <= length <= most:
            raise fail(RuntimeError, f"{rule}, but got {length}")
    return lengths


def _longest(lengths: Tensor, room: int) -> int:
    """The longest target of those that stand one after the other; all, where lengths are not known yet."""
    if not is_concrete(lengths):
        return room
    known = value(lengths)
    if known.sum() > room:
        raise fail(
            RuntimeError,
            f"ctc_loss: expected targets of size {known.sum()}, the sum of target_lengths, but got {room}",
        )
    return int(np.max(known, initial=0))


def _labels(
    targets: Node, lengths: Node, shape: tuple[int, int], apart: bool, blank: int, classes: int
) -> Node:
    """Labels [N, S], blank beyond each target's length; checked when the program runs."""
    place = ops.iota(shape, 1, int64)
    if apart:
        found = ops.reshape(cast(targets, int64), shape)
    else:
        start = ops.sub(ops.cumsum(lengths, 0), lengths)
        place_in_all = ops.add(place, ops.broadcast(start, shape, (0,)))
        last = ops.like(place, targets.shape[0] - 1)
        found = ops.take(cast(targets, int64), ops.minimum(place_in_all, last), 0)
    inside = ops.lt(place, ops.broadcast(lengths, shape, (0,)))
    found = ops.select(inside, found, ops.like(found, blank))
    rule = f"ctc_loss: target is out of bounds: it must be at least 0 and less than {classes}"
    return ops.check_index(found, 0, classes, rule)


# ---------------------------------------------------------------------------- the sums


def _losses(lp: Node, labels: Node, n_in: Node, n_out: Node, blank: int, zero_infinity: bool) -> Node:
    """The loss [N] of each sequence."""
    states = _interleaved(labels, blank)  # [N, 2S + 1]
    last = _last_states(lp, states, n_in)
    end = ops.mul(n_out, ops.like(n_out, 2))
    before = ops.maximum(ops.sub(end, ops.like(end, 1)), ops.like(end, 0))
    whole = _at(last, end)
    short = ops.select(ops.gt(end, ops.like(end, 0)), _at(last, before), ops.like(whole, _NEVER))
    total = _log_sum(whole, short)
    never = ops.lt(total, ops.like(total, _NEVER / 2))
    loss = ops.select(never, ops.like(total, 0 if zero_infinity else math.inf), ops.neg(total))
    return _with_logits(loss, lp, n_in, never, zero_infinity)


def _interleaved(labels: Node, blank: int) -> Node:
    """[N, S] as [N, 2S + 1]: a blank before, between and behind."""
    batch, room = labels.shape
    blanks = ops.full((batch, room, 1), blank, labels.dtype)
    pairs = ops.concat([blanks, ops.reshape(labels, (batch, room, 1))], 2)
    return ops.concat([ops.reshape(pairs, (batch, 2 * room)), ops.full((batch, 1), blank, labels.dtype)], 1)


def _last_states(lp: Node, states: Node, n_in: Node) -> Node:
    """`reach` [N, 2S + 1] after the last step of each sequence."""
    steps, (batch, count) = lp.shape[0], states.shape
    index = ops.broadcast(states, (steps, batch, count), (1, 2))
    emitted = ops.take_along(lp, index, 2)
    emitted = ops.maximum(emitted, ops.like(emitted, _NEVER))
    time = ops.iota((steps, batch), 0, int64)
    alive = ops.lt(time, ops.broadcast(n_in, time.shape, (1,)))
    other = ops.ne(states, _moved(states, 2, -1))
    odd = ops.eq(ops.rem(ops.iota(states.shape, 1, int64), ops.like(states, 2)), ops.like(states, 1))
    may_skip = ops.bit_and(odd, other)

    kind = TensorType((batch, count), lp.dtype)
    reach, here = fresh_input(kind), fresh_input(kind)
    going = fresh_input(TensorType((batch,), bool_))
    skipped = ops.select(may_skip, _moved(reach, 2, _NEVER), ops.like(reach, _NEVER))
    after = ops.add(_log_sum(reach, _moved(reach, 1, _NEVER), skipped), here)
    after = ops.select(ops.broadcast(going, after.shape, (0,)), after, reach)
    start = ops.concat([ops.full((batch, 1), 0, lp.dtype), ops.full((batch, count - 1), _NEVER, lp.dtype)], 1)
    return ops.scan([reach], [here, going], [after], [], [start], [emitted, alive]).finals[0]


def _moved(n: Node, by: int, fill: float) -> Node:
    """Rows moved to the right by `by` places."""
    batch, count = n.shape
    if by >= count:
        return ops.like(n, fill)
    return ops.concat([ops.full((batch, by), fill, n.dtype), ops.slice_axis(n, 1, 0, count - by)], 1)


def _at(rows: Node, index: Node) -> Node:
    """rows[n, index[n]]."""
    picked = ops.take_along(rows, ops.reshape(index, (index.shape[0], 1)), 1)
    return ops.reshape(picked, (index.shape[0],))


def _log_sum(first: Node, *others: Node) -> Node:
    """The logarithm of a sum of exponentials; at least one finite term stands for every one."""
    top = first
    for n in others:
        top = ops.maximum(top, n)
    top = ops.stop_gradient(top)
    total = ops.exp(ops.sub(first, top))
    for n in others:
        total = ops.add(total, ops.exp(ops.sub(n, top)))
    return ops.add(ops.log(total), top)


def _with_logits(loss: Node, lp: Node, n_in: Node, never: Node, zero_infinity: bool) -> Node:
    """The loss, its gradient that of logits: the probabilities of each step that counts are added to it.

    The gradient of a log_softmax takes them off again. Where the loss is infinite the gradient is NaN.
    """
    time = ops.iota(lp.shape[:2], 0, int64)
    counts = ops.broadcast(ops.lt(time, ops.broadcast(n_in, time.shape, (1,))), lp.shape, (0, 1))
    chances = ops.reduce_sum(ops.select(counts, ops.exp(lp), ops.like(lp, 0)), (0, 2))
    factor = ops.select(never, ops.like(loss, 0 if zero_infinity else math.nan), ops.like(loss, 1))
    return ops.with_gradient(loss, ops.add(loss, ops.mul(chances, factor)))
