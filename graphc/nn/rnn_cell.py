"""Recurrent cells: one step at a time, for loops of the user's own."""

from __future__ import annotations

import math
from typing import Any

from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.creation import zeros
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType
from graphc.nn import init
from graphc.nn.functional.common import need_tensors
from graphc.nn.functional.recurrent import CELLS, single_step
from graphc.nn.linear import parameter
from graphc.nn.module import Module


class RNNCellBase(Module):
    """Parameters `weight_ih` [gates * hidden, input_size], `weight_hh` [gates * hidden, hidden_size],
    `bias_ih` and `bias_hh` [gates * hidden], and the checks of one step."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = parameter(rows, input_size, device=device, dtype=dtype)
        self.weight_hh = parameter(rows, hidden_size, device=device, dtype=dtype)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, parameter(rows, device=device, dtype=dtype) if bias else None)
        self.reset_parameters()

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias is True else f"{text}, bias={self.bias}"

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(self, mode: str, input: Tensor, states: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """One step; `states` may be None, for zeros. ValueError or RuntimeError for what does not fit."""
        name = self._get_name()
        need_tensors(name, input, *[s for s in states if s is not None])
        for what, t in [("input", input), *_named(states)]:
            if t.ndim not in (1, 2):
                raise fail(ValueError, f"{name}: Expected {what} to be 1D or 2D, got {t.ndim}D instead")
        if input.shape[-1] != self.input_size:
            raise fail(
                RuntimeError,
                f"input has inconsistent input_size: got {input.shape[-1]} expected {self.input_size} "
                f"({name} given {describe(input)})",
            )
        shape = (*input.shape[:-1], self.hidden_size)
        given = tuple([zeros(shape, dtype=input.dtype) if s is None else s for s in states])
        for i, state in enumerate(given):
            self._check_state(i, state, input, shape)
        if input.dtype is not self.weight_ih.dtype:
            raise fail(
                RuntimeError,
                f"{name}: input and parameters must have the same dtype, but got "
                f"{describe(input, self.weight_ih)}",
            )
        fields = {"ih": self.weight_ih, "hh": self.weight_hh}
        if self.bias_ih is not None and self.bias_hh is not None:
            fields |= {"b_ih": self.bias_ih, "b_hh": self.bias_hh}
        return single_step(mode, input, given, fields)

    def _check_state(self, i: int, state: Tensor, input: Tensor, shape: tuple[int, ...]) -> None:
        name = self._get_name()
        if len(shape) == 2 and state.shape[0] != shape[0]:
            raise fail(
                RuntimeError,
                f"Input batch size {shape[0]} doesn't match hidden{i} batch size {state.shape[0]} "
                f"({name} given {describe(input, state)})",
            )
        if tuple(state.shape) != shape:
            raise fail(
                RuntimeError,
                f"hidden{i} has inconsistent hidden_size: got "
                f"{list(state.shape)}, expected {list(shape)} ({name})",
            )
        if state.dtype is not input.dtype:
            raise fail(
                RuntimeError,
                f"{name}: input and hidden states must have the same dtype, but got {describe(input, state)}",
            )


def _named(states: tuple[Any, ...]) -> list[tuple[str, Tensor]]:
    """The states that are given, as messages call them."""
    names = ["hidden"] if len(states) == 1 else [f"hx[{i}]" for i in range(len(states))]
    return [(name, s) for name, s in zip(names, states, strict=True) if s is not None]


class RNNCell(RNNCellBase):
    """h' = act(W_ih x + b_ih + W_hh h + b_hh): input [batch, input_size] or [input_size], and h alike."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next h; the present one is zeros if not given."""
        mode = f"RNN_{self.nonlinearity.upper()}"
        if mode not in CELLS:
            raise fail(RuntimeError, f"Unknown nonlinearity: {self.nonlinearity}")
        return self._step(mode, input, (hx,))[0]


class LSTMCell(RNNCellBase):
    """One step of an `LSTM` without projection: states (h, c), each [batch, hidden_size] or [hidden_size]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next (h, c); the present ones are zeros if not given."""
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise fail(
                TypeError, f"lstm_cell(): argument 'hx' must be tuple of two Tensors, not {type(hx).__name__}"
            )
        h, c = self._step("LSTM", input, (None, None) if hx is None else tuple(hx))
        return h, c


class GRUCell(RNNCellBase):
    """One step of a `GRU`: h [batch, hidden_size] or [hidden_size]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next h; the present one is zeros if not given."""
        return self._step("GRU", input, (hx,))[0]
