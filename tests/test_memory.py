"""Peak memory of a ResNet-18 training step: the arena is close to what is live at once."""

from __future__ import annotations

import numpy as np

import graphc
from graphc import pipeline
from graphc.frontend.tracing.graphs import trace_program
from graphc.ir.graph import Graph
from graphc.nn import functional as F

from .parity.models import resnet18
from .test_plan import check_buffers


def training_step() -> tuple[Graph, dict[int, int]]:
    """The traced graph of a step, and its donations."""
    net = resnet18(graphc, width=16)
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    images = graphc.from_numpy(np.zeros((8, 3, 32, 32), np.float32))
    labels = graphc.from_numpy(np.zeros(8, np.int64))
    return trace_program(step, images, labels)


def test_arena_of_resnet18() -> None:
    graph, donated = training_step()
    planned = pipeline.inspect(graph, donated).planned
    assert planned is not None
    plan = planned.plan
    assert plan.arena_bytes <= 1.10 * plan.arena_lower_bound
    check_buffers(planned)
    # State is updated in place, but for scales that a later kernel of backward reads again.
    copied = sum(call.args[1].type.nbytes for call in planned.steps if call.kernel.name == "copy")
    assert len(donated) > 120
    assert copied < 0.02 * sum(graph.inputs[i].type.nbytes for i in donated.values())
    assert plan.gate < 5  # labels are checked before anything else runs
