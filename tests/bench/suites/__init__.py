"""The workloads by kind: a module each, with a table `WORKLOADS` of its own.

A new suite is a module here and a line in `SUITES`. Names are unique over all of them.
"""

from __future__ import annotations

from tests.bench.suites import convolutions, inference, matmuls, memory_bound, sequences, training
from tests.bench.workload import Workload

SUITES: dict[str, dict[str, Workload]] = {
    "training": training.WORKLOADS,
    "sequences": sequences.WORKLOADS,
    "inference": inference.WORKLOADS,
    "matmuls": matmuls.WORKLOADS,
    "convolutions": convolutions.WORKLOADS,
    "memory_bound": memory_bound.WORKLOADS,
}
WORKLOADS: dict[str, Workload] = {
    name: workload for suite in SUITES.values() for name, workload in suite.items()
}
