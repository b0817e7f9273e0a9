"""`graphc.scan`: a loop over the steps of sequences, whose body is compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from graphc import ops
from graphc.frontend.cell import Cell
from graphc.frontend.errors import describe, fail
from graphc.frontend.history import GradFn
from graphc.frontend.modes import MODE, settle
from graphc.frontend.nodes import normal_axis
from graphc.frontend.tensor import Tensor, from_node, gradient_fn, needs_grad, operand, register, wrap_cell
from graphc.frontend.tracing.body import Body, trace_body
from graphc.ir.node import Node
from graphc.ir.types import TensorType


def scan(
    function: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    dim: int = 0,
) -> tuple[Any, Any]:
    """Run `carry, y = function(carry, x)` for each step; returns the last carry and the ys, stacked.

    function  is called once, with tensors that have no values; what it computes is the body of one native
              loop. It may read any tensors from outside, and gradients flow to those that require them
    init      the carry before the first step: tensors in tuples, lists and dicts (None: nothing is carried)
    xs        tensors nested in the same ways; a step gets the slices at its position of dimension `dim`
    length    the number of steps; needed only without xs
    reverse   go from the last position to the first; the y of a step is stored at the step's position
    dim       the dimension of steps: of xs, and of the stacked ys

    The carry keeps its nesting, shapes and dtypes; y is nested in any way, or None. The time of compilation
    does not depend on the number of steps, and results can be differentiated to any order.

    TypeError when function does not return a carry like `init` and a y, and for leaves that are no tensors;
    ValueError when there are no steps, or not as many in all xs; TracerError when function needs the value
    of a tensor (Python's if and while); RuntimeError when it draws random numbers (draw them before the
    loop, and pass them as xs), changes tensors from outside, or uses a carry as an index that may be out of
    range (an argmax, a remainder and a clamp are in range).

    >>> def step(h, x):
    ...     h = graphc.tanh(x @ w + h @ u)
    ...     return h, h
    >>> last, states = graphc.scan(step, graphc.zeros(8, 64), inputs)  # [T, 8, 32]: states [T, 8, 64]
    """
    settle()
    carry, given = _Nest.of(init, "init"), _Nest.of(xs, "xs")
    stacks = [
        _Stack(t, _axis(t, dim, path), path) for t, path in zip(given.tensors, given.paths, strict=True)
    ]
    steps = _steps(stacks, length)
    with trace_body() as body:
        first = carry.rebuilt([body.stand_in(t._cell.node.type) for t in carry.tensors])
        x = given.rebuilt([body.stand_in(stack.step) for stack in stacks])
        after, out = _returned(function(first, x), carry)
        made = _Made(body, after.tensors, out.tensors)
    finals, stacked = made.run(carry.tensors, stacks, steps, reverse, dim)
    return carry.rebuilt(finals), out.rebuilt(stacked)


class _Made:
    """What a call of the function has left: next carries and ys, as nodes of the body."""

    def __init__(self, body: Body, after: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        self.body = body
        tensors = [*after, *out]
        self.carries = len(after)
        self.tracked = [t.requires_grad for t in tensors]
        self.nodes = body.resolve(
            [operand(t, tracked) for t, tracked in zip(tensors, self.tracked, strict=True)]
        )
        self.reached = body.histories(tensors)

    def run(
        self, init: Sequence[Tensor], stacks: Sequence[_Stack], steps: int, reverse: bool, dim: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The results of the loop on `init` and `stacks`."""
        n = self.carries
        sources = [*init, *[stack.tensor for stack in stacks]]
        tracked = needs_grad(*sources) or (MODE.grad and bool(self.reached))
        try:
            found = ops.scan(
                carries=self.body.placeholders[:n],
                xs=self.body.placeholders[n:],
                nexts=self.nodes[:n],
                emits=self.nodes[n:],
                init=[operand(t, tracked) for t in init],
                stacks=[stack.in_front(tracked) for stack in stacks],
                length=steps,
                reverse=reverse,
            )
        except ValueError as error:
            raise fail(RuntimeError, str(error)) from None
        parents: tuple[GradFn, ...] = ()
        if tracked:
            own = [fn for t in sources if (fn := gradient_fn(t)) is not None]
            parents = tuple(dict.fromkeys([*own, *self.reached]))
        nodes = [*found.finals, *[_from_front(node, dim) for node in found.stacked]]
        results = [
            _result(node, parents if has_history else ())
            for node, has_history in zip(nodes, self.tracked, strict=True)
        ]
        return results[:n], results[n:]


def _result(node: Node, parents: tuple[GradFn, ...]) -> Tensor:
    """A result as a tensor, with the history `parents`, if any."""
    if not (parents and node.type.dtype.is_float):
        return from_node(node, True)
    made = wrap_cell(Cell(node, GradFn("ScanBackward0", parents)))
    register(made)
    return made


# ------------------------------------------------------------------------- steps


@dataclass(frozen=True)
class _Stack:
    """One of xs: `axis` is its dimension of steps."""

    tensor: Tensor
    axis: int
    path: str

    @property
    def step(self) -> TensorType:
        """The type of one step."""
        kind = self.tensor._cell.node.type
        return TensorType((*kind.shape[: self.axis], *kind.shape[self.axis + 1 :]), kind.dtype)

    def in_front(self, tracked: bool) -> Node:
        """The tensor with the dimension of steps in front."""
        rest = [d for d in range(self.tensor.ndim) if d != self.axis]
        return ops.transpose(operand(self.tensor, tracked), (self.axis, *rest))


def _axis(tensor: Tensor, dim: int, path: str) -> int:
    if not tensor.ndim:
        raise fail(ValueError, f"scan: {path} has no dimension of steps ({describe(tensor)})")
    return normal_axis(dim, tensor.ndim)


def _steps(stacks: Sequence[_Stack], length: int | None) -> int:
    """The number of steps; ValueError if there is none, or more than one answer."""
    counts = [(f"length={length}", length)] if length is not None else []
    counts += [(f"{s.path} ({describe(s.tensor)})", s.tensor.shape[s.axis]) for s in stacks]
    if not counts:
        raise fail(ValueError, "scan: without xs, length must say how many steps there are")
    (what, steps), *rest = counts
    for other, count in rest:
        if count != steps:
            raise fail(ValueError, f"scan: {what} has {steps} steps, but {other} has {count}")
    if steps < 1:
        raise fail(ValueError, f"scan: there must be at least one step, but {what} has {steps}")
    return steps


def _from_front(node: Node, dim: int) -> Node:
    """A stack with its dimension of steps moved from the front to `dim`."""
    axis = normal_axis(dim, node.type.rank)
    rest = list(range(1, node.type.rank))
    return ops.transpose(node, (*rest[:axis], 0, *rest[axis:]))


# ------------------------------------------------------------------- nested data


class _Nest:
    """Nested tuples, lists and dicts of tensors, taken apart; None holds nothing.

    `paths` and `forms` say for each tensor, container and None where it is and what it is.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.tensors: list[Tensor] = []
        self.paths: list[str] = []
        self.forms: list[tuple[str, str]] = []

    @classmethod
    def of(cls, data: Any, name: str) -> _Nest:
        """Take data apart; TypeError for leaves that are no tensors."""
        nest = cls(data)
        nest._collect(data, name)
        return nest

    def _collect(self, data: Any, path: str) -> None:
        if isinstance(data, Tensor):
            self.tensors.append(data)
            self.paths.append(path)
            self.forms.append((path, describe(data)))
        elif data is None:
            self.forms.append((path, "None"))
        elif isinstance(data, list | tuple):
            self.forms.append((path, f"a {type(data).__name__} of {len(data)}"))
            names = getattr(data, "_fields", None)
            for i, item in enumerate(data):
                self._collect(item, f"{path}.{names[i]}" if names else f"{path}[{i}]")
        elif isinstance(data, dict):
            self.forms.append((path, f"a {type(data).__name__} with keys {list(data)}"))
            for key, item in data.items():
                self._collect(item, f"{path}[{key!r}]")
        else:
            raise fail(
                TypeError,
                f"scan: {path} must be a tensor, or tensors in tuples, lists and dicts, not "
                f"{type(data).__name__} {data!r}",
            )

    def rebuilt(self, tensors: Sequence[Tensor]) -> Any:
        """The same nesting of other tensors."""
        return _rebuild(self.data, iter(tensors))


def _rebuild(data: Any, rest: Iterator[Tensor]) -> Any:
    if data is None:
        return None
    if isinstance(data, Tensor):
        return next(rest)
    if isinstance(data, dict):
        return type(data)((key, _rebuild(item, rest)) for key, item in data.items())
    made = [_rebuild(item, rest) for item in data]
    if hasattr(data, "_fields"):
        return type(data)(*made)
    return made if isinstance(data, list) else tuple(made)


def _returned(value: Any, carry: _Nest) -> tuple[_Nest, _Nest]:
    """The next carry and y that the function returned; TypeError unless the carry is as before."""
    if not isinstance(value, tuple) or len(value) != 2:
        kind = f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__
        raise fail(TypeError, f"scan: the function must return (carry, y), not {kind}")
    after, out = _Nest.of(value[0], "carry"), _Nest.of(value[1], "y")
    for before, now in zip_longest(carry.forms, after.forms):
        path, was = before or (now[0], "missing")
        becomes = now[1] if now else "missing"
        if was != becomes:
            raise fail(
                TypeError,
                "scan: the carry must keep its structure, shapes and dtypes, but "
                f"{path.replace('init', 'carry', 1)} is {was} before a step and {becomes} after it",
            )
    return after, out
