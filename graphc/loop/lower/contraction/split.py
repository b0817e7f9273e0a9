"""The second kernel of a K-split contraction: add the partial sums, in order, and run the epilogue."""

from __future__ import annotations

import math

from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Var, identity_of, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.problem import Contraction
from graphc.loop.lowered import KernelCall, Temp

TASK_ELEMENTS = 1 << 13
MOST_TASKS = 32


def combine_call(
    problem: Contraction, partial: Temp, fused: Fused, width: int, name: str, flat: bool = False
) -> KernelCall:
    """out[b, m, n] = epilogue(sum over s of partial[s, b, m, n]); vectors along all columns if `flat`, else
    along the innermost axis of columns."""
    splits, batch, m, n = partial.type.shape
    inner = n if flat or not problem.cols else problem.cols[-1]
    box = (batch, m, n // inner)
    count = math.prod(box)
    tasks = max(1, min(count, MOST_TASKS, batch * m * n // TASK_ELEMENTS))
    chunk = -(-count // tasks)
    tasks = -(-count // chunk)
    task = Var(int64, "task", tasks)
    w = fused.scope
    first = ix.mul(task, chunk)
    source = fused.buffer(partial)
    with w.loop("i", ix.minimum(chunk, ix.sub(count, first)), chunk) as i:
        flat_batch, row, run = ix.unflatten(ix.add(first, i), box)
        with w.loop("j", inner, None, "vector", width) as j:
            col = ix.add(ix.mul(run, inner), j)
            total = w.alloc("total", partial.type.dtype, (), "local")
            w.store(total, (), identity_of("add", partial.type.dtype))
            with w.loop("s", splits) as s:
                w.put(Accumulate(total, (), "add", load(source, (s, flat_batch, row, col))))
            batch_index = ix.unflatten(flat_batch, problem.batch)
            rows = ix.unflatten(row, problem.rows)
            cols = ix.unflatten(col, problem.cols)
            fused.finish(problem.c(batch_index, rows, cols), load(total, ()))
    return fused.call(name, task, tasks, float(splits * batch * m * n))
