"""`graphc dump TARGET`: the program at every stage of its compilation."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphc import backend as backends
from graphc import pipeline
from graphc.command import render, timing
from graphc.command.target import Target, UsageError, differentiate, load
from graphc.debug import Stage
from graphc.ir.printer import print_graph
from graphc.report import arena_line

SUFFIX = {"text": "txt", "dot": "dot", "svg": "svg", "json": "json"}
NATIVE = {
    "llvm": "LLVM IR as emitted",
    "llvm-opt": "LLVM IR after the passes",
    "asm": "assembly",
}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "dump", help="show a model or training step at every stage of its compilation"
    )
    parser.add_argument(
        "target", metavar="TARGET", help="file.py:NAME (Module, function, compiled step) or a saved graph"
    )
    parser.add_argument("--input", action="append", default=[], metavar="SHAPE[:DTYPE]",
                        help="shape of an argument, as 1x3x224x224:float32; repeat for more")  # fmt: skip
    parser.add_argument("--stage", action="append", default=[], metavar="NAME",
                        help="only this stage (may be repeated); 'list' names them all")  # fmt: skip
    parser.add_argument("--after", metavar="PASS", help="only the graph after this pass")
    parser.add_argument("--format", choices=SUFFIX, default="text")
    parser.add_argument(
        "--grad", action="store_true", help="differentiate a model or function: the joint graph follows"
    )
    parser.add_argument(
        "--train", action="store_true", help="trace a Module in training mode (default: eval)"
    )
    parser.add_argument(
        "--cpu", metavar="NAME", help="code for this target: native, x86-64-v3, x86-64-v4, aarch64"
    )
    parser.add_argument(
        "--no-winograd", action="store_true", help="keep Winograd's algorithm out of 3x3 convolutions"
    )
    parser.add_argument(
        "--no-layout", action="store_true", help="keep the channels of convolutions before the spatial dims"
    )
    parser.add_argument(
        "--timing", action="store_true", help="where the compiler's time goes: each stage, each kernel"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write numbered files instead of printing"
    )
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class View:
    """A stage as the user sees it: rendered only if asked for."""

    name: str
    text: Callable[[], str]
    stage: Stage | None = None


class Dump:
    """One traced program and everything that can be shown of it."""

    def __init__(
        self, target: Target, grad: bool, cpu: str | None, winograd: bool = True, layout: bool = True
    ) -> None:
        self.traced = target
        self.program = differentiate(target) if grad else target
        options = {"winograd": winograd, "layout": layout}
        name = backends.with_options("llvm", {name: on for name, on in options.items() if not on})
        self.backend: Any = backends.load(name, cpu)
        self.report = pipeline.inspect(self.program.graph, self.program.donate, name, cpu)

    def views(self) -> Iterator[View]:
        graph = self.traced.graph
        trace = Stage("trace", 0.0, lambda: print_graph(graph), graph)
        yield View("trace", lambda: print_graph(graph), trace)
        for stage in self.report.stages:
            name = stage.name if stage.name != "trace" else "joint"
            if name == "joint" and self.program is self.traced:
                continue
            yield View(name, lambda stage=stage: stage.text, stage)  # type: ignore[misc]
        for name in NATIVE:
            yield View(name, lambda name=name: self.native(name))  # type: ignore[misc]

    def native(self, name: str) -> str:
        """What the LLVM backend makes of each distinct kernel."""
        show = {
            "llvm": lambda k: self.backend.llvm_ir(k, optimised=False),
            "llvm-opt": lambda k: self.backend.llvm_ir(k, optimised=True),
            "asm": self.backend.assembly,
        }[name]
        comment = "#" if name == "asm" else ";"
        parts = [f"{comment} kernel {k.name}: {NATIVE[name]}\n{show(k)}" for k in self.report.kernels]
        return "\n".join(parts) or f"{comment} no kernels\n"

    def timing(self, tracing: float) -> str:
        """Tables of the stages and the kernels; tracing took so many seconds."""
        first, *stages = self.report.stages
        text = timing.timing_table([replace(first, seconds=tracing), *stages])
        if not self.report.kernels:
            return text
        calls = Counter(call.kernel for call in self.report.planned.plan.calls)  # type: ignore[union-attr]
        costs, tiles = self.backend.costs(self.report.kernels)
        rows = [
            timing.KernelTime(kernel.name, calls[number], self.report.seconds.get(kernel, 0.0), cost)
            for number, (kernel, cost) in enumerate(zip(self.report.kernels, costs, strict=True))
        ]
        rows += [timing.KernelTime(symbol, 0, 0.0, cost) for symbol, cost in tiles]
        return f"{text}\n{timing.kernel_table(rows)}"

    def drawing(self, view: View) -> render.Drawing:
        stage = view.stage
        if stage is not None and stage.partition is not None:
            return render.drawing_of_partition(stage.partition)
        assert stage is not None
        assert stage.graph is not None
        return render.drawing_of(stage.graph)

    def drawable(self, view: View) -> bool:
        return view.stage is not None and (view.stage.graph or view.stage.partition) is not None

    def rendered(self, view: View, form: str) -> str:
        title = f"{self.program.name}, {view.name}"
        if form == "dot":
            return render.dot(self.drawing(view), title)
        if form == "svg":
            return self.drawing(view).to_svg(title)
        if form == "json":
            if view.stage is not None and view.stage.graph is not None:
                return json.dumps(render.graph_json(view.stage.graph), indent=1) + "\n"
            return json.dumps({"stage": view.name, "text": view.text()}, indent=1) + "\n"
        return view.text()


def choose(dump: Dump, views: list[View], stages: list[str], form: str) -> list[View]:
    """The views asked for. Raises UsageError naming those there are."""
    names = [v.name for v in views]
    for wanted in stages:
        if wanted not in names:
            raise UsageError(f"no stage {wanted!r} (there are {', '.join(names)})")
    chosen = [v for v in views if not stages or v.name in stages]
    if form in ("dot", "svg"):
        undrawn = [v.name for v in chosen if not dump.drawable(v)]
        if stages and undrawn:
            raise UsageError(f"stage {undrawn[0]!r} is no graph: show it with --format text")
        chosen = [v for v in chosen if dump.drawable(v)]
    return chosen


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    target = load(args.target, args.input, args.train)
    tracing = time.perf_counter() - started
    dump = Dump(target, args.grad, args.cpu, not args.no_winograd, not args.no_layout)
    views = list(dump.views())
    if args.stage == ["list"]:
        print("\n".join(v.name for v in views))
        return 0
    stages = [*args.stage, *([args.after] if args.after else [])]
    only_timing = args.timing and not stages and not args.output
    chosen = [] if only_timing else choose(dump, views, stages, args.format)
    if args.output:
        write(dump, views, chosen, args.format, args.output)
    elif args.format == "text":
        for view in chosen:
            header = f"==== {view.name} " if len(chosen) > 1 else ""
            print(f"{header:=<100}\n{view.text()}" if header else view.text(), end="" if not header else "\n")
    else:
        for view in chosen:
            print(dump.rendered(view, args.format), end="")
    if args.timing:
        print(dump.timing(tracing), end="")
    if dump.report.planned is not None:
        print(arena_line(dump.report.planned.plan), file=sys.stderr)
    return 0


def write(dump: Dump, views: list[View], chosen: list[View], form: str, folder: Path) -> None:
    """Numbered files, so that `diff` and `grep` work on a dump."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, view in enumerate(views):
            if view in chosen:
                path = folder / f"{number:02d}_{view.name}.{SUFFIX[form]}"
                path.write_text(dump.rendered(view, form))
                print(path)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error}") from None
