"""Read back what `ir.printer` writes: the same interned nodes, names and sites."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from graphc.ir.graph import Graph
from graphc.ir.node import NO_ATTRS, Attrs, Kind, Node, Op, Site, make, no_sites, set_site
from graphc.ir.types import BY_SHORT, DType, TensorType, bool_
from graphc.ops.scan import Loop, ScanAttrs

_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<comment>\#.*)"
    r'|(?P<base64>base64"[A-Za-z0-9+/=]*")'
    r'|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<value>%\d+)"
    r"|(?P<loop>@\d+)"
    r"|(?P<number>-?(?:inf\b|nan\b|0x[0-9a-f]+|\d+(?:\.\d*)?(?:e[+-]?\d+)?))"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_.]*)"
    r"|(?P<mark>[][(){},:=])"
    r")"
)
_ROLES = ("carry", "x", "const")
_SITE = re.compile(r"# (?P<file>.+?):(?P<line>\d+)(?: in (?P<module>.+))?\Z")


class ParseError(ValueError):
    """The text is not a graph; says on which line and why."""


def parse_graph(text: str, ops: Mapping[str, Op]) -> Graph:
    """The graph that `print_graph` wrote as `text`. `ops` is the registry, by name.

    Raises ParseError.
    """
    with no_sites():
        return _Reader(text, ops).graph()


class _Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text = number, text
        self.tokens = list(self._split())
        self.next = 0
        self.comment = ""
        if self.tokens and self.tokens[-1][0] == "comment":
            self.comment = self.tokens.pop()[1]

    def _split(self) -> Any:
        at, end = 0, len(self.text.rstrip())
        while at < end:
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self.error(f"cannot read {self.text[at:].strip()[:20]!r}")
            at = match.end()
            assert match.lastgroup is not None
            yield match.lastgroup, match.group(match.lastgroup)

    def error(self, message: str) -> ParseError:
        return ParseError(f"line {self.number}: {message}: {self.text.strip()[:160]}")

    def peek(self) -> str:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else ""

    def peek_kind(self) -> str:
        return self.tokens[self.next][0] if self.next < len(self.tokens) else "end"

    def found(self) -> str:
        return repr(self.peek()) if self.next < len(self.tokens) else "the end of the line"

    def take(self, kind: str) -> str:
        """The next token, which must be of this kind."""
        if self.peek_kind() != kind:
            raise self.error(f"expected a {kind}, found {self.found()}")
        self.next += 1
        return self.tokens[self.next - 1][1]

    def expect(self, mark: str) -> None:
        if self.peek() != mark:
            raise self.error(f"expected {mark!r}, found {self.found()}")
        self.next += 1

    def accept(self, mark: str) -> bool:
        found = self.peek() == mark and self.peek_kind() != "string"
        self.next += found
        return found

    def done(self) -> None:
        if self.next != len(self.tokens):
            raise self.error(f"unexpected {self.peek()!r}")


@dataclass
class _Scope:
    """What the lines of one graph, or of one loop's body, have defined."""

    nodes: dict[str, Node] = field(default_factory=dict)
    loops: dict[str, tuple[Loop, _Scope]] = field(default_factory=dict)

    def known(self, line: _Line, value: str) -> Node:
        if value not in self.nodes:
            raise line.error(f"{value} is not defined before")
        return self.nodes[value]


class _Reader:
    def __init__(self, text: str, ops: Mapping[str, Op]) -> None:
        lines = (_Line(i + 1, line) for i, line in enumerate(text.splitlines()) if line.strip())
        self.lines = [line for line in lines if line.tokens]
        self.next = 0
        self.ops = ops

    def graph(self) -> Graph:
        if len(self.lines) < 3:
            raise ParseError("not a graph: it needs a header, a return and a closing brace")
        head = self._take()
        name, inputs = self._header(head)
        scope = _Scope()
        tail, outputs = self._block(scope)
        if self.next < len(self.lines):
            raise self.lines[self.next].error("expected the end of the text")
        resolved = [
            tuple(scope.known(line, v) for _, v in given) for line, given in ((head, inputs), (tail, outputs))
        ]
        return Graph(resolved[0], resolved[1], _names(inputs), _names(outputs), name)

    def _take(self) -> _Line:
        if self.next == len(self.lines):
            raise self.lines[-1].error("expected more lines after this one")
        self.next += 1
        return self.lines[self.next - 1]

    def _block(self, scope: _Scope) -> tuple[_Line, list[tuple[str, str]]]:
        """Nodes and loops up to the return and its closing brace: the line of the return, what it returns."""
        while True:
            line = self._take()
            if line.peek_kind() == "value":
                self._node(line, scope)
            elif line.peek() == "loop":
                self._loop(line, scope)
            elif line.peek_kind() == "word" and line.take("word") == "return":
                break
            else:
                raise line.error("expected a node, a loop or 'return'")
        outputs = self._named(line, "")
        line.done()
        end = self._take()
        end.expect("}")
        end.done()
        return line, outputs

    def _loop(self, line: _Line, outer: _Scope) -> None:
        """`loop @0 {length=3, reverse=false}(carry=%0, x=%1) {`, the body, and its closing brace."""
        line.expect("loop")
        name = line.take("loop")
        line.expect("{")
        fields_ = _fields(line, "}", bool_)
        line.expect("(")
        params = self._named(line, ")")
        line.expect(")")
        line.expect("{")
        line.done()
        inner = _Scope()
        tail, nexts = self._block(inner)
        roles = {role: tuple([inner.known(line, v) for r, v in params if r == role]) for role in _ROLES}
        if sum(map(len, roles.values())) != len(params) or set(fields_) != {"length", "reverse"}:
            raise line.error("a loop has length and reverse, and parameters called carry, x and const")
        after = tuple([inner.known(tail, value) for _, value in nexts])
        loop = Loop(fields_["length"], fields_["reverse"], roles["carry"], roles["x"], roles["const"], after)
        outer.loops[name] = loop, inner

    def _header(self, line: _Line) -> tuple[str, list[tuple[str, str]]]:
        if line.take("word") != "graph":
            raise line.error("expected 'graph'")
        name = _name(line)
        line.expect("(")
        inputs = self._named(line, ")")
        line.expect(")")
        line.expect("{")
        line.done()
        return name, inputs

    def _named(self, line: _Line, closing: str) -> list[tuple[str, str]]:
        """`x=%0, %1` up to `closing`: pairs of name and value."""
        found: list[tuple[str, str]] = []
        while line.peek() != closing:
            name = ""
            if line.peek_kind() in ("word", "string"):
                name = _name(line)
                line.expect("=")
            found.append((name, line.take("value")))
            if not line.accept(","):
                break
        return found

    def _node(self, line: _Line, scope: _Scope) -> None:
        name = line.take("value")
        if name in scope.nodes:
            raise line.error(f"{name} is defined twice")
        line.expect(":")
        type_ = _type(line)
        line.expect("=")
        op = self.ops.get(line.take("word"))
        if op is None:
            raise line.error("unknown op")
        line.expect("(")
        inputs = tuple(scope.known(line, value) for _, value in self._named(line, ")"))
        line.expect(")")
        attrs = _result(line, scope) if op.kind is Kind.SCAN else self._attrs(line, op, type_)
        line.done()
        try:
            node = make(op, inputs, attrs)
        except (ValueError, TypeError) as error:
            raise line.error(str(error)) from error
        if node.type != type_:
            raise line.error(f"{op.name} gives {node.type}, not {type_}")
        scope.nodes[name] = node
        site = _SITE.match(line.comment)
        if site:
            set_site(node, Site(site["file"], int(site["line"]), site["module"] or ""))

    def _attrs(self, line: _Line, op: Op, type_: TensorType) -> Attrs:
        given: dict[str, Any] = {}
        if line.accept("{"):
            given = _fields(line, "}", type_.dtype)
        known = {"shape": type_.shape, "dtype": type_.dtype}
        names = _field_names(op.attrs)
        values = {name: known[name] for name in names if name in known} | given
        return NO_ATTRS if op.attrs is type(NO_ATTRS) and not given else _build(line, op.attrs, values)


def _result(line: _Line, scope: _Scope) -> ScanAttrs:
    """`{loop=@0, emit=%5}` or `{loop=@0, final=1}`: which result of which loop."""
    for mark in ("{", "loop", "="):
        line.expect(mark)
    name = line.take("loop")
    if name not in scope.loops:
        raise line.error(f"{name} is not defined before")
    loop, body = scope.loops[name]
    line.expect(",")
    which = line.take("word")
    line.expect("=")
    if which == "emit":
        attrs = ScanAttrs(loop, body.known(line, line.take("value")))
    elif which == "final":
        attrs = ScanAttrs(loop, None, int(line.take("number")))
    else:
        raise line.error("expected 'emit' or 'final'")
    line.expect("}")
    return attrs


def _names(given: list[tuple[str, str]]) -> tuple[str, ...]:
    names = tuple(name for name, _ in given)
    return names if any(names) else ()


def _name(line: _Line) -> str:
    return json.loads(line.take("string")) if line.peek_kind() == "string" else line.take("word")


def _type(line: _Line) -> TensorType:
    """`f32[64, 10]`."""
    dtype = BY_SHORT.get(line.take("word"))
    if dtype is None:
        raise line.error("unknown element type")
    line.expect("[")
    shape: list[int] = []
    while not line.accept("]"):
        shape.append(int(line.take("number")))
        if line.peek() != "]":
            line.expect(",")
    return TensorType(tuple(shape), dtype)


def _fields(line: _Line, closing: str, dtype: DType) -> dict[str, Any]:
    values: dict[str, Any] = {}
    while not line.accept(closing):
        name = line.take("word")
        line.expect("=")
        values[name] = _value(line, dtype)
        if line.peek() != closing:
            line.expect(",")
    return values


def _value(line: _Line, dtype: DType) -> Any:
    """One attribute value (nesting in attributes is shallow, so this recurses)."""
    kind = line.peek_kind()
    if kind == "string":
        return json.loads(line.take("string"))
    if kind == "base64":
        return base64.b64decode(line.take("base64")[7:-1])
    if kind == "number":
        return _number(line.take("number"))
    if kind == "word":
        return _word_value(line, dtype)
    if line.accept("("):
        return tuple(_list(line, ")", dtype))
    if line.accept("["):
        return np.array(_list(line, "]", dtype), dtype.numpy).tobytes()
    raise line.error(f"expected a value, found {line.peek()!r}")


def _list(line: _Line, closing: str, dtype: DType) -> list[Any]:
    values = []
    while not line.accept(closing):
        values.append(_value(line, dtype))
        if line.peek() != closing:
            line.expect(",")
    return values


def _number(text: str) -> int | float:
    if text.startswith("0x"):
        return int(text, 16)
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _word_value(line: _Line, dtype: DType) -> Any:
    word = line.take("word")
    simple = {"none": None, "true": True, "false": False}
    if word in simple:
        return simple[word]
    if word in BY_SHORT:
        return BY_SHORT[word]
    line.expect("(")
    if word == "bits":
        bits = _number(line.take("number"))
        line.expect(")")
        return struct.unpack("<d", int(bits).to_bytes(8, "little"))[0]
    kind = _attr_classes().get(word)
    if kind is None:
        raise line.error(f"unknown attribute class {word}")
    return _build(line, kind, _fields(line, ")", dtype))


def _build(line: _Line, kind: type[Attrs], values: dict[str, Any]) -> Attrs:
    try:
        return kind(**values)
    except TypeError as error:
        raise line.error(f"attributes do not fit: {error}") from error


def _field_names(kind: type[Attrs]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))  # type: ignore[arg-type]


def _attr_classes() -> dict[str, type[Attrs]]:
    found: dict[str, type[Attrs]] = {}
    stack = [Attrs]
    while stack:
        for kind in stack.pop().__subclasses__():
            found[kind.__name__] = kind
            stack.append(kind)
    return found
