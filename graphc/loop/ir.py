"""The loop IR: what one kernel does, as nested loops over dense row-major buffers.

The whole grammar::

    kernel = Kernel(name, params, task, tasks, body)        # body runs once for each task index
    stmt   = For(var, extent, body, mode, lanes)            # serial | unroll | vector
           | Alloc(buffer)                                  # local or scratch, for the rest of the block
           | Let(name, value)
           | Store(buffer, index, value)
           | Accumulate(buffer, index, combine, value)      # buffer[index] = combine(buffer[index], value)
           | Tile(rows, lanes, depth, a, b, c, accumulate, fetch, walk)  # register-tile multiply-accumulate
           | Prefetch(buffer, index, near)                  # a hint: buffer[index] is wanted soon
           | Note(places, slot, buffer, index)              # where buffer[index] is
           | Check(condition, code)                         # records `code` where condition is false
           | If(condition, body)
    expr   = Const | Var | Local | Load(buffer, index, mask, other)
           | Unary(op, x) | Binary(op, a, b) | Select(c, a, b) | Cast(x, dtype)

Semantics. Integers wrap; integer ``div`` and ``rem`` round toward minus infinity (Python's)
and index arithmetic is int64. Floats are IEEE, a multiply may be contracted with an add;
``max`` and ``min`` propagate NaN (NumPy's maximum). Tasks are independent and may run in any order on
any thread. A `vector` loop's iterations are independent except for `Accumulate` into a location
that does not depend on its variable, which may be re-associated, in an order fixed by `lanes` and
`extent` alone. A masked-off `Load` touches no memory.

Expressions are compared by identity; a value used twice is bound by `Let`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphc.ir.types import DType, Shape, bool_, float32, float64, int32, int64

# --------------------------------------------------------------------- buffers

Space = Literal["param", "scratch", "local"]


@dataclass(frozen=True, eq=False)
class Buffer:
    """A dense row-major array.

    param    given by the caller of the kernel
    scratch  per-thread memory (kilobytes to a megabyte), undefined at the start of a task
    local    registers or stack; a local of shape () is a scalar accumulator (a vector of
             accumulators inside a vector loop)
    """

    name: str
    dtype: DType
    shape: Shape
    space: Space = "param"


# ----------------------------------------------------------------- expressions


@dataclass(frozen=True, eq=False)
class Expr:
    """Base of expressions; every expression has a `dtype`."""

    dtype: DType


@dataclass(frozen=True, eq=False)
class Const(Expr):
    value: int | float | bool


@dataclass(frozen=True, eq=False)
class Var(Expr):
    """A loop variable or the task index: an int64 in range(extent) (extent as far as known)."""

    name: str
    extent: int


@dataclass(frozen=True, eq=False)
class Local(Expr):
    """The value bound by a `Let`."""

    name: str


@dataclass(frozen=True, eq=False)
class Load(Expr):
    """buffer[index]; where `mask` (a bool expression) is false, `other` instead."""

    buffer: Buffer
    index: tuple[Expr, ...]
    mask: Expr | None = None
    other: Expr | None = None


@dataclass(frozen=True, eq=False)
class Unary(Expr):
    """op in UNARY_NAMES; the result's dtype is `unary_dtype`."""

    op: str
    x: Expr


@dataclass(frozen=True, eq=False)
class Binary(Expr):
    """op in BINARY_OPS or COMPARE_OPS; operands have equal dtypes."""

    op: str
    a: Expr
    b: Expr


@dataclass(frozen=True, eq=False)
class Select(Expr):
    condition: Expr
    a: Expr
    b: Expr


@dataclass(frozen=True, eq=False)
class Cast(Expr):
    """Conversion as NumPy's astype: float to int truncates, anything to bool is != 0."""

    x: Expr


UNARY_OPS = frozenset(
    "neg abs sign floor ceil round trunc sqrt rsqrt exp expm1 log log1p log2 sin cos tan "
    "asin acos atan sinh cosh asinh acosh atanh tanh erf sigmoid not".split()
)
PREDICATE_OPS = frozenset(["isnan", "isinf", "isfinite"])
BIT_TYPE = {float32: int32, float64: int64}  # what the op "bits" reads a float as: its sign is the top bit
UNARY_NAMES = UNARY_OPS | PREDICATE_OPS | {"bits"}
BINARY_OPS = frozenset(
    "add sub mul div rem pow max min and or xor shl shr atan2 mulhi".split()
)  # div of floats is true division; mulhi is the high half of a 32-bit unsigned product
COMPARE_OPS = frozenset("eq ne lt le gt ge".split())

# ------------------------------------------------------------------ statements

Block = tuple["Stmt", ...]
Mode = Literal["serial", "unroll", "vector"]


@dataclass(frozen=True, eq=False)
class Stmt:
    """Base of statements."""


@dataclass(frozen=True, eq=False)
class For(Stmt):
    """for var in range(extent): body.

    A vector loop runs `lanes` consecutive iterations at once (several machine vectors if lanes is
    wider than one); a partial last group is masked. Its body may hold any statement, also serial
    loops (then the outer loop is the vectorised one), but no other vector loop and no Tile.
    """

    var: Var
    extent: Expr
    body: Block
    mode: Mode = "serial"
    lanes: int = 1


@dataclass(frozen=True, eq=False)
class Alloc(Stmt):
    buffer: Buffer


@dataclass(frozen=True, eq=False)
class Let(Stmt):
    local: Local
    value: Expr


@dataclass(frozen=True, eq=False)
class Store(Stmt):
    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr


Combine = Literal["add", "mul", "max", "min", "and", "or"]


@dataclass(frozen=True, eq=False)
class Accumulate(Stmt):
    buffer: Buffer
    index: tuple[Expr, ...]
    combine: Combine
    value: Expr


@dataclass(frozen=True, eq=False)
class Address(Expr):
    """The location buffer[index], for Tile operands (dtype is the buffer's)."""

    buffer: Buffer
    index: tuple[Expr, ...]


Below = Literal["", "rows", "line"]
FETCH_STEPS = 4  # steps of K from one round of a Fetch to the next


@dataclass(frozen=True, eq=False)
class Fetch:
    """Cache lines that a tile asks for while it multiplies, for those who come after it.

    Every FETCH_STEPS steps of K, or at `each` of them, it asks for `lines` neighbouring lines: the first time
    from `at` on, each time `step` elements further. Nothing is read, so places need not exist.
    """

    at: Address
    step: Expr
    lines: int
    each: bool = False


@dataclass(frozen=True, eq=False)
class Listed:
    """The same of places on a list, which `Note`s have written: every FETCH_STEPS steps of K a tile asks for
    `lines` neighbouring lines, from the next of the places from `at` on."""

    at: Address
    lines: int


@dataclass(frozen=True, eq=False)
class Walk:
    """A table (int64) of how many elements each step of K of one operand of a tile is before the next one.

    The taps of a window are at no constant distance from each other, so a tile that reads pixels where they
    are looks each step up.
    """

    at: Address
    operand: Literal["a", "b"]


@dataclass(frozen=True, eq=False)
class Tile(Stmt):
    """The register tile, for i < rows, j < lanes:

        c[i*c_row + j] (+)= sum over k < depth of a[i*a_row + k*a_step] * b[k*b_step + j]

    where a, b and c are addresses and the strides are in elements. `rows` and `lanes` are
    compile-time sizes from the target's tile table; `depth` and the strides may be expressions.
    With `accumulate` the old c is added, else it is overwritten. All rows and lanes are computed:
    whoever packs a and b pads them. With a `walk`, walk[0] + ... + walk[k-1] stands for k*a_step or
    k*b_step. `below`: the tile asks for the rows of a that follow its own, which the next one will read: for
    each of them every FETCH_STEPS steps (`rows`, where steps of K are neighbours), or at each step of K for
    the line that holds the last of them (`line`, where rows are neighbours).
    """

    rows: int
    lanes: int
    depth: Expr
    a: Address
    a_row: Expr
    a_step: Expr
    b: Address
    b_step: Expr
    c: Address
    c_row: Expr
    accumulate: bool
    fetch: Fetch | Listed | None = None
    walk: Walk | None = None
    below: Below = ""


@dataclass(frozen=True, eq=False)
class Note(Stmt):
    """places[slot] = where buffer[index] is, for a `Listed` fetch; the index may lie outside the buffer."""

    places: Buffer
    slot: Expr
    buffer: Buffer
    index: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Prefetch(Stmt):
    """The cache line of buffer[index] will be read or written soon: at once (`near`), or so much later that
    it would only be in the way in the first-level cache. Changes nothing but time; the index may lie
    outside the buffer."""

    buffer: Buffer
    index: tuple[Expr, ...]
    near: bool = True


@dataclass(frozen=True, eq=False)
class Check(Stmt):
    """Where `condition` is false, store `code` (> 0) in the program's status word."""

    condition: Expr
    code: int


@dataclass(frozen=True, eq=False)
class If(Stmt):
    condition: Expr
    body: Block


@dataclass(frozen=True, eq=False)
class Kernel:
    """`body` for every value of `task` in range(tasks). Distinct params never overlap unless
    the same location is read before it is written by the same task (in-place elementwise)."""

    name: str
    params: tuple[Buffer, ...]
    task: Var
    tasks: int
    body: Block
    flops: float = 0.0  # estimates over the whole kernel, for scheduling and reports
    bytes: float = 0.0


# ---------------------------------------------------------------- constructors


def index_const(value: int) -> Const:
    return Const(int64, value)


ZERO = index_const(0)
ONE = index_const(1)
TRUE = Const(bool_, True)


def unary_dtype(op: str, x: DType) -> DType:
    """The dtype of a Unary of an operand of dtype x; ValueError where there is none such."""
    if op == "bits" and x in BIT_TYPE:
        return BIT_TYPE[x]
    if op in PREDICATE_OPS:
        return bool_
    if op in UNARY_OPS:
        return x
    raise ValueError(f"no unary operation {op!r} of {x.name}")


def unary(op: str, x: Expr) -> Expr:
    return Unary(unary_dtype(op, x.dtype), op, x)


def binary(op: str, a: Expr, b: Expr) -> Expr:
    if a.dtype is not b.dtype:
        raise TypeError(f"{op} of {a.dtype.name} and {b.dtype.name}")
    return Binary(bool_ if op in COMPARE_OPS else a.dtype, op, a, b)


def select(condition: Expr, a: Expr, b: Expr) -> Expr:
    return Select(a.dtype, condition, a, b)


def cast(x: Expr, dtype: DType) -> Expr:
    return x if x.dtype is dtype else Cast(dtype, x)


def load(
    buffer: Buffer, index: tuple[Expr, ...], mask: Expr | None = None, other: Expr | None = None
) -> Load:
    return Load(buffer.dtype, buffer, index, mask, other)


def address(buffer: Buffer, index: tuple[Expr, ...]) -> Address:
    return Address(buffer.dtype, buffer, index)


def identity_of(combine: Combine, dtype: DType) -> Const:
    """The neutral element of a combine operation."""
    if combine in ("add", "or"):
        return Const(dtype, False if dtype is bool_ else (0.0 if dtype.is_float else 0))
    if combine in ("mul", "and"):
        return Const(dtype, True if dtype is bool_ else (1.0 if dtype.is_float else 1))
    return Const(dtype, _extreme(dtype, low=combine == "max"))


def _extreme(dtype: DType, low: bool) -> int | float | bool:
    if dtype in (float32, float64):
        return float("-inf") if low else float("inf")
    if dtype is bool_:
        return not low
    bits = 8 * dtype.itemsize
    if dtype.kind == "u":
        return 0 if low else 2**bits - 1
    return -(2 ** (bits - 1)) if low else 2 ** (bits - 1) - 1
