"""One ModuleInfo input in torch and in graphc: text, state_dict, values, gradients, changed buffers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import graphc

from .convert import DTYPES, Outside, difference, fresh, leaves, rebuild, to_graphc
from .databases import MODULES, torch

MODES = (True, False)


@dataclass
class Built:
    """A module on both sides with equal parameters, and the arguments of its forward."""

    index: int
    training: bool
    theirs: Any
    ours: Any
    args: Any
    kwargs: Any
    random: bool


def inputs(info: Any, dtype: Any, training: bool) -> list[Any]:
    """The inputs of a ModuleInfo; always the same ones."""
    torch.manual_seed(0)
    return info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)


def _constructed(value: Any) -> Any:
    """A constructor argument on our side."""
    if isinstance(value, type) and value.__module__.startswith("torch.nn"):
        return getattr(graphc.nn, value.__name__)
    if isinstance(value, torch.nn.Module):
        made = getattr(graphc.nn, type(value).__name__)
        return _from_torch(value, made)
    if callable(value) and getattr(value, "__module__", "").startswith("torch"):
        return getattr(graphc.nn.functional, value.__name__, None) or getattr(graphc, value.__name__)
    return to_graphc(value)


def _from_torch(module: Any, made: Any) -> Any:
    """A module given to a constructor (a layer of an encoder): built anew from its own attributes."""
    wanted = made.__init__.__code__.co_varnames[1 : made.__init__.__code__.co_argcount]
    known = _LAYER_ARGUMENTS.get(type(module).__name__)
    if known is None:
        return made(
            **{k: getattr(module, k) for k in wanted if hasattr(module, k) and k not in ("device", "dtype")}
        )
    built = made(**known(module))
    _copy_state(module, built)
    return built


def _layer(m: Any) -> dict[str, Any]:
    return {
        "d_model": m.linear1.in_features,
        "nhead": m.self_attn.num_heads,
        "dim_feedforward": m.linear1.out_features,
        "dropout": m.dropout.p,
        "batch_first": m.self_attn.batch_first,
        "norm_first": m.norm_first,
        "activation": _constructed(m.activation),
        "layer_norm_eps": m.norm1.eps,
        "bias": m.linear1.bias is not None,
    }


_LAYER_ARGUMENTS = {"TransformerEncoderLayer": _layer, "TransformerDecoderLayer": _layer}


def _copy_state(theirs: Any, ours: Any) -> None:
    state = {k: to_graphc(v.detach()) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)


def build(info: Any, name: str, index: int, entry: Any, dtype: Any, training: bool) -> Built:
    """Both modules, with torch's parameters. Outside if the arguments are."""
    given = entry.constructor_input
    torch.manual_seed(1)
    theirs = info.module_cls(*given.args, **given.kwargs)
    theirs.train(training).to(dtype)
    ours = construct(name, given)
    ours.train(training).to(DTYPES[dtype])
    forward = entry.forward_input
    if hasattr(theirs, "cls_to_become"):  # a lazy layer: the first call gives it parameters
        for module, convert in ((theirs, fresh), (ours, to_graphc)):
            module(*rebuild(list(forward.args), convert), **rebuild(dict(forward.kwargs), convert))
    random = training and any(
        (
            getattr(m, "dropout", 0) not in (0, 0.0, None)
            and not isinstance(getattr(m, "dropout", 0), torch.nn.Module)
        )
        or (type(m).__name__.startswith("Dropout") and m.p > 0)
        for m in theirs.modules()
    )
    return Built(
        index,
        training,
        theirs,
        ours,
        rebuild(list(forward.args), fresh),
        rebuild(dict(forward.kwargs), fresh),
        random,
    )


def construct(name: str, given: Any) -> Any:
    """Our module for torch's constructor arguments."""
    args, kwargs = rebuild(list(given.args), _constructed), rebuild(dict(given.kwargs), _constructed)
    return _resolve(name)(*args, **kwargs)


def _resolve(name: str) -> Any:
    found: Any = graphc
    for part in name.split("."):
        found = getattr(found, part)
    return found


def checks(built: Built, compiled: bool) -> Iterator[tuple[str, str]]:
    """(check, how it differs) for one module."""
    yield "repr", _same(repr(built.ours), repr(built.theirs))
    theirs, ours = built.theirs.state_dict(), built.ours.state_dict()
    yield (
        "state_dict",
        _same(
            [(k, tuple(v.shape)) for k, v in ours.items()], [(k, tuple(v.shape)) for k, v in theirs.items()]
        ),
    )
    _copy_state(built.theirs, built.ours)
    yield ("compiled" if compiled else "lazy"), _forward(built, compiled)


def _same(ours: Any, theirs: Any) -> str:
    return "" if ours == theirs else f"{ours!r:.150} instead of {theirs!r:.150}"


def _forward(built: Built, compiled: bool) -> str:
    args, kwargs = rebuild(built.args, fresh), rebuild(built.kwargs, fresh)
    ours_args, ours_kwargs = rebuild(built.args, to_graphc), rebuild(built.kwargs, to_graphc)
    torch.manual_seed(2)
    expected = built.theirs(*args, **kwargs)
    out = (graphc.compile(built.ours) if compiled else built.ours)(*ours_args, **ours_kwargs)
    exact = not built.random
    found = difference(out, expected, exact)
    if found or not exact:
        return found or ""
    state = built.theirs.state_dict()
    found = difference([built.ours.state_dict()[k] for k in state], list(state.values()))
    return (
        f"state after forward {found}"
        if found
        else _gradients(built, (expected, [args, kwargs]), (out, [ours_args, ours_kwargs]))
    )


def _gradients(built: Built, theirs: Any, ours: Any) -> str:
    """Gradients of a weighted sum of the outputs, in inputs and parameters."""
    expected = [o for o in leaves(theirs[0]) if isinstance(o, torch.Tensor) and o.requires_grad]
    if not expected:
        return ""
    out = [o for o in leaves(ours[0]) if isinstance(o, graphc.Tensor) and o.requires_grad]
    if len(out) != len(expected):
        return f"{len(out)} outputs require grad instead of {len(expected)}"
    wrt = [t for t in leaves(theirs[1]) if isinstance(t, torch.Tensor) and t.requires_grad]
    own = [t for t in leaves(ours[1]) if isinstance(t, graphc.Tensor) and t.requires_grad]
    wrt += [p for p in built.theirs.parameters() if p.requires_grad]
    own += [p for p in built.ours.parameters() if p.requires_grad]
    torch.manual_seed(3)
    cotangents = [torch.randn_like(o) for o in expected]
    found = torch.autograd.grad(expected, wrt, cotangents, allow_unused=True)
    mine = graphc.autograd.grad(out, own, rebuild(cotangents, to_graphc), allow_unused=True)
    wanted = [torch.zeros_like(t) if g is None else g for g, t in zip(found, wrt, strict=True)]
    got = [graphc.zeros_like(t) if g is None else g for g, t in zip(mine, own, strict=True)]
    text = difference(got, wanted, loose=True)
    return f"gradient {text}" if text else ""


def attempt(
    name: str, dtype: Any, training: bool, compiled: bool, limit: int
) -> Iterator[tuple[int, str, str]]:
    """(index, check, how it differs) for the inputs of a ModuleInfo, at most `limit`, spread evenly."""
    info = MODULES[name]
    entries = list(inputs(info, dtype, training))
    step = max(1, -(-len(entries) // limit))
    for index in range(0, len(entries), step):
        entry = entries[index]
        try:
            built = build(info, name, index, entry, dtype, training)
            for what, message in checks(built, compiled):
                yield index, what, message
        except Outside:
            continue
        except Exception as error:
            yield index, "call", f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"
