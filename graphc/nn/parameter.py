"""Parameter and Buffer: tensors that modules register when they are assigned to an attribute."""

from __future__ import annotations

from typing import Any

from graphc.frontend.creation import zeros
from graphc.frontend.errors import fail
from graphc.frontend.tensor import Tensor, register, share_cell


def _share(cls: type, data: Tensor | None, what: str) -> Any:
    """A tensor of class `cls` on the storage of `data`."""
    if data is None:
        data = zeros(0)
    if not isinstance(data, Tensor):
        raise fail(TypeError, f"{what} must be made from a Tensor, not {type(data).__name__}")
    self: Any = object.__new__(cls)
    detached = data.detach()
    self._cell = detached._cell
    share_cell(detached, self)
    register(self)
    return self


class Parameter(Tensor):
    """A tensor that is trained: assigned to a module's attribute it appears in `parameters()`.

    data: its value, whose storage it shares. requires_grad: True unless told otherwise.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        self = _share(cls, data, "a Parameter")
        if requires_grad:
            self.requires_grad_(True)
        return self

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        pass

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(Tensor):
    """A tensor that is state but not trained: assigned to a module's attribute it appears in `buffers()`.

    persistent: whether it is part of `state_dict`.
    """

    persistent = True

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        self = _share(cls, data, "a Buffer")
        self.persistent = persistent
        return self

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        pass
