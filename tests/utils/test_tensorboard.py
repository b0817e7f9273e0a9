"""Event files as the real TensorBoard reads them."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.hparams import plugin_data_pb2

import graphc
from graphc import nn
from graphc.utils.tensorboard import SummaryWriter
from graphc.utils.tensorboard.summary import to_hwc

KEEP_ALL = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0, "compressedHistograms": 0}


def read(folder):
    events = EventAccumulator(str(folder), size_guidance=KEEP_ALL)
    events.Reload()
    return events


def test_scalars(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step in range(5):
            writer.add_scalar("loss/train", graphc.tensor(1.0 / (step + 1)), step, walltime=100.0 + step)
        writer.add_scalar("lr", np.float32(0.5))
        with pytest.raises(ValueError, match="no scalar"):
            writer.add_scalar("lr", graphc.ones(2))
    found = read(tmp_path).Scalars("loss/train")
    assert [e.step for e in found] == [0, 1, 2, 3, 4]
    assert [e.wall_time for e in found] == [100.0, 101.0, 102.0, 103.0, 104.0]
    np.testing.assert_allclose([e.value for e in found], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5], rtol=1e-6)


def test_scalars_of_several_runs(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalars("both", {"sin": 0.5, "cos": 0.25}, 3)
    assert read(tmp_path / "both_sin").Scalars("both")[0].value == 0.5
    assert read(tmp_path / "both_cos").Scalars("both")[0].value == 0.25


@pytest.mark.parametrize("bins", ["tensorflow", "auto", 4])
def test_histogram(tmp_path, bins):
    values = graphc.linspace(-1, 3, 101)
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("weights", values, 1, bins=bins)
        with pytest.raises(ValueError, match="no values"):
            writer.add_histogram("weights", [], 1)
    found = read(tmp_path).Histograms("weights")[0].histogram_value
    assert (found.num, found.min, found.max) == (101, -1, 3)
    assert found.sum == pytest.approx(values.sum().item(), rel=1e-5)
    assert sum(found.bucket) == 101
    assert len(found.bucket) == len(found.bucket_limit)
    # What lies at or below a limit is in the buckets up to it.
    below = np.cumsum(found.bucket)
    data = values.numpy().astype(np.float64)
    for limit, count in list(zip(found.bucket_limit, below, strict=True))[1:-1]:
        assert abs((data < limit).sum() - count) <= 1


def test_histogram_with_a_bound_on_bins(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("w", np.arange(1000.0), bins=100, max_bins=10)
    found = read(tmp_path).Histograms("w")[0].histogram_value
    assert found.bucket == [0, *[100.0] * 10]


def pixels(event):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


def test_images(tmp_path):
    pytest.importorskip("PIL")
    rng = np.random.default_rng(0)
    bytes_hwc = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    with SummaryWriter(tmp_path) as writer:
        writer.add_image("a", bytes_hwc, 2, dataformats="HWC")
        writer.add_image("b", graphc.from_numpy(bytes_hwc.transpose(2, 0, 1).astype(np.float32) / 255))
        writer.add_image("c", graphc.ones(5, 4), dataformats="HW")
        writer.add_images("d", graphc.rand(3, 1, 5, 4))
        with pytest.raises(ValueError, match="does not fit"):
            writer.add_image("e", graphc.ones(5, 4))
    events = read(tmp_path)
    np.testing.assert_array_equal(pixels(events.Images("a")[0]), bytes_hwc)
    assert events.Images("a")[0].step == 2
    assert np.abs(pixels(events.Images("b")[0]).astype(int) - bytes_hwc).max() <= 1
    assert (pixels(events.Images("c")[0]) == 255).all()
    assert pixels(events.Images("d")[0]).shape == (5, 12, 3)


def test_grid():
    batch = np.arange(9).repeat(4).reshape(9, 1, 2, 2)
    sheet = to_hwc(batch, "NCHW")
    assert sheet.shape == (4, 16, 3)
    assert sheet[0, ::2, 0].tolist() == list(range(8))
    assert sheet[2, ::2, 0].tolist() == [8, *[0] * 7]


def test_figures(tmp_path):
    pytest.importorskip("PIL")
    figures = pytest.importorskip("matplotlib.figure")
    one = figures.Figure(figsize=(2, 1), dpi=50)
    one.add_subplot().plot([1, 2, 3])
    with SummaryWriter(tmp_path) as writer:
        writer.add_figure("plot", one, 1)
        writer.add_figure("two", [one, one], 1, close=False)
    events = read(tmp_path)
    assert pixels(events.Images("plot")[0]).shape == (50, 100, 3)
    assert pixels(events.Images("two")[0]).shape == (50, 200, 3)
    assert pixels(events.Images("plot")[0]).std() > 0


def test_text(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_text("notes", "**bold** ✓", 4)
    found = read(tmp_path).Tensors("notes/text_summary")[0]
    assert found.step == 4
    assert found.tensor_proto.string_val[0].decode() == "**bold** ✓"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.fc2(nn.functional.relu(self.fc1(x)))


def test_graph(tmp_path, capsys):
    with SummaryWriter(tmp_path) as writer:
        writer.add_graph(Net(), graphc.zeros(5, 4), verbose=True)
        with pytest.raises(ValueError, match="input_to_model"):
            writer.add_graph(Net())
    assert "dot_general" in capsys.readouterr().out
    graph = read(tmp_path).Graph()
    assert isinstance(graph, GraphDef)
    by_name = {n.name: n for n in graph.node}
    dots = [n for n in graph.node if n.op == "dot_general"]
    assert {n.name.rsplit("/", 1)[0] for n in dots} == {"Net/fc1", "Net/fc2"}
    assert all(i in by_name for n in graph.node for i in n.input)
    (output,) = [n for n in graph.node if n.op == "output"]
    assert [d.size for d in output.attr["_output_shapes"].list.shape[0].dim] == [5, 2]


def test_hparams(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        settings = {"lr": 0.1, "bias": True, "name": "sgd", "width": graphc.tensor(3)}
        writer.add_hparams(settings, {"accuracy": 0.75}, run_name="first")
        with pytest.raises(ValueError, match="use an int"):
            writer.add_hparams({"x": [1]}, {})
        with pytest.raises(TypeError, match="dictionaries"):
            writer.add_hparams([("x", 1)], {})
        with pytest.raises(ValueError, match="domains"):
            writer.add_hparams({"x": 1}, {}, {"y": [1, 2]})
    events = read(tmp_path / "first")
    assert events.Scalars("accuracy")[0].value == 0.75
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    found = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert found["lr"].number_value == 0.1
    assert found["bias"].bool_value is True
    assert found["name"].string_value == "sgd"
    assert found["width"].number_value == 3


def test_folder_and_purge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = SummaryWriter(comment="_try", purge_step=3)
    writer.add_scalar("x", 1, 3)
    writer.flush()
    assert writer.get_logdir().startswith("runs/")
    assert writer.log_dir.endswith("_try")
    writer.close()
    writer.add_scalar("x", 2, 4)  # goes on in a new file
    writer.close()
    assert [e.step for e in read(tmp_path / writer.log_dir).Scalars("x")] == [3, 4]
