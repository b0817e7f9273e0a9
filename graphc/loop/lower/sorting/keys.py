"""Keys: integers whose order is that of a line's elements, and where the elements of a line are."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from graphc.ir.node import Node
from graphc.ir.types import DType, int32, int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Const, Expr, binary, cast, select, unary
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.scope import Scope

DIGIT_BITS = 8  # of a radix sort: a table of 256 counts stays in L1 beside the lines that are written
DIGITS = 1 << DIGIT_BITS  # values of one digit


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines along the sorted axis of an argsort node: [outer, extent, inner] flat positions."""

    node: Node

    @property
    def around(self) -> tuple[int, int, int]:
        """(elements before the axis, its extent, elements after it)."""
        shape, axis = self.node.inputs[0].shape, self.node.attrs.axis
        return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])

    @property
    def extent(self) -> int:
        return self.around[1]

    @property
    def count(self) -> int:
        outer, _, inner = self.around
        return outer * inner

    @property
    def kept(self) -> int:
        """How many positions of a line's order are wanted: its first ones."""
        return self.node.attrs.kept

    def place(self, line: Expr, at: Expr) -> Expr:
        """The flat position of element `at` of a line."""
        return self._flat(line, at, self.extent)

    def result(self, line: Expr, rank: Expr) -> Expr:
        """The flat position, in the result, of the element that comes at `rank` in a line's order."""
        return self._flat(line, rank, self.kept)

    def _flat(self, line: Expr, at: Expr, extent: int) -> Expr:
        outer, _, inner = self.around
        before, after = ix.unflatten(line, (outer, inner)) if inner > 1 else (line, ZERO)
        return ix.flatten((before, at, after), (outer, extent, inner))

    # -------------------------------------------------------------------- keys

    @property
    def key_type(self) -> DType:
        """int32 or int64, whichever holds the elements."""
        source = self.node.inputs[0].dtype
        return int64 if source.itemsize == 8 else int32

    @property
    def key_digits(self) -> int:
        """How many digits tell keys apart."""
        return self.node.inputs[0].dtype.itemsize

    @property
    def place_type(self) -> DType:
        """The smaller integers that hold positions in a line."""
        return int32 if self.extent < 2**31 else int64

    def key(self, scope: Scope, evaluator: Evaluator, line: Expr, at: Expr) -> Expr:
        """The key of an element: keys are in (signed) order where the elements are in the order wanted."""
        (x,) = self.node.inputs
        value = evaluator.value(x, ix.unflatten(self.place(line, at), x.shape))
        key = self._float_key(scope, value) if x.dtype.is_float else self._integer_key(value)
        return binary("xor", key, Const(key.dtype, self._all_bits)) if self.node.attrs.descending else key

    @property
    def _all_bits(self) -> int:
        """What turns the order of keys round."""
        return -1 if self.key_digits >= 4 else 255

    def _integer_key(self, value: Expr) -> Expr:
        key = cast(value, self.key_type)
        return binary("xor", key, self._lowest(key.dtype)) if value.dtype.name == "uint32" else key

    def _float_key(self, scope: Scope, value: Expr) -> Expr:
        """Negative floats are ordered the other way round by their bits; -0.0 is 0.0, and all NaN are one."""
        bits = scope.let(unary("bits", value))
        kind = bits.dtype
        width = 8 * kind.itemsize
        zero, lowest, highest = Const(kind, 0), self._lowest(kind), Const(kind, 2 ** (width - 1) - 1)
        bits = scope.let(select(binary("eq", bits, lowest), zero, bits))
        turned = binary("and", binary("shr", bits, Const(kind, width - 1)), highest)
        return select(unary("isnan", value), highest, binary("xor", bits, turned))

    @staticmethod
    def _lowest(kind: DType) -> Const:
        return Const(kind, -(2 ** (8 * kind.itemsize - 1)))

    # ------------------------------------------------------------------ digits

    def unsigned(self, key: Expr) -> Expr:
        """The key as one that is in order when its bits are read as an unsigned number."""
        return binary("xor", key, self._lowest(key.dtype)) if self.key_digits >= 4 else key

    @staticmethod
    def digit(scope: Scope, key: Expr, shift: Expr) -> Expr:
        """The digit of an unsigned key that starts at bit `shift`, as an index in range(DIGITS)."""
        kind = key.dtype
        digit = binary("and", binary("shr", key, shift), Const(kind, DIGITS - 1))
        return scope.let(cast(digit, int64), "digit")
