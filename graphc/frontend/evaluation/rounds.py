"""Where programs end in loops that update tensors in place and read nothing.

    for t in range(2000):
        loss = (model(x) - y).pow(2).sum()
        loss.backward()
        with torch.no_grad():
            w -= rate * w.grad
        if t % 100 == 99:
            print(loss.item())

No optimizer steps here, and a value is read at every hundredth round only (or one that the updates do not
need, so that a later read computes them anew). A tensor whose pending value is about to be updated once
more, after a round's worth of other operations, says that a round has ended: what is pending is computed
then, and every round is the same program.
"""

from __future__ import annotations

from graphc.frontend.cell import Deferred
from graphc.frontend.evaluation.lazy import sync
from graphc.frontend.modes import MODE
from graphc.frontend.tensor import Tensor, recorded

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
