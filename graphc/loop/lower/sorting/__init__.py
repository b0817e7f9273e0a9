"""The order of lines: `lower_sort` gives the kernels of an argsort.

Positions are found, never moved values: what is read in that order is gathered by it. Elements become integer
keys (keys.py), so that one integer comparison decides, whatever the element type and direction. What takes
the fewest cycles is chosen:

    first.py    the first few of a line: the best of its blocks, and then a round for each
    counted.py  short lines: an element's position is the number of those before it, counted in vectors
    digits.py   longer lines: a radix sort of (key, position) pairs in a task's own memory
    blocks.py   lines beyond a core's cache: the same digit by digit, blocks of a line at once

All are stable without a further comparison, and take the same time whatever the values are.
"""

from __future__ import annotations

from graphc.ir.partition import Group
from graphc.loop.lower.sorting.blocks import sort_in_blocks
from graphc.loop.lower.sorting.counted import counted_cycles, sort_by_counting
from graphc.loop.lower.sorting.digits import digits_cycles, fits, sort_by_digits
from graphc.loop.lower.sorting.first import find_first, first_cycles
from graphc.loop.lower.sorting.keys import Lines
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


def lower_sort(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """The kernels of a group whose only output is an argsort; other members are read element by element."""
    (node,) = group.outputs
    if not node.type.size:
        return ()
    lines = Lines(node)
    counted, digits = counted_cycles(lines, machine), digits_cycles(lines)
    if first_cycles(lines, machine) <= min(counted, digits):
        return find_first(group, lines, machine)
    if counted <= digits:
        return (sort_by_counting(group, lines, machine),)
    if fits(lines, machine):
        return (sort_by_digits(group, lines, machine),)
    return sort_in_blocks(group, lines, machine)
