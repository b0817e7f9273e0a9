"""The compiler from front to back: one list of passes, one function.

Graph --PASSES--> Graph --checks--> Graph + flags --partition--> groups --lower--> kernel calls
      --plan--> Plan --backend--> Executable
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from graphc import backend as backends
from graphc import lookup, plan, program_cache, repeat, report
from graphc.aliases import is_alias
from graphc.collecting import no_collections
from graphc.compiled import Code, Program
from graphc.debug import Observer, Record, Stage, Validate, observers_from_environment
from graphc.ir.graph import Graph
from graphc.ir.node import Node, no_sites
from graphc.ir.partition import Group, Partition
from graphc.ir.printer import print_graph
from graphc.loop.ir import Kernel
from graphc.loop.lower import lower_group
from graphc.loop.lowered import KernelCall, Part, S, Step, Temp, Value, calls_in, with_args
from graphc.ops.constant import input_
from graphc.passes import beside, checks, fold, fuse, layout, loops, prepare, remat, rowdot, simplify, sums
from graphc.prepared import Prepared
from graphc.program import Machine, check_donations


@dataclass(frozen=True)
class Pass:
    """A graph pass: a valid graph in, an equal valid graph out; the same object if nothing changed."""

    name: str
    run: Callable[[Graph], Graph]


PASSES: tuple[Pass, ...] = (
    Pass("simplify", simplify.run),
    Pass("fold", fold.run),
    Pass("scans", loops.run),
    Pass("beside", beside.run),
    Pass("rowdot", rowdot.run),
    Pass("sums", sums.run),
    Pass("cleanup", simplify.run),
)


def compile(
    graph: Graph,
    donate: Mapping[int, int] | None = None,
    backend: str = "llvm",
    observers: Sequence[Observer] = (),
    fixed: AbstractSet[int] = frozenset(),
) -> Program | Prepared:
    """Compile a graph, or find the code of an equal one in memory or on disk.

    donate     output position -> input position whose array the output overwrites
    backend    a name from the entry-point group ``graphc.backends``
    observers  see every stage (then nothing is taken from a cache)
    fixed      positions of inputs that seldom change: what follows from them alone is computed once, and
               again when a call of the program says so

    Raises ValueError for an unknown backend or an impossible donation.
    """
    wanted = lookup.request(graph, donate, backend, fixed)
    found = None if observers else lookup.find(wanted)
    return build(wanted, observers) if found is None else found


@no_collections
def build(wanted: lookup.Request, observers: Sequence[Observer] = ()) -> Program | Prepared:
    """Compile, and keep the code for the next time."""
    graph, target, explain = wanted.graph, wanted.target, wanted.explain
    if target.wants_graph:
        return Program(Code(target.compile(graph, None), graph, wanted.donated), graph, explain)
    watchers = (*observers, *observers_from_environment())
    stages = Stages(watchers)
    ahead = _nothing_ahead if watchers else getattr(target, "ahead", _nothing_ahead)
    planned = lower(graph, wanted.donated, target.machine, stages, wanted.fixed, ahead)
    program: Program | Prepared
    if planned.setup is None:
        program = _make(wanted.key, graph, planned, wanted, stages)
    else:
        first = program_cache.setup_key(wanted.key)
        setup = _make(first, planned.setup.graph, planned.setup, wanted, stages)
        program = Prepared(graph, setup, _make(wanted.key, planned.graph, planned, wanted, stages))
    for watcher in watchers:
        if isinstance(watcher, Validate):
            watcher.check("backend", program)
    return program


def _make(key: str, graph: Graph, planned: plan.Planned, wanted: lookup.Request, stages: Stages) -> Program:
    """The program of a plan; its code is kept for others."""
    plan_, target = planned.plan, wanted.target
    made = stages.run("backend", lambda: target.compile(graph, plan_) if plan_.calls else None)
    code = Code(made, graph, plan_.donated)
    program_cache.remember(key, code)
    program_cache.save(key, code, target)
    return Program(code, graph, wanted.explain, plan_)


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
    check_donations(graph, donated)
    clock = _Clock()
    stages = Stages((record, clock))
    if target.wants_graph:
        stages.note("trace", 0.0, partial(print_graph, graph), graph=graph)
        return Report(record.stages, None)
    planned = lower(graph, donated, target.machine, stages, ahead=clock.ahead)
    return Report(record.stages, planned, clock.seconds)


class _Clock:
    """Notes how long the compiler works at each kernel, from the one (or the stage) before."""

    def __init__(self) -> None:
        self.seconds: dict[Kernel, float] = {}
        self._before = time.perf_counter()

    def __call__(self, stage: Stage) -> None:
        self._before = time.perf_counter()

    def _note(self, kernel: Kernel) -> None:
        now = time.perf_counter()
        self.seconds[kernel] = self.seconds.get(kernel, 0.0) + now - self._before
        self._before = now

    @contextmanager
    def ahead(self, expected: int) -> Iterator[Submit]:
        yield self._note


@dataclass(frozen=True)
class Report:
    """The stages of a compilation, in order, the plan they led to, and the seconds each kernel took to lower
    (those of its group, if it is the first of several)."""

    stages: list[Stage]
    planned: plan.Planned | None
    seconds: Mapping[Kernel, float] = field(default_factory=dict)

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


NODES = 6  # of the traced graph for each kernel, or more
Submit = Callable[[Kernel], None]
Ahead = Callable[[int], AbstractContextManager[Submit]]


@contextmanager
def _nothing_ahead(expected: int) -> Iterator[Submit]:
    """For backends that compile all kernels when they get the plan, and for stages that are timed."""
    yield lambda kernel: None


def lower(
    graph: Graph,
    donated: Mapping[int, int],
    machine: Machine,
    stages: Stages | None = None,
    fixed: AbstractSet[int] = frozenset(),
    ahead: Ahead = _nothing_ahead,
) -> plan.Planned:
    """Everything between the traced graph and the backend; `fixed` as in `compile`.

    Within `ahead(most kernels to expect)`, what it yields is told each kernel as soon as it is there.
    """
    stages = stages or Stages()
    with no_sites(), ahead(len(graph.nodes) // NODES) as submit:
        stages.graph("trace", None, graph)
        checked = checks.run(optimise(graph, stages))
        early, late = checks.split(checked)
        whole = checked.graph.with_outputs((*checked.graph.outputs, *late))
        stages.graph("checks", graph, whole.with_outputs((*checked.graph.outputs, *checked.flags)))
        parts = prepare.split(whole, {graph.inputs[i] for i in fixed}) if fixed else prepare.Split(whole, {})
        steady = {*(graph.inputs[i] for i in fixed), *parts.kept}
        whole = stages.graph("layout", parts.main, layout.run(parts.main, machine, steady))
        n = len(graph.outputs)
        results = [node for o, node in enumerate(whole.outputs[:n]) if o not in donated]
        recompute = remat.decide(whole, results)
        stages.note("remat", stages.lap(), partial(report.values_text, whole, recompute))
        partition = fuse.partition(whole, machine, recompute)
        text = partial(report.partition_text, partition)
        stages.note("partition", stages.lap(), text, partition=partition)
        lowered = _lower_groups(partition, machine, steady, submit)
        stages.note("loops", stages.lap(), partial(report.loops_text, partition.groups, lowered.steps))
        setup = _setup(graph, parts.kept, lowered, machine)
        prelude, renamed = _prelude(checked.graph.with_outputs(early), machine)
        flags = renamed | dict(zip(late, whole.outputs[n:], strict=True))
        planned = plan.make(
            Graph((*whole.inputs, *lowered.packed), whole.outputs[:n], name=graph.name),
            partition.groups,
            lowered.steps,
            donated=donated,
            flags=[flags.get(flag, flag) for flag in checked.flags],
            checks=checked.messages,
            prelude=prelude,
            parts=lowered.parts,
            setup=setup,
        )
        stages.note("plan", stages.lap(), partial(report.plan_text, planned, whole))
    return planned


@dataclass(frozen=True, eq=False)
class _Lowered:
    """Kernel calls and loops of groups.

    steps   what runs every time
    parts   results that lie inside others (of loops)
    once    what follows from fixed inputs alone
    packed  inputs of the plan that stand for what `once` leaves for `steps`
    """

    steps: dict[Group, tuple[Step, ...]] = field(default_factory=dict)
    parts: dict[Node, Part] = field(default_factory=dict)
    once: dict[Group, tuple[KernelCall, ...]] = field(default_factory=dict)
    packed: list[Node] = field(default_factory=list)


def _lower_groups(
    partition: Partition,
    machine: Machine,
    fixed: AbstractSet[Node] = frozenset(),
    submit: Submit = lambda kernel: None,
) -> _Lowered:
    """Lower every group that is more than another name for a value; `submit` is told the kernels."""
    found = _Lowered()
    names: dict[Value, Node] = {}  # of fixed values, the input that they are
    for group in partition.groups:
        if is_alias(group):
            source = group.inputs[0]
            if source in fixed or source in names:
                names.update((node, names.get(source, source)) for node in group.outputs)
            continue
        lowered = repeat.lower(group, machine, {x for x in group.inputs if x in fixed or x in names})
        found.parts.update(lowered.parts)
        for call in calls_in((*lowered.once, *lowered.steps)):
            submit(call.kernel)
        if not fixed:
            found.steps[group] = (*lowered.once, *lowered.steps)
            continue
        place = dict(names)
        for temp in [call.args[w] for call in lowered.once for w in call.writes]:
            assert isinstance(temp, Temp)
            place[temp] = input_(f"packed.{len(found.packed)}", temp.type)
            found.packed.append(place[temp])
        found.steps[group] = _renamed(lowered.steps, {v: n for v, n in place.items() if isinstance(v, Temp)})
        if lowered.once:
            found.once[group] = _renamed(lowered.once, place)
    return found


def _renamed(steps: tuple[S, ...], names: Mapping[Value, Value]) -> tuple[S, ...]:
    return with_args(steps, lambda value: names.get(value, value))


def _setup(
    graph: Graph, kept: Mapping[Node, Node], lowered: _Lowered, machine: Machine
) -> plan.Planned | None:
    """The plan that computes what is kept: values of the graph, and packed operands of contractions."""
    results = (*kept.values(), *lowered.packed)
    if not results:
        return None
    partition = fuse.partition(Graph(graph.inputs, tuple(kept.values())), machine)
    first = _lower_groups(partition, machine)
    once = {group: _renamed(calls, dict(kept.items())) for group, calls in lowered.once.items()}
    whole = Graph(graph.inputs, results, name=f"setup of {graph.name}")
    return plan.make(whole, (*partition.groups, *once), {**first.steps, **once}, parts=first.parts)


def _prelude(tests: Graph, machine: Machine) -> tuple[list[KernelCall], dict[Value, Value]]:
    """Calls that compute early flags, and the temporaries that stand for their values.

    The values have names of their own, because the program may compute the same nodes again.
    """
    partition = fuse.partition(tests, machine)
    renamed: dict[Value, Value] = {}
    calls: list[KernelCall] = []
    for group in partition.groups:
        renamed.update((node, Temp(f"check.{node.op.name}", node.type)) for node in group.outputs)
        for call in lower_group(group, machine):
            calls += with_args((call,), lambda value: renamed.get(value, value))
    return calls, renamed
