"""Loops over a leading dim: `scan` builds one, its nodes are the loop's results."""

from graphc.ops.scan.build import Scanned, scan
from graphc.ops.scan.loop import (
    SCAN,
    Loop,
    ScanAttrs,
    evaluate_order,
    evaluate_siblings,
    key_of,
    siblings,
)

__all__ = [
    "SCAN",
    "Loop",
    "ScanAttrs",
    "Scanned",
    "evaluate_order",
    "evaluate_siblings",
    "key_of",
    "scan",
    "siblings",
]
