"""Addresses, loads and stores.

An index is brought into the affine form constant + sum(coefficient * atom). The atoms that do not depend on
the vector loop's variable make a pointer, summed outside in (each part where its variables are known); the
variable's own coefficient is the stride, which picks the kind of access: 0 one scalar, 1 a wide access,
2-4 wide loads and shuffles, anything else lane by lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.backends.llvm.emit_builder import Builder, Operand
from graphc.backends.llvm.emit_index import affine, bounds
from graphc.backends.llvm.emit_narrow import LIMIT, is_varying, narrow
from graphc.backends.llvm.emit_state import Entry, State, Storage, element
from graphc.backends.llvm.emit_stream import stream
from graphc.backends.llvm.emit_strided import cover, element_mask, pick
from graphc.ir.types import DType, row_major_strides
from graphc.loop import ir
from graphc.program import LINE

if TYPE_CHECKING:
    from graphc.backends.llvm.emit_values import Values

MAX_SHUFFLE_STRIDE = 4
WIDE = frozenset({"float", "double", "i32", "i64"})  # elements that masked stores take one by one


def memory_element(dtype: DType) -> str:
    """LLVM's type of one value in memory."""
    return "i8" if dtype.kind == "b" else element(dtype)


@dataclass(slots=True)
class Location:
    """Where buffer[index] is: `uniform` (scalar terms by place) + lane * stride + `varying` (a vector)."""

    buffer: ir.Buffer
    storage: Storage
    constant: int
    uniform: list[tuple[object, Entry, int]]
    stride: int
    varying: Operand | None
    place: int
    bind: int
    stable: bool

    @property
    def is_uniform(self) -> bool:
        return self.stride == 0 and self.varying is None

    def depend(self, entry: Entry) -> None:
        """Note that the address is computed from `entry`."""
        self.bind = max(self.bind, entry.bind)
        self.place = max(self.place, entry.place)
        self.stable = self.stable and entry.stable

    def add(self, key: object, entry: Entry, scale: int) -> None:
        """Add scale * entry, a scalar; `key` names it in the cache."""
        self.depend(entry)
        self.uniform.append((key, entry, scale))


def locate(values: Values, buffer: ir.Buffer, index: tuple[ir.Expr, ...]) -> Location:
    """Analyse buffer[index] in the current scope."""
    state = values.state
    storage = state.storage.get(buffer)
    if storage is None:
        raise ValueError(f"loop IR uses buffer {buffer.name!r} outside of its scope")
    spread = storage.lanes or 1
    form = affine(index, tuple(s * spread for s in row_major_strides(buffer.shape)), state.resolve)
    here = Location(buffer, storage, form.constant, [], 1 if storage.lanes else 0, None, 0, 0, True)
    varying: list[tuple[ir.Expr, int]] = []
    vector = state.vector
    for key, (atom, scale) in form.terms.items():
        if vector is not None and vector.lanes and isinstance(atom, ir.Var) and atom.name == vector.name:
            here.stride += scale
            here.add(key, vector.base, scale)
        elif is_varying(values, atom):
            varying.append((atom, scale))
        else:
            here.add(key, values.value(atom), scale)
    here.uniform.sort(key=lambda term: term[1].place)
    if varying:
        _add_varying(values, here, varying)
    return here


def _add_varying(values: Values, here: Location, terms: list[tuple[ir.Expr, int]]) -> None:
    """Sum the terms that differ between lanes, in 32 bits if they fit."""
    state = values.state
    parts: list[tuple[Entry | None, int]] = [(narrow(values, atom), scale) for atom, scale in terms]
    reach = sum(abs(scale) * max(map(abs, bounds(atom, state.resolve))) for atom, scale in terms)
    if reach > LIMIT or any(entry is None for entry, _ in parts):
        parts = [(values.spread(values.value(atom)), scale) for atom, scale in terms]
    entries = [(entry, scale) for entry, scale in parts if entry is not None]
    for entry, _ in entries:
        here.depend(entry)
    state.at(here.place)
    here.varying = entries[0][0].operand * entries[0][1]
    for entry, scale in entries[1:]:
        here.varying = here.varying + entry.operand * scale
    state.here()


def pointer(values: Values, at: Location) -> Operand:
    """The address of the first lane (or only element), computed as far out as each term allows.

    What loops further in add to is opaque: else LLVM takes every address apart into a sum over all loops
    around it, and weighs all ways of adding that up (loop strength reduction: half of the time some
    kernels took to compile). Locals are spared, which LLVM follows to keep them in registers.
    """
    state = values.state
    b = state.builder
    result = at.storage.pointer
    elem = memory_element(at.buffer.dtype)
    key: tuple = ("pointer", result.text)
    position, place, bind = 0, 0, 0
    while position < len(at.uniform):
        place = at.uniform[position][1].place
        part = []
        while position < len(at.uniform) and at.uniform[position][1].place == place:
            part.append(at.uniform[position])
            position += 1
        bind = max([bind, *(entry.bind for _, entry, _ in part)])
        key += (*((k, scale) for k, _, scale in part), position < len(at.uniform))
        known = state.cache.get(key)
        if known is None:
            state.at(place)
            total = b.constant("i64", 0)
            for _, entry, scale in part:
                total = total + entry.operand * scale
            address = b.offset(result, elem, total)
            if position < len(at.uniform) and at.buffer.space != "local":
                address = b.opaque(address)
            known = Entry(address, place, bind)
            state.here()
            if at.stable:
                state.remember(key, known)
        result = known.operand
    if at.constant:
        state.at(place)
        result = b.offset(result, elem, at.constant)
        state.here()
    return result


def _offsets(values: Values, at: Location, lanes: int) -> Operand:
    """Element offsets from the buffer's start in every lane."""
    b = values.state.builder
    total = b.constant("i64", at.constant)
    for _, entry, scale in at.uniform:
        total = total + entry.operand * scale
    wide = b.splat(total, lanes)
    if at.stride:
        wide = wide + b.iota("i64", lanes, at.stride)
    if at.varying is None:
        return wide
    return wide + (b.cast("sext", at.varying, "i64") if at.varying.elem == "i32" else at.varying)


def _lane_pointers(values: Values, at: Location, count: int) -> list[Operand]:
    """Addresses of the first `count` lanes."""
    b = values.state.builder
    base = pointer(values, at)
    elem = memory_element(at.buffer.dtype)
    result = []
    for lane in range(count):
        index: Operand | int = lane * at.stride
        if at.varying is not None:
            index = b.extract(at.varying, lane) + index
        result.append(b.offset(base, elem, index))
    return result


def active_lanes(state: State) -> Operand | None:
    """The active lanes of the current group as a mask (None: all of them)."""
    vector = state.vector
    assert vector is not None
    if vector.prefix is None:
        return state.mask
    prefix = state.builder.vector("i1", [lane < vector.prefix for lane in range(vector.lanes)])
    return prefix if state.mask is None else prefix & state.mask


def _both(a: Operand | None, b: Operand | None) -> Operand | None:
    return b if a is None else a if b is None else a & b


# --------------------------------------------------------------------- loads


def read(b: Builder, at: Location, address: Operand, lanes: int = 0) -> Operand:
    """An ordinary load of an element, or of several in a row."""
    dtype = at.buffer.dtype
    return b.load(address, memory_element(dtype), lanes, dtype.itemsize, at.storage.constant)


def load(values: Values, e: ir.Load) -> Entry:
    """buffer[index] under the load's own mask and the current scope's."""
    state = values.state
    at = locate(values, e.buffer, e.index)
    guarded = e.mask is not None or state.mask is not None
    place = state.depth if guarded else _load_place(state, e.buffer, at.place)
    stable = at.stable and not any(e.buffer in scope.writes for scope in state.scopes)
    bind = max(at.bind, state.depth if guarded else 0)
    if 0 in e.buffer.shape:
        operand = _other(values, e, 0)
    else:
        address = None if at.varying is not None and guarded else pointer(values, at)
        state.at(place)
        if state.vector is None or not state.vector.lanes:
            assert address is not None
            operand = _scalar_load(values, e, at, address)
        elif at.is_uniform:
            assert address is not None
            operand = _uniform_load(values, e, at, address)
        else:
            operand = _vector_load(values, e, at)
        state.here()
    if e.dtype.kind == "b" and operand.elem == "i8":
        state.at(place)
        operand = state.builder.compare("ne", operand, 0)
        state.here()
    return Entry(operand, place, bind, stable)


def _load_place(state: State, buffer: ir.Buffer, lowest: int) -> int:
    """The outermost scope in which an unguarded load is certain to be executed and gives the same."""
    place = state.depth
    while place > lowest and state.scopes[place].certain and buffer not in state.scopes[place].writes:
        place -= 1
    return place


def _other(values: Values, e: ir.Load, lanes: int) -> Operand:
    """The value of masked-off lanes, as it is in memory."""
    b = values.state.builder
    if e.other is None:
        return b.constant(memory_element(e.dtype), 0, lanes)
    operand = values.vector(e.other) if lanes else values.value(e.other).operand
    if e.dtype.kind == "b":
        if operand.const is not None:
            return b.constant("i8", operand.const, operand.lanes)
        return b.cast("zext", operand, "i8")
    return operand


def _scalar_load(values: Values, e: ir.Load, at: Location, address: Operand) -> Operand:
    b = values.state.builder
    if e.mask is None:
        return read(b, at, address)
    mask = values.value(e.mask).operand
    # a masked-off load reads the buffer's first element instead: no branch
    safe = b.select(mask, address, at.storage.pointer)
    return b.select(mask, read(b, at, safe), _other(values, e, 0))


def _uniform_load(values: Values, e: ir.Load, at: Location, address: Operand) -> Operand:
    """The same element in all lanes: a scalar unless the mask differs between lanes."""
    b = values.state.builder
    own = None if e.mask is None else values.value(e.mask).operand
    state_mask = None if e.buffer.shape == () else values.state.mask
    if own is not None and not own.lanes and state_mask is None:
        safe = b.select(own, address, at.storage.pointer)
        got = read(b, at, safe)
        other = values.value(e.other).operand if e.other is not None else None
        if other is not None and other.lanes:
            wide = values.state.vector.lanes  # type: ignore[union-attr]
            return b.select(own, b.splat(got, wide), _other(values, e, wide))
        return b.select(own, got, _other(values, e, 0))
    if own is None and state_mask is None:
        return read(b, at, address)
    lanes = values.state.vector.lanes  # type: ignore[union-attr]
    mask = _both(state_mask, None if own is None else b.splat(own, lanes))
    assert mask is not None
    some = b.call(f"llvm.vector.reduce.or.v{lanes}i1", "i1", 0, [mask])
    got = b.splat(read(b, at, b.select(some, address, at.storage.pointer)), lanes)
    return got if own is None else b.select(b.splat(own, lanes), got, _other(values, e, lanes))


def _vector_load(values: Values, e: ir.Load, at: Location) -> Operand:
    """Different elements in different lanes."""
    state = values.state
    assert state.vector is not None
    b, lanes = state.builder, state.vector.lanes
    if state.mask is None and (column := values.column(e, at)) is not None:
        return column
    own = None if e.mask is None else b.splat(values.value(e.mask).operand, lanes)
    if at.varying is None and at.stride == 1:
        mask = own if at.storage.lanes else _both(active_lanes(state), own)
        address = pointer(values, at)
        if mask is None:
            return read(b, at, address, lanes)
        other = _other(values, e, lanes) if own is not None else None
        return masked_load(values, address, e.dtype, mask, other)
    mask = _both(state.mask, own)
    if b.avx512 and mask is not None and at.varying is None and _is_short_stride(at, e.dtype):
        return _masked_strided_load(values, e, at, lanes)
    if b.avx512 and e.dtype.itemsize >= 4 and (at.varying is not None or mask is not None):
        mask = _both(active_lanes(state), own)
        return _hardware_gather(values, e, at, mask, None if own is None else _other(values, e, lanes), lanes)
    if mask is not None:
        return _guarded_gather(values, e, at, mask, lanes)
    count = lanes if state.vector.prefix is None else state.vector.prefix
    if at.varying is None and 1 < at.stride <= MAX_SHUFFLE_STRIDE and (count == lanes or b.avx512):
        return _strided_load(values, e, at, lanes, count)
    return _gather(values, at, _lane_pointers(values, at, count), lanes)


def _is_short_stride(at: Location, dtype: DType) -> bool:
    """Whether elements lie so close that wide loads and shuffles beat loads lane by lane."""
    return 1 < at.stride <= MAX_SHUFFLE_STRIDE and dtype.itemsize >= 4


def masked_load(
    values: Values, address: Operand, dtype: DType, mask: Operand, other: Operand | None
) -> Operand:
    """A wide load of the active lanes; the others get `other` (zero if None)."""
    b = values.state.builder
    elem, lanes = memory_element(dtype), mask.lanes
    suffix = {"float": "f32", "double": "f64"}.get(elem, elem)
    align = b.constant("i32", dtype.itemsize)
    other = other if other is not None else b.constant(elem, 0, lanes)
    name = f"llvm.masked.load.v{lanes}{suffix}.p0"
    return b.call(name, elem, lanes, [address, Operand(b, "i32", 0, align.text), mask, other])


def _gather(values: Values, at: Location, addresses: list[Operand], lanes: int) -> Operand:
    """Lane by lane: quicker on most processors than a hardware gather."""
    b = values.state.builder
    result = b.poison(memory_element(at.buffer.dtype), lanes)
    for lane, address in enumerate(addresses):
        result = b.insert(result, read(b, at, address), lane)
    return result


def _hardware_gather(
    values: Values, e: ir.Load, at: Location, mask: Operand | None, other: Operand | None, lanes: int
) -> Operand:
    """A gather instruction: no quicker than loads lane by lane, but the addresses stay in vectors."""
    b = values.state.builder
    elem = memory_element(e.dtype)
    index = at.varying
    if index is None or at.stride:
        steps = b.iota(index.elem if index is not None else "i64", lanes, at.stride)
        index = steps if index is None else index + steps
    base = pointer(values, at)
    addresses = b.instruction("ptr", lanes, f"getelementptr {elem}, {base.typed}, {index.typed}")
    mask = mask if mask is not None else b.constant("i1", True, lanes)
    other = other if other is not None else b.constant(elem, 0, lanes)
    suffix = {"float": "f32", "double": "f64"}.get(elem, elem)
    align = Operand(b, "i32", 0, str(e.dtype.itemsize))
    return b.call(
        f"llvm.masked.gather.v{lanes}{suffix}.v{lanes}p0", elem, lanes, [addresses, align, mask, other]
    )


def _guarded_gather(values: Values, e: ir.Load, at: Location, mask: Operand, lanes: int) -> Operand:
    """A gather under a mask: masked-off lanes read the buffer's first element and drop it."""
    b = values.state.builder
    vector = values.state.vector
    assert vector is not None
    count = lanes if vector.prefix is None else vector.prefix
    offsets = b.select(mask, _offsets(values, at, lanes), 0)
    elem = memory_element(e.dtype)
    addresses = [b.offset(at.storage.pointer, elem, b.extract(offsets, lane)) for lane in range(count)]
    return b.select(mask, _gather(values, at, addresses, lanes), _other(values, e, lanes))


def _strided_load(values: Values, e: ir.Load, at: Location, lanes: int, count: int) -> Operand:
    """Wide loads and shuffles, for the first `count` lanes."""
    b = values.state.builder
    elem, base, span = memory_element(e.dtype), pointer(values, at), (count - 1) * at.stride + 1
    inside = None if span >= lanes else b.vector("i1", [i < span for i in range(lanes)])

    def part(start: int, mine: dict[int, int]) -> Operand:
        if inside is not None:
            return masked_load(values, base, e.dtype, inside, None)
        return read(b, at, b.offset(base, elem, start), lanes)

    return pick(b, lanes, cover(lanes, at.stride, count), part)


def _masked_strided_load(values: Values, e: ir.Load, at: Location, lanes: int) -> Operand:
    """The same under masks, without touching what is masked off."""
    state = values.state
    b, vector = state.builder, state.vector
    assert vector is not None
    own = None if e.mask is None else values.value(e.mask).operand
    same = own if own is not None and not own.lanes else None
    mask = _both(state.mask, own if same is None else None)
    count = lanes if vector.prefix is None else vector.prefix
    elem, base = memory_element(e.dtype), pointer(values, at)

    def part(start: int, mine: dict[int, int]) -> Operand:
        wanted = element_mask(b, mine, lanes, mask, same)
        return masked_load(values, b.offset(base, elem, start), e.dtype, wanted, None)

    got = pick(b, lanes, cover(lanes, at.stride, count), part)
    return got if own is None else b.select(b.splat(own, lanes), got, _other(values, e, lanes))


# -------------------------------------------------------------------- stores


def store(values: Values, buffer: ir.Buffer, index: tuple[ir.Expr, ...], value: Operand) -> None:
    """buffer[index] = value in the active lanes."""
    state = values.state
    b = state.builder
    if 0 in buffer.shape:
        return
    at = locate(values, buffer, index)
    state.here()
    if buffer.dtype.kind == "b" and value.elem == "i1":
        value = b.cast("zext", value, "i8")
    if state.vector is None or not state.vector.lanes:
        b.store(value, pointer(values, at), buffer.dtype.itemsize)
        return
    if at.is_uniform:
        _uniform_store(values, at, value)
        return
    lanes = state.vector.lanes
    value = b.splat(value, lanes)
    if at.varying is None and at.stride == 1:
        address, mask = pointer(values, at), active_lanes(state)
        if at.storage.lanes:  # a vector of its own: all lanes exist, so a blend does for a mask
            if state.mask is not None:
                old = b.load(address, value.elem, lanes, buffer.dtype.itemsize)
                value = b.select(state.mask, value, old)
            mask = None
        wide_store(b, value, address, buffer.dtype, mask, goes_past(at, lanes))
        return
    _scatter(values, at, value, lanes)


def wide_store(
    b: Builder, value: Operand, address: Operand, dtype: DType, mask: Operand | None, past: bool = False
) -> None:
    """Store a vector, or those of its lanes that are active; whole vectors `past` the caches if so asked."""
    if mask is None:
        if past:
            stream(b, value, address)
        else:
            b.store(value, address, dtype.itemsize)
        return
    suffix = {"float": "f32", "double": "f64"}.get(value.elem, value.elem)
    name = f"llvm.masked.store.v{value.lanes}{suffix}.p0"
    b.call_void(name, [value, address, f"i32 {dtype.itemsize}", mask])


def goes_past(at: Location, lanes: int, apart: int = 0) -> bool:
    """Whether vectors of `lanes` elements, `apart` from one another, are stored past the caches: they must be
    whole cache lines, if the buffer begins on one."""
    line = max(1, LINE // at.buffer.dtype.itemsize)
    steps = [scale * entry.multiple for _, entry, scale in at.uniform]
    return at.storage.streamed and not any(n % line for n in (lanes, at.constant, apart, *steps))


def _uniform_store(values: Values, at: Location, value: Operand) -> None:
    """One location for all lanes: only a value that is the same in all lanes makes sense."""
    state = values.state
    if value.lanes or state.mask is not None:
        raise ValueError(
            f"store to {at.buffer.name} in a vector loop does not depend on the loop's variable; "
            "only Accumulate may do that"
        )
    state.builder.store(value, pointer(values, at), at.buffer.dtype.itemsize)


def _scatter(values: Values, at: Location, value: Operand, lanes: int) -> None:
    state = values.state
    b = state.builder
    assert state.vector is not None
    if state.mask is None:
        count = lanes if state.vector.prefix is None else state.vector.prefix
        if b.avx512 and at.varying is None and 1 < at.stride <= MAX_SHUFFLE_STRIDE and value.elem in WIDE:
            _strided_store(values, at, value, count)
            return
        for lane, address in enumerate(_lane_pointers(values, at, count)):
            b.store(b.extract(value, lane), address, at.buffer.dtype.itemsize)
        return
    mask = active_lanes(state)
    assert mask is not None
    elem = memory_element(at.buffer.dtype)
    offsets = _offsets(values, at, lanes)
    addresses = b.instruction(
        "ptr", lanes, f"getelementptr {elem}, {at.storage.pointer.typed}, {offsets.typed}"
    )
    suffix = {"float": "f32", "double": "f64"}.get(value.elem, value.elem)
    align = f"i32 {at.buffer.dtype.itemsize}"
    b.call_void(f"llvm.masked.scatter.v{lanes}{suffix}.v{lanes}p0", [value, addresses, align, mask])


def _strided_store(values: Values, at: Location, value: Operand, count: int) -> None:
    """The first `count` lanes, spread by shuffles, in wide stores that leave out what lies between."""
    b, lanes, stride = values.state.builder, value.lanes, at.stride
    base = pointer(values, at)
    for start in range(0, (count - 1) * stride + 1, lanes):
        source = [place // stride if place % stride == 0 else -1 for place in range(start, start + lanes)]
        source = [lane if lane < count else -1 for lane in source]
        mask = b.vector("i1", [lane >= 0 for lane in source])
        spread = b.shuffle(value, value, source)
        wide_store(b, spread, b.offset(base, value.elem, start), at.buffer.dtype, mask)
