"""The graphc function behind each name of torch's OpInfo database."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import graphc
import graphc.nn.functional as F

from .databases import OPS
from .running import Operation

NAMES = Path(__file__).with_name("ops.txt")


def _embedding(weight: Any, indices: Any, **kwargs: Any) -> Any:
    return F.embedding(indices, weight, **kwargs)


def _embedding_bag(weight: Any, indices: Any, **kwargs: Any) -> Any:
    return F.embedding_bag(indices, weight, **kwargs)


def _multi_head(input: Any, *args: Any, **kwargs: Any) -> Any:
    return F.multi_head_attention_forward(input, *args, **kwargs)


def _where(self: Any, condition: Any, other: Any) -> Any:
    return graphc.where(condition, self, other)


def _einsum(tensors: Any, equation: str) -> Any:
    return graphc.einsum(equation, tensors)


def _zero(x: Any) -> Any:
    return x.clone().zero_()


def _polygamma(x: Any, n: int) -> Any:
    return graphc.polygamma(n, x)


def _drawn(name: str, x: Any, *args: Any, **kwargs: Any) -> Any:
    return getattr(x.clone(), name)(*args, **kwargs)


def _attribute(name: str, x: Any) -> Any:
    return getattr(x, name)


# OpInfo.op is a lambda over torch, or the name means something else as an attribute of graphc.
SPECIAL: dict[str, Callable[..., Any]] = {
    "T": partial(_attribute, "T"),
    "H": partial(_attribute, "H"),
    "mT": partial(_attribute, "mT"),
    "mH": partial(_attribute, "mH"),
    "where": _where,
    "einsum": _einsum,
    "zero_": _zero,
    **{f"polygamma_polygamma_n_{n}": _polygamma for n in range(5)},
    "special_polygamma_special_polygamma_n_0": _polygamma,
    "normal_in_place": partial(_drawn, "normal_"),
    "uniform": partial(_drawn, "uniform_"),
    "nn_functional_embedding": _embedding,
    "nn_functional_embedding_bag": _embedding_bag,
    "nn_functional_multi_head_attention_forward": _multi_head,
}
METHODS = "bool byte double float int long".split()  # as attributes of graphc these are dtypes


def sections() -> dict[str, dict[str, str]]:
    """The names file: section -> torch's name -> flags."""
    found: dict[str, dict[str, str]] = {}
    for line in NAMES.read_text().splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, _, flags = line.partition(" ")
            current[name] = flags
    return found


def operation(name: str, flags: str) -> Operation:
    """What `name` is here. AttributeError if there is no such thing."""
    info = OPS[name]
    function = SPECIAL.get(name)
    if function is None:
        function = getattr(graphc.Tensor, info.name) if name in METHODS else _resolve(info.name)
    return Operation(
        name,
        function,
        None if info.method_variant is None or name in SPECIAL else _variant(info.method_variant),
        None if info.inplace_variant is None or name in SPECIAL else _variant(info.inplace_variant),
        random="random" in flags,
        lazy="lazy" in flags,
        ties=("ties2" in flags) + ("ties" in flags),
        loose="loose" in flags,
    )


def _resolve(path: str) -> Callable[..., Any]:
    found: Any = graphc
    for part in path.split("."):
        nested = getattr(found, part, None)
        # (not a module of ours that happens to be called so)
        is_name = callable(nested) or part in ("nn", "functional", "special", "linalg")
        found = nested if is_name else getattr(graphc.Tensor, part)
    return found


def _variant(theirs: Any) -> Callable[..., Any] | None:
    """Our form of a torch method (found by name); torch's lambdas around functional forms are not methods."""
    name = getattr(theirs, "__name__", "<lambda>")
    return None if not name.isidentifier() else _Method(name)


class _Method:
    """Calls the method `name` of its first argument."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(x, self.name)(*args, **kwargs)


CONTRACT = sections()["contract"]
