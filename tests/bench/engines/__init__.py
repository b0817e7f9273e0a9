"""What is measured: this library and its peers, each as its own documentation says it runs fast.

An engine is a function `build(workload, threads, cache) -> step`; a step does the work once and brings the
result to the caller as arrays. Each runs in a process of its own, in an interpreter that has it. Importing
this package imports none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.workload import Inference, Operator, Training, Workload

Step = Callable[[], list[np.ndarray]]


@dataclass(frozen=True)
class Engine:
    """`package` is what has to be installed; `module` (of this package) builds steps with `options`.

    kinds        of workloads that it can run
    environment  variables to be set before its package is imported; {threads} and {cache} are filled in
    """

    package: str
    module: str
    kinds: tuple[type, ...] = (Training, Inference, Operator)
    options: tuple[tuple[str, bool], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def build(self, name: str, workload: Workload, threads: int, cache: Path) -> Step:
        """The step of a workload; imports the package. LookupError if the engine has no such workload."""
        module = importlib.import_module(f"tests.bench.engines.{self.module}")
        return module.build(self.package, name, workload, threads, cache, **dict(self.options))

    def version(self) -> str:
        return str(getattr(importlib.import_module(self.package), "__version__", "?"))


_INDUCTOR = (("TORCHINDUCTOR_CACHE_DIR", "{cache}"),)
_XLA = (
    ("JAX_PLATFORMS", "cpu"),
    ("JAX_COMPILATION_CACHE_DIR", "{cache}"),
    ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),
)

ENGINES: dict[str, Engine] = {
    "graphc": Engine("graphc", "tensors", options=(("compiled", True),)),
    "graphc.lazy": Engine("graphc", "tensors"),
    "torch": Engine("torch", "tensors"),
    "torch.tuned": Engine("torch", "tensors", options=(("tuned", True),)),
    "torch.compile": Engine(
        "torch", "tensors", options=(("tuned", True), ("compiled", True)), environment=_INDUCTOR
    ),
    "jax": Engine("jax", "jax_steps", (Training, Inference), environment=_XLA),
    "onnxruntime": Engine("onnxruntime", "onnx_steps", (Inference,)),
}


def arrays_of(result: Any) -> list[np.ndarray]:
    """The arrays of a tensor or of a sequence of them."""
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in arrays_of(part)]
    return [result.detach().numpy()]
