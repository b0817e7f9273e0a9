"""Recurrent layers as nodes: what one step computes, one direction of a layer, and stacks of layers.

All of it is composition on `scan`. What does not depend on the state is outside the loop: the input
projection of all steps is one contraction, and the bias vectors are added there as far as the cell allows.
What is left for a step is one contraction of the state with the recurrent weight, whose rows are the gates
side by side, then slices of it and elementwise arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc import ops
from graphc.frontend.cell import fresh_input
from graphc.frontend.functions.random import keep_mask
from graphc.frontend.nodes import expand
from graphc.frontend.tensor import Tensor, needs_grad, operand, result
from graphc.ir.node import Node
from graphc.ir.types import TensorType, int64
from graphc.ops.scan import scan

States = tuple[Node, ...]  # h, or h and c, of one direction of one layer: [batch, features]


@dataclass(frozen=True)
class Weights:
    """The parameters of one direction of one layer, with PyTorch's layouts.

    ih [gates * hidden, features in], hh [gates * hidden, hidden or projection], the biases
    [gates * hidden] or None, hr [projection, hidden] or None
    """

    ih: Node
    hh: Node
    b_ih: Node | None = None
    b_hh: Node | None = None
    hr: Node | None = None


@dataclass(frozen=True)
class Cell:
    """One kind of recurrence.

    gates    how many blocks of `hidden` rows the weights have
    bias     the bias to add to the input projection, of all steps at once
    advance  (input projection [batch, gates * hidden], states, weights) -> the next states
    """

    gates: int
    bias: Callable[[Weights], Node | None]
    advance: Callable[[Node, States, Weights], States]


def _times(x: Node, weight: Node) -> Node:
    """x[..., k] times weight[m, k] transposed."""
    return ops.dot_general(x, weight, ((x.type.rank - 1,), (1,)))


def _gates(x: Node, count: int) -> list[Node]:
    """[batch, count * hidden] as `count` slices [batch, hidden]."""
    hidden = x.shape[1] // count
    return [ops.slice_axis(x, 1, i * hidden, (i + 1) * hidden) for i in range(count)]


def _both_biases(w: Weights) -> Node | None:
    return None if w.b_ih is None or w.b_hh is None else ops.add(w.b_ih, w.b_hh)


def _simple(activation: Callable[[Node], Node]) -> Cell:
    """h' = activation(W_ih x + b_ih + W_hh h + b_hh)."""

    def advance(x: Node, states: States, w: Weights) -> States:
        return (activation(ops.add(x, _times(states[0], w.hh))),)

    return Cell(1, _both_biases, advance)


def _relu(x: Node) -> Node:
    return ops.maximum(x, ops.like(x, 0))


def _lstm_advance(x: Node, states: States, w: Weights) -> States:
    """Gates in the order input, forget, cell, output."""
    h, c = states
    i, f, g, o = _gates(ops.add(x, _times(h, w.hh)), 4)
    c = ops.add(ops.mul(ops.sigmoid(f), c), ops.mul(ops.sigmoid(i), ops.tanh(g)))
    h = ops.mul(ops.sigmoid(o), ops.tanh(c))
    return (h if w.hr is None else _times(h, w.hr)), c


def _gru_bias(w: Weights) -> Node | None:
    """The recurrent bias of the new gate is multiplied by the reset gate: it stays in the loop."""
    if w.b_ih is None or w.b_hh is None:
        return None
    hidden = w.b_hh.shape[0] // 3
    outside = ops.pad(ops.slice_axis(w.b_hh, 0, 0, 2 * hidden), (0,), (hidden,))
    return ops.add(w.b_ih, outside)


def _gru_advance(x: Node, states: States, w: Weights) -> States:
    """Gates in the order reset, update, new."""
    (h,) = states
    x_r, x_z, x_n = _gates(x, 3)
    h_r, h_z, h_n = _gates(_times(h, w.hh), 3)
    if w.b_hh is not None:
        hidden = h.shape[1]
        bias = ops.slice_axis(w.b_hh, 0, 2 * hidden, 3 * hidden)
        h_n = ops.add(h_n, expand(bias, h_n.shape))
    reset, update = ops.sigmoid(ops.add(x_r, h_r)), ops.sigmoid(ops.add(x_z, h_z))
    new = ops.tanh(ops.add(x_n, ops.mul(reset, h_n)))
    return (ops.add(new, ops.mul(update, ops.sub(h, new))),)


CELLS = {
    "RNN_TANH": _simple(ops.tanh),
    "RNN_RELU": _simple(_relu),
    "LSTM": Cell(4, _both_biases, _lstm_advance),
    "GRU": Cell(3, _gru_bias, _gru_advance),
}


def project(cell: Cell, x: Node, w: Weights) -> Node:
    """The part of the gates that does not depend on the state: [..., features] -> [..., gates * hidden]."""
    y = _times(x, w.ih)
    bias = cell.bias(w)
    return y if bias is None else ops.add(y, expand(bias, y.shape))


def cell_step(cell: Cell, x: Node, states: States, w: Weights) -> States:
    """One step for inputs [batch, features]."""
    return cell.advance(project(cell, x, w), states, w)


def _direction(
    cell: Cell, x: Node, states: States, w: Weights, mask: Node | None, reverse: bool
) -> tuple[Node, States]:
    """One direction of a layer: x [steps, batch, features] -> (h of each step, the last states).

    Where mask [steps, batch] is False, a sequence has no such step: its states stay as they are. In
    reverse they therefore stay initial until the last step that the sequence has.
    """
    xs = [project(cell, x, w)]
    if mask is not None:
        xs.append(mask)
    carries = [fresh_input(s.type) for s in states]
    items = [fresh_input(TensorType(n.shape[1:], n.dtype)) for n in xs]
    after = cell.advance(items[0], tuple(carries), w)
    if mask is not None:
        alive = [ops.broadcast(items[1], s.shape, (0,)) for s in after]
        after = tuple([ops.select(a, new, old) for a, new, old in zip(alive, after, carries, strict=True)])
    loop = scan(carries, items, after, after[:1], states, xs, reverse=reverse)
    return loop.stacked[0], tuple(loop.finals)


def stack(
    cell: Cell,
    x: Node,
    initial: Sequence[Node],
    weights: Sequence[Sequence[Weights]],
    dropout: float = 0.0,
    mask: Node | None = None,
) -> tuple[Node, list[Node]]:
    """Layers over layers: x [steps, batch, features] -> (h of the last layer at each step, last states).

    initial   h and, for an LSTM, c: [layers * directions, batch, features]; the last states have this form
    weights   of each layer, of each direction (forward, backward), whose outputs stand side by side
    dropout   the probability with which outputs of all layers but the last are zeroed
    """
    finals: list[States] = []
    for layer, directions in enumerate(weights):
        if layer and dropout:
            x = ops.mul(x, keep_mask(x.shape, dropout, x.dtype))
        outputs: list[Node] = []
        for w in directions:
            states = tuple([_row(s, len(finals)) for s in initial])
            out, last = _direction(cell, x, states, w, mask, reverse=bool(outputs))
            outputs.append(out)
            finals.append(last)
        x = ops.concat(outputs, 2)
    return x, [_rows([last[i] for last in finals]) for i in range(len(initial))]


def _row(x: Node, i: int) -> Node:
    """x[i]"""
    return ops.reshape(ops.slice_axis(x, 0, i, i + 1), x.shape[1:])


def _rows(xs: Sequence[Node]) -> Node:
    """Nodes of one shape as the rows of one."""
    return ops.concat([ops.reshape(x, (1, *x.shape)) for x in xs], 0)


# -------------------------------------------------------------------- on tensors

Parameters = Mapping[str, Tensor]  # the fields of Weights that there are


def _weights(parameters: Parameters, nodes: Iterator[Node]) -> Weights:
    return Weights(**{field: next(nodes) for field in parameters})


def length_mask(lengths: Node, steps: int) -> Node:
    """Whether a sequence has a step: lengths [batch] -> bool [steps, batch]."""
    shape = (steps, *lengths.shape)
    return ops.lt(ops.iota(shape, 0, int64), ops.broadcast(lengths, shape, (1,)))


def layers(
    mode: str,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Sequence[Parameters]],
    batch_first: bool = False,
    dropout: float = 0.0,
    lengths: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Recurrent layers of kind `mode` over a batch: (outputs at each step, the last states).

    input       [steps, batch, features], or [batch, steps, features] as are then the outputs; without the
                batch dim, states [layers * directions, features] have none either
    parameters  of each layer, of each direction
    lengths     int64 [batch]: how many steps each sequence has; what lies beyond is not read
    """
    flat = [t for layer in parameters for fields in layer for t in fields.values()]
    inputs = (input, *states, *flat)
    tracked = needs_grad(*inputs)
    nodes = iter([operand(t, tracked) for t in inputs])
    x, initial = next(nodes), [next(nodes) for _ in states]
    weights = [[_weights(fields, nodes) for fields in layer] for layer in parameters]
    batched = input.ndim == 3
    if not batched:
        x, *initial = [ops.reshape(n, (n.shape[0], 1, n.shape[1])) for n in (x, *initial)]
    if batch_first and batched:
        x = ops.transpose(x, (1, 0, 2))
    mask = None if lengths is None else length_mask(operand(lengths, False), x.shape[0])
    y, last = stack(CELLS[mode], x, initial, weights, dropout, mask)
    if batch_first and batched:
        y = ops.transpose(y, (1, 0, 2))
    found = [y, *last]
    if not batched:
        found = [ops.reshape(n, (n.shape[0], n.shape[2])) for n in found]
    y_out, *last_out = [result(n, f"{mode.split('_')[0]}Backward0", inputs, tracked) for n in found]
    return y_out, last_out


def single_step(
    mode: str, input: Tensor, states: Sequence[Tensor], parameters: Parameters
) -> tuple[Tensor, ...]:
    """One step of a cell: input [batch, features], states [batch, hidden]; or all without the batch dim."""
    inputs = (input, *states, *parameters.values())
    tracked = needs_grad(*inputs)
    nodes = iter([operand(t, tracked) for t in inputs])
    x, initial = next(nodes), [next(nodes) for _ in states]
    w = _weights(parameters, nodes)
    if input.ndim == 1:
        x, *initial = [ops.reshape(n, (1, *n.shape)) for n in (x, *initial)]
    found = cell_step(CELLS[mode], x, tuple(initial), w)
    if input.ndim == 1:
        found = tuple([ops.reshape(n, n.shape[1:]) for n in found])
    return tuple([result(n, f"{mode.split('_')[0]}CellBackward0", inputs, tracked) for n in found])
