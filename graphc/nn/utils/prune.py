"""Pruning: parameters multiplied by masks, with PyTorch's names.

A pruned parameter `weight` becomes the parameter `weight_orig` and the buffer `weight_mask`; a forward
pre-hook, which is the pruning method itself, sets `weight` to their product before each call. Masks are made
once, when a method is applied, from values; what is pruned again loses more of what is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from graphc.frontend.errors import fail
from graphc.frontend.functions.creation import ones_like, zeros_like
from graphc.frontend.functions.random import rand
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn import hooks
from graphc.nn.module import Module
from graphc.nn.utils.convert_parameters import parameters_to_vector

M = TypeVar("M", bound=Module)


class BasePruningMethod(ABC):
    """How a mask is made, and the hook that applies it.

    A subclass says by `compute_mask` what goes, and by PRUNING_TYPE what it looks at when something has been
    pruned before: the elements that are left ("unstructured"), the slices along its `dim` of which anything
    is left ("structured"), or all ("global").
    """

    PRUNING_TYPE: ClassVar[str]
    _tensor_name: str

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask (1: kept) for importances `t`, given the mask before, of one shape."""

    def apply_mask(self, module: Module) -> Tensor:
        """The pruned value: parameter times mask."""
        mask, original = (getattr(module, f"{self._tensor_name}_{part}") for part in ("mask", "orig"))
        return mask.to(original.dtype) * original

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> BasePruningMethod:
        """Prune the parameter `name` by a method made of the other arguments, after those before it.

        What is pruned is judged by `importance_scores`, or by its values. The hook is returned.
        """
        method: BasePruningMethod = cls(*args, **kwargs)
        method._tensor_name = name
        scores = _scores(importance_scores, getattr(module, name))
        key = hooks.find(module._forward_pre_hooks, BasePruningMethod, _tensor_name=name)
        if key is None:
            mask = ones_like(scores)
        else:
            before = module._forward_pre_hooks[key]
            container = before if isinstance(before, PruningContainer) else PruningContainer(before)
            container.add_pruning_method(method)
            method, mask = container, getattr(module, f"{name}_mask").clone()
        with no_grad():
            mask = method.compute_mask(scores, default_mask=mask)
        if key is None:
            module.register_parameter(f"{name}_orig", module._parameters[name])
            del module._parameters[name]
        else:
            module._forward_pre_hooks.pop(key)
        module.register_buffer(f"{name}_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(
        self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None
    ) -> Tensor:
        """`t` with what this method prunes set to zero."""
        mask = ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(_scores(importance_scores, t), default_mask=mask)

    def remove(self, module: Module) -> None:
        """Make the pruned value the parameter again, for good. (The caller takes the hook out.)"""
        name = self._tensor_name
        with no_grad():
            value = self.apply_mask(module)
        original = module._parameters.pop(f"{name}_orig")
        del module._buffers[f"{name}_mask"]
        delattr(module, name)
        assert original is not None
        original.data = value
        module.register_parameter(name, original)


def _scores(given: Tensor | None, t: Tensor) -> Tensor:
    if given is not None and tuple(given.shape) != tuple(t.shape):
        raise fail(
            AssertionError,
            f"importance_scores should have the same shape as the tensor, got {given.shape} vs {t.shape}",
        )
    return (t if given is None else given).detach()


class PruningContainer(BasePruningMethod):
    """The methods by which a parameter has been pruned one after the other."""

    PRUNING_TYPE = "container"

    def __init__(self, *methods: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        for method in methods:
            if not self._pruning_methods and isinstance(method, BasePruningMethod):
                self._tensor_name = method._tensor_name
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Append a method. TypeError if it is none, ValueError if it is for another parameter."""
        if not isinstance(method, BasePruningMethod):
            raise fail(TypeError, f"{type(method)} is not a BasePruningMethod subclass")
        if method._tensor_name != self._tensor_name:
            raise fail(
                ValueError,
                f"Can only add pruning methods acting on the parameter named '{self._tensor_name}' to "
                f"PruningContainer {self}. Found '{method._tensor_name}'",
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask of the last method, which looks at what those before it have left."""
        method = self._pruning_methods[-1]
        left = _left(method, t, default_mask)
        mask = default_mask.to(t.dtype).clone()
        mask[left] = method.compute_mask(t[left], default_mask=default_mask[left]).to(mask.dtype)
        return mask


def _left(method: BasePruningMethod, t: Tensor, mask: Tensor) -> Any:
    """The index of what a method looks at when `mask` has been applied before."""
    if method.PRUNING_TYPE == "unstructured":
        return mask == 1
    everything: list[Any] = [slice(None)] * t.ndim
    if method.PRUNING_TYPE == "structured":
        if not hasattr(method, "dim"):
            raise fail(
                AttributeError,
                'Pruning methods of PRUNING_TYPE "structured" need to have the attribute `dim` defined.',
            )
        if not -t.ndim <= method.dim < t.ndim:
            raise fail(IndexError, f"Index is out of bounds for tensor with dimensions {t.ndim}")
        dim = method.dim % t.ndim
        everything[dim] = mask.sum([d for d in range(t.ndim) if d != dim]) != 0
    elif method.PRUNING_TYPE != "global":
        raise fail(ValueError, f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
    return tuple(everything)


# -------------------------------------------------------------------- methods


class Identity(BasePruningMethod):
    """Prunes nothing: for parameters that are to look like pruned ones."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class _Amount(BasePruningMethod):
    """Prunes `amount`: a share of all (a float), or so many (an int). TypeError, ValueError for others."""

    def __init__(self, amount: float) -> None:
        if not isinstance(amount, int | float):
            raise fail(TypeError, f"Invalid type for amount: {amount}. Must be int or float.")
        if amount < 0 or (isinstance(amount, float) and amount > 1):
            raise fail(
                ValueError,
                f"amount={amount} should either be a float in the range [0, 1] or a non-negative integer",
            )
        self.amount: int | float = amount

    def _count(self, size: int) -> int:
        if isinstance(self.amount, int):
            if self.amount > size:
                raise fail(
                    ValueError,
                    f"amount={self.amount} should be smaller than the number of parameters to prune={size}",
                )
            return self.amount
        return round(self.amount * size)


class _Unstructured(_Amount):
    """Prunes single elements: those of the lowest rank."""

    PRUNING_TYPE = "unstructured"

    def _rank(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        count = self._count(t.numel())
        mask = default_mask.clone().reshape(-1)
        if count:
            mask[self._rank(t).reshape(-1).topk(count, largest=False).indices] = 0
        return mask.reshape(t.shape)


class RandomUnstructured(_Unstructured):
    """Prunes elements at random."""

    def _rank(self, t: Tensor) -> Tensor:
        return rand(tuple(t.shape))


class L1Unstructured(_Unstructured):
    """Prunes the elements of least magnitude."""

    def _rank(self, t: Tensor) -> Tensor:
        return t.abs()


class _Structured(_Amount):
    """Prunes whole slices along `dim`: those of the lowest rank. ValueError for vectors."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        super().__init__(amount)
        self.dim = dim

    def _rank(self, t: Tensor, dim: int) -> Tensor:
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        if t.ndim <= 1:
            raise fail(
                ValueError,
                "Structured pruning can only be applied to multidimensional tensors. Found tensor of shape "
                f"{t.shape} with {t.ndim} dims",
            )
        if not -t.ndim <= self.dim < t.ndim:
            raise fail(IndexError, f"Invalid index {self.dim} for tensor of size {t.shape}")
        dim = self.dim % t.ndim
        size = t.shape[dim]
        count = self._count(size)
        if count == 0:
            return default_mask
        mask = zeros_like(t).movedim(dim, 0)
        mask[self._rank(t, dim).topk(size - count).indices] = 1
        return mask.movedim(0, dim) * default_mask.to(t.dtype)


class RandomStructured(_Structured):
    """Prunes slices along `dim` at random."""

    def _rank(self, t: Tensor, dim: int) -> Tensor:
        return rand(t.shape[dim])


class LnStructured(_Structured):
    """Prunes the slices along `dim` of the least norm of order `n` (a number, inf or -inf)."""

    def __init__(self, amount: float, n: float, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def _rank(self, t: Tensor, dim: int) -> Tensor:
        return t.norm(self.n, [d for d in range(t.ndim) if d != dim])


class CustomFromMask(BasePruningMethod):
    """Prunes where `mask` is 0."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        if tuple(default_mask.shape) != tuple(self.mask.shape):
            raise fail(
                AssertionError,
                f"default_mask shape {default_mask.shape} must match self.mask shape {self.mask.shape}",
            )
        return default_mask * self.mask.to(default_mask.dtype)


# ------------------------------------------------------------------ functions


def identity(module: M, name: str) -> M:
    """Give the parameter `name` a mask of ones."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: M, name: str, amount: float) -> M:
    """Prune `amount` elements (or that share) of the parameter `name` at random."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: M, name: str, amount: float, importance_scores: Tensor | None = None) -> M:
    """Prune the `amount` elements of the parameter `name` of least magnitude, or of the least scores."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: M, name: str, amount: float, dim: int) -> M:
    """Prune `amount` slices along `dim` of the parameter `name` at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: M, name: str, amount: float, n: float, dim: int, importance_scores: Tensor | None = None
) -> M:
    """Prune the `amount` slices along `dim` of the parameter `name` with the least norm of order `n`."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: M, name: str, mask: Tensor) -> M:
    """Prune the parameter `name` where `mask` is 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Sequence[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune several parameters, (module, name), as if they were one: by `pruning_method(**kwargs)`.

    TypeError if the method is not "unstructured", or the arguments are of other types.
    """
    if not isinstance(parameters, Iterable):
        raise fail(TypeError, "global_unstructured(): parameters is not an Iterable")
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise fail(TypeError, "global_unstructured(): importance_scores must be of type dict")
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise fail(
            TypeError,
            'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
            f"{pruning_method} of type {method.PRUNING_TYPE}",
        )
    held = [getattr(module, name).detach() for module, name in parameters]
    judged = parameters_to_vector([scores.get(k, t).detach() for k, t in zip(parameters, held, strict=True)])
    masks = [getattr(m, f"{n}_mask", None) for m, n in parameters]
    before = [ones_like(t) if mask is None else mask for t, mask in zip(held, masks, strict=True)]
    method._tensor_name = "all"
    mask = PruningContainer(method).compute_mask(judged, parameters_to_vector(before))
    start = 0
    for (module, name), t in zip(parameters, held, strict=True):
        custom_from_mask(module, name, mask[start : start + t.numel()].reshape(t.shape))
        start += t.numel()


def remove(module: M, name: str) -> M:
    """Make the pruned value of the parameter `name` its value for good. ValueError if it is not pruned."""
    key = hooks.find(module._forward_pre_hooks, BasePruningMethod, _tensor_name=name)
    if key is None:
        raise fail(
            ValueError,
            f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed",
        )
    module._forward_pre_hooks.pop(key).remove(module)
    return module


def is_pruned(module: Module) -> bool:
    """Whether any parameter of the module, at any depth, is pruned."""
    return any(hooks.find(m._forward_pre_hooks, BasePruningMethod) is not None for m in module.modules())
