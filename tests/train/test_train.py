"""KerasModel on a small problem: training, early stopping, checkpoints; History; summary."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.train import History, KerasModel, ModelSummary, summary
from graphc.train.metrics import AUC, Accuracy
from graphc.utils.data import DataLoader, TensorDataset


def loaders():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 2)).astype(np.float32)
    y = (x[:, :1] * x[:, 1:] > 0).astype(np.float32)
    data = TensorDataset(graphc.from_numpy(x), graphc.from_numpy(y))
    return DataLoader(data, batch_size=32, shuffle=True), DataLoader(data, batch_size=64)


def model(lr=0.03, **options):
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = graphc.optim.Adam(net.parameters(), lr=lr)
    metrics = {"acc": Accuracy(), "auc": AUC()}
    return KerasModel(net, nn.BCEWithLogitsLoss(), metrics, optimizer, **options)


def test_fit_evaluate_predict(tmp_path, capsys):
    train, val = loaders()
    keras = model()
    path = tmp_path / "best.safetensors"
    history = keras.fit(train, val, epochs=12, ckpt_path=path, monitor="val_acc", mode="max", patience=20)
    assert len(history) == 12
    assert list(history.columns) == [
        "epoch", "train_loss", "train_acc", "train_auc", "val_loss", "val_acc", "val_auc",
    ]  # fmt: skip
    assert history["val_loss"][-1] < 0.6 * history["val_loss"][0]
    assert history["val_acc"][-1] > 0.9
    assert "epoch 12/12: train_loss" in capsys.readouterr().err
    # The net now is the one of the best epoch.
    found = keras.evaluate(val, quiet=True)
    best = history.best("val_acc", "max")
    assert found["val_acc"] == max(history["val_acc"])
    assert found["val_loss"] == pytest.approx(history["val_loss"][best], rel=1e-5)
    scores = keras.predict(val)
    assert tuple(scores.shape) == (200, 1)
    np.testing.assert_allclose(scores.numpy(), keras(val.dataset.tensors[0]).detach().numpy(), atol=1e-6)
    assert capsys.readouterr().err == ""
    other = model()
    other.load_ckpt(path)
    assert other.evaluate(val, quiet=True) == found


def test_a_step_is_one_native_call():
    train, _ = loaders()
    keras = model()
    x, y = next(iter(train))
    keras._train_step(x, y)
    before = graphc.native_calls()
    keras._train_step(x, y)
    assert graphc.native_calls() == before + 1


def test_early_stopping_keeps_the_best(tmp_path, capsys):
    train, val = loaders()
    keras = model(lr=0.0)  # nothing changes, so the first epoch stays the best
    history = keras.fit(train, val, epochs=50, ckpt_path=tmp_path / "c", patience=3)
    assert len(history) == 4
    assert "no better val_loss for 3 epochs" in capsys.readouterr().err
    assert history.best("val_loss") == 0


def test_without_validation_and_with_a_scheduler(tmp_path):
    train, _ = loaders()
    keras = model()
    keras.lr_scheduler = graphc.optim.lr_scheduler.StepLR(keras.optimizer, 1, gamma=0.5)
    history = keras.fit(train, epochs=3, ckpt_path=tmp_path / "c", quiet=True)
    assert list(history.columns) == ["epoch", "train_loss", "train_acc", "train_auc"]
    assert keras.optimizer.param_groups[0]["lr"] == pytest.approx(0.03 / 8)


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    train, val = loaders()
    model().fit(train, val, epochs=2, ckpt_path=tmp_path / "net.safetensors", plot=True, quiet=True)
    assert (tmp_path / "net.png").stat().st_size > 2000


def test_several_inputs(tmp_path):
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 1), nn.Linear(3, 1)

        def forward(self, x, y):
            return self.a(x) + self.b(y)

    batch = ((graphc.ones(4, 2), graphc.ones(4, 3)), graphc.zeros(4, 1))
    keras = KerasModel(Sum(), nn.MSELoss())
    history = keras.fit([batch], [batch], epochs=5, ckpt_path=tmp_path / "c", quiet=True)
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert tuple(keras.predict([batch]).shape) == (4, 1)


def test_mistakes(tmp_path):
    train, val = loaders()
    with pytest.raises(ValueError, match="none of epoch, train_loss"):
        model().fit(train, val, epochs=1, ckpt_path=tmp_path / "c", monitor="val_f1", quiet=True)
    with pytest.raises(ValueError, match="'min' or 'max'"):
        model().fit(train, val, mode="most")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        model().fit(train, val, epochs=0)
    with pytest.raises(ValueError, match="no batches"):
        model().fit([], val, quiet=True)
    with pytest.raises(ValueError, match="no batches"):
        model().predict([])


def test_history():
    history = History()
    history.add({"epoch": 1, "loss": 0.5})
    history.add({"epoch": 2, "loss": 0.25, "extra": 3})
    assert len(history) == 2
    assert history["loss"] == [0.5, 0.25]
    assert "extra" in history
    assert math.isnan(history["extra"][0])
    assert history.best("loss") == 1
    assert history.best("loss", "max") == 0
    assert history.best("extra") == 1
    assert [row["epoch"] for row in history.rows()] == [1, 2]
    assert repr(history).splitlines() == ["epoch  loss  extra", "    1   0.5    nan", "    2  0.25      3"]
    empty = History()
    empty.add({"loss": float("nan")})
    with pytest.raises(ValueError, match="no value"):
        empty.best("loss")


def test_history_as_pandas():
    pandas = pytest.importorskip("pandas")
    history = History()
    history.add({"loss": 0.5})
    assert isinstance(history.to_pandas(), pandas.DataFrame)


def test_summary(capsys):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10))
    net[3].bias.requires_grad_(False)
    before = graphc.native_calls()
    found = summary(net, input_shape=(1, 8, 8))
    assert graphc.native_calls() == before
    assert isinstance(found, ModelSummary)
    assert [(r.name, r.shape, r.params) for r in found.rows] == [
        ("Conv2d-1", "[-1, 4, 6, 6]", 40),
        ("BatchNorm2d-2", "[-1, 4, 6, 6]", 8),
        ("Flatten-3", "[-1, 144]", 0),
        ("Linear-4", "[-1, 10]", 1450),
    ]
    assert (found.total, found.trainable) == (1498, 1488)
    assert found.params_mb == 1498 * 4 / 2**20
    assert found.input_mb == 64 * 4 / 2**20
    assert found.forward_mb == (3 * 144 + 10) * 4 / 2**20
    text = capsys.readouterr().out
    assert "Total params: 1,498" in text
    assert "Conv2d-1" in text
    assert net.training
    assert net[1].num_batches_tracked.item() == 0


def test_summary_of_shared_layers_and_structured_inputs():
    layer = nn.Linear(3, 3)
    found = summary(nn.Sequential(layer, layer), input_data=graphc.ones(2, 3), verbose=False)
    assert [r.params for r in found.rows] == [12, 0]
    assert found.total == 12

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x, y):
            return self.fc(x + y)

    for data in ((graphc.ones(2, 3), graphc.ones(2, 3)), {"x": graphc.ones(2, 3), "y": graphc.ones(2, 3)}):
        assert summary(Two(), input_data=data, verbose=False).rows[0].name == "Linear-1"
    with pytest.raises(ValueError, match="input_data or input_shape"):
        summary(layer)
