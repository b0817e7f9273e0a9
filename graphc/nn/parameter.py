"""Parameter and Buffer: tensors that modules register when they are assigned to an attribute."""

from __future__ import annotations

from typing import Any

from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import zeros
from graphc.frontend.tensor import Tensor, register, share_cell


def _share(cls: type, data: Tensor | None, what: str) -> Any:
    """A tensor of class `cls` on the storage of `data`."""
    if data is None:
        data = zeros(0)
    if not isinstance(data, Tensor):
        raise fail(TypeError, f"{what} must be made from a Tensor, not {type(data).__name__}")
    self: Any = object.__new__(cls)
    _hold(self, data)
    return self


def _hold(tensor: Tensor, data: Tensor) -> None:
    """Put `tensor` on the storage of `data`."""
    detached = data.detach()
    tensor._cell = detached._cell
    share_cell(detached, tensor)
    register(tensor)


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


class UninitializedParameter(Parameter):
    """A parameter of a lazy layer (`graphc.nn.lazy`), whose shape is not known yet.

    Any use of its value is a ValueError that says what to do. requires_grad: of the parameter it will be.
    """

    trained: bool

    def __new__(cls, requires_grad: bool = True) -> UninitializedParameter:
        self: UninitializedParameter = object.__new__(cls)
        self.trained = requires_grad
        return self

    def __init__(self, requires_grad: bool = True) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name != "_cell":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise fail(
            ValueError,
            "Attempted to use an uninitialized parameter: those of a lazy layer get their shapes from its "
            "first call; call the model once, on data of the right shape, before anything needs them",
        )

    def materialize(self, value: Tensor) -> None:
        """Become an ordinary parameter on the storage of `value`: whoever holds this has that from now on."""
        _hold(self, value)
        self.__class__ = Parameter  # type: ignore[assignment]
        self.requires_grad_(self.__dict__.pop("trained"))

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        return UninitializedParameter(self.trained)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


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
