"""Vectors across records: loops whose iterations read and write a few neighbouring elements each.

A vector loop over i that reads a[i*S + 0], a[i*S + 1], ... takes element number k of as many records of S
elements as it has lanes. Taken singly, each such load goes through all lanes, or through all lines of the
records. Together they are loads of whole vectors that are taken apart in registers: records of up to four
elements by shuffles of the S vectors which they fill, longer ones by transposing the matrix that has one in
each row. Stores of all elements of a record are held back until the last, and put together likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from graphc.backends.llvm import emit_memory
from graphc.backends.llvm.emit_analysis import children, element_count, loaded
from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.emit_index import affine
from graphc.backends.llvm.emit_memory import MAX_SHUFFLE_STRIDE, Location, memory_element
from graphc.backends.llvm.emit_transpose import SHORTEST, transpose
from graphc.ir.types import row_major_strides
from graphc.loop import ir
from graphc.loop.inplace import statements, walk

if TYPE_CHECKING:
    from graphc.backends.llvm.emit_loops import Statements

Access = ir.Load | ir.Store


@dataclass(eq=False)
class Group:
    """Accesses to elements of the same records, by the element's number.

    low   the constant term of the place of element 0
    size  elements from one record to the next
    """

    low: int
    size: int
    numbers: dict[int, int] = field(default_factory=dict)  # of an access, by its id
    columns: dict[int, Operand] = field(default_factory=dict)  # loaded, or held back for a store

    @property
    def found(self) -> frozenset[int]:
        """The elements of a record that are accessed."""
        return frozenset(self.numbers.values())

    @property
    def span(self) -> int:
        """Elements of a record up to the last that is accessed."""
        return max(self.found) + 1


class Records:
    """The groups in the body of the vector loop that is being emitted."""

    def __init__(self, s: Statements, body: ir.Block) -> None:
        self.s = s
        self.groups: dict[int, Group] = {}
        vector = s.state.vector
        assert vector is not None
        self.lanes, self.prefix = vector.lanes, vector.prefix
        if 2 <= self.lanes <= s.granule and not self.lanes & (self.lanes - 1) and s.state.mask is None:
            self._find(body, vector.name)

    def _find(self, body: ir.Block, name: str) -> None:
        plain = [stmt for stmt in body if isinstance(stmt, ir.Let | ir.Store | ir.Accumulate)]
        loads = [e for e in _loads(plain) if e.mask is None and self._steps(e, name)]
        stores = [stmt for stmt in plain if isinstance(stmt, ir.Store) and self._steps(stmt, name)]
        if len(loads) + len(stores) < 2:
            return
        everything = [stmt for stmt, _ in statements(body)]
        writes = [stmt for stmt in everything if isinstance(stmt, ir.Store | ir.Accumulate)]
        written, read = {stmt.buffer for stmt in writes}, loaded(everything)
        for group in self._groups(e for e in loads if e.buffer not in written):
            if self._worth_loading(group):
                self.groups.update(dict.fromkeys(group.numbers, group))
        for buffer in dict.fromkeys(stmt.buffer for stmt in stores):
            mine = [stmt for stmt in stores if stmt.buffer is buffer]
            if buffer not in read and len(mine) == sum(stmt.buffer is buffer for stmt in writes):
                groups = self._groups(mine)
                if sum(len(g.numbers) for g in groups) == len(mine) and self._apart(groups):
                    for group in groups:
                        self.groups.update(dict.fromkeys(group.numbers, group))

    def _steps(self, access: Access, name: str) -> bool:
        """Whether the access may be one to records: its place moves by several elements with the vector
        loop's variable, and as many elements as there are lanes are a vector of the machine."""
        if not self._is_wide(access.buffer) or not access.index:
            return False
        *outer, last = access.index
        if any(isinstance(e, ir.Var) and e.name == name for o in outer for e in walk(o)):
            return True
        stack = [last]
        while stack:
            e = stack.pop()
            if isinstance(e, ir.Binary):
                if e.op == "mul" and any(isinstance(x, ir.Var) and x.name == name for x in (e.a, e.b)):
                    return True
                stack += (e.a, e.b)
        return False

    def _is_wide(self, buffer: ir.Buffer) -> bool:
        """Whether as many elements as there are lanes are a vector of the machine."""
        plain = buffer.space != "local" and buffer.dtype.kind != "b" and element_count(buffer) > 0
        return plain and self.s.granule * 4 == self.lanes * buffer.dtype.itemsize

    def _groups(self, accesses: Iterable[Access]) -> list[Group]:
        """Accesses whose places differ by less than their common step between lanes."""
        state = self.s.state
        assert state.vector is not None
        same: dict[tuple, list[tuple[int, Access]]] = {}
        for a in accesses:
            form = affine(a.index, row_major_strides(a.buffer.shape), state.resolve)
            terms = frozenset((key, scale) for key, (_, scale) in form.terms.items())
            size = dict(terms).get(state.vector.name, 0)
            if 1 < size <= self.lanes:
                same.setdefault((a.buffer, size, terms), []).append((form.constant, a))
        groups: list[Group] = []
        for (_, size, _), members in same.items():
            group = None
            for constant, a in sorted(members, key=lambda member: member[0]):
                if group is None or constant - group.low >= size:
                    group = Group(constant, size)
                    groups.append(group)
                group.numbers[id(a)] = constant - group.low
        return groups

    def _worth_loading(self, group: Group) -> bool:
        if group.size <= MAX_SHUFFLE_STRIDE:
            return len(group.found) == group.size and (self.s.masked or self.prefix is None)
        return len(group.found) >= SHORTEST and (self.s.masked or group.span == self.lanes)

    def _apart(self, groups: list[Group]) -> bool:
        """Whether the stores of several groups fill records that do not overlap."""
        size = groups[0].size
        if not self.s.masked and (self.prefix is not None or MAX_SHUFFLE_STRIDE < size < self.lanes):
            return False
        lows = sorted(group.low for group in groups)
        filled = all(len(g.numbers) == len(g.found) == g.size == size for g in groups)
        return filled and all(b - a >= size * self.lanes for a, b in pairwise(lows))

    # ------------------------------------------------------------ emission

    def column(self, e: ir.Load, at: Location) -> Operand | None:
        """The vector that a load of a group gives; None if it belongs to none."""
        group = self.groups.get(id(e))
        if group is None:
            return None
        if not group.columns:
            base = self._base(at, group.numbers[id(e)])
            if group.size <= MAX_SHUFFLE_STRIDE:
                made = taken_apart(self.s.state.builder, self._whole(at, base, group.size))
            else:
                made = transpose(self.s.state.builder, self._rows(at, base, group))
            group.columns = dict(enumerate(made))
        return group.columns[group.numbers[id(e)]]

    def hold(self, stmt: ir.Store, value: Operand) -> bool:
        """Keep what is stored until the group has all of its values, then store them; False if the store
        belongs to no group."""
        group = self.groups.get(id(stmt))
        if group is None:
            return False
        b, values = self.s.state.builder, self.s.values
        group.columns[group.numbers[id(stmt)]] = b.splat(value, self.lanes)
        if len(group.columns) < group.size:
            return True
        at = emit_memory.locate(values, stmt.buffer, stmt.index)
        at.constant -= group.numbers[id(stmt)]
        base = emit_memory.pointer(values, at)
        columns = [group.columns[k] for k in range(group.size)]
        if group.size <= MAX_SHUFFLE_STRIDE:
            parts = put_together(b, columns)
            past = emit_memory.goes_past(at, self.lanes)
            for i, part in enumerate(parts):
                self._store(at, base, part, i * self.lanes, past)
        else:
            rows = transpose(b, columns + [b.poison(columns[0].elem, self.lanes)] * (self.lanes - group.size))
            for i in range(self.lanes if self.prefix is None else self.prefix):
                self._store(at, base, rows[i], i * group.size, False)
        return True

    def _base(self, at: Location, number: int) -> Operand:
        """The address of element 0 of the first record, given where element `number` is."""
        b = self.s.state.builder
        return b.offset(emit_memory.pointer(self.s.values, at), memory_element(at.buffer.dtype), -number)

    def _count(self, size: int) -> int:
        """Elements of the records of all active lanes."""
        return size * (self.lanes if self.prefix is None else self.prefix)

    def _whole(self, at: Location, base: Operand, size: int) -> list[Operand]:
        """The vectors that the records fill."""
        b, lanes = self.s.state.builder, self.lanes
        elem = memory_element(at.buffer.dtype)
        parts = []
        for start in range(0, size * lanes, lanes):
            left = self._count(size) - start
            if left >= lanes:
                parts.append(emit_memory.read(b, at, b.offset(base, elem, start), lanes))
            elif left > 0:
                mask = b.vector("i1", [i < left for i in range(lanes)])
                address = b.offset(base, elem, start)
                parts.append(emit_memory.masked_load(self.s.values, address, at.buffer.dtype, mask, None))
            else:
                parts.append(b.constant(elem, 0, lanes))
        return parts

    def _rows(self, at: Location, base: Operand, group: Group) -> list[Operand]:
        """A vector for each record, its elements in front."""
        b, lanes, span = self.s.state.builder, self.lanes, group.span
        elem = memory_element(at.buffer.dtype)
        count = self._count(group.size)
        rows = []
        for start in range(0, group.size * lanes, group.size):
            address = b.offset(base, elem, start)
            if start >= count:
                rows.append(b.constant(elem, 0, lanes))
            elif start + lanes <= count - group.size + span:  # nothing beyond the last record
                rows.append(emit_memory.read(b, at, address, lanes))
            else:
                mask = b.vector("i1", [i < span for i in range(lanes)])
                rows.append(emit_memory.masked_load(self.s.values, address, at.buffer.dtype, mask, None))
        return rows

    def _store(self, at: Location, base: Operand, value: Operand, start: int, past: bool) -> None:
        """Store a vector `start` elements from the first record's, as far as the records reach. What a row
        has behind its record is overwritten by the rows that follow."""
        b = self.s.state.builder
        address = b.offset(base, value.elem, start)
        size = at.stride
        left = self._count(size) - start
        mask = None if left >= self.lanes else b.vector("i1", [i < left for i in range(self.lanes)])
        if left > 0:
            emit_memory.wide_store(b, value, address, at.buffer.dtype, mask, past)


def _loads(body: Iterable[ir.Let | ir.Store | ir.Accumulate]) -> Iterator[ir.Load]:
    """The loads among the values of some statements, each once."""
    seen: set[int] = set()
    for stmt in body:
        stack = [stmt.value]
        while stack:
            e = stack.pop()
            if id(e) not in seen:
                seen.add(id(e))
                stack += children(e)
                if isinstance(e, ir.Load):
                    yield e


def taken_apart(b: Builder, parts: list[Operand]) -> list[Operand]:
    """Element k of each record of len(parts) elements, for every k; the records fill the parts."""
    size, lanes = len(parts), parts[0].lanes
    if size == 4:
        halves = [taken_apart(b, pair) for pair in (parts[:2], parts[2:])]
        even, odd = (taken_apart(b, [halves[0][k], halves[1][k]]) for k in (0, 1))
        return [even[0], odd[0], even[1], odd[1]]
    columns = []
    for k in range(size):
        places = [divmod(place, lanes) for place in range(k, size * lanes, size)]  # (part, lane of it)
        column = parts[0]
        for i in range(1, size):
            kept = [first if i == 1 else lane for lane, (_, first) in enumerate(places)]
            mine = [lanes + at if part == i else kept[lane] for lane, (part, at) in enumerate(places)]
            column = b.shuffle(column, parts[i], mine)  # lanes of parts further on are put in later
        columns.append(column)
    return columns


def put_together(b: Builder, columns: list[Operand]) -> list[Operand]:
    """The inverse: the vectors that the records fill, given element k of each for every k."""
    size, lanes = len(columns), columns[0].lanes
    if size == 4:
        even, odd = put_together(b, columns[::2]), put_together(b, columns[1::2])
        return [part for pair in zip(even, odd, strict=True) for part in put_together(b, list(pair))]
    parts = []
    for start in range(0, size * lanes, lanes):
        places = [divmod(start + i, size) for i in range(lanes)]  # (record, element of it)
        part = columns[0]
        for k in range(1, size):
            kept = [record if k == 1 else lane for lane, (record, _) in enumerate(places)]
            mine = [lanes + record if n == k else kept[lane] for lane, (record, n) in enumerate(places)]
            part = b.shuffle(part, columns[k], mine)
        parts.append(part)
    return parts
