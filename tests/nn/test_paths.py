"""Import paths of PyTorch's files, and what there is one of here: devices, processes."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn

torch = pytest.importorskip("torch")

FILES = sorted({c.__module__ for c in vars(torch.nn).values() if isinstance(c, type)})


@pytest.mark.parametrize("path", [p for p in FILES if p.startswith("torch.nn.modules.")])
def test_classes_are_found_where_torch_has_them(path: str) -> None:
    theirs = [n for n, c in vars(torch.nn).items() if isinstance(c, type) and c.__module__ == path]
    wanted = [n for n in theirs if hasattr(nn, n)]
    if not wanted:
        pytest.skip("nothing of it is built")
    ours = importlib.import_module(path.replace("torch", "graphc", 1))
    for name in wanted:
        assert getattr(ours, name) is getattr(nn, name) is getattr(nn.modules, name)


def test_base_classes() -> None:
    assert isinstance(nn.BatchNorm2d(2), nn.modules.batchnorm._BatchNorm)
    assert isinstance(nn.ConvTranspose1d(2, 2, 1), nn.modules.conv._ConvNd)
    assert isinstance(nn.MSELoss(), nn.modules.loss._Loss)
    projection = nn.MultiheadAttention(4, 2).out_proj
    assert type(projection) is nn.modules.activation.NonDynamicallyQuantizableLinear


def _wrapped(T: Any) -> tuple[list[str], np.ndarray, str]:
    net = T.nn.DataParallel(T.nn.Sequential(T.nn.Linear(3, 2), T.nn.BatchNorm1d(2)), device_ids=[0])
    with T.no_grad():
        for p in net.parameters():
            p.fill_(0.5)
    x = T.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 2.0]])
    return list(net.state_dict()), net(x).detach().numpy(), repr(net)


def test_data_parallel_is_one_call() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _wrapped(torch)
    ours = _wrapped(graphc)
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)
    assert nn.parallel.DataParallel is nn.DataParallel
    linear, x = nn.Linear(3, 2), graphc.ones(4, 3)
    np.testing.assert_array_equal(nn.parallel.data_parallel(linear, x).detach(), linear(x).detach())
    with pytest.raises(RuntimeError, match="one process"):
        nn.parallel.DistributedDataParallel(linear)


def _converted(T: Any) -> tuple[Any, Any]:
    inner = T.nn.Sequential(T.nn.BatchNorm1d(4))
    net = T.nn.Sequential(T.nn.Conv2d(2, 3, 1), T.nn.BatchNorm2d(3, eps=1e-3), inner)
    norm = net[1]
    net = T.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert net[1].weight is norm.weight
    assert net[1].running_mean is norm.running_mean
    return net, T.nn.SyncBatchNorm(2, momentum=None)


def test_sync_batch_norm_of_one_process() -> None:
    (ours, norm), (theirs, other) = _converted(graphc), _converted(torch)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((4, 2, 5)).astype(np.float32)
    for _ in range(2):
        np.testing.assert_allclose(
            norm(graphc.tensor(x)).detach().numpy(), other(torch.tensor(x)).detach().numpy(), atol=1e-5
        )
    np.testing.assert_allclose(norm.running_var.numpy(), other.running_var.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="at least 2D"):
        norm(graphc.ones(2))
