"""Interned, immutable nodes: equal structure is the same object.

A node is made by `make(op, inputs, attrs)`, which computes its type with the op's
`infer` rule and returns the existing node if there already is an equal one. So common
subexpressions are shared for free, and "did this pass change anything" is `is`.
"""

from __future__ import annotations

import enum
import operator
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np

from graphc.ir.types import DType, Shape, TensorType


class Kind(enum.Enum):
    """What sort of computation an op is. Passes ask for kinds, not for op names."""

    INPUT = "input"  # a leaf whose value is given from outside
    CONSTANT = "constant"  # a leaf whose value is in its attributes
    ELEMENTWISE = "elementwise"  # out[i] is a scalar function of in0[i], in1[i], ...
    VIEW = "view"  # out[i] is in[map(i)] or a constant; nothing is computed
    GENERATE = "generate"  # out[i] is a function of i alone (and of scalar inputs)
    GATHER = "gather"  # out[i] is in[map(i, indices)]
    REDUCE = "reduce"  # out[i] combines in[map(i, r)] over all r
    CONTRACT = "contract"  # dot_general
    CONV = "conv"  # convolution and its two gradients
    SCATTER = "scatter"
    CUMULATIVE = "cumulative"
    SORT = "sort"
    SCAN = "scan"
    CHECK = "check"  # identity whose value is tested at run time
    BARRIER = "barrier"  # identity for autodiff only (stop_gradient)


@cache
def _field_names(attrs: type) -> tuple[str, ...]:
    return tuple([f.name for f in fields(attrs)])


def freeze(value: Any) -> Any:
    """A hashable key that tells apart what Python's == does not: 0.0 / -0.0, 1 / True / 1.0."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is tuple:
        return tuple([freeze(v) for v in value])
    if kind is float:
        return ("f", struct.pack("<d", value))
    if kind is bool:
        return ("b", value)
    return value


class Attrs:
    """Base of the frozen dataclasses (``eq=False``) that hold an op's static parameters."""

    @property
    def key(self) -> tuple:
        """What tells these attributes from others, by bits; computed once (`make` asks every time)."""
        state = self.__dict__
        key = state.get("_key")
        if key is None:
            names = _field_names(type(self))  # type: ignore[arg-type]
            key = state["_key"] = (type(self).__name__, *[freeze(state[n]) for n in names])
        return key

    @property
    def outline(self) -> tuple | None:
        """For attributes that hold nodes: their meaning as numbers and graphs. None for all others."""
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attrs) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class NoAttrs(Attrs):
    """For ops without parameters; `NO_ATTRS` is the one instance used."""


NO_ATTRS = NoAttrs()


@dataclass(frozen=True, eq=False)
class Op:
    """A primitive: its rules stand together in one place (`graphc/ops`).

    infer(types, attrs) -> TensorType    shape and dtype rule; raises ValueError / TypeError
    evaluate(arrays, attrs) -> ndarray   NumPy semantics, the oracle
    vjp(ct, node) -> inputs' cotangents  builds nodes; None for an input without gradient
    lower                                 target-independent lowering, by kind (graphc/ops/op.py)
    """

    name: str
    kind: Kind
    infer: Callable[[Sequence[TensorType], Any], TensorType]
    evaluate: Callable[[Sequence[np.ndarray], Any], np.ndarray] | None = None
    vjp: Callable[[Node, Node], Sequence[Node | None]] | None = None
    lower: Callable[..., Any] | None = None
    attrs: type[Attrs] = NoAttrs
    cost: float = 1.0  # rough scalar operations per output element, for cost models
    typed_vjp: bool = True  # `vjp` looks at the operands' types, not at what they are

    def __repr__(self) -> str:
        return f"Op({self.name})"


class Node:
    """One operation of a tensor DAG. Make it with `make`; compare with `is`.

    `bound` belongs to the front end and is not part of the node: what stands behind this
    node outside the IR (a realised array, another node). No compiler stage reads it. Nor is `site`,
    where the node was first made (see `site_of`).
    """

    __slots__ = ("__weakref__", "attrs", "bound", "inputs", "op", "site", "type")
    op: Op
    inputs: tuple[Node, ...]
    attrs: Any
    type: TensorType
    bound: Any
    site: Site | None

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def kind(self) -> Kind:
        return self.op.kind

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.type}>"

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: dict) -> Node:
        return self


@dataclass(frozen=True, slots=True)
class Site:
    """Where in the user's program a node was first made."""

    file: str
    line: int
    module: str = ""  # module path, e.g. "LeNet.fc1"; empty outside modules

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        return f"{place} in {self.module}" if self.module else place


class _Entry(weakref.ref):
    """A weak reference to a node that knows under which key it is listed."""

    __slots__ = ("key",)
    key: tuple


def _drop(entry: _Entry) -> None:
    """The node has died: take its entry away, unless an equal node has taken its place."""
    key = entry.key
    found = _interned.pop(key, None)  # (looking first would take as long again)
    if found is not None and found is not entry:
        _interned[key] = found


# A WeakValueDictionary does the same through several Python calls a look-up, and `make` is the hot path of
# tracing.
_interned: dict[tuple, _Entry] = {}


class _Thread(threading.local):
    """Who is asked for the user's line: on the class for all threads, on an instance for one."""

    provider: SiteProvider | None = None


_thread = _Thread()


def make(op: Op, inputs: Sequence[Node] = (), attrs: Attrs = NO_ATTRS) -> Node:
    """The node `op(inputs; attrs)`. Raises what the op's `infer` raises."""
    inputs = tuple(inputs)
    key = (op, inputs, attrs.__dict__.get("_key") or attrs.key)
    entry = _interned.get(key)
    if entry is not None:
        known = entry()
        if known is not None:
            return known
    type_ = op.infer([n.type for n in inputs], attrs)
    provider = _thread.provider
    return _enter(key, attrs, type_, None if provider is None else provider())


Operands = Callable[[list[Node]], tuple[Node, ...]]
Step = tuple[Op, Attrs, TensorType, Operands]  # a node on others, which are picked from a list


def picked(places: Sequence[int]) -> Operands:
    """What picks the operands at these places of a list."""
    if len(places) > 1:
        return operator.itemgetter(*places)  # (in C, where most of the time of `make_all` would be spent)
    if not places:
        return lambda made: ()
    place = places[0]
    return lambda made: (made[place],)


def make_all(steps: Sequence[Step], made: list[Node]) -> None:
    """Append the nodes of `steps`, whose operands are in `made`. Their types are known: there was such a node
    on inputs of these types, so neither `infer` nor the user's line is asked for each."""
    site: Site | None = None
    asked = False
    for op, attrs, type_, operands in steps:
        inputs = operands(made)
        key = (op, inputs, attrs.__dict__["_key"])
        entry = _interned.get(key)
        node = None if entry is None else entry()
        if node is None:
            if not asked:
                asked = True
                provider = _thread.provider
                site = None if provider is None else provider()
            node = object.__new__(Node)  # as `_enter`, whose call would cost as much again
            node.op, node.inputs = op, inputs
            node.attrs, node.type, node.bound, node.site = attrs, type_, None, site
            entry = _interned[key] = _Entry(node, _drop)
            entry.key = key
        made.append(node)


def _enter(
    key: tuple[Op, tuple[Node, ...], tuple], attrs: Attrs, type_: TensorType, site: Site | None
) -> Node:
    """A new node, listed under its key."""
    node = object.__new__(Node)
    node.op, node.inputs, _ = key
    node.attrs, node.type, node.bound, node.site = attrs, type_, None, site
    entry = _Entry(node, _drop)
    entry.key = key
    _interned[key] = entry
    return node


SiteProvider = Callable[[], Site | None]


def provide_sites(provider: SiteProvider) -> None:
    """Install the answer to "which user line is running now?" for all threads."""
    _Thread.provider = staticmethod(provider)  # (a plain function would become a method)


def set_site_provider(provider: SiteProvider | None) -> SiteProvider | None:
    """Another answer in this thread (autodiff gives the forward node's site); returns the one it replaces."""
    previous, _thread.provider = _thread.provider, provider
    return previous


@contextmanager
def no_sites() -> Iterator[None]:
    """Within this, new nodes get no site by themselves: compiler stages give them those they replace."""
    previous = set_site_provider(None)
    try:
        yield
    finally:
        set_site_provider(previous)


def site_of(node: Node) -> Site | None:
    """The user's file:line and module path of a node's first creation, if known."""
    return node.site


def set_site(node: Node, site: Site | None) -> None:
    """Give a node a site unless it already has one (the first creator wins)."""
    if node.site is None:
        node.site = site
