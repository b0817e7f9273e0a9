"""A table of a model's layers, output shapes and parameters; nothing is computed to make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.frontend.functions.creation import zeros
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.nn import Module

RULE = "-" * 72


@dataclass(frozen=True)
class Row:
    """A call of a layer."""

    name: str
    shape: str
    params: int


@dataclass(frozen=True)
class ModelSummary:
    """The rows of the table and the sums; `print` shows it.

    total, trainable             numbers of parameters
    input_mb, forward_mb, params_mb   megabytes (2^20) of inputs, of all layers' outputs, of parameters
    """

    rows: tuple[Row, ...]
    total: int
    trainable: int
    input_mb: float
    forward_mb: float
    params_mb: float

    def __str__(self) -> str:
        lines = [RULE, f"{'Layer (type)':<32}{'Output Shape':>25}{'Param #':>15}", RULE.replace("-", "=")]
        lines += [f"{r.name:<32}{r.shape:>25}{r.params:>15,}" for r in self.rows]
        lines += [
            RULE.replace("-", "="),
            f"Total params: {self.total:,}",
            f"Trainable params: {self.trainable:,}",
            f"Non-trainable params: {self.total - self.trainable:,}",
            RULE,
            f"Input size (MB): {self.input_mb:.6f}",
            f"Forward pass size (MB): {self.forward_mb:.6f}",
            f"Params size (MB): {self.params_mb:.6f}",
            f"Estimated total size (MB): {self.input_mb + self.forward_mb + self.params_mb:.6f}",
            RULE,
        ]
        return "\n".join(lines)


def summary(
    model: Module,
    input_shape: Sequence[int] | None = None,
    input_data: Any = None,
    batch_size: int = 1,
    verbose: bool = True,
) -> ModelSummary:
    """The layers that `model` calls for an input, in order, with output shapes and parameters.

    input_data   an example: a tensor, or a tuple, list or dict of arguments
    input_shape  instead: the shape of one example without the batch, for float32 input
    verbose      print the table too

    The model is put into eval mode for the call and back. ValueError without an example.
    """
    if (input_data is None) == (input_shape is None):
        raise ValueError("summary needs an example: give either input_data or input_shape")
    if input_shape is not None:
        input_data = zeros(batch_size, *input_shape)
    rows, forward_bytes = _record(model, input_data)
    parameters = list(model.parameters())
    result = ModelSummary(
        rows=tuple(rows),
        total=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        input_mb=sum(_bytes(t) for t in _tensors(input_data)) / 2**20,
        forward_mb=forward_bytes / 2**20,
        params_mb=sum(_bytes(p) for p in parameters) / 2**20,
    )
    if verbose:
        print(result)
    return result


def _record(model: Module, data: Any) -> tuple[list[Row], int]:
    """Call the model with a hook on every layer without children (tensors are lazy: nothing runs)."""
    rows: list[Row] = []
    sizes: list[int] = []
    seen: set[int] = set()

    def note(layer: Module, args: Any, output: Any) -> None:
        own = [p for p in layer.parameters() if id(p) not in seen]  # a shared layer counts once
        seen.update(map(id, own))
        tensors = _tensors(output)
        shape = str([-1, *tensors[0].shape[1:]]) if tensors else ""
        rows.append(Row(f"{type(layer).__name__}-{len(rows) + 1}", shape, sum(p.numel() for p in own)))
        sizes.append(sum(map(_bytes, tensors)))

    leaves = [m for m in model.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(note) for m in leaves]
    training = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with no_grad():
            if isinstance(data, dict):
                model(**data)
            elif isinstance(data, (tuple, list)):
                model(*data)
            else:
                model(data)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training:
            module.training = mode
    return rows, sum(sizes)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in _tensors(item)] if isinstance(value, (tuple, list)) else []


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.dtype.itemsize
