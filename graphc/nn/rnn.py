"""Recurrent layers over sequences: RNN, LSTM and GRU."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.creation import zeros
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType
from graphc.nn import init
from graphc.nn.functional.common import need_tensors
from graphc.nn.functional.recurrent import CELLS, layers
from graphc.nn.linear import parameter
from graphc.nn.module import Module
from graphc.nn.utils.rnn import PackedSequence

_FIELDS = {"weight_ih": "ih", "weight_hh": "hh", "bias_ih": "b_ih", "bias_hh": "b_hh", "weight_hr": "hr"}
_DROPOUT = (
    "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
)


def _check_options(module: RNNBase, dropout: Any) -> None:
    """TypeError or ValueError, with PyTorch's texts, for sizes and options that make no layer."""
    if isinstance(dropout, bool) or not 0 <= module.dropout <= 1:
        raise ValueError(_DROPOUT)
    if module.dropout > 0 and module.num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
            f"num_layers greater than 1, but got dropout={module.dropout} and num_layers={module.num_layers}",
            stacklevel=4,
        )
    for name in ("input_size", "hidden_size"):
        if not isinstance(getattr(module, name), int):
            raise TypeError(f"{name} should be of type int, got: {type(getattr(module, name)).__name__}")
    for name in ("bias", "batch_first"):
        if not isinstance(getattr(module, name), bool):
            raise TypeError(f"{name} should be of type bool, got: {type(getattr(module, name)).__name__}")
    for name in ("input_size", "hidden_size", "num_layers"):
        if getattr(module, name) <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if module.proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if module.proj_size >= module.hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


class RNNBase(Module):
    """What RNN, LSTM and GRU have in common: options, parameters and their names, checks.

    mode          "RNN_TANH", "RNN_RELU", "LSTM" or "GRU"
    batch_first   batches are [batch, steps, features], else [steps, batch, features]
    dropout       probability of zeroing outputs of all layers but the last, in training
    bidirectional outputs have the features of both directions side by side
    proj_size     LSTM only: h is projected to this many features

    Layer l has `weight_ih_l{l}` [gates * hidden, features in], `weight_hh_l{l}` [gates * hidden, features of
    h], `bias_ih_l{l}`, `bias_hh_l{l}` and, with a projection, `weight_hr_l{l}` [proj_size, hidden]; the
    backward direction has the same names with `_reverse`.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        _check_options(self, dropout)
        self._all_weights: list[list[str]] = []
        gates = CELLS[mode].gates * hidden_size
        out = proj_size or hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else out * self._directions
            shapes = ((gates, width), (gates, out), (gates,), (gates,), (out, hidden_size))
            for suffix in ("", "_reverse")[: self._directions]:
                names = []
                for kind, shape in zip(_FIELDS, shapes, strict=True):
                    if (bias or not kind.startswith("bias")) and (proj_size or kind != "weight_hr"):
                        names.append(f"{kind}_l{layer}{suffix}")
                        setattr(self, names[-1], parameter(*shape, device=device, dtype=dtype))
                self._all_weights.append(names)
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Any]:
        return [getattr(self, name) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters, a list for each direction of each layer."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: the compiled loop reads the parameters where they are."""

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if not self.bias:
            text += f", bias={self.bias}"
        if self.batch_first:
            text += f", batch_first={self.batch_first}"
        if self.dropout:
            text += f", dropout={self.dropout}"
        if self.bidirectional:
            text += f", bidirectional={self.bidirectional}"
        return text

    # ------------------------------------------------------------------- checks

    def _state_shapes(self, batch: int) -> list[tuple[int, int, int]]:
        """Of h and, for an LSTM, of c."""
        rows = self.num_layers * self._directions
        h = (rows, batch, self.proj_size or self.hidden_size)
        return [h, (rows, batch, self.hidden_size)] if self.mode == "LSTM" else [h]

    def _check_input(self, x: Tensor, ranks: tuple[int, ...]) -> None:
        name = self._get_name()
        if x.ndim not in ranks:
            raise fail(
                ValueError, f"{name}: Expected input to be 2D or 3D, got {x.ndim}D instead ({describe(x)})"
            )
        weight: DType = self._flat_weights[0].dtype
        if x.dtype is not weight:
            raise fail(
                ValueError,
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight}). Convert input: "
                f"input.to({weight}), or convert model: model.to({x.dtype})",
            )
        if x.shape[-1] != self.input_size:
            raise fail(
                RuntimeError,
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got "
                f"{x.shape[-1]} ({name} given {describe(x)})",
            )

    def _check_states(self, states: tuple[Any, ...], like: Tensor, batched: bool, batch: int) -> None:
        need_tensors(self._get_name(), *states)
        rank, kind = (3, "batched 3-D") if batched else (2, "unbatched 2-D")
        if any(s.ndim != rank for s in states):
            found = [f"{s.ndim}-D" for s in states]
            pair = f"hx and cx should also be {rank}-D but got ({', '.join(found)}) tensors"
            one = f"hx should also be {rank}-D but got {found[0]} tensor"
            raise fail(RuntimeError, f"For {kind} input, {pair if len(found) > 1 else one}")
        for i, (state, expected) in enumerate(zip(states, self._state_shapes(batch), strict=True)):
            shape = list(state.shape) if batched else [state.shape[0], 1, state.shape[1]]
            if shape != list(expected):
                what = f"hidden[{i}]" if len(states) > 1 else "hidden"
                raise fail(RuntimeError, f"Expected {what} size {expected}, got {shape}")
            if state.dtype is not like.dtype:
                raise fail(
                    RuntimeError,
                    f"{self._get_name()}: input and hidden states must have the same dtype, but got "
                    f"{describe(like, state)}",
                )

    # ------------------------------------------------------------------ forward

    def _states(self, hx: Any) -> tuple[Any, ...]:
        """hx as a tuple with a tensor for each state."""
        return (hx,)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """(outputs of the last layer at each step, the last states of all layers).

        input   [steps, features], [steps, batch, features] (batch_first: [batch, steps, features]), or a
                PackedSequence, which gives a PackedSequence
        hx      the states to begin with, [layers * directions, batch, features of h] (without the batch dim
                where the input has none); zeros if not given. For an LSTM a tuple (h, c).

        ValueError or RuntimeError, naming the sizes, for an input or states that do not fit.
        """
        packed = input if isinstance(input, PackedSequence) else None
        if packed is None:
            need_tensors(self._get_name(), input)
        x = input if packed is None else packed.padded
        self._check_input(x, (2, 3) if packed is None else (3,))
        batched = x.ndim == 3
        turn = batched and self.batch_first and packed is None
        steps, batch = (x.shape[1], x.shape[0]) if turn else (x.shape[0], x.shape[1] if batched else 1)
        if steps == 0:
            raise fail(
                RuntimeError, f"Expected sequence length to be larger than 0 in RNN (given {describe(x)})"
            )
        if hx is None:
            shapes = self._state_shapes(batch)
            states = tuple([zeros(s if batched else (s[0], s[2]), dtype=x.dtype) for s in shapes])
        else:
            states = self._states(hx)
            self._check_states(states, x, batched, batch)
        dropout = self.dropout if self.training else 0.0
        lengths = None if packed is None else packed.lengths
        outputs, last = layers(self.mode, x, states, self._parameters_by_layer(), turn, dropout, lengths)
        return (outputs if packed is None else packed.with_padded(outputs)), self._given_back(last)

    def _given_back(self, last: list[Tensor]) -> Any:
        """The last states as the caller gets them."""
        return last[0]

    def _parameters_by_layer(self) -> list[list[dict[str, Tensor]]]:
        """Of each layer, of each direction, by the field of `Weights`."""
        found = [
            {_FIELDS[name[: name.index("_l")]]: getattr(self, name) for name in names}
            for names in self._all_weights
        ]
        return [found[i : i + self._directions] for i in range(0, len(found), self._directions)]


class RNN(RNNBase):
    """h' = act(W_ih x + b_ih + W_hh h + b_hh), act being tanh or, with nonlinearity="relu", relu.

    RNN(input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False,
    dropout=0.0, bidirectional=False)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            self.nonlinearity = args[3]
            args = args[:3] + args[4:]
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{self.nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)


class LSTM(RNNBase):
    """Long short-term memory; the states are (h, c).

    i, f, o = sigmoid, g = tanh of the blocks of W_ih x + b_ih + W_hh h + b_hh, in the order i, f, g, o;
    c' = f c + i g; h' = o tanh(c'), times W_hr where there is a projection.

    LSTM(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False, proj_size=0)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def _states(self, hx: Any) -> tuple[Any, ...]:
        if not isinstance(hx, (tuple, list)) or len(hx) != 2:
            found = f"{len(hx)} of them" if isinstance(hx, (tuple, list)) else type(hx).__name__
            raise fail(TypeError, f"LSTM: hx must be a tuple of two tensors (h_0, c_0), got {found}")
        return tuple(hx)

    def _given_back(self, last: list[Tensor]) -> Any:
        return tuple(last)


class GRU(RNNBase):
    """Gated recurrent unit.

    r, z = sigmoid of the first two blocks of W_ih x + b_ih + W_hh h + b_hh;
    n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h' = (1 - z) n + z h.

    GRU(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)
