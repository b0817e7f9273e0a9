"""Loads of every second, third or fourth element: wide loads that cover the elements, then shuffles."""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm.emit_builder import Builder, Operand

Cover = list[tuple[int, dict[int, int]]]


def cover(lanes: int, stride: int, count: int) -> Cover:
    """Wide loads of `lanes` elements that together hold the elements of the first `count` lanes and nothing
    beyond the last: (where each starts, which of its elements each lane takes from it)."""
    span = (count - 1) * stride + 1
    starts = [0] if span < lanes else [min(k * lanes, span - lanes) for k in range(-(-span // lanes))]
    owner = [min(i * stride // lanes, len(starts) - 1) for i in range(count)]
    return [
        (start, {i: i * stride - start for i in range(count) if owner[i] == k})
        for k, start in enumerate(starts)
    ]


def pick(b: Builder, lanes: int, parts: Cover, loaded: Callable[[int, dict[int, int]], Operand]) -> Operand:
    """The elements of all lanes out of the parts, each of which `loaded` gives."""
    result = None
    for start, mine in parts:
        part = loaded(start, mine)
        if result is None:
            result = b.shuffle(part, part, [mine.get(i, -1) for i in range(lanes)])
        else:
            result = b.shuffle(result, part, [lanes + mine[i] if i in mine else i for i in range(lanes)])
    assert result is not None
    return result


def element_mask(
    b: Builder, mine: dict[int, int], lanes: int, mask: Operand | None, same: Operand | None
) -> Operand:
    """Which elements of a part are wanted: those of lanes that are active in `mask` (None: all), and only if
    `same`, a scalar that holds for all lanes, is true (None: it is)."""
    lane_of = {position: lane for lane, position in mine.items()}
    none = b.constant("i1", False, lanes)
    if mask is None:
        wanted = b.vector("i1", [position in lane_of for position in range(lanes)])
    else:
        wanted = b.shuffle(mask, none, [lane_of.get(position, lanes) for position in range(lanes)])
    return wanted if same is None else b.select(same, wanted, none)
