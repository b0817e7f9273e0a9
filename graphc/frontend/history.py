"""What a tensor remembers of how it was made: the grad_fn objects that users see.

Gradients are never computed from these objects (that is `graphc.autodiff`, on nodes).
They say which leaves a result depends on, which history has been freed, where hooks
sit and where a user's own `autograd.Function` cuts the graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.frontend import hooks
from graphc.frontend.hooks import HookTable, RemovableHandle

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor
    from graphc.ir.node import Node

_order = itertools.count()

# Operations whose backward needs none of their operands: going through them twice is allowed.
SAVES_NOTHING = frozenset(
    f"{name}Backward0"
    for name in (
        "Add Sub Neg Sum Mean View Reshape UnsafeView Transpose T Permute Expand Repeat Squeeze Unsqueeze "
        "Select "
        "Slice Cat Stack Clone ToCopy Flip Roll Split Unbind Diagonal Unfold Alias MulScalar DivScalar"
    ).split()
) | {"CopySlices", "AccumulateGrad"}


class GradFn:
    """The operation that made a tensor. `next_functions` lead to the leaves."""

    __slots__ = ("__weakref__", "freed", "hooks", "label", "node", "order", "parents", "saves")

    def __init__(self, label: str, parents: tuple[GradFn, ...]) -> None:
        self.label = label
        self.parents = parents
        self.saves = label not in SAVES_NOTHING
        self.freed = False
        self.order = next(_order)
        self.node: Node | None = None  # set only when the gradient of this very value is wanted
        self.hooks: HookTable | None = None

    def name(self) -> str:
        return "MulBackward0" if self.label == "MulScalarBackward0" else self.label.replace("Scalar", "")

    @property
    def next_functions(self) -> tuple[tuple[GradFn, int], ...]:
        return tuple((p, 0) for p in self.parents)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class CompiledGrad(GradFn):
    """A call of a compiled function. `backend`: the one it was compiled for, if the call of `compile` named
    one or gave options: gradients are computed by it too."""

    __slots__ = ("backend",)

    def __init__(self, parents: tuple[GradFn, ...], backend: str | None) -> None:
        super().__init__("CompiledFunctionBackward", parents)
        self.backend = backend


class AccumulateGrad(GradFn):
    """The end of history: adds a gradient to a leaf's `.grad`."""

    __slots__ = ("variable",)

    def __init__(self, variable: Tensor, node: Node) -> None:
        super().__init__("AccumulateGrad", ())
        self.variable = variable
        self.node = node


class LeafHooks(HookTable):
    """What is called with the gradients of a leaf; `after`: with the leaf, once its `.grad` is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.after = HookTable()

    def __bool__(self) -> bool:
        return bool(len(self) or self.after)


class CutGrad(GradFn):
    """History that continues in Python: a user's Function or a hook that may change the gradient.

    `outputs` are input nodes standing for the results; `run(cotangents)` gives one cotangent
    tensor (or None) for each of `inputs`.
    """

    __slots__ = ("inputs", "outputs", "run")

    def __init__(
        self,
        label: str,
        inputs: Sequence[tuple[Node, GradFn | None]],
        run: Callable[[list[Tensor | None]], Sequence[Tensor | None]],
    ) -> None:
        super().__init__(label, tuple(fn for _, fn in inputs if fn is not None))
        self.inputs = tuple(inputs)
        self.outputs: tuple[Node, ...] = ()
        self.run = run


class Promise:
    """Stands in `_grad` for a gradient that nobody has looked at: `give(leaf)` puts it there."""

    __slots__ = ()

    def give(self, leaf: Tensor) -> Tensor | None:
        raise NotImplementedError


def add_hook(fn: GradFn, node: Node, hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(gradient)` when the gradient of `node`, made by `fn`, is known."""
    if fn.hooks is None:
        fn.node, fn.hooks = node, HookTable()
    return hooks.add(fn.hooks, hook)


def walk(roots: Sequence[GradFn]) -> list[GradFn]:
    """Every function reachable from `roots`, users before what they use."""
    seen = set(roots)
    stack = list(seen)
    while stack:
        for parent in stack.pop().parents:
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=lambda fn: fn.order, reverse=True)


def free(functions: Sequence[GradFn]) -> None:
    """Mark what a backward pass has used up (`functions` as `walk` gives them)."""
    for fn in reversed(functions):
        if not fn.freed and (fn.saves or any(p.freed for p in fn.parents)):
            fn.freed = True
            fn.parents = ()
