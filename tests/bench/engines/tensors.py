"""Steps of the engines with PyTorch's API: the same code for graphc and torch.

`compiled` means what each documents as fastest: graphc compiles a whole training step; torch compiles the
forward pass with the loss, and has its weights frozen for inference. `tuned` makes the changes that PyTorch's
guides for CPUs advise and that leave the work the same: pictures and filters in channels-last layout, the
fused implementation of the optimizer.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.engines import Step, arrays_of
from tests.bench.workload import Inference, Operator, Training, Workload, initialise


def build(
    package: str,
    name: str,
    workload: Workload,
    threads: int,
    cache: Path,
    compiled: bool = False,
    tuned: bool = False,
) -> Step:
    """See `Engine.build`."""
    if compiled and package == "torch" and isinstance(workload, Inference):
        os.environ["TORCHINDUCTOR_FREEZING"] = "1"
    T = importlib.import_module(package)
    T.set_num_threads(threads)
    T.manual_seed(0)
    if isinstance(workload, Operator):
        return _operator(T, workload, compiled)
    model = workload.net(T)
    initialise(model, T.no_grad, T.from_numpy)
    if isinstance(workload, Inference):
        return _inference(T, workload, model, compiled)
    return _training(T, workload, model, compiled, tuned)


def _training(T: Any, workload: Training, model: Any, compiled: bool, tuned: bool) -> Step:
    x, y = (T.from_numpy(array) for array in workload.data())
    options: dict[str, Any] = dict(workload.options)
    if tuned:
        options["fused"] = True
        if x.ndim == 4:
            x, model = (t.to(memory_format=T.channels_last) for t in (x, model))
    update = getattr(T.optim, workload.optimizer)(model.parameters(), **options)
    criterion = getattr(T.nn, workload.loss)()
    model.train()

    def forward(x: Any, y: Any) -> Any:
        return criterion(model(x), y)

    loss_of = T.compile(forward) if compiled and T.__name__ == "torch" else forward

    def train(x: Any, y: Any) -> Any:
        update.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        update.step()
        return loss

    run = T.compile(train) if compiled and T.__name__ == "graphc" else train
    return lambda: [np.asarray(run(x, y).item())]


def _inference(T: Any, workload: Inference, model: Any, compiled: bool) -> Step:
    (x,) = (T.from_numpy(array) for array in workload.data())
    model.eval()
    run = T.compile(model) if compiled else model
    # Compiled torch code is frozen under no_grad only; else its inference mode does less bookkeeping.
    mode = T.no_grad if compiled else T.inference_mode

    def step() -> list[np.ndarray]:
        with mode():
            return [run(x).numpy()]

    return step


def _operator(T: Any, workload: Operator, compiled: bool) -> Step:
    inputs = [T.from_numpy(array) for array in workload.data()]
    function = workload.function(T)
    if not workload.gradients:
        run = T.compile(function) if compiled else function

        def forward() -> list[np.ndarray]:
            with T.no_grad():
                return arrays_of(run(*inputs))

        return forward
    with T.no_grad():
        shape = tuple(function(*inputs).shape)
    upstream = T.from_numpy(np.random.default_rng(1).standard_normal(shape, dtype=np.float32))
    leaves = [inputs[i].requires_grad_() for i in workload.gradients]
    whole = compiled and T.__name__ == "graphc"
    result_of = T.compile(function) if compiled and not whole else function

    def both(*given: Any) -> Any:
        result = result_of(*given)
        return result.detach(), *T.autograd.grad(result, leaves, upstream)

    run = T.compile(both) if whole else both
    return lambda: arrays_of(run(*inputs))
