"""Where the emitter is: nested scopes, what is already computed in each, and where buffers live."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.backends.llvm.emit_builder import Builder, Flow, Operand
from graphc.ir.types import DType
from graphc.loop import ir

ELEMENT = {
    "float32": "float",
    "float64": "double",
    "int64": "i64",
    "int32": "i32",
    "uint8": "i8",
    "uint32": "i32",
    "bool": "i1",
}


def element(dtype: DType) -> str:
    """LLVM's type of one value in a register (bool is i1 there, a byte in memory)."""
    return ELEMENT[dtype.name]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A computed value.

    place  number of the outermost scope in whose flow the code stands
    bind   number of the innermost scope whose variables or names it depends on
    stable computing it again later would give the same (no memory that the kernel writes is read)
    multiple  of an integer: a number that it is known to be a multiple of
    """

    operand: Operand
    place: int = 0
    bind: int = 0
    stable: bool = True
    multiple: int = 1


@dataclass(slots=True, eq=False)
class Scope:
    """One level of nesting: the kernel, the task loop, a For, an If.

    flow    where its code goes; unrolled iterations and masked Ifs share their parent's
    certain the scope is entered at least once whenever its parent's code runs
    writes  buffers written inside
    mask    lanes that are active (None: all of the vector loop's)
    """

    flow: Flow
    certain: bool = True
    writes: frozenset[ir.Buffer] = frozenset()
    mask: Operand | None = None
    keys: list[object] = field(default_factory=list)
    shadowed: list[tuple[str, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """The vector loop being emitted: iterations base ... base+lanes-1 at once.

    prefix  only so many first lanes are active (None: all)
    """

    name: str
    lanes: int
    base: Entry
    scope: int
    prefix: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Memory of a buffer. With lanes > 0 there is one element for each lane of the vector loop; `constant`
    memory is written by nobody while the kernel runs; `streamed` memory is written past the caches."""

    pointer: Operand
    lanes: int = 0
    constant: bool = False
    streamed: bool = False


class State:
    """Scopes, bindings and the cache of computed expressions."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.scopes: list[Scope] = [Scope(builder.flow)]
        self.cache: dict[object, Entry] = {}
        self.names: dict[str, Entry | None] = {}
        self.definitions: dict[str, ir.Expr | None] = {}
        self.storage: dict[ir.Buffer, Storage] = {}
        self.vector: Vector | None = None

    @property
    def depth(self) -> int:
        return len(self.scopes) - 1

    @property
    def mask(self) -> Operand | None:
        return self.scopes[-1].mask

    # ------------------------------------------------------------ scopes

    def push(self, scope: Scope) -> int:
        """Enter a scope; code goes to its flow. Gives its number."""
        self.scopes.append(scope)
        self.builder.flow = scope.flow
        return self.depth

    def pop(self) -> Scope:
        """Leave the innermost scope and forget what depends on it."""
        scope = self.scopes.pop()
        for key in scope.keys:
            self.cache.pop(key, None)
        for name, old in reversed(scope.shadowed):
            self.names[name], self.definitions[name] = old  # type: ignore[misc]
        self.builder.flow = self.scopes[-1].flow
        return scope

    def at(self, place: int) -> None:
        """Let the next instructions go to a scope's flow; `here` undoes it."""
        self.builder.flow = self.scopes[place].flow

    def here(self) -> None:
        self.builder.flow = self.scopes[-1].flow

    def remember(self, key: object, entry: Entry) -> Entry:
        """Cache an entry until the scope it is bound to, or whose code it stands in, is left."""
        self.cache[key] = entry
        self.scopes[max(entry.bind, entry.place)].keys.append(key)
        return entry

    # ------------------------------------------------------------ names

    def bind(self, name: str, entry: Entry | None, definition: ir.Expr | None = None) -> None:
        """Give a loop variable or a Let's name its value for the rest of the innermost scope."""
        old = (self.names.get(name), self.definitions.get(name))
        self.scopes[-1].shadowed.append((name, old))
        self.names[name], self.definitions[name] = entry, definition

    def resolve(self, name: str) -> ir.Expr | None:
        """The expression a Let bound to `name`, if addresses may look through it."""
        return self.definitions.get(name)
