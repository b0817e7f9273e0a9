"""Markdown tables of measurements.

A record is what `tests.bench.one` prints, plus `round`: ms and best_ms of a step, first_s of building and the
first step, memory_mb above the interpreter's, mean magnitudes of outputs (of a training loss at the first
and a later step), flops and bytes where they are known.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

OWN = "graphc"
SAME = 1e-3  # relative difference of losses up to which two engines do the same work
Record = dict[str, Any]


@dataclass
class Results:
    """The records of a run; `machine` those of the machine in the same rounds; `notes` on what is missing."""

    threads: int
    engines: list[str]
    records: list[Record] = field(default_factory=list)
    machine: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, workload: str, engine: str) -> list[Record]:
        return [r for r in self.records if r["workload"] == workload and r["engine"] == engine]

    def median(self, workload: str, engine: str, name: str) -> float | None:
        """The median over rounds; None where nothing was measured."""
        values = [r[name] for r in self.of(workload, engine) if name in r]
        return statistics.median(values) if values else None

    @property
    def workloads(self) -> list[str]:
        return list(dict.fromkeys(r["workload"] for r in self.records))

    def best_peer(self, workload: str, name: str) -> float | None:
        """The least median among the engines that are not this library."""
        found = [self.median(workload, e, name) for e in self.engines if not e.startswith(OWN)]
        return min((value for value in found if value is not None), default=None)

    def limit(self, name: str) -> float | None:
        """Median of the machine's figure in these rounds."""
        values = [m[name] for m in self.machine]
        return statistics.median(values) if values else None


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}g}"


def ratio(peer: float | None, own: float | None) -> str:
    return f"{peer / own:.2f}" if peer and own else "-"


def of_limit(results: Results, workload: str) -> str:
    """Reached by this library: of the FMA peak of all threads, or of the bandwidth, whichever is nearer."""
    ms = results.median(workload, OWN, "ms")
    if not ms:
        return "-"
    found = []
    for name, limit, scale, what in (
        ("flops", "gflops", results.threads, "of FMA peak"),
        ("bytes", "gbytes", 1, "of bandwidth"),
    ):
        most, work = results.limit(limit), results.median(workload, OWN, name)
        if most and work:
            found.append((work / (ms * 1e6 * most * scale), what))
    return f"{max(found)[0]:.0%} {max(found)[1]}" if found else "-"


def first_call(results: Results, workload: str, engine: str) -> str:
    """Seconds of the first call with empty caches / the median of later rounds."""
    records = results.of(workload, engine)
    cold = [r["first_s"] for r in records if r["round"] == 0]
    warm = [r["first_s"] for r in records if r["round"] > 0]
    return f"{number(cold[0] if cold else None)} / {number(statistics.median(warm) if warm else None)}"


def differs(results: Results, workload: str, engine: str) -> bool:
    """Whether the first result of an engine is another than this library's."""
    own, other = results.of(workload, OWN), results.of(workload, engine)
    if not own or not other:
        return False
    a, b = own[0]["output"][0], other[0]["output"][0]
    return abs(a - b) > SAME * max(abs(a), abs(b))


def step_row(results: Results, workload: str) -> list[str]:
    cells = []
    for engine in results.engines:
        mark = " ≠" if differs(results, workload, engine) else ""
        cells.append(number(results.median(workload, engine, "ms")) + mark)
    peer, own = results.best_peer(workload, "ms"), results.median(workload, OWN, "ms")
    return [*cells, ratio(peer, own), of_limit(results, workload)]


def memory_row(results: Results, workload: str) -> list[str]:
    cells = [number(results.median(workload, e, "memory_mb")) for e in results.engines]
    eager, own = (results.median(workload, e, "memory_mb") for e in ("torch", OWN))
    return [*cells, ratio(own, eager)]


def first_row(results: Results, workload: str) -> list[str]:
    return [first_call(results, workload, engine) for engine in results.engines]


Row = Callable[[Results, str], list[str]]
TABLES: tuple[tuple[str, tuple[str, ...], Row], ...] = (
    ("Milliseconds a step", (f"best peer / {OWN}", f"{OWN} reaches"), step_row),
    ("First call, s: cold / warm", (), first_row),
    ("Peak memory above the interpreter's, MB", (f"{OWN} / torch",), memory_row),
)


def markdown(results: Results) -> str:
    """All tables, with what is to be known about them."""
    lines: list[str] = []
    for title, more, row in TABLES:
        lines += [f"### {title}", ""]
        lines += grid([f"{results.threads} threads", *results.engines, *more],
                      [[w, *row(results, w)] for w in results.workloads])  # fmt: skip
        lines.append("")
    versions = {r["engine"]: r["version"] for r in results.records}
    notes = [", ".join(f"{engine} {version}" for engine, version in versions.items())]
    gflops, gbytes = results.limit("gflops"), results.limit("gbytes")
    if gflops and gbytes:
        notes.append(
            f"measured in the same run: {gflops:.0f} GFLOP/s in registers of one thread, "
            f"{gbytes:.0f} GB/s copied by {results.threads}"
        )
    if any(differs(results, w, e) for w in results.workloads for e in results.engines):
        notes.append("≠: other numbers than ours, since parameters or dropout are drawn otherwise")
    return "\n".join([*lines, *[f"- {note}" for note in [*notes, *results.notes]], ""])


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a markdown table, numbers to the right."""
    rule = "|---|" + "---:|" * (len(head) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (head,)] + [rule] + [f"| {' | '.join(c)} |" for c in rows]
