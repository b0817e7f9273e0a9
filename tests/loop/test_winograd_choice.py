"""The plan that is chosen for Winograd's algorithm is the cheapest of all, though most are not tried."""

from __future__ import annotations

import pytest

from graphc.loop.lower.convolution.as_contraction import conv_problems
from graphc.loop.lower.convolution.winograd import choose
from graphc.loop.lower.convolution.winograd.geometry import geometry
from graphc.program import Machine
from tests.loop.test_ways import NARROW, WIDE
from tests.loop.winograd_plans import CASES, Case

LAYERS = [Case(8, 64, 64, (28, 28)), Case(32, 512, 512, (4, 4)), Case(1, 256, 256, (14, 14)), CASES["groups"]]


@pytest.mark.parametrize("machine", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("fixed", [False, True], ids=["weights-change", "weights-fixed"])
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: f"{case.results}x{case.space[0]}")
def test_the_cheapest_of_all_plans(case: Case, fixed: bool, machine: Machine) -> None:
    (problem,) = conv_problems(case.forward())
    width, costs = machine.lanes(4), []
    for g in [g for g in (geometry(problem, size) for size in choose.SIZES) if g is not None]:
        for base in choose._bases(g, machine, 4):
            least = choose._least(base, width)
            for plan in choose._schedules(base):
                if choose._scratch(plan, 4) <= choose.ROOM * machine.l2_bytes:
                    costs.append((choose._cost(plan, machine, 4, fixed), plan))
                    assert costs[-1][0] >= least
    chosen = choose.plan_winograd(problem, machine, fixed)
    cost, plan = min(costs, key=lambda found: found[0])
    assert chosen == (plan, cost)
