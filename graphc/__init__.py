# ruff: noqa: F401
"""graphc: a symbolic graph compiler for static neural networks, with PyTorch's API."""

from __future__ import annotations

import sys as _sys
from typing import Any as _Any

from graphc import accelerator, amp, autograd, compiler, cuda, random, return_types, testing
from graphc.amp import autocast
from graphc.autograd.anomaly import is_anomaly_check_nan_enabled, is_anomaly_enabled
from graphc.autograd.anomaly import set_detect_anomaly as set_anomaly_enabled
from graphc.backend import package as _backends
from graphc.frontend.errors import TracerError
from graphc.frontend.evaluation.lazy import compilations, native_calls, set_backend, sync
from graphc.frontend.functions import methods as _methods
from graphc.frontend.functions import out as _out
from graphc.frontend.functions.convert import device
from graphc.frontend.functions.creation import (
    BoolTensor,
    ByteTensor,
    DoubleTensor,
    FloatTensor,
    IntTensor,
    LongTensor,
    arange,
    as_tensor,
    asarray,
    empty,
    eye,
    from_dlpack,
    from_numpy,
    full,
    linspace,
    logspace,
    ones,
    scalar_tensor,
    tensor,
    zeros,
)
from graphc.frontend.functions.numbers import e, finfo, iinfo, inf, is_tensor, nan, newaxis, pi
from graphc.frontend.functions.printing import set_printoptions
from graphc.frontend.functions.random import (
    Generator,
    bernoulli,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    multinomial,
    normal,
    rand,
    randint,
    randn,
    randperm,
    seed,
    set_rng_state,
)
from graphc.frontend.functions.scan import scan
from graphc.frontend.layout import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    strided,
)
from graphc.frontend.modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from graphc.frontend.promotion import can_cast, get_default_dtype, promote_types, set_default_dtype
from graphc.frontend.size import Size
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing.compile import compile
from graphc.frontend.tracing.graphs import TensorSpec
from graphc.functional import grad, jvp, value_and_grad, vjp
from graphc.functional import trace as _trace
from graphc.ir.types import DType as dtype
from graphc.ir.types import bool_, float32, float64, int32, int64, uint8
from graphc.settings import (
    are_deterministic_algorithms_enabled,
    get_default_device,
    get_float32_matmul_precision,
    get_num_interop_threads,
    set_default_device,
    set_default_tensor_type,
    set_float32_matmul_precision,
    set_num_interop_threads,
    use_deterministic_algorithms,
)
from graphc.threads import get_num_threads, set_num_threads
from graphc.vectorized import vmap

__version__ = "0.1.0"

float = float32
double = float64
long = int64
int = int32
bool = bool_

globals().update(_out.accepting({n: f for n, f in globals().items() if n in _out.NAMES}))
globals().update(_out.accepting(_methods.FUNCTIONS))
_IN_PLACE = """
abs_ acos_ acosh_ addmv_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_ asinh_ atan_
atanh_ ceil_ clamp_ clamp_max_ clamp_min_ clip_ cos_ cosh_ deg2rad_ detach_ erf_ erfc_ exp2_ exp_
expm1_ fill_ fix_ floor_ frac_ gcd_ i0_ index_put_ lcm_ ldexp_ log10_ log1p_ log2_ log_ logit_
nan_to_num_ neg_ negative_ rad2deg_ reciprocal_ resize_as_ round_ rsqrt_ sigmoid_ sin_ sinc_ sinh_
sqrt_ square_ tan_ tanh_ trunc_ xlogy_ zero_
"""
globals().update({name: getattr(Tensor, name) for name in _IN_PLACE.split()})
trace = _trace

from graphc import distributions, func, linalg, nn, optim, special, utils  # noqa: E402  (they use the methods installed above)
from graphc.nn.functional import (  # noqa: E402  (those that PyTorch has on its top level with the same arguments)
    adaptive_avg_pool1d,
    adaptive_max_pool1d,
    avg_pool1d,
    bilinear,
    celu,
    celu_,
    channel_shuffle,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    cosine_similarity,
    group_norm,
    hardshrink,
    layer_norm,
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool3d,
    pairwise_distance,
    pixel_shuffle,
    pixel_unshuffle,
    prelu,
    relu_,
    rms_norm,
    selu,
    selu_,
    threshold,
    threshold_,
)
from graphc.serialization import load, save  # noqa: E402

_NOT_BUILT = {
    "float16": "half precision is not built: float32 and float64 are",
    "half": "half precision is not built: float32 and float64 are",
    "bfloat16": "bfloat16 is not built: float32 and float64 are",
    "int8": "int8 is not built: uint8, int32 and int64 are",
    "int16": "int16 is not built: uint8, int32 and int64 are",
    "short": "int16 is not built: uint8, int32 and int64 are",
    "complex64": "complex numbers are not built",
    "complex128": "complex numbers are not built",
    "cfloat": "complex numbers are not built",
    "complex": "complex numbers are not built",
    "polar": "complex numbers are not built",
    "view_as_complex": "complex numbers are not built",
    "fft": "Fourier transforms need complex numbers, which are not built",
    "stft": "Fourier transforms need complex numbers, which are not built",
    "istft": "Fourier transforms need complex numbers, which are not built",
    "sparse": "sparse tensors are not built",
    "sparse_coo_tensor": "sparse tensors are not built",
    "svd": "singular values are not built; graphc.linalg has norms, cholesky, solve, inv and det",
    "as_strided": "values have no strides here: use unfold, or indexing",
    "quantization": "quantized tensors are not built",
    "distributed": "there is one process; a step uses all cores (graphc.set_num_threads)",
    "hub": "nothing is downloaded: load a state_dict from a file",
    "onnx": "ONNX export is not built; graphc dump writes the graph as text, JSON or SVG",
    "jit": "there is no script language: graphc.compile compiles functions and modules",
}


def __getattr__(name: str) -> _Any:
    if name == "backends":  # (found on demand: the compiler knows its backends by name only)
        return _backends()
    why = f" ({_NOT_BUILT[name]})" if name in _NOT_BUILT else ""
    says = f"module 'graphc' has no attribute {name!r}{why}"
    raise AttributeError(says, name=name, obj=_sys.modules[__name__])
