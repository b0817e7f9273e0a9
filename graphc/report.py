"""Texts of the stages behind the graph: partition, loop IR, plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.partition import Group, Partition
from graphc.ir.printer import node_line
from graphc.loop.lowered import Arg, Part, Step, Turns, calls_in
from graphc.loop.printer import print_kernel
from graphc.plan import Planned
from graphc.program import Place, Plan, Turn


def numbering(graph: Graph) -> dict[Node, int]:
    """The number of each value in the printed graph."""
    return {node: i for i, node in enumerate(dict.fromkeys((*graph.inputs, *graph.nodes)))}


def partition_text(partition: Partition) -> str:
    """The groups in order: what they read, their members, what they write."""
    number = numbering(partition.graph)
    lines = [f"partition of {partition.graph.name}: {len(partition.groups)} groups"]
    for i, group in enumerate(partition.groups):
        reads = ", ".join([f"%{number[n]}" for n in group.inputs])
        writes = ", ".join([f"%{number[n]}" for n in group.outputs])
        lines.append(f"\ngroup {i}: ({reads}) -> ({writes})")
        lines += [f"  {node_line(node, number)}" for node in group.nodes]
    return "\n".join(lines) + "\n"


def values_text(graph: Graph, values: AbstractSet[Node]) -> str:
    """The lines of the printed graph that define some values, and their bytes."""
    number = numbering(graph)
    total = sum(node.type.nbytes for node in values)
    lines = [f"computed again by the backward pass: {len(values)} values, {total} bytes"]
    lines += [f"  {node_line(node, number)}" for node in graph.nodes if node in values]
    return "\n".join(lines) + "\n"


def loops_text(groups: Sequence[Group], calls: Mapping[Group, Sequence[Step]]) -> str:
    """The loop IR of every distinct kernel, in order of first use, with the groups that use it."""
    users: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        for call in calls_in(calls.get(group, ())):
            users.setdefault(print_kernel(call.kernel), []).append(i)
    parts = []
    for text, used in users.items():
        parts.append(
            f"# group{'s' if len(used) > 1 else ''} {', '.join(map(str, dict.fromkeys(used)))}\n{text}"
        )
    return "\n".join(parts)


def plan_text(planned: Planned, graph: Graph) -> str:
    """Memory and calls: the table of arena buffers, and every call with where its arguments live."""
    plan = planned.plan
    number = numbering(graph)
    lines = [
        f"plan of {graph.name}: {len(plan.calls)} calls of {len(plan.kernels)} kernels, "
        f"{sum(call.barrier for call in plan.calls)} barriers",
        arena_line(plan),
    ]
    if plan.gate:
        lines.append(f"gate after call {plan.gate - 1}; checks: {'; '.join(plan.checks)}")
    lines += [f"output {o} takes the memory of input {i}" for o, i in sorted(plan.donated.items())]
    lines += ["", "arena buffers (offset, bytes, calls, values)"]
    for buffer in sorted(planned.buffers, key=lambda b: (b.offset, b.interval.start)):
        span = f"{buffer.interval.start}..{buffer.interval.end}"
        values = " -> ".join([value_name(v, number) for v in buffer.values])
        lines.append(f"  {buffer.offset:>10} {buffer.interval.size:>10} {span:>9}  {values}")
    lines += ["", "calls (| waits for all threads)", *_call_lines(planned, number)]
    return "\n".join(lines) + "\n"


def _call_lines(planned: Planned, number: Mapping[Node, int]) -> list[str]:
    """A line for every call; loops are headed by their number and trips, and indented."""
    plan = planned.plan
    lines: list[str] = []
    for i, (call, step) in enumerate(zip(plan.calls, planned.steps, strict=True)):
        depth = sum(loop.start <= i < loop.stop for loop in plan.loops)
        heads = [(n, loop) for n, loop in enumerate(plan.loops) if loop.start == i]
        for k, (n, loop) in enumerate(heads):
            lines.append(f"{'  ' * (depth - len(heads) + k)}        loop {n}: {loop.trips} trips")
        args = ", ".join(
            [
                f"{'&' if k in step.writes else ''}{value_name(v, number)} @ {place_text(place)}"
                for k, (v, place) in enumerate(zip(step.args, call.args, strict=True))
            ]
        )
        mark = "|" if call.barrier else " "
        lines.append(f"  {mark}{i:>4} {'  ' * depth}{step.kernel.name} x{step.kernel.tasks}({args})")
    return lines


def arena_line(plan: Plan) -> str:
    """`arena 1064960 bytes, lower bound 1048576 (ratio 1.016), scratch 8192 bytes a thread`."""
    ratio = plan.arena_bytes / plan.arena_lower_bound if plan.arena_lower_bound else 1.0
    return (
        f"arena {plan.arena_bytes} bytes, lower bound {plan.arena_lower_bound} (ratio {ratio:.3f}), "
        f"scratch {plan.scratch_bytes} bytes a thread"
    )


def value_name(value: Arg, number: Mapping[Node, int]) -> str:
    """`%3`, the name of a temporary, `part of %3`, or all that take turns."""
    if isinstance(value, Turns):
        given = value.rest if value.first is None else (value.first, *value.rest)
        return " / ".join(dict.fromkeys([value_name(place, number) for place in given]))
    if isinstance(value, Part):
        return f"part of {value_name(value.value, number)}"
    if isinstance(value, Node):
        return f"%{number[value]}" if value in number else value.op.name
    return value.name


def place_text(place: Place) -> str:
    """`arena+64`, with `+4*t0` for each loop whose trips move it; places that take turns follow the
    first trip's, if that has another."""
    if isinstance(place, Turn):
        rest = ", ".join([place_text(other) for other in place.rest])
        first = "" if place.first is None else f"{place_text(place.first)} then "
        return f"[{first}{rest} by t{place.loop}]"
    moves = "".join([f"{step:+}*t{loop}" for loop, step in place.steps])
    if place.space == "arena":
        return f"arena+{place.offset}{moves}"
    return f"{place.space} {place.index}" + (f"{place.offset:+}{moves}" if moves or place.offset else "")
