"""Parametrizations: a tensor of a module that is computed from others whenever it is read.

The module's class is replaced by a subclass that has a property in the tensor's place; what is computed from
is kept in `module.parametrizations[name]`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.frontend.errors import describe, fail
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn.container import ModuleDict, ModuleList
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
    "type_before_parametrizations",
]  # fmt: skip

_depth = 0  # of `cached` blocks
_known: dict[tuple[Module, str], Tensor] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Within this block a parametrized tensor is computed once, however often it is read."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            _known.clear()


def _keep(module: Module, name: str, value: Tensor) -> None:
    if isinstance(value, Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def _inverse(parametrizations: Sequence[Any], value: Any) -> Any:
    """What the first parametrization is given so that the last gives `value`; some may have no inverse."""
    with no_grad():
        for module in reversed(parametrizations):
            if hasattr(module, "right_inverse"):
                try:
                    value = module.right_inverse(value)
                except NotImplementedError:
                    continue
    return value


def _check_alike(what: str, found: Any, wanted: Tensor) -> None:
    """ValueError unless `found` is a tensor of the shape and dtype of `wanted`."""
    if not isinstance(found, Tensor):
        raise fail(ValueError, f"{what} must return a tensor. Got {type(found).__name__}.")
    if found.dtype is not wanted.dtype or found.shape != wanted.shape:
        raise fail(
            ValueError,
            f"{what} may not change the dtype or the shape of the tensor, unless the `unsafe` flag is "
            f"enabled: it makes {describe(found)} of {describe(wanted)}",
        )


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied in turn, and what the first is computed from.

    That is `original`, or `original0`, `original1`, ... if its `right_inverse` gives several tensors.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise fail(ValueError, "ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        found = _inverse(list(self), original)
        self.is_tensor = isinstance(found, Tensor)
        self.ntensors = 1 if self.is_tensor else len(self._sequence(found))
        wanted = original.detach().clone()
        if self.is_tensor:
            if found.dtype is not original.dtype:
                raise fail(
                    ValueError,
                    "When `right_inverse` outputs one tensor, it may not change the dtype: it makes "
                    f"{describe(found)} of {describe(original)}",
                )
            if found is not original:
                original.data = found.detach()
            _keep(self, "original", original)
        else:
            for i, part in enumerate(found):
                if isinstance(original, Parameter):
                    part = Parameter(part.detach().clone(), original.requires_grad)
                _keep(self, f"original{i}", part)
        if not unsafe:
            _check_alike("A parametrization", self(), wanted)

    def _sequence(self, value: Any) -> Sequence[Tensor]:
        if not isinstance(value, list | tuple) or not all(isinstance(v, Tensor) for v in value):
            raise fail(
                ValueError,
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(value).__name__}",
            )
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the parametrized tensor becomes `value`."""
        for module in self:
            if not hasattr(module, "right_inverse"):
                raise fail(
                    RuntimeError, f"parametrization {type(module).__name__} does not implement right_inverse."
                )
        found = _inverse(list(self), value)
        names = ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]
        parts = [found] if self.is_tensor else self._sequence(found)
        if len(parts) != len(names):
            raise fail(
                ValueError,
                f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. "
                f"Got a sequence of length {len(parts)}.",
            )
        for name, part in zip(names, parts, strict=True):
            kept = getattr(self, name)
            if not isinstance(part, Tensor) or part.dtype is not kept.dtype:
                raise fail(
                    ValueError,
                    f"`right_inverse` gave {describe(part)} for `{name}`, which is {describe(kept)}",
                )
            kept.data = part.detach()

    def forward(self) -> Tensor:
        """The parametrized tensor."""
        first, *others = list(self)
        if self.is_tensor:
            value = first(self.original)
        else:
            value = first(*[getattr(self, f"original{i}") for i in range(self.ntensors)])
        for module in others:
            value = module(value)
        return value


@functools.cache
def _class(base: type[Module], names: tuple[str, ...]) -> type[Module]:
    """`base` with properties for the parametrized tensors."""
    return type(f"Parametrized{base.__name__}", (base,), {name: _property(name) for name in names})


def _property(name: str) -> property:
    def get(module: Any) -> Tensor:
        if not _depth:
            return module.parametrizations[name]()
        key = (module, name)
        if key not in _known:
            _known[key] = module.parametrizations[name]()
        return _known[key]

    def set_(module: Any, value: Tensor) -> None:
        module.parametrizations[name].right_inverse(value)

    return property(get, set_)


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let `module.tensor_name` be `parametrization(original)` from now on; returns the module.

    The original is what `parametrization.right_inverse` (if there is one) gives for the present value; it
    moves to `module.parametrizations[tensor_name]`. Several parametrizations of a tensor are applied in
    turn. ValueError for another name, and, unless `unsafe`, for a change of shape or dtype.
    """
    parametrization.train(module.training)
    target: Any = module
    if is_parametrized(module, tensor_name):
        known = target.parametrizations[tensor_name]
        if not unsafe:
            value = getattr(module, tensor_name)
            changed = parametrization(value)
            _check_alike("Registering a parametrization", changed, value)
            _check_alike("parametrization.right_inverse", _inverse([parametrization], changed), value)
        known.append(parametrization)
        known.unsafe |= unsafe
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise fail(
            ValueError,
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'",
        )
    made = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe)
    delattr(module, tensor_name)
    base: Any = type_before_parametrizations(module)
    if not is_parametrized(module):
        target.parametrizations = ModuleDict()
    target.parametrizations[tensor_name] = made
    target.__class__ = _class(base, tuple(target.parametrizations))
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the tensor of this name, or any, is parametrized."""
    known = getattr(module, "parametrizations", None)
    if not isinstance(known, ModuleDict):
        return False
    return len(known) > 0 if tensor_name is None else tensor_name in known


def type_before_parametrizations(module: Module) -> type[Module]:
    """The module's own class."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make `module.tensor_name` a parameter or buffer again; returns the module.

    Its value is the parametrized one, or the original with leave_parametrized=False. ValueError if it is not
    parametrized, or if there are several originals to go back to.
    """
    if not is_parametrized(module, tensor_name):
        raise fail(ValueError, f"Module {module} does not have a parametrization on {tensor_name}")
    target: Any = module
    known = target.parametrizations[tensor_name]
    if known.is_tensor:
        tensor = known.original
        if leave_parametrized:
            with no_grad():
                tensor.data = getattr(module, tensor_name).detach()
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        tensor = Parameter(value.detach()) if value.requires_grad else value
    else:
        raise fail(
            ValueError,
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms "
            "of a sequence of tensors.",
        )
    base: Any = type_before_parametrizations(module)
    del target.parametrizations[tensor_name]
    if len(target.parametrizations):
        target.__class__ = _class(base, tuple(target.parametrizations))
    else:
        target.__class__ = base
        del target.parametrizations
    _keep(module, tensor_name, tensor)
    return module
