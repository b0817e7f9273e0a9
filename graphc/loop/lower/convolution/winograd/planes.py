"""Convolutions as convolutions of planes at unit stride, which Winograd's algorithm can run."""

from __future__ import annotations

from graphc.loop.lower.contraction.operand import along_columns
from graphc.loop.lower.contraction.pack import GATHER
from graphc.loop.lower.contraction.problem import Contraction
from graphc.loop.lower.convolution.winograd.dilated import is_dilated, spreading, undilated
from graphc.loop.lower.convolution.winograd.lines import is_line, upright
from graphc.program import Machine

FAR = 1.6  # cycles to store a result to a cache line beyond the second-level cache that other phases share


def on_planes(problem: Contraction, machine: Machine) -> tuple[Contraction, float]:
    """(the problem with lines as columns and dilated images as smaller ones, cycles to read and store
    elements that lie apart in memory)."""
    around = 0.0 if along_columns(problem) else _interleaving(problem, machine)
    if is_line(problem):
        problem = upright(problem)
    if is_dilated(problem):
        return undilated(problem), around + spreading(problem)
    return problem, around


def _interleaving(problem: Contraction, machine: Machine) -> float:
    """Cycles to store results between those of other phases."""
    far = problem.anchor.type.nbytes > machine.l2_bytes
    batch, m, n, _ = problem.sizes
    return (FAR if far else GATHER) * batch * m * n
