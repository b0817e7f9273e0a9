"""What a contraction is to who cuts it (`blocking.py`), and how it is cut."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from graphc.program import LINE


class Source(enum.Enum):
    """Where tiles read A: where it is, from a copy made by each task, or from one made by a kernel of
    its own."""

    PLACE = "place"
    TASK = "task"
    KERNEL = "kernel"


@dataclass(frozen=True)
class Sizes:
    """A flattened problem; `depth` are the axes of K. Costs are cycles per element: to copy one of A or
    of B, to store one of C.

    a_pitch           bytes from row to row of A, if blocks of it can be read where they are
    a_flat            the axis of K from which on such a block has one stride
    a_step            bytes from step to step of K of such a block
    a_fixed, b_fixed  one of many problems with the same A or B, whose copy is made once for all of them
    tile              the register tile, if the order of columns asks for it
    together          panels that one task must have and finish together, all of K at once (0: any)
    beside            arrays of the result's size that the epilogue reads or writes beside it
    added_cost        cycles to store an element of C in the kernel that adds up partial sums
    b_pitch           bytes from step to step of K of B, if it can be read where it is
    b_place           B is read there
    b_once            B is a matrix whose columns are neighbours: packing reads each element once
    b_far             cycles more for an element of B from beyond the second-level cache
    alike             consecutive batch elements that have the same A
    """

    batch: int
    rows: int
    cols: int
    depth: tuple[int, ...]
    itemsize: int
    a_cost: float
    stage_cost: float
    a_pitch: int | None
    a_flat: int
    a_step: int
    b_cost: float
    c_cost: float
    a_fixed: bool = False
    b_fixed: bool = False
    tile: tuple[int, int] | None = None
    together: int = 0
    beside: int = 0
    added_cost: float = 0.0
    b_pitch: int | None = None
    b_place: bool = False
    b_once: bool = False
    b_far: float = 0.0
    alike: int = 1

    @property
    def a_across(self) -> bool:
        """Along K, every step of A is in a cache line of its own."""
        return self.a_step >= LINE

    @cached_property
    def k(self) -> int:
        return math.prod(self.depth)


class Blocking(NamedTuple):
    """rows x lanes  the register tile
    row_tiles, col_panels  tiles of a task along each side
    axis, units      a panel runs over so many steps of this axis of K, and all of the axes after it
    blocks           number of panels along K
    group            panels packed together
    split            number of partial sums
    source           where tiles read A
    together         panels that are finished together
    b_place          tiles read B where it is
    stream           B comes from memory meanwhile: the tiles of a block of K ask for all of the next one
    below            tiles ask for the rows of A below theirs, which do not stay in the second-level cache
    """

    rows: int
    lanes: int
    row_tiles: int
    col_panels: int
    axis: int
    units: int
    depth: int
    blocks: int
    group: int
    split: int
    source: Source
    together: int
    b_place: bool = False
    stream: bool = False
    below: bool = False
