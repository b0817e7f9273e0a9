"""`out=`: storing what a function computes in a tensor that is there already.

Nothing is saved by it here: a program decides itself which buffers it writes. It is there for
programs that are written so.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from graphc.frontend.errors import fail, title
from graphc.frontend.modes import MODE, no_grad
from graphc.frontend.promotion import can_cast
from graphc.frontend.tensor import Tensor, inplace

# The functions of torch's top level that take `out` and are built here.
NAMES = frozenset(
    """
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr all amax amin aminmax angle any
    arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort asin asinh atan atan2 atanh
    baddbmm bernoulli bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor
    bmm bucketize cat ceil clamp clamp_max clamp_min clip column_stack concat concatenate copysign cos cosh
    cross cummax cummin cumprod cumsum deg2rad diag diff digamma div divide dot dstack eq erf erfc erfinv exp
    exp2 expm1 fix float_power floor floor_divide fmax fmin fmod frac full_like gather ge ger greater
    greater_equal gt heaviside hstack hypot i0 index_add index_copy index_select inner inverse isin isneginf
    isposinf kron kthvalue ldexp le lerp less less_equal lgamma log log10 log1p log2 logaddexp logaddexp2
    logcumsumexp logical_and logical_not logical_or logical_xor logit logsumexp lt masked_select matmul
    matrix_power max maximum mean median min minimum mm mode msort mul multinomial multiply mv nan_to_num
    nanmean nanmedian nanquantile nansum ne neg negative nonzero norm not_equal ones_like outer polygamma pow
    prod quantile rad2deg rand_like randn_like reciprocal remainder round rsqrt row_stack scatter scatter_add
    scatter_reduce searchsorted sgn sigmoid sign signbit sin sinc sinh slogdet softmax sort sqrt square stack
    std sub subtract sum take take_along_dim tan tanh tensordot topk tril triu true_divide trunc var
    vdot vstack where xlogy zeros_like arange empty eye full linspace logspace normal ones rand randint randn
    randperm zeros
    """.split()
)


def accepting(functions: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The functions of a namespace, those of `NAMES` with an additional keyword `out`."""
    return {name: _with_out(f, name) if name in NAMES else f for name, f in functions.items()}


def _with_out(f: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(f)
    def function(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            return f(*args, **kwargs)
        _refuse_gradients(name, out, (*args, *kwargs.values()))
        with no_grad():
            return _stored(name, f(*args, **kwargs), out)

    return function


def _refuse_gradients(name: str, out: Any, given: tuple[Any, ...]) -> None:
    """RuntimeError where history would have to be recorded."""
    flat = [t for v in given for t in (v if isinstance(v, tuple | list) else (v,))]
    outs = out if isinstance(out, tuple | list) else (out,)
    if MODE.grad and any(isinstance(t, Tensor) and t.requires_grad for t in (*flat, *outs)):
        raise fail(
            RuntimeError,
            f"{name}(): functions with out=... arguments don't support automatic differentiation, but one of "
            "the arguments requires grad.",
        )


def _stored(name: str, found: Any, out: Any) -> Any:
    """The results, in `out` (a tensor, or a tuple of them for several results)."""
    if isinstance(found, tuple):
        if not isinstance(out, tuple | list) or len(out) != len(found):
            raise fail(
                TypeError, f"{name}(): argument 'out' must be a tuple of {len(found)} Tensors, not {out!r}"
            )
        stored = [_stored(name, value, into) for value, into in zip(found, out, strict=True)]
        return type(found)(*stored) if hasattr(found, "_fields") else tuple(stored)
    if not isinstance(out, Tensor):
        raise fail(TypeError, f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if not can_cast(found.dtype, out.dtype):
        raise fail(
            RuntimeError,
            f"result type {title(found.dtype)} can't be cast to the desired output type {title(out.dtype)}",
        )
    if out.shape == found.shape:
        return inplace(out, found)
    if out.numel():
        warnings.warn(
            f"An output with one or more elements was resized since it had shape {list(out.shape)}, which "
            f"does not match the required output shape {list(found.shape)}.",
            stacklevel=4,
        )
    out.data = found.to(out.dtype)
    return out
