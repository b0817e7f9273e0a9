"""Checkpoints: what goes in comes out, damage is noticed and named, old files survive."""

from __future__ import annotations

import collections
import io
import os

import numpy as np
import pytest

import graphc
from graphc import nn


def step(model, opt):
    opt.zero_grad()
    (model(graphc.ones(4, 3)) ** 2).sum().backward()
    opt.step()


def test_round_trip_of_a_training_state(tmp_path):
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    opt = graphc.optim.AdamW(model.parameters(), lr=1e-2, amsgrad=True)
    schedule = graphc.optim.lr_scheduler.CosineAnnealingLR(opt, 10)
    step(model, opt)
    schedule.step()
    path = tmp_path / "checkpoint.safetensors"
    state = {
        "model": model.state_dict(),
        "opt": opt.state_dict(),
        "schedule": schedule.state_dict(),
        "epoch": 3,
    }
    graphc.save(state, path)
    step(model, opt)
    wanted = [p.detach().numpy().copy() for p in model.parameters()]

    twin = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    opt2 = graphc.optim.AdamW(twin.parameters(), lr=9.0)
    schedule2 = graphc.optim.lr_scheduler.CosineAnnealingLR(opt2, 10)
    loaded = graphc.load(path)
    assert loaded["epoch"] == 3
    assert loaded["model"]._metadata == model.state_dict()._metadata
    assert isinstance(loaded["opt"]["param_groups"][0]["betas"], tuple)
    assert list(loaded["opt"]["state"]) == list(range(6))
    twin.load_state_dict(loaded["model"])
    schedule2.load_state_dict(loaded["schedule"])
    opt2.load_state_dict(loaded["opt"])
    step(twin, opt2)
    for a, b in zip(twin.parameters(), wanted, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b)


def test_all_sorts_of_values(tmp_path):
    shared = graphc.arange(3)
    value = {
        "numbers": [1, -2.5, True, None, float("inf"), float("-inf"), 2**60],
        "nan": float("nan"),
        ("tuple", 1): (1, (2,), []),
        3: collections.OrderedDict(a=shared, b=shared),
        "types": [graphc.float32, graphc.bool, graphc.Size([2, 3])],
        "arrays": [np.arange(4, dtype=np.int32), np.float64(2.5), np.zeros((0, 2), np.float32)],
        "empty": {},
        "scalar": graphc.tensor(2.5, dtype=graphc.float64),
        "bool": graphc.tensor([True, False]),
        "set": {1, 2},
    }
    graphc.save(value, tmp_path / "x")
    back = graphc.load(tmp_path / "x")
    assert back["numbers"] == value["numbers"]
    assert np.isnan(back["nan"])
    assert back["tuple", 1] == (1, (2,), [])
    assert back[3]["a"] is back[3]["b"]
    assert back[3]["a"].tolist() == [0, 1, 2]
    assert back["types"] == value["types"]
    assert isinstance(back["arrays"][0], np.ndarray)
    assert back["arrays"][0].dtype == np.int32
    assert back["arrays"][2].shape == (0, 2)
    assert back["scalar"].dtype is graphc.float64
    assert back["scalar"].shape == ()
    assert back["bool"].tolist() == [True, False]
    assert back["set"] == {1, 2}


def test_a_state_dict_is_a_plain_safetensors_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    model = nn.Linear(2, 3)
    graphc.save(model.state_dict(), tmp_path / "m.safetensors")
    assert sorted(safetensors.load_file(tmp_path / "m.safetensors")) == ["bias", "weight"]
    safetensors.save_file({"weight": np.ones((3, 2), np.float32)}, tmp_path / "other.safetensors")
    assert graphc.load(tmp_path / "other.safetensors")["weight"].sum().item() == 6


def test_file_objects():
    buffer = io.BytesIO()
    graphc.save([graphc.ones(2)], buffer)
    buffer.seek(0)
    assert graphc.load(buffer)[0].tolist() == [1, 1]


def damaged(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError) as caught:
        graphc.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_damage_is_named(tmp_path):
    path = tmp_path / "state.safetensors"

    def fresh():
        graphc.save({"w": graphc.arange(1000).float()}, path)
        return path

    def flip(data):
        data[-17] ^= 4

    def cut(data):
        del data[-100:]

    def header(data):
        data[12] = 0

    def huge(data):
        data[:8] = b"\xff" * 8

    def version(data):
        place = data.index(b'\\"version\\": 1')
        data[place + 13 : place + 14] = b"7"

    assert "checksum of tensor 'w' is wrong" in damaged(fresh(), flip)
    assert "damaged" in damaged(fresh(), cut)
    assert "damaged" in damaged(fresh(), header)
    assert "damaged" in damaged(fresh(), huge)
    assert "format version" in damaged(fresh(), version)
    assert "too few" in damaged(fresh(), lambda data: data.clear())
    path.write_bytes(b"PK\x03\x04" + b"\0" * 50)
    with pytest.raises(ValueError, match=r"written by torch.save, which graphc never reads"):
        graphc.load(path)
    with pytest.raises(FileNotFoundError):
        graphc.load(tmp_path / "nowhere")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    graphc.save({"a": 1}, path)
    with pytest.raises(TypeError, match=r"cannot save Linear at model\.0.*state_dict"):
        graphc.save({"model": [nn.Linear(1, 1)]}, path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        graphc.save({"a": graphc.ones(3)}, path)
    monkeypatch.undo()
    assert graphc.load(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["state"]
