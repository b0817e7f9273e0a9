"""SummaryWriter: event files that TensorBoard reads."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

from graphc.frontend.modes import no_grad
from graphc.frontend.tracing.graphs import trace
from graphc.utils.tensorboard import protocol as pb
from graphc.utils.tensorboard import summary
from graphc.utils.tensorboard.graph import graph_def


class SummaryWriter:
    """Writes scalars, histograms, pictures, figures, texts, graphs and hyperparameters for TensorBoard.

    log_dir          folder of the event files (default: runs/DATE_HOST with `comment` behind it)
    purge_step       steps from here on, of an earlier crashed run in the folder, are hidden
    max_queue        summaries kept in memory before they are written
    flush_secs       seconds between writes
    filename_suffix  ending of the file's name

    Values are tensors, arrays or numbers; `walltime` is the time in seconds, by default now.
    Use it in a `with` statement, or call `close()`.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:
        if log_dir is None:
            stamp = datetime.now().strftime("%b%d_%H-%M-%S")
            log_dir = os.path.join("runs", f"{stamp}_{socket.gethostname()}{comment}")
        self.log_dir = os.fspath(log_dir)
        self._options = (max_queue, flush_secs, filename_suffix)
        self._files: dict[str, Any] = {}
        if purge_step is not None:
            start = pb.Event(wall_time=time.time(), step=purge_step, file_version="brain.Event:2")
            self._file(self.log_dir).add_event(start)

    def get_logdir(self) -> str:
        """The folder of the event files."""
        return self.log_dir

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """One number (ValueError if it is more). `new_style` and `double_precision` have no effect."""
        self._add(summary.scalar(tag, scalar_value), global_step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Several numbers in one chart; each has an event file of its own beside this one's."""
        for tag, value in tag_scalar_dict.items():
            folder = os.path.join(self.log_dir, main_tag.replace("/", "_") + "_" + tag)
            self._add(summary.scalar(main_tag, value), global_step, walltime, folder)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: str | int | Sequence[float] = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """How the values are distributed; `bins` as `numpy.histogram` takes them, or "tensorflow"."""
        self._add(summary.histogram(tag, values, bins, max_bins), global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """A picture: uint8, or floats in [0, 1]; `dataformats` is CHW, HWC or HW."""
        self._add(summary.image(tag, img_tensor, dataformats), global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """A batch of pictures as a grid."""
        self._add(summary.image(tag, img_tensor, dataformats), global_step, walltime)

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: int | None = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """A matplotlib figure, or a list of figures of one size; closed afterwards if `close`."""
        self._add(summary.figure(tag, figure, close), global_step, walltime)

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None, walltime: float | None = None
    ) -> None:
        """A text, shown as Markdown."""
        self._add(summary.text(tag, text_string), global_step, walltime)

    def add_graph(
        self,
        model: Any,
        input_to_model: Any = None,
        verbose: bool = False,
        use_strict_trace: bool = True,
    ) -> None:
        """graphc's own graph of `model` for example inputs (a tensor or a tuple of them).

        Nothing is run. `verbose` prints it too; `use_strict_trace` is a hint without effect.
        """
        inputs = input_to_model if isinstance(input_to_model, (tuple, list)) else (input_to_model,)
        if input_to_model is None:
            raise ValueError("add_graph: input_to_model is needed to trace the model")
        with no_grad():
            graph = trace(model, *inputs)
        definition = graph_def(graph)
        if verbose:
            print(definition)
        event = pb.Event(graph_def=definition.SerializeToString(), wall_time=time.time())
        self._file(self.log_dir).add_event(event)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, bool | str | float | int],
        metric_dict: Mapping[str, float],
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """The settings of an experiment with its results, as a run of its own (default: named by the time).

        `hparam_domain_discrete` must name settings; TensorBoard finds their values itself.
        TypeError unless both are dictionaries, ValueError for settings of other types.
        """
        unknown = set(hparam_domain_discrete or ()) - set(hparam_dict)
        if unknown:
            raise ValueError(f"add_hparams: no settings for the domains of {sorted(unknown)}")
        folder = os.path.join(self.log_dir, run_name or str(time.time()))
        for message in summary.hparams(hparam_dict, metric_dict):
            self._add(message, global_step, None, folder)
        for name, value in metric_dict.items():
            self._add(summary.scalar(name, value), global_step, None, folder)

    # --------------------------------------------------------------------- files

    def _file(self, folder: str) -> Any:
        if folder not in self._files:
            self._files[folder] = pb.EventFileWriter(folder, *self._options)
        return self._files[folder]

    def _add(self, message: Any, step: int | None, walltime: float | None, folder: str | None = None) -> None:
        when = time.time() if walltime is None else walltime
        event = pb.Event(summary=message, wall_time=when)
        if step is not None:
            event.step = int(step)
        self._file(folder or self.log_dir).add_event(event)

    def flush(self) -> None:
        """Write what is still in memory."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Write everything and close the files; a later `add_...` starts new ones."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()
