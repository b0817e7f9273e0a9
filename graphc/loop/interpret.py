"""The interpreter of the loop IR, the oracle for every emitter: kernels run as Python text (as_python.py).

Vector loops run lane by lane (their meaning does not depend on the lanes, except for the order of
reductions). Scratch starts as a poison value, reads and writes outside a buffer raise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.ir.types import from_numpy_dtype
from graphc.loop.as_python import Writer
from graphc.loop.ir import BIT_TYPE, Buffer, Kernel, Tile


def _erf(x: Any) -> Any:
    return type(x)(math.erf(x))


def _sigmoid(x: Any) -> Any:
    one = type(x)(1)
    return one / (one + np.exp(-x)) if x >= 0 else np.exp(x) / (one + np.exp(x))


_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": np.negative,  # of integers that are no plain ones
    "abs": np.abs,
    "sign": lambda x: np.sign(x) if x == x else type(x)(0),  # (0 for NaN)
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: type(x)(1) / np.sqrt(x),
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "tanh": np.tanh,
    "erf": _erf,
    "sigmoid": _sigmoid,
    "not": np.logical_not,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "bits": lambda x: x.view(BIT_TYPE[from_numpy_dtype(x.dtype)].numpy),
}


def _pow(a: Any, b: Any) -> Any:
    """A negative power of an integer is truncated to an integer: 0 unless `a` is 1 or -1."""
    if np.issubdtype(type(b), np.signedinteger) and b < 0:
        return type(a)(0 if abs(a) != 1 else 1 if b % 2 == 0 else a)
    return np.power(a, b)


def _mulhi(a: Any, b: Any) -> Any:
    return np.uint32((int(a) * int(b)) >> 32)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {  # where Python has no operator that does the same
    "add": np.add,
    "mul": np.multiply,
    "div": np.floor_divide,
    "rem": np.remainder,
    "pow": _pow,
    "max": np.maximum,
    "min": np.minimum,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "atan2": np.arctan2,
    "mulhi": _mulhi,
}


@lru_cache(maxsize=256)
def _written(kernel: Kernel) -> tuple[Callable[..., int], dict[str, Any]]:
    """The function of a kernel, and what the names in it are."""
    writer = Writer(kernel, _FUNCTIONS)
    space = writer.given
    exec(compile(writer.text, f"<kernel {kernel.name}>", "exec"), space)
    return space["task"], writer.meaning


def run(kernel: Kernel, arrays: Sequence[np.ndarray], tasks: Sequence[int] | None = None) -> int:
    """Run `kernel` on `arrays` (one per param, C-contiguous, of the param's dtype and size), in place.

    `tasks` gives the task indices to run (default: all, in order). Returns the status: 0, or the code of the
    first failed Check. Raises ValueError for arrays that do not fit, IndexError for bad accesses.
    """
    if len(arrays) != len(kernel.params):
        raise ValueError(f"kernel {kernel.name} has {len(kernel.params)} params, got {len(arrays)} arrays")
    for param, array in zip(kernel.params, arrays, strict=True):
        if array.dtype != param.dtype.numpy or array.size != math.prod(param.shape):
            raise ValueError(
                f"param {param.name} is {param.dtype.short}{list(param.shape)}, got {array.dtype}"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"array for param {param.name} is not contiguous")
    flat = [array.reshape(-1) for array in arrays]
    function, meaning = _written(kernel)
    status = 0
    with np.errstate(all="ignore"):
        for task in range(kernel.tasks) if tasks is None else tasks:
            try:
                failed = function(int(task), *flat)
            except NameError as error:
                raise IndexError(_unknown(error, meaning)) from None
            status = status or failed
    return status


def _unknown(error: NameError, meaning: dict[str, Any]) -> str:
    """What a name that has no value yet stands for."""
    found = re.search(r"'(\w+)'", str(error))
    thing = meaning.get(found.group(1)) if found else None
    if isinstance(thing, Buffer):
        return f"buffer {thing.name} is not allocated here"
    return f"{getattr(thing, 'name', error)} has no value here"


def _outside(buffer: Buffer, index: Sequence[int]) -> None:
    raise IndexError(f"{buffer.name}{[int(i) for i in index]} is outside {list(buffer.shape)}")


def _poisoned(buffer: Buffer) -> np.ndarray:
    """Memory that shows when it is read before it is written."""
    poison = np.nan if buffer.dtype.is_float else 113
    return np.full(math.prod(buffer.shape), poison, buffer.dtype.numpy)


def _tile(
    tile: Tile,
    a: np.ndarray,
    a_at: int,
    b: np.ndarray,
    b_at: int,
    c: np.ndarray,
    c_at: int,
    depth: int,
    a_row: int,
    a_step: int,
    b_step: int,
    c_row: int,
    table: np.ndarray | None = None,
    start: int = 0,
) -> None:
    lanes, steps = np.arange(tile.lanes), np.arange(depth)
    a_steps, b_steps = steps * a_step, steps * b_step
    if tile.walk is not None and table is not None:
        walked = np.cumsum(table[start + steps]) - table[start + steps]
        a_steps, b_steps = (walked, b_steps) if tile.walk.operand == "a" else (a_steps, walked)
    panel = b[b_at + b_steps[:, None] + lanes]
    for i in range(tile.rows):
        total = a[a_at + i * a_row + a_steps] @ panel
        at = c_at + i * c_row
        if at < 0 or at + tile.lanes > c.size:
            raise IndexError(f"tile row {i} is outside {tile.c.buffer.name}")
        c[at : at + tile.lanes] = c[at : at + tile.lanes] + total if tile.accumulate else total


_FUNCTIONS: dict[str, Callable] = {
    **{f"{op}_": function for op, function in (_UNARY | _BINARY).items()},
    "asarray": np.asarray,
    "outside": _outside,
    "poisoned": _poisoned,
    "tile": _tile,
}
