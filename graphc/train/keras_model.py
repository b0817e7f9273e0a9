"""KerasModel: fit, evaluate and predict around a network; each step is one compiled program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphc.frontend.functions.joining import cat
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracing.compile import compile as compile_
from graphc.nn import Module
from graphc.optim import Adam, Optimizer
from graphc.serialization import load, save
from graphc.train.history import History
from graphc.train.metrics import Metric
from graphc.train.progress import Progress

Batch = Sequence[Any]


class KerasModel(Module):
    """A network with loss, metrics and optimizer (torchkeras's class of this name).

    net           the network; the model's own call is the network's
    loss_fn       loss(predictions, targets)
    metrics_dict  name -> Metric (`graphc.train.metrics`)
    optimizer     default: Adam with a rate of 0.01
    lr_scheduler  stepped after each epoch

    Batches are (inputs, targets); inputs that are a tuple or list become several arguments.
    """

    def __init__(
        self,
        net: Module,
        loss_fn: Any,
        metrics_dict: Mapping[str, Metric] | None = None,
        optimizer: Optimizer | None = None,
        lr_scheduler: Any = None,
    ) -> None:
        super().__init__()
        self.net, self.loss_fn = net, loss_fn
        self.metrics_dict = dict(metrics_dict or {})
        self.optimizer = optimizer or Adam(net.parameters(), lr=1e-2)
        self.lr_scheduler = lr_scheduler
        self.history = History()
        self._train_step = compile_(self._train)
        self._test_step = compile_(self._test)

    def forward(self, *args: Any) -> Any:
        """The network's output."""
        return self.net(*args)

    # ---------------------------------------------------------------------- steps

    def _train(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad()
        predictions = self._predict(inputs)
        loss = self.loss_fn(predictions, targets)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), predictions.detach()

    def _test(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        with no_grad():
            predictions = self._predict(inputs)
            return self.loss_fn(predictions, targets), predictions

    def _predict(self, inputs: Any) -> Any:
        return self.net(*inputs) if isinstance(inputs, (tuple, list)) else self.net(inputs)

    def _pass(self, data: Iterable[Batch], step: Any, prefix: str, progress: Progress) -> dict[str, float]:
        """One pass over the data; the mean loss by example, and the metrics."""
        for metric in self.metrics_dict.values():
            metric.reset()
        total, count = 0.0, 0
        for inputs, targets in progress.of(data):
            loss, predictions = step(inputs, targets)
            size = len(targets)
            total, count = total + loss.item() * size, count + size
            for metric in self.metrics_dict.values():
                metric.update(predictions, targets)
            progress.show({prefix + "loss": total / count})
        if not count:
            raise ValueError("the data has no batches")
        found = {name: metric.compute() for name, metric in self.metrics_dict.items()}
        return {prefix + name: value for name, value in {"loss": total / count, **found}.items()}

    # ------------------------------------------------------------------------ use

    def fit(
        self,
        train_data: Iterable[Batch],
        val_data: Iterable[Batch] | None = None,
        epochs: int = 10,
        ckpt_path: str | os.PathLike[str] = "checkpoint.safetensors",
        patience: int = 5,
        monitor: str = "val_loss",
        mode: str = "min",
        plot: bool = False,
        quiet: bool = False,
    ) -> History:
        """Train; the best epoch's weights are saved to `ckpt_path` and are the net's afterwards.

        monitor   the number that says which epoch is best ("train_loss" if there is no `val_data`)
        mode      "min" or "max": whether less or more of it is better
        patience  epochs without a better one after which training stops early
        plot      save a picture of the monitored number beside the checkpoint
        quiet     print nothing
        Returns the table of all epochs. ValueError for a monitor that is no column, and for no epochs.
        """
        if epochs < 1:
            raise ValueError(f"epochs should be at least 1, got {epochs}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode should be 'min' or 'max', got {mode!r}")
        if val_data is None and monitor.startswith("val_"):
            monitor = "train_" + monitor.removeprefix("val_")
        self.history = History()
        for epoch in range(1, epochs + 1):
            row = self._epoch(epoch, epochs, train_data, val_data, quiet)
            if monitor not in row:
                raise ValueError(f"monitor {monitor!r} is none of {', '.join(row)}")
            self.history.add(row)
            if self.lr_scheduler is not None:
                self.lr_scheduler.step()
            best = self.history.best(monitor, mode)
            if best == epoch - 1:
                save(self.net.state_dict(), ckpt_path)
            elif epoch - 1 - best >= patience:
                _say(quiet, f"no better {monitor} for {patience} epochs: stopping")
                break
        self.load_ckpt(ckpt_path)
        best = self.history.best(monitor, mode)
        _say(
            quiet,
            f"best {monitor} {self.history[monitor][best]:.4g} in epoch {best + 1}, saved to {ckpt_path}",
        )
        if plot:
            name = monitor.removeprefix("val_").removeprefix("train_")
            self.history.plot(name).savefig(Path(ckpt_path).with_suffix(".png"), dpi=120)
        return self.history

    def _epoch(
        self, epoch: int, epochs: int, train_data: Iterable[Batch], val_data: Any, quiet: bool
    ) -> dict[str, float]:
        row: dict[str, float] = {"epoch": epoch}
        with Progress(f"epoch {epoch}/{epochs}", quiet) as progress:
            self.net.train()
            row |= self._pass(train_data, self._train_step, "train_", progress)
            if val_data is not None:
                self.net.eval()
                row |= self._pass(val_data, self._test_step, "val_", progress)
            progress.finish({k: v for k, v in row.items() if k != "epoch"})
        return row

    def evaluate(self, val_data: Iterable[Batch], quiet: bool = False) -> dict[str, float]:
        """Loss and metrics on some data: {"val_loss": ..., "val_acc": ...}."""
        self.net.eval()
        with Progress("evaluate", quiet) as progress:
            found = self._pass(val_data, self._test_step, "val_", progress)
            progress.finish(found)
        return found

    def predict(self, data: Iterable[Any]) -> Tensor:
        """The outputs for all batches, one after another; targets in the batches are ignored."""
        self.net.eval()
        forward = compile_(self.net)
        outputs = []
        with no_grad():
            for batch in data:
                inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
                outputs.append(forward(*inputs) if isinstance(inputs, (tuple, list)) else forward(inputs))
        if not outputs:
            raise ValueError("the data has no batches")
        return cat(outputs)

    def load_ckpt(self, ckpt_path: str | os.PathLike[str] = "checkpoint.safetensors") -> None:
        """Take over the weights of a checkpoint."""
        self.net.load_state_dict(load(ckpt_path))


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        print(text, file=sys.stderr)
