"""A picture of a run: how long each engine takes for a step, in steps of this library."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.bench.tables import OWN, Results


def draw(results: Results, path: Path) -> None:
    """Write a PNG. ModuleNotFoundError without matplotlib (the `examples` extra has it)."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    workloads = [w for w in results.workloads if results.median(w, OWN, "ms")]
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.32 * len(workloads)), layout="constrained")
    axes.axvline(1, color="0.2", linewidth=1)
    for engine in [e for e in results.engines if e != OWN]:
        points = [(_times(results, w, engine), y) for y, w in enumerate(workloads)]
        found = [(x, y) for x, y in points if x is not None]
        if found:
            axes.plot(*zip(*found, strict=True), "o", markersize=6, alpha=0.85, label=engine)
    axes.set_xscale("log")
    axes.set_yticks(range(len(workloads)), workloads)
    axes.set_ylim(len(workloads) - 0.5, -0.5)
    axes.set_xlabel(f"time of a step / {OWN}'s  ({results.threads} threads; right of the line: slower)")
    axes.grid(axis="x", which="both", color="0.9", linewidth=0.6)
    axes.grid(axis="y", color="0.95", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles = axes.get_legend_handles_labels()[1]
    if handles:
        axes.legend(frameon=False, ncols=len(handles), loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _times(results: Results, workload: str, engine: str) -> float | None:
    """How many times as long as this library an engine takes."""
    own, other = (results.median(workload, e, "ms") for e in (OWN, engine))
    return other / own if own and other else None
