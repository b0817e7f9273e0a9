"""The compiler from front to back: one list of passes, one function.

Graph --PASSES--> Graph --checks--> Graph + flags --partition--> groups --lower--> kernel calls
      --plan--> Plan --backend--> Executable
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from graphc import backend as backends
from graphc import plan, program_cache, repeat, report
from graphc.compiled import Code, Program
from graphc.debug import Observer, Record, Stage, Validate, observers_from_environment
from graphc.ir.graph import Graph
from graphc.ir.node import Node, no_sites
from graphc.ir.partition import Group, Partition
from graphc.ir.printer import print_graph
from graphc.loop.lower import lower_group
from graphc.loop.lowered import KernelCall, Part, Step, Temp, Value, with_args
from graphc.passes import checks, fold, fuse, loops, remat, rowdot, simplify
from graphc.program import Machine
from graphc.storage import is_alias


@dataclass(frozen=True)
class Pass:
    """A graph pass: a valid graph in, an equal valid graph out; the same object if nothing changed."""

    name: str
    run: Callable[[Graph], Graph]


PASSES: tuple[Pass, ...] = (
    Pass("simplify", simplify.run),
    Pass("fold", fold.run),
    Pass("loops", loops.run),
    Pass("rowdot", rowdot.run),
    Pass("cleanup", simplify.run),
)


def compile(
    graph: Graph,
    donate: Mapping[int, int] | None = None,
    backend: str = "llvm",
    observers: Sequence[Observer] = (),
) -> Program:
    """Compile a graph, or find the code of an equal one in memory or on disk.

    donate     output position -> input position whose array the output overwrites
    backend    a name from the entry-point group ``graphc.backends``
    observers  see every stage (then nothing is taken from a cache)

    Raises ValueError for an unknown backend or an impossible donation.
    """
    donated = dict(donate or {})
    plan.check_donations(graph, donated)
    target: Any = backends.load(backend)
    explain = partial(checks.failure, graph)
    if target.wants_graph:
        return Program(Code(target.compile(graph, None), graph, donated), graph, explain)
    watchers = (*observers, *observers_from_environment())
    key = program_cache.program_key(graph, donated, target)
    found = None if watchers else program_cache.find(key, graph, donated, target)
    if found is not None:
        return Program(found[0], graph, explain, origin=found[1])
    stages = Stages(watchers)
    planned = lower(graph, donated, target.machine, stages)
    code = Code(stages.run("backend", lambda: _executable(target, graph, planned.plan)), graph, donated)
    program_cache.remember(key, code)
    program_cache.save(key, code, target)
    program = Program(code, graph, explain, planned.plan)
    for watcher in watchers:
        if isinstance(watcher, Validate):
            watcher.check("backend", program)
    return program


def _executable(target: Any, graph: Graph, plan_: plan.Plan) -> Any:
    return target.compile(graph, plan_) if plan_.calls else None


def inspect(
    graph: Graph,
    donate: Mapping[int, int] | None = None,
    backend: str = "llvm",
    machine: str | None = None,
) -> Report:
    """Compile as far as the plan and keep every stage, for people to read.

    `machine` names the target of the backend, by default this machine; it need not be able to run here.
    """
    record = Record()
    target: Any = backends.load(backend, machine)
    donated = dict(donate or {})
    plan.check_donations(graph, donated)
    stages = Stages((record,))
    if target.wants_graph:
        stages.note("trace", 0.0, partial(print_graph, graph), graph=graph)
        return Report(record.stages, None)
    return Report(record.stages, lower(graph, donated, target.machine, stages))


@dataclass(frozen=True)
class Report:
    """The stages of a compilation, in order, and the plan they led to."""

    stages: list[Stage]
    planned: plan.Planned | None

    def __getitem__(self, name: str) -> Stage:
        """The stage of this name. Raises KeyError that lists the names."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"no stage {name!r} (stages: {', '.join([s.name for s in self.stages])})")

    @property
    def kernels(self) -> tuple[Any, ...]:
        """The distinct kernels, in order of first call."""
        return self.planned.plan.kernels if self.planned else ()


Result = TypeVar("Result")


class Stages:
    """Tells the observers about each stage; costs nothing when there are none."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self.observers = observers
        self.started = time.perf_counter()

    def run(self, name: str, work: Callable[[], Result]) -> Result:
        """Do the work of a stage that has no text."""
        result = work()
        self.note(name, self.lap(), str)
        return result

    def lap(self) -> float:
        """Seconds since the last stage ended."""
        now = time.perf_counter()
        seconds, self.started = now - self.started, now
        return seconds

    def note(
        self,
        name: str,
        seconds: float,
        render: Callable[[], str],
        graph: Graph | None = None,
        before: Graph | None = None,
        partition: Partition | None = None,
    ) -> None:
        if self.observers:
            stage = Stage(name, seconds, render, graph, before, partition)
            for observer in self.observers:
                observer(stage)
            self.started = time.perf_counter()

    def graph(self, name: str, before: Graph | None, after: Graph) -> Graph:
        self.note(name, self.lap(), partial(print_graph, after), after, before)
        return after


def optimise(graph: Graph, stages: Stages | None = None) -> Graph:
    """Run the list of passes."""
    stages = stages or Stages()
    for step in PASSES:
        graph = stages.graph(step.name, graph, step.run(graph))
    return graph


def lower(
    graph: Graph, donated: Mapping[int, int], machine: Machine, stages: Stages | None = None
) -> plan.Planned:
    """Everything between the traced graph and the backend."""
    stages = stages or Stages()
    with no_sites():
        stages.graph("trace", None, graph)
        checked = checks.run(optimise(graph, stages))
        early, late = checks.split(checked)
        whole = checked.graph.with_outputs((*checked.graph.outputs, *late))
        stages.graph("checks", graph, whole.with_outputs((*checked.graph.outputs, *checked.flags)))
        results = [node for o, node in enumerate(checked.graph.outputs) if o not in donated]
        recompute = remat.decide(whole, results)
        stages.note("remat", stages.lap(), partial(report.values_text, whole, recompute))
        partition = fuse.partition(whole, machine, recompute)
        text = partial(report.partition_text, partition)
        stages.note("partition", stages.lap(), text, partition=partition)
        calls, parts = _lower_groups(partition, machine)
        stages.note("loops", stages.lap(), partial(report.loops_text, partition.groups, calls))
        prelude, renamed = _prelude(checked.graph.with_outputs(early), machine)
        planned = plan.make(
            checked.graph,
            partition.groups,
            calls,
            donated=donated,
            flags=[renamed.get(flag, flag) for flag in checked.flags],
            checks=checked.messages,
            prelude=prelude,
            parts=parts,
        )
        stages.note("plan", stages.lap(), partial(report.plan_text, planned, whole))
    return planned


def _lower_groups(
    partition: Partition, machine: Machine
) -> tuple[dict[Group, tuple[Step, ...]], dict[Node, Part]]:
    """The calls and loops of every group that is more than another name for a value, and which results
    of loops lie inside other values."""
    steps: dict[Group, tuple[Step, ...]] = {}
    parts: dict[Node, Part] = {}
    for group in partition.groups:
        if not is_alias(group):
            lowered = repeat.lower(group, machine)
            steps[group] = (*lowered.once, *lowered.steps)
            parts.update(lowered.parts)
    return steps, parts


def _prelude(tests: Graph, machine: Machine) -> tuple[list[KernelCall], dict[Value, Temp]]:
    """Calls that compute early flags, and the temporaries that stand for their values.

    The values have names of their own, because the program may compute the same nodes again.
    """
    partition = fuse.partition(tests, machine)
    renamed: dict[Value, Temp] = {}
    calls: list[KernelCall] = []
    for group in partition.groups:
        renamed.update((node, Temp(f"check.{node.op.name}", node.type)) for node in group.outputs)
        for call in lower_group(group, machine):
            calls += with_args((call,), lambda value: renamed.get(value, value))
    return calls, renamed
