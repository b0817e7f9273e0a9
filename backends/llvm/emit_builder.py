"""Writes LLVM IR as text: typed operands, basic blocks, fresh names.

Text is what LLVM's parser takes anyway, so there are no objects to build and print in between.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

FLOATS = ("float", "double")
BITS = {"i1": 1, "i8": 8, "i32": 32, "i64": 64, "float": 32, "double": 64}
INTRINSIC_SUFFIX = {"float": "f32", "double": "f64", "i1": "i1", "i8": "i8", "i32": "i32", "i64": "i64"}


def vector_type(elem: str, lanes: int) -> str:
    """Spelling of a scalar (lanes 0) or vector type."""
    return f"<{lanes} x {elem}>" if lanes else elem


def literal(elem: str, value: int | float | bool) -> str:
    """A scalar constant as LLVM writes it; floats by their bits, so nothing is lost."""
    if elem in FLOATS:
        number = float(np.float32(value)) if elem == "float" else float(value)
        if math.isnan(number):
            return "0x7FF8000000000000"
        return "0x" + struct.pack(">d", number).hex().upper()
    if elem == "i1":
        return "true" if value else "false"
    bits = BITS[elem]
    wrapped = int(value) & ((1 << bits) - 1)
    return str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)


class Block:
    """A basic block: its label, instructions, and finally one terminator."""

    __slots__ = ("label", "lines")

    def __init__(self, label: str) -> None:
        self.label = label
        self.lines: list[str] = []


class Flow:
    """A place in the control flow that code is appended to; `block` moves on when it forks and joins."""

    __slots__ = ("block",)

    def __init__(self, block: Block) -> None:
        self.block = block


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """A typed SSA value or constant. `lanes` is 0 for a scalar; `const` is the value, if uniform and known.

    The arithmetic operators emit exact IEEE (or wrapping integer) operations; Python numbers on the right
    or left become constants of the same type.
    """

    builder: Builder
    elem: str
    lanes: int
    text: str
    const: int | float | bool | None = None

    @property
    def type(self) -> str:
        return vector_type(self.elem, self.lanes)

    @property
    def typed(self) -> str:
        return f"{vector_type(self.elem, self.lanes)} {self.text}"

    @property
    def is_float(self) -> bool:
        return self.elem in FLOATS

    def like(self, value: int | float | bool) -> Operand:
        """A constant of this operand's type."""
        return self.builder.constant(self.elem, value, self.lanes)

    def __add__(self, other: Operand | float) -> Operand:
        return self.builder.binary("fadd" if self.is_float else "add", self, other)

    def __radd__(self, other: float) -> Operand:
        return self + other

    def __sub__(self, other: Operand | float) -> Operand:
        return self.builder.binary("fsub" if self.is_float else "sub", self, other)

    def __rsub__(self, other: float) -> Operand:
        return self.like(other) - self

    def __mul__(self, other: Operand | float) -> Operand:
        return self.builder.binary("fmul" if self.is_float else "mul", self, other)

    def __rmul__(self, other: float) -> Operand:
        return self * other

    def __truediv__(self, other: Operand | float) -> Operand:
        return self.builder.binary("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Operand:
        return self.like(other) / self

    def __neg__(self) -> Operand:
        b = self.builder
        return b.instruction(self.elem, self.lanes, f"fneg {self.typed}") if self.is_float else 0 - self

    def __and__(self, other: Operand | int) -> Operand:
        return self.builder.binary("and", self, other)

    def __or__(self, other: Operand | int) -> Operand:
        return self.builder.binary("or", self, other)

    def __xor__(self, other: Operand | int) -> Operand:
        return self.builder.binary("xor", self, other)

    def __invert__(self) -> Operand:
        return self ^ (True if self.elem == "i1" else -1)

    def __lshift__(self, other: Operand | int) -> Operand:
        return self.builder.binary("shl", self, other)

    def __lt__(self, other: Operand | float) -> Operand:
        return self.builder.compare("olt" if self.is_float else "slt", self, other)

    def __le__(self, other: Operand | float) -> Operand:
        return self.builder.compare("ole" if self.is_float else "sle", self, other)

    def __gt__(self, other: Operand | float) -> Operand:
        return self.builder.compare("ogt" if self.is_float else "sgt", self, other)

    def __ge__(self, other: Operand | float) -> Operand:
        return self.builder.compare("oge" if self.is_float else "sge", self, other)

    def equals(self, other: Operand | float) -> Operand:
        return self.builder.compare("oeq" if self.is_float else "eq", self, other)


class Builder:
    """The text of one function under construction, plus the declarations it needs.

    `avx512`: the target has that, so multiplying by powers of two (`llvm.ldexp`) and gathers are quick.
    `streams`: there are stores past the caches.
    """

    def __init__(self, avx512: bool = False) -> None:
        self.avx512 = avx512
        self.streams = False
        self.blocks: list[Block] = []
        self.declarations: dict[str, str] = {}
        self.helpers: dict[str, str] = {}
        self.allocas: list[str] = []
        self._counter = 0
        self.flow = Flow(self.new_block("entry"))

    # ------------------------------------------------------------ blocks

    def new_block(self, hint: str) -> Block:
        """Append an empty block after those made so far."""
        self._counter += 1
        block = Block(f"{hint}{self._counter}" if self.blocks else hint)
        self.blocks.append(block)
        return block

    def line(self, text: str) -> None:
        """Append an instruction that gives no value."""
        self.flow.block.lines.append(text)

    def fresh(self) -> str:
        self._counter += 1
        return f"%v{self._counter}"

    def body(self) -> str:
        """All blocks as text."""
        parts = []
        for block in self.blocks:
            parts.append(f"{block.label}:\n  " + "\n  ".join(block.lines))
        return "\n".join(parts)

    # ------------------------------------------------------------ values

    def instruction(self, elem: str, lanes: int, text: str) -> Operand:
        """Append `fresh = text` and give the result as an operand."""
        name = self.fresh()
        self.flow.block.lines.append(f"{name} = {text}")
        return Operand(self, elem, lanes, name)

    def constant(self, elem: str, value: int | float | bool, lanes: int = 0) -> Operand:
        text = literal(elem, value)
        return Operand(self, elem, lanes, f"splat ({elem} {text})" if lanes else text, value)

    def vector(self, elem: str, values: Sequence[int | float | bool]) -> Operand:
        """A vector constant with the given lanes."""
        items = ", ".join(f"{elem} {literal(elem, v)}" for v in values)
        return Operand(self, elem, len(values), f"<{items}>")

    def iota(self, elem: str, lanes: int, step: int = 1) -> Operand:
        return self.vector(elem, range(0, lanes * step, step) if step else [0] * lanes)

    def _operand(self, value: Operand | int | float | bool, like: Operand) -> Operand:
        return value if isinstance(value, Operand) else like.like(value)

    def binary(self, op: str, a: Operand, b: Operand | int | float | bool, flags: str = "") -> Operand:
        """`op` of equal-typed operands; scalar integer constants are folded."""
        b = self._operand(b, a)
        if not a.lanes and a.elem == "i64":
            folded = _fold(op, a, b)
            if folded is not None:
                return folded if isinstance(folded, Operand) else self.constant("i64", folded)
        return self.instruction(a.elem, a.lanes, f"{op} {flags}{a.typed}, {b.text}")

    def compare(self, predicate: str, a: Operand, b: Operand | int | float | bool) -> Operand:
        b = self._operand(b, a)
        kind = "fcmp" if a.is_float else "icmp"
        return self.instruction("i1", a.lanes, f"{kind} {predicate} {a.typed}, {b.text}")

    def select(
        self, condition: Operand, a: Operand | int | float | bool, b: Operand | int | float | bool
    ) -> Operand:
        """condition ? a : b; a scalar condition may choose between vectors."""
        model = a if isinstance(a, Operand) else b
        assert isinstance(model, Operand)
        a, b = self._operand(a, model), self._operand(b, model)
        return self.instruction(model.elem, model.lanes, f"select {condition.typed}, {a.typed}, {b.typed}")

    def cast(self, op: str, x: Operand, elem: str) -> Operand:
        """A conversion instruction (fptosi, zext, bitcast between equal lane counts...)."""
        return self.instruction(elem, x.lanes, f"{op} {x.typed} to {vector_type(elem, x.lanes)}")

    def declare(self, signature: str) -> None:
        """Declare a function, e.g. ``i64 @llvm.smax.i64(i64, i64)``, unless it is already."""
        self.declarations.setdefault(signature.partition("@")[2].partition("(")[0], f"declare {signature}")

    def call(self, name: str, elem: str, lanes: int, args: Sequence[Operand]) -> Operand:
        """Call a function by full name, declaring it on first use."""
        result = vector_type(elem, lanes)
        if name not in self.declarations:
            self.declare(f"{result} @{name}({', '.join(a.type for a in args)})")
        return self.instruction(elem, lanes, f"call {result} @{name}({', '.join(a.typed for a in args)})")

    def call_void(self, name: str, args: Sequence[Operand | str]) -> None:
        """Call a void function; plain strings are already typed operands, e.g. ``i1 true``."""
        typed = [a if isinstance(a, str) else a.typed for a in args]
        if name not in self.declarations:
            types = ", ".join(
                t.rsplit(" ", 1)[0] if isinstance(a, str) else a.type
                for t, a in zip(typed, args, strict=True)
            )
            self.declare(f"void @{name}({types})")
        self.line(f"call void @{name}({', '.join(typed)})")

    def intrinsic(self, name: str, *args: Operand) -> Operand:
        """An overloaded LLVM intrinsic whose result has the type of its first argument."""
        first = args[0]
        suffix = INTRINSIC_SUFFIX[first.elem]
        full = f"llvm.{name}.v{first.lanes}{suffix}" if first.lanes else f"llvm.{name}.{suffix}"
        return self.call(full, first.elem, first.lanes, args)

    def fma(self, a: Operand, b: Operand | float, c: Operand | float) -> Operand:
        """a*b + c, rounded once."""
        return self.intrinsic("fma", a, self._operand(b, a), self._operand(c, a))

    def splat(self, x: Operand, lanes: int) -> Operand:
        """x in every lane."""
        if x.lanes or not lanes:
            return x
        if x.const is not None:
            return self.constant(x.elem, x.const, lanes)
        wide = vector_type(x.elem, lanes)
        one = self.instruction(x.elem, lanes, f"insertelement {wide} poison, {x.typed}, i64 0")
        return self.shuffle(one, one, [0] * lanes)

    def shuffle(self, a: Operand, b: Operand, mask: Iterable[int]) -> Operand:
        """Lanes of a and b by number; -1 leaves a lane undefined."""
        if b is a:  # there is no second operand then, so its lanes are those of the first
            mask = [m - a.lanes if m >= a.lanes else m for m in mask]
        items = [f"i32 {m}" if m >= 0 else "i32 poison" for m in mask]
        if all(item == "i32 0" for item in items):
            text = "zeroinitializer"
        else:
            text = f"<{', '.join(items)}>"
        second = "poison" if b is a else b.text
        return self.instruction(
            a.elem, len(items), f"shufflevector {a.typed}, {a.type} {second}, <{len(items)} x i32> {text}"
        )

    def extract(self, x: Operand, lane: int) -> Operand:
        return self.instruction(x.elem, 0, f"extractelement {x.typed}, i64 {lane}")

    def insert(self, vector: Operand, x: Operand, lane: int) -> Operand:
        return self.instruction(
            vector.elem, vector.lanes, f"insertelement {vector.typed}, {x.typed}, i64 {lane}"
        )

    def poison(self, elem: str, lanes: int) -> Operand:
        return Operand(self, elem, lanes, "poison")

    def offset(self, pointer: Operand, elem: str, index: Operand | int) -> Operand:
        """pointer + index elements (no bounds assumed: partial sums may lie outside the buffer)."""
        index = index if isinstance(index, Operand) else self.constant("i64", index)
        if index.const == 0:
            return pointer
        return self.instruction("ptr", 0, f"getelementptr {elem}, {pointer.typed}, {index.typed}")

    def opaque(self, pointer: Operand) -> Operand:
        """`pointer`, of which LLVM shall not ask how it was computed; no instruction."""
        return self.instruction("ptr", 0, f"freeze {pointer.typed}")

    def alloca(self, elem: str, lanes: int, count: int | None = None, align: int = 64) -> Operand:
        """Stack memory, allocated once at function entry; `count` makes it an array."""
        slot = Operand(self, "ptr", 0, self.fresh())
        kind = vector_type(elem, lanes)
        kind = kind if count is None else f"[{count} x {kind}]"
        self.allocas.append(f"{slot.text} = alloca {kind}, align {align}")
        return slot

    def unlikely(
        self, condition: Operand, compute: Callable[[], Sequence[Operand]], otherwise: Sequence[Operand]
    ) -> list[Operand]:
        """compute() in a branch that is seldom taken if the scalar condition holds, else `otherwise`."""
        before = self.flow.block
        then, join = self.new_block("rare"), self.new_block("join")
        weights = '!prof !{!"branch_weights", i32 1, i32 1000}'
        before.lines.append(f"br i1 {condition.text}, label %{then.label}, label %{join.label}, {weights}")
        self.flow.block = then
        computed = compute()
        last = self.flow.block
        last.lines.append(f"br label %{join.label}")
        self.flow.block = join
        return [
            self.instruction(
                a.elem, a.lanes, f"phi {a.type} [ {a.text}, %{last.label} ], [ {z.text}, %{before.label} ]"
            )
            for a, z in zip(computed, otherwise, strict=True)
        ]

    def lane_by_lane(self, name: str, inputs: Sequence[Operand], outputs: Sequence[str]) -> list[Operand]:
        """Call a helper ``void name(ptr in..., ptr out..., i64 lanes)``, which loops over lanes in memory."""
        lanes = inputs[0].lanes
        slots = []
        for value in inputs:
            slots.append(self.alloca(value.elem, lanes))
            self.line(f"store {value.typed}, {slots[-1].typed}, align 64")
        results = [self.alloca(elem, lanes) for elem in outputs]
        args = ", ".join(slot.typed for slot in (*slots, *results))
        self.line(f"call void @{name}({args}, i64 {max(lanes, 1)})")
        return [self.load(slot, elem, lanes, 64) for slot, elem in zip(results, outputs, strict=True)]

    def load(self, pointer: Operand, elem: str, lanes: int, align: int, constant: bool = False) -> Operand:
        """A load; `constant` promises that nothing in this function writes the memory."""
        promise = ", !invariant.load !0" if constant else ""
        kind = vector_type(elem, lanes)
        return self.instruction(elem, lanes, f"load {kind}, {pointer.typed}, align {align}{promise}")

    def store(self, value: Operand, pointer: Operand, align: int) -> None:
        self.line(f"store {value.typed}, {pointer.typed}, align {align}")


def _fold(op: str, a: Operand, b: Operand) -> int | float | Operand | None:
    """Fold i64 arithmetic on constants and with neutral elements, to keep addresses short."""
    x, y = a.const, b.const
    if x is not None and y is not None:
        if op in ("add", "sub", "mul"):
            return {"add": x + y, "sub": x - y, "mul": x * y}[op]
        if op in ("udiv", "sdiv", "urem", "srem") and x >= 0 and y > 0:
            return x // y if op.endswith("div") else x % y
        return None
    if y == 0 and op in ("add", "sub", "shl"):
        return a
    if x == 0 and op == "add":
        return b
    if y == 1 and op in ("mul", "udiv", "sdiv"):
        return a
    if x == 1 and op == "mul":
        return b
    if op == "mul" and 0 in (x, y):
        return 0
    return None
