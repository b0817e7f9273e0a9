"""Tables of where the compiler's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.debug import Stage


def timing_table(stages: Sequence[Stage]) -> str:
    """Milliseconds and graph size of every stage."""
    lines = [f"{'stage':12} {'ms':>9} {'nodes':>7}"]
    for stage in stages:
        nodes = str(len(stage.graph.nodes)) if stage.graph is not None else ""
        lines.append(f"{stage.name:12} {1e3 * stage.seconds:9.2f} {nodes:>7}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class KernelTime:
    """A row of the table of kernels: times in seconds; `cost` is the backend's (see its `costs`)."""

    name: str
    calls: int
    lower: float
    cost: Any

    @property
    def total(self) -> float:
        return self.lower + self.cost.emit + self.cost.parse + self.cost.passes + self.cost.code


def kernel_table(rows: Sequence[KernelTime]) -> str:
    """Milliseconds that each kernel and tile function took to compile, the longest first, and their sums."""
    lines = [
        f"{'kernel':32} {'calls':>5} {'lower':>8} {'emit':>8} {'parse':>8} {'passes':>8} {'code':>8} "
        f"{'total':>8} {'LLVM IR':>8} {'bytes':>8}"
    ]
    for row in sorted(rows, key=lambda row: -row.total):
        lines.append(_kernel_line(row.name, row.calls, [row]))
    return "\n".join([*lines, _kernel_line("sum", sum(row.calls for row in rows), rows)]) + "\n"


def _kernel_line(name: str, calls: int, rows: Sequence[KernelTime]) -> str:
    costs = [row.cost for row in rows]
    parts = [
        [row.lower for row in rows],
        [c.emit for c in costs],
        [c.parse for c in costs],
        [c.passes for c in costs],
        [c.code for c in costs],
        [row.total for row in rows],
    ]
    times = " ".join([f"{1e3 * sum(part):8.2f}" for part in parts])
    return f"{name[:32]:32} {calls:5} {times} {sum(c.lines for c in costs):8} {sum(c.bytes for c in costs):8}"
