"""Memory outside NumPy: that large blocks can have huge pages."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from graphc.backends.llvm.memory import HUGE_PAGE, Block


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/smaps")
def test_large_blocks_are_eligible_for_huge_pages() -> None:
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("the system gives no huge pages")
    block = Block(8 * HUGE_PAGE)
    assert block.address % HUGE_PAGE == 0
    ctypes.memset(block.address, 1, block.size)
    fields = _mapping(block.address)
    assert "THPeligible" not in fields or int(fields["THPeligible"]) == 1


def _mapping(address: int) -> dict[str, str]:
    """The fields that the kernel tells about the mapping that holds an address."""
    fields: dict[str, str] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if not head.endswith(":"):
            low, high = (int(end, 16) for end in head.split("-"))
            inside = low <= address < high
        elif inside:
            fields[head[:-1]] = line.split()[1]
    return fields
