"""Function transforms: gradients and directional derivatives of functions, to any order.

The function runs on stand-ins of its arguments, so values can be read inside (outside traces); the
results are then connected to the history of the real arguments, so that transforms nest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import ops
from graphc.autodiff import gradients
from graphc.frontend import tree
from graphc.frontend.cell import Cell
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.diagonal import trace as matrix_trace
from graphc.frontend.history import AccumulateGrad, GradFn, walk
from graphc.frontend.modes import MODE, enable_grad
from graphc.frontend.tensor import (
    Tensor,
    from_node,
    gradient_fn,
    needs_grad,
    operand,
    register,
    variable,
    wrap_cell,
)
from graphc.frontend.tracing.graphs import trace as trace_function
from graphc.ir.graph import toposort
from graphc.ir.node import Node, make

Argnums = int | tuple[int, ...]


class _Call:
    """A function run on stand-ins for some arguments, and how to get from stand-ins to the real ones."""

    def __init__(
        self, function: Callable[..., Any], argnums: Sequence[int], args: Sequence[Any], kwargs: Any
    ) -> None:
        self.real: list[Tensor] = []
        self.stand_ins: list[Tensor] = []
        new = list(args)
        for i in argnums:
            new[i] = tree.rebuild(args[i], self._stand_in)
        with enable_grad():
            self.value = function(*new, **kwargs)
            self.nodes = [variable(s) for s in self.stand_ins]
        self.record = MODE.grad

    def _stand_in(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.dtype.is_float:
            raise fail(
                TypeError,
                f"grad/vjp/jvp: differentiated arguments must be floating-point tensors, got "
                f"{describe(leaf)}",
            )
        made = wrap_cell(Cell(operand(leaf, False)))
        made._requires = True
        register(made)
        self.real.append(leaf)
        self.stand_ins.append(made)
        return made

    def outputs(self, value: Any) -> list[Tensor]:
        """The tensors in what the function returned; RuntimeError for anything else."""
        found = tree.leaves(value)
        for out in found:
            if not isinstance(out, Tensor):
                raise fail(RuntimeError, f"the function must return tensors, got {type(out).__name__}")
        return found

    def _has_other_leaves(self, tensor: Tensor) -> bool:
        """Whether history leads to leaves other than the stand-ins (captured by the function)."""
        fn = tensor._cell.fn
        if fn is None:
            return tensor._requires and all(tensor is not s for s in self.stand_ins)
        own = {id(s) for s in self.stand_ins}
        return any(isinstance(f, AccumulateGrad) and id(f.variable) not in own for f in walk([fn]))

    def connect(self, results: Sequence[Node], used: Sequence[Tensor]) -> list[Tensor]:
        """Results as tensors on the real arguments; with history if there is any to connect to."""
        sources = [*self.real, *[t for t in used if self._has_other_leaves(t)]]
        tracked = self.record and needs_grad(*sources)
        replace = {n: operand(t, tracked) for n, t in zip(self.nodes, self.real, strict=True)}
        nodes = _substitute(results, replace)
        if not tracked:
            return [from_node(n, True) for n in nodes]
        fns = tuple({fn: None for t in sources if (fn := gradient_fn(t)) is not None})
        made = [wrap_cell(Cell(n, GradFn("GradBackward0", fns))) for n in nodes]
        for t in made:
            register(t)
        return made


def _substitute(results: Sequence[Node], replace: dict[Node, Node]) -> list[Node]:
    """`results` with input nodes replaced; definitions behind other inputs stay as they are."""
    new: dict[Node, Node] = {}
    for node in toposort(results):
        if node in replace:
            new[node] = replace[node]
        elif all(new[n] is n for n in node.inputs):
            new[node] = node
        else:
            new[node] = make(node.op, [new[n] for n in node.inputs], node.attrs)
    return [new[n] for n in results]


def argument_numbers(argnums: Argnums, count: int) -> tuple[int, ...]:
    """The arguments that `argnums` names, in a call with `count`; IndexError if there is no such argument."""
    found = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in found:
        if not -count <= i < count:
            raise fail(
                IndexError, f"argnums={argnums} names an argument that the call does not have ({count} given)"
            )
    return tuple(i % count for i in found)


def _shape_like(
    call: _Call, argnums: Argnums, numbers: Sequence[int], args: Sequence[Any], values: Sequence[Any]
) -> Any:
    rest = iter(values)
    made = tuple(tree.rebuild(args[i], lambda _: next(rest)) for i in numbers)
    return made[0] if isinstance(argnums, int) else made


def value_and_grad(
    function: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function giving (value, gradient) of a scalar-valued `function`.

    The gradient has the structure of argument `argnums` (a tuple of arguments: a tuple of gradients).
    With `has_aux` the function returns (value, extra) and so does the first result.
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        numbers = argument_numbers(argnums, len(args))
        call = _Call(function, numbers, args, kwargs)
        value, extra = call.value if has_aux else (call.value, None)
        if not isinstance(value, Tensor) or value._cell.node.type.size != 1:
            raise fail(
                RuntimeError, f"grad() needs a function that returns a scalar tensor, got {describe(value)}"
            )
        node = operand(value, True)
        found = gradients([node], [ops.ones(node.type)], call.nodes)
        zeroed = [ops.zeros(v.type) if g is None else g for g, v in zip(found, call.nodes, strict=True)]
        out, *grads = call.connect([node, *zeroed], [value])
        shaped = _shape_like(call, argnums, numbers, args, grads)
        return ((out, extra) if has_aux else out), shaped

    transformed.__name__ = getattr(function, "__name__", "function")
    return transformed


def grad(function: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function giving the gradient of a scalar-valued `function` (with `has_aux`: (gradient, extra))."""
    both = value_and_grad(function, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    transformed.__name__ = getattr(function, "__name__", "function")
    return transformed


def _cotangents(outputs: Sequence[Tensor], given: Any) -> list[Tensor]:
    found = tree.leaves(given)
    for out, ct in zip(outputs, found, strict=True):
        if not isinstance(ct, Tensor) or tuple(ct.shape) != tuple(out.shape):
            raise fail(
                RuntimeError,
                f"vjp: a cotangent must have the shape of its output: {describe(ct)} for {describe(out)}",
            )
    return found


def vjp(function: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """(value, pull) where pull(cotangents) gives the cotangents of the arguments, as a tuple."""
    numbers = tuple(range(len(primals)))
    call = _Call(function, numbers, primals, {})
    value, extra = call.value if has_aux else (call.value, None)
    outputs = call.outputs(value)
    nodes = [operand(o, True) for o in outputs]
    connected = iter(call.connect(nodes, outputs))
    shown = tree.rebuild(value, lambda _: next(connected))

    def pull(cotangents: Any) -> Any:
        cts = _cotangents(outputs, cotangents)
        found = gradients(nodes, [operand(c, True) for c in cts], call.nodes)
        zeroed = [ops.zeros(v.type) if g is None else g for g, v in zip(found, call.nodes, strict=True)]
        return _shape_like(call, numbers, numbers, primals, call.connect(zeroed, [*outputs, *cts]))

    return (shown, pull, extra) if has_aux else (shown, pull)


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """(value, derivative of `function` at `primals` in the direction `tangents`)."""
    call = _Call(function, tuple(range(len(primals))), tuple(primals), {})
    outputs = call.outputs(call.value)
    directions = tree.leaves(list(tangents))
    for t, d in zip(call.real, directions, strict=True):
        if tuple(d.shape) != tuple(t.shape) or d.dtype is not t.dtype:
            raise fail(
                RuntimeError, f"jvp: a tangent must be like its primal: {describe(d)} for {describe(t)}"
            )
    nodes = [operand(o, True) for o in outputs]
    # The pullback is linear in its cotangents u, so its own pullback is the push-forward; u has no value.
    dummies = [variable(_dummy(n)) for n in nodes]
    pulled = gradients(nodes, dummies, call.nodes)
    pairs = [(g, operand(d, True)) for g, d in zip(pulled, directions, strict=True) if g is not None]
    pushed = (
        gradients([g for g, _ in pairs], [d for _, d in pairs], dummies) if pairs else [None] * len(nodes)
    )
    tangent_nodes = [ops.zeros(n.type) if p is None else p for n, p in zip(nodes, pushed, strict=True)]
    made = call.connect([*nodes, *tangent_nodes], [*outputs, *directions])
    values, rest = iter(made[: len(nodes)]), iter(made[len(nodes) :])
    return tree.rebuild(call.value, lambda _: next(values)), tree.rebuild(call.value, lambda _: next(rest))


def _dummy(node: Node) -> Tensor:
    made = wrap_cell(Cell(ops.zeros(node.type)))
    made._requires = True
    return made


def trace(function: Any, *examples: Any, **kwargs: Any) -> Any:
    """The graph of `function` for example arguments; of a tensor, PyTorch's trace (sum of the diagonal)."""
    if isinstance(function, Tensor):
        return matrix_trace(function)
    return trace_function(function, *examples, **kwargs)
