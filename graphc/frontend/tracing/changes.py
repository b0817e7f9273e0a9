"""Changes of gradients between a backward pass and the step, noted with them.

    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

Clipping reads every gradient, which would build what is noted (`deferred`). So it is noted itself, and is a
part of the step's program.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from graphc.frontend.cell import Cell
from graphc.frontend.modes import MODE
from graphc.frontend.tensor import Tensor, register
from graphc.frontend.tracing.events import fill, without_value
from graphc.ir.types import TensorType


class Change:
    """A noted change of gradients (`nn.utils.clip_grad_norm_`): `run()` makes it, and gives its results.

    cells, handles  of the results, as those of a call
    """

    __slots__ = ("cells", "handles", "key", "run")

    def __init__(self, run: Callable[[], Sequence[Tensor]], key: tuple) -> None:
        self.run, self.key = run, key
        self.cells: list[Cell] = []
        self.handles: list[weakref.ref[Tensor]] = []

    def build(self) -> None:
        """Change the gradients, as lazy nodes."""
        for cell, handle, tensor in zip(self.cells, self.handles, self.run(), strict=True):
            fill(cell, tensor._cell.node, tensor._cell.fn, tensor._cell.tracks)
            held = handle()
            if held is not None:
                register(held)


def change(
    run: Callable[[], Sequence[Tensor]], leaves: Sequence[Tensor], key: tuple, types: Sequence[TensorType]
) -> list[Tensor] | None:
    """Note a change of the gradients of `leaves` that noted backward passes will give, and of nothing else.

    `run` makes it, and gives tensors of `types` without history; `key` says what it does besides. None if it
    has to be made now.
    """
    events = MODE.events
    if events is None or events.done or MODE.trace is not None:
        return None
    promised = [leaf for leaf in leaves if leaf._grad is not None]
    if not promised or any(leaf._grad is not events.promise for leaf in promised):
        return None
    found = Change(run, (*key, *map(id, promised)))
    tensors = []
    for type_ in types:
        tensor = without_value(events)
        cell = tensor._cell
        events.changes[cell] = type_
        found.cells.append(cell)
        found.handles.append(weakref.ref(tensor))
        tensors.append(tensor)
    events.items.append(found)
    return tensors
