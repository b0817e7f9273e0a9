"""A writer that puts each value into the outermost loop it can live in."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from graphc.loop import index as ix
from graphc.loop.ir import Const, Expr, Let, Local, Mode, Stmt, Var
from graphc.loop.lower.writer import Writer


class Scope(Writer):
    """Open blocks, and what is already computed in them.

    A value is bound by a `Let` in the outermost open block where all its variables have values
    (a load of a per-channel scale goes outside the loop over pixels), but never outside a condition.
    """

    def __init__(self) -> None:
        super().__init__()
        self._depths: dict[Expr, int] = {}
        self._known: dict[Hashable, tuple[Expr, list[Stmt], int]] = {}
        self._floors: list[int] = [0]

    @property
    def depth(self) -> int:
        """The number of the innermost open block."""
        return len(self.open) - 1

    @contextmanager
    def loop(
        self, stem: str, extent: Expr | int, most: int | None = None, mode: Mode = "serial", lanes: int = 1
    ) -> Iterator[Expr]:
        with super().loop(stem, extent, most, mode, lanes) as var:
            if isinstance(var, Var):
                self._depths[var] = self.depth
            yield var

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        with super().when(condition):
            self._floors.append(self._floors[-1] if ix.is_true(condition) else self.depth)
            try:
                yield
            finally:
                self._floors.pop()

    def depth_of(self, expr: Expr) -> int:
        """The outermost block in which `expr` can be computed."""
        depth = self._floors[-1]
        for v in ix.variables(expr):
            depth = max(depth, self._depths.get(v, 0))
        return depth

    def known(self, key: Hashable) -> Expr | None:
        """What `remember` was told under this key, if that block is still open."""
        entry = self._known.get(key)
        if entry is None:
            return None
        value, block, depth = entry
        if depth < len(self.open) and self.open[depth] is block:
            return value
        del self._known[key]
        return None

    def remember(self, key: Hashable, value: Expr, depth: int | None = None) -> Expr:
        """Note a value that holds in the block at `depth` (default: the innermost)."""
        depth = self.depth if depth is None else depth
        self._known[key] = (value, self.open[depth], depth)
        return value

    def bind(self, key: Hashable, value: Expr, stem: str = "v") -> Expr:
        """Compute a value once, as far outside as it can be, and remember it."""
        depth = self.depth_of(value)
        if not isinstance(value, Const | Var | Local):
            local = Local(value.dtype, self.name(stem))
            self.open[depth].append(Let(local, value))
            self._depths[local] = depth
            value = local
        return self.remember(key, value, depth)

    def let(self, value: Expr, stem: str = "v") -> Expr:
        """Compute a value here (it may read memory that this block has just written)."""
        value = super().let(value, stem)
        if isinstance(value, Local):
            self._depths.setdefault(value, self.depth)
        return value
