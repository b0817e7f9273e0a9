"""Values as summary messages: scalars, histograms, pictures, texts and hyperparameters."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.frontend.tensor import Tensor
from graphc.utils.tensorboard import protocol as pb


def as_array(value: Any) -> np.ndarray:
    """A tensor, array, number or list of numbers as an array."""
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


def scalar(tag: str, value: Any) -> Any:
    """ValueError unless there is one number."""
    array = as_array(value)
    if array.size != 1:
        raise ValueError(f"add_scalar: {tag!r} is no scalar but has the shape {list(array.shape)}")
    return pb.Summary(value=[pb.Summary.Value(tag=tag, simple_value=float(array.reshape(())))])


# ------------------------------------------------------------------------- histograms


def _default_edges() -> np.ndarray:
    """TensorBoard's bins: each a tenth wider than the one before, on both sides of zero."""
    count = math.ceil(math.log(1e20 / 1e-12) / math.log(1.1))
    positive = 1e-12 * 1.1 ** np.arange(count)
    return np.concatenate([-positive[::-1], [0.0], positive])


def histogram(tag: str, values: Any, bins: str | Sequence[float] | int, max_bins: int | None = None) -> Any:
    """How often values fall in each bin; `bins` as in `numpy.histogram`, or "tensorflow" for its own."""
    array = as_array(values).astype(np.float64).ravel()
    if not array.size:
        raise ValueError(f"add_histogram: {tag!r} has no values")
    edges: Any = _default_edges() if isinstance(bins, str) and bins == "tensorflow" else bins
    counts, limits = np.histogram(array, bins=edges)
    if max_bins is not None and len(counts) > max_bins:
        group = -(-len(counts) // max_bins)
        counts = np.add.reduceat(counts, np.arange(0, len(counts), group))
        limits = np.append(limits[:-1:group], limits[-1])
    used = np.flatnonzero(counts)
    first, last = (used[0], used[-1] + 1) if used.size else (0, 1)
    # The bin left of the first one used tells the viewer where that one begins.
    buckets, ends = [0, *counts[first:last].tolist()], limits[first : last + 1].tolist()
    message = pb.HistogramProto(
        min=array.min(),
        max=array.max(),
        num=array.size,
        sum=array.sum(),
        sum_squares=array @ array,
        bucket_limit=ends,
        bucket=buckets,
    )
    return pb.Summary(value=[pb.Summary.Value(tag=tag, histo=message)])


# --------------------------------------------------------------------------- pictures


def to_hwc(array: np.ndarray, dataformats: str) -> np.ndarray:
    """One picture [height, width, channels] of a picture or a batch in any order of axes ("NCHW", ...).

    A batch is laid out as a grid. ValueError for axes that do not fit.
    """
    axes = dataformats.upper()
    if len(set(axes)) != len(axes) or not set(axes) <= set("NCHW") or len(axes) != array.ndim:
        raise ValueError(f"dataformats {dataformats!r} does not fit an array of shape {list(array.shape)}")
    if not {"H", "W"} <= set(axes):
        raise ValueError(f"dataformats {dataformats!r} has no height and width")
    for missing in "NC":
        if missing not in axes:
            array, axes = array[None], missing + axes
    array = array.transpose([axes.index(a) for a in "NHWC"])
    if array.shape[3] == 1:
        array = np.repeat(array, 3, axis=3)
    return _grid(array)


def _grid(pictures: np.ndarray, columns: int = 8) -> np.ndarray:
    count, height, width, channels = pictures.shape
    columns = min(count, columns)
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), pictures.dtype)
    sheet[:count] = pictures
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return sheet.reshape(rows * height, columns * width, channels)


def image(tag: str, picture: Any, dataformats: str) -> Any:
    """A picture: bytes 0..255, or floats in [0, 1]."""
    array = to_hwc(as_array(picture), dataformats)
    if array.dtype != np.uint8:
        array = (np.clip(array, 0, 1) * 255).astype(np.uint8)
    return _png(tag, array)


def figure(tag: str, figures: Any, close: bool) -> Any:
    """A matplotlib figure as a picture (several side by side)."""
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    pictures = []
    for one in figures if isinstance(figures, Sequence) else [figures]:
        canvas = FigureCanvasAgg(one)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3])
        if close:
            plt.close(one)
    return _png(tag, _grid(np.stack(pictures)))


def _png(tag: str, array: np.ndarray) -> Any:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, format="PNG")
    height, width, channels = array.shape
    message = pb.Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=file.getvalue()
    )
    return pb.Summary(value=[pb.Summary.Value(tag=tag, image=message)])


# ------------------------------------------------------------- texts, hyperparameters


def text(tag: str, content: str) -> Any:
    """A text, shown as Markdown."""
    plugin = pb.SummaryMetadata.PluginData(plugin_name="text", content=pb.TensorProto().SerializeToString())
    tensor = pb.TensorProto(
        dtype=pb.DT_STRING,
        string_val=[content.encode()],
        tensor_shape=pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=1)]),
    )
    value = pb.Summary.Value(
        tag=f"{tag}/text_summary", metadata=pb.SummaryMetadata(plugin_data=plugin), tensor=tensor
    )
    return pb.Summary(value=[value])


def _hparams_summary(tag: str, **content: Any) -> Any:
    data = pb.hparams_data.HParamsPluginData(version=0, **content)
    plugin = pb.SummaryMetadata.PluginData(
        plugin_name=pb.hparams_metadata.PLUGIN_NAME, content=data.SerializeToString()
    )
    metadata = pb.SummaryMetadata(plugin_data=plugin)
    return pb.Summary(value=[pb.Summary.Value(tag=tag, metadata=metadata)])


def hparams(settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Summaries of an experiment, of its start and of its end: bool, number or string settings."""
    if not isinstance(settings, Mapping) or not isinstance(metrics, Mapping):
        raise TypeError("add_hparams: hparam_dict and metric_dict should be dictionaries")
    start = pb.hparams_data.SessionStartInfo()
    infos = []
    for name, value in settings.items():
        if isinstance(value, Tensor):
            value = value.item()
        if isinstance(value, (bool, np.bool_)):
            start.hparams[name].bool_value, kind = bool(value), "DATA_TYPE_BOOL"
        elif isinstance(value, (int, float, np.number)):
            start.hparams[name].number_value, kind = float(value), "DATA_TYPE_FLOAT64"
        elif isinstance(value, str):
            start.hparams[name].string_value, kind = value, "DATA_TYPE_STRING"
        else:
            raise ValueError(
                f"add_hparams: {name!r} is {type(value).__name__}; use an int, float, str or bool"
            )
        infos.append(pb.hparams_api.HParamInfo(name=name, type=pb.hparams_api.DataType.Value(kind)))
    names = [pb.hparams_api.MetricInfo(name=pb.hparams_api.MetricName(tag=name)) for name in metrics]
    end = pb.hparams_data.SessionEndInfo(status=pb.hparams_api.Status.Value("STATUS_SUCCESS"))
    experiment = pb.hparams_api.Experiment(hparam_infos=infos, metric_infos=names)
    return (
        _hparams_summary(pb.hparams_metadata.EXPERIMENT_TAG, experiment=experiment),
        _hparams_summary(pb.hparams_metadata.SESSION_START_INFO_TAG, session_start_info=start),
        _hparams_summary(pb.hparams_metadata.SESSION_END_INFO_TAG, session_end_info=end),
    )
