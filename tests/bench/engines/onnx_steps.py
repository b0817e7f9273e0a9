"""Steps of ONNX Runtime: inference of a network that torch has exported.

The export is made by another process, so that torch is not in this one's memory, nor its time in the first
call; it is kept beside the caches. The interpreter needs torch and its exporter's packages too.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from tests.bench.engines import Step
from tests.bench.workload import Inference, initialise


def build(package: str, name: str, workload: Inference, threads: int, cache: Path) -> Step:
    """See `Engine.build`. RuntimeError if the export fails."""
    path = exported(name, cache)
    runtime = importlib.import_module(package)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    feed = {"x": workload.data()[0]}
    return lambda: session.run(None, feed)


def exported(name: str, cache: Path) -> Path:
    """The file of a network, made if it is not there. RuntimeError if it cannot be."""
    path = cache / f"{name}.onnx"
    if not path.exists():
        command = [sys.executable, "-m", "tests.bench.engines.onnx_steps", name, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError("export: " + (done.stderr.strip().splitlines() or ["failed"])[-1])
    return path


def main() -> None:
    """Export one network."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("workload")
    parser.add_argument("path")
    args = parser.parse_args()
    torch = importlib.import_module("torch")
    from tests.bench.suites import WORKLOADS

    workload = WORKLOADS[args.workload]
    assert isinstance(workload, Inference)
    model = workload.net(torch).eval()
    initialise(model, torch.no_grad, torch.from_numpy)
    inputs = tuple([torch.from_numpy(array) for array in workload.data()])
    # The older exporter writes an LSTM as one node; the newer one writes its steps out.
    recurrent = any(isinstance(m, torch.nn.RNNBase) for m in model.modules())
    with torch.no_grad():
        torch.onnx.export(model, inputs, args.path, input_names=["x"], dynamo=not recurrent)


if __name__ == "__main__":
    main()
