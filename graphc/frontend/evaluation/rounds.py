"""Where programs end in loops that read nothing.

    for t in range(2000):
        loss = (model(x) - y).pow(2).sum()
        loss.backward()
        with torch.no_grad():
            w -= rate * w.grad
        if t % 100 == 99:
            print(loss.item())

No optimizer steps here, and a value is read at every hundredth round only (or one that the updates do not
need, so that a later read computes them anew). A leaf that requires gradients, whose value is a pending
update, is used again: a round has ended. What is pending is computed then, so every round's forward pass
begins at known leaves, and can be noted (`graphc.frontend.steps.adopted`). So it is where a tensor whose
value is pending is about to be updated once more, after a round's worth of other operations.

    with torch.no_grad():
        for t in range(5000):
            x = x + dt * f(x)

Here every round makes a new tensor and lets go of the last. Where many operations have been recorded and
nothing was computed, the line that is at work is noted, and when it comes again that is a loop: what is
pending is computed then, once every few hundred operations, and those are the same program each time.
"""

from __future__ import annotations

import threading

from graphc.frontend.cell import Deferred
from graphc.frontend.evaluation.lazy import LONG, may_be_differentiated, sync
from graphc.frontend.modes import MODE
from graphc.frontend.pending import recorded, when_long, when_used
from graphc.frontend.sites import current_site
from graphc.frontend.tensor import Tensor
from graphc.ir.node import Site

# Operations since the first pending update of a tensor that make a round. Fewer are an update in parts
# (`average.mul_(0.9).add_(w, alpha=0.1)`), or a loop that costs less to record than a program to run.
ROUND = 16


def may_end(tensor: Tensor) -> None:
    """Compute all that is pending if an in-place update of `tensor` begins another round."""
    cell = tensor._cell
    if type(cell) is Deferred or not cell.past or MODE.trace is not None:
        return
    if cell.fn is None and cell.node.bound is None and recorded() - cell.past[0][-1] > ROUND:
        sync()


def _leaf_is_used() -> None:
    """A leaf is used whose update is pending: compute that, unless this is in the midst of a forward pass."""
    pending = MODE.pending
    if not MODE.grad or MODE.recording or len(pending) > LONG:
        return
    if not any(type(tensor._cell) is Deferred or may_be_differentiated(tensor) for tensor in pending):
        sync()


class _Watch(threading.local):
    """The line of the user's that is waited for, up to the operation of a number."""

    line: Site | None = None
    until = 0


_watch = _Watch()


def _look(number: int) -> None:
    """An operation after many of which nothing was computed: the end of a loop's rounds, if its line was at
    work when their number became large."""
    pending = MODE.pending
    if not pending.limit:  # the first of its thread
        pending.limit = number + LONG
        return
    line = current_site()
    if number > _watch.until:
        _watch.line, _watch.until = line, number + LONG
    elif line is _watch.line:
        _watch.until = number + 2 * LONG
        pending.limit = number + LONG
        if _carries_little():
            sync()
    else:
        pending.limit = number + 1


def _carries_little() -> bool:
    """Whether what is pending is the state of a loop: few tensors, none of a pass that will be differentiated
    and none in the middle of an update."""
    if MODE.trace is not None or MODE.recording or MODE.events is not None or len(MODE.pending) > LONG // 2:
        return False
    return not any(
        type(tensor._cell) is Deferred or may_be_differentiated(tensor) or tensor._cell.old is not None
        for tensor in MODE.pending
    )


when_long(_look)
when_used(_leaf_is_used)
