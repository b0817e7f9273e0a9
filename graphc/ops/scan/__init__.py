"""Loops over a leading dim: `scan` builds one, its nodes are the loop's results."""

from graphc.ops.op import SAMPLES
from graphc.ops.scan.build import Scanned, scan, stack_of
from graphc.ops.scan.fission import replaced, takes_work
from graphc.ops.scan.loop import (
    SCAN,
    Key,
    Loop,
    ScanAttrs,
    evaluate_order,
    evaluate_siblings,
    key_of,
    siblings,
)
from graphc.ops.scan.samples import scan_samples

SAMPLES["scan"] = scan_samples

__all__ = [
    "SCAN",
    "Key",
    "Loop",
    "ScanAttrs",
    "Scanned",
    "evaluate_order",
    "evaluate_siblings",
    "key_of",
    "replaced",
    "scan",
    "siblings",
    "stack_of",
    "takes_work",
]
